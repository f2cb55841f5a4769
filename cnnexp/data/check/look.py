"""What is in one image file: read once, its header, whether it can be decoded, and what it looks like."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cnnexp.data.check.duplicates import HASHED, THUMBNAIL, fingerprint
from cnnexp.data.headers import ENDINGS, Header, read_header
from cnnexp.data.images import (
    LARGE_BYTES,
    LARGE_PIXELS,
    MOST_BYTES,
    SURPLUS,
    ImageError,
    damage,
    decode_image,
    one_if_large,
    warnings_caught,
)
from cnnexp.files import read_file
from cnnexp.process import MOST_PIXELS

NO_THUMBNAIL = bytes(THUMBNAIL**2)
CHUNK = 128  # files between two looks at what the libraries printed


class FileInspection(NamedTuple):
    """What one file holds.

    digest:    SHA-256 of its bytes in hex; empty where they were not read.
    width, height: as it is shown, in pixels.
    notes:     what is unusual about it but does no harm, each as `kind` or `kind: details`.
    problem:   why it cannot be used, in words; empty where it can.
    bits, thumbnail: its `fingerprint`.
    """

    digest: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()
    problem: str = ""
    bits: int = 0
    thumbnail: bytes = NO_THUMBNAIL


def inspect_file(path: str) -> FileInspection:
    """Read a file and try to decode it; what is absurdly large is refused by its size or its header."""
    try:
        with one_if_large(LARGE_PIXELS if os.stat(path).st_size > LARGE_BYTES else 0):
            return _look_into(path, read_file(path, MOST_BYTES))
    except OSError as error:
        return FileInspection(problem=error.strerror or str(error))


def _look_into(path: str, data: bytes) -> FileInspection:
    found = FileInspection(hashlib.sha256(data).hexdigest())
    header = read_header(data)
    count = header.width * header.height if header else 0
    if header:
        shown = (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)
        found = found._replace(format=header.format, width=shown[0], height=shown[1], notes=_notes(path, header))
        size = f"{header.width:,} x {header.height:,}"
        if not count:
            return found._replace(problem=f"it has no pixels ({size})")
        if count > MOST_PIXELS:
            return found._replace(problem=f"it says that it has {size} pixels, more than {MOST_PIXELS:,}")
    try:
        with one_if_large(count):
            image = decode_image(path, data, header, least=2 * HASHED)
            bits, thumbnail = fingerprint(image)
    except ImageError as error:
        return found._replace(problem=error.reason)
    if not header:
        found = found._replace(format="other", height=image.shape[0], width=image.shape[1])
    return found._replace(bits=bits, thumbnail=thumbnail.tobytes())


def _notes(path: str, header: Header) -> tuple[str, ...]:
    ending = os.path.splitext(path)[1].lower()
    told = {
        f"{header.format} called {ending}": ending not in ENDINGS[header.format],
        "grey": header.colour.startswith("grey"),
        "CMYK: converted": header.colour.startswith("CMYK"),
        "alpha: dropped": header.colour == "RGBA" or header.colour.endswith("+alpha"),
        f"{header.bits} bits: reduced to 8": header.bits > 8,
        f"animated: the first of {header.frames} frames": header.frames > 1 and header.format != "TIFF",
        f"pages: the first of {header.frames}": header.frames > 1 and header.format == "TIFF",
        f"turned: EXIF orientation {header.orientation}": 2 <= header.orientation <= 8,
    }
    return tuple(note for note, holds in told.items() if holds)


# ---------------------------------------------------------------------------------------------------- many


def look_at(paths: Sequence[str], threads: int) -> Iterator[FileInspection]:
    """`inspect_file` for each of `paths`, in their order; no more than `threads` pictures are in memory at a time.

    What libjpeg prints about a JPEG with damaged data is a problem; bytes too many are only noted.
    """
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), CHUNK):
            part = paths[start : start + CHUNK]
            with warnings_caught() as printed:
                looks = list(pool.map(inspect_file, part))
            if damage(printed()) or SURPLUS.search(printed()):  # which of them was it?
                looks = [_with_messages(path, found) for path, found in zip(part, looks, strict=True)]
            yield from looks


def _with_messages(path: str, found: FileInspection) -> FileInspection:
    if found.format != "JPEG" or found.problem:
        return found
    with warnings_caught() as printed:
        found = inspect_file(path)
    if problem := damage(printed()):
        return found._replace(problem=problem)
    surplus = SURPLUS.search(printed())
    return found._replace(notes=(*found.notes, f"surplus: {surplus.group()}")) if surplus else found


def thumbnails(looks: Sequence[FileInspection]) -> np.ndarray:
    """(N, THUMBNAIL, THUMBNAIL) uint8 grey."""
    joined = b"".join(found.thumbnail for found in looks)
    return np.frombuffer(joined, np.uint8).reshape(len(looks), THUMBNAIL, THUMBNAIL)
