"""`mistakes.zip`: small pictures of what a run got wrong.

An image that one of two runs got right and the other did not is a mistake of one of them. So a comparison finds its
pictures in what the runs recorded, wherever the data set may be by then.
"""

import csv
import io
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.files import write_atomic
from cnnexp.formats import csv_bytes, csv_rows

MISTAKES = "mistakes.zip"
MOST_KEPT = 256  # the most confident first
SIDE = 96  # pixels of the longer side of a thumbnail
JPEG_QUALITY = 85
MOST_BYTES = 100_000  # of a picture that is read back; ours have less than 10,000
INDEX = "index.csv"
MOST_BYTES_OF_INDEX = 10_000_000
COLUMNS = ["picture", "file", "truth", "predicted"]


class Mistake(NamedTuple):
    """A wrong answer."""

    picture: bytes  # PNG or JPEG
    truth: str
    predicted: str


def thumbnail(image: np.ndarray) -> bytes:
    """A small JPEG; an image of less than half its size, as a PNG with each pixel repeated.

    Args:
        image: (H, W, 3) uint8 RGB or (H, W, 1) grey, 0..255.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
    if longest <= SIDE // 2:
        large = picture.repeat(SIDE // longest, axis=0).repeat(SIDE // longest, axis=1)
        return cv2.imencode(".png", large)[1].tobytes()
    if longest > SIDE:
        size = (max(1, round(width * SIDE / longest)), max(1, round(height * SIDE / longest)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def kind_of(picture: bytes) -> str:
    """`png` or `jpeg`"""
    return "png" if picture.startswith(b"\x89PNG") else "jpeg"


def write_mistakes(
    path: str | Path, ids: Sequence[str], truths: Sequence[str], predicteds: Sequence[str], images: Sequence[np.ndarray]
) -> None:
    """Write thumbnails, and `index.csv`, which says of each what the image's name, its class and the answer are.

    Args:
        path: the ZIP file; the same mistakes give the same bytes.
        ids: N names of images.
        truths, predicteds: N class names each.
        images: N times (H, W, 3) uint8 RGB or (H, W, 1) uint8 grey.
    """
    rows = [COLUMNS]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number, (image, *words) in enumerate(zip(images, ids, truths, predicteds, strict=True)):
            picture = thumbnail(image)
            name = f"{number:03d}.{kind_of(picture)}"
            archive.writestr(zipfile.ZipInfo(name), picture)
            rows.append([name, *words])
        archive.writestr(zipfile.ZipInfo(INDEX), csv_bytes(rows))
    write_atomic(path, content.getvalue())


def read_mistakes(path: str | Path, wanted: Collection[str]) -> dict[str, Mistake]:
    """The mistakes among the images `wanted`, by image name; only of these are pictures read.

    Raises:
        UserError: there is no such file, or it is not such a file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(INDEX).file_size > MOST_BYTES_OF_INDEX:
                raise UserError(f"{path}: {INDEX} has more than {MOST_BYTES_OF_INDEX:,} bytes")
            header, *rows = csv_rows(archive.read(INDEX)) or [[]]
            chosen = [
                row for row in (dict(zip(header, cells, strict=False)) for cells in rows) if row["file"] in wanted
            ]
            large = next((row for row in chosen if archive.getinfo(row["picture"]).file_size > MOST_BYTES), None)
            if large:
                raise UserError(f"{path}: {large['picture']} is no thumbnail: more than {MOST_BYTES} bytes")
            return {
                row["file"]: Mistake(archive.read(row["picture"]), row["truth"], row["predicted"]) for row in chosen
            }
    except (OSError, zipfile.BadZipFile, KeyError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected the mistakes.zip of a run") from error
