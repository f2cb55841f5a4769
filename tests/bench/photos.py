"""The photos that are measured on: drawn ones, or one's own, in one folder for each of two classes."""

import shutil
from pathlib import Path

from cnnexp.config.data import SyntheticConfig
from cnnexp.data.drawing.synthetic import draw_dataset
from cnnexp.data.images import read_image
from cnnexp.errors import UserError

SIZE = 360  # pixels; the Kaggle photos have about 400 x 360
LEAST = 20  # so that a validation and a test split can be taken from them


def class_folders(source: Path | None, count: int, folder: Path, size: int = SIZE) -> Path:
    """Lay `count` photos into `folder`, half of them in each of two class folders.

    Args:
        source: a folder with JPEGs in it, of which the first `count` by name are taken; None draws them.
        count: how many, even.
        folder: where to, not there yet.
        size: height and width of drawn photos, in pixels.

    Returns:
        The folder above the class folders.

    Raises:
        UserError: `source` holds fewer than `LEAST` JPEGs.
    """
    if source is None:
        draw_dataset(folder, SyntheticConfig(train=count, validation=2, test=2, size=size))
        return folder / "train"
    found = sorted(path for path in source.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if len(found) < LEAST:
        raise UserError(f"--photos {source}: has {len(found)} JPEGs; give a folder with {LEAST} or more in it")
    for number, path in enumerate(found[:count]):
        target = folder / ("even", "odd")[number % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def describe(photos: Path) -> str:
    """How many photos there are, and how large."""
    files = sorted(photos.glob("*/*"))
    height, width, _ = read_image(str(files[0])).shape
    mean_bytes = sum(path.stat().st_size for path in files) / len(files)
    return f"{len(files)} JPEGs, the first {width} x {height} pixels, on average {mean_bytes / 1000:.0f} kB"
