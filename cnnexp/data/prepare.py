"""Data sets with a form of their own: the Kaggle photos, split by number; drawn pictures; MNIST's file."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from cnnexp.console import progress, say
from cnnexp.data.splits import combined_digest, file_digests
from cnnexp.data.synthetic import draw_dataset, is_drawn
from cnnexp.errors import UserError

ANIMALS = ("cat", "dog")
NUMBERS = {"train": range(1000), "validation": range(1000, 1500), "test": range(1500, 2000)}  # of each animal
MNIST_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MANIFEST = "dataset.json"
PREPARED_BY = "cnnexp.data.prepare"
DOWNLOAD = "train.zip of https://www.kaggle.com/c/dogs-vs-cats/data"


def prepare_dogs_vs_cats(source: Path, path: Path) -> None:
    """Copy 4000 of the Kaggle photos into `path/{train,validation,test}/{cat,dog}/`, split by their numbers.

    Of each animal, 0-999 are for training, 1000-1499 for validation, 1500-1999 for testing (Chollet, Deep
    Learning with Python, 5.2). `path` appears when everything is in it; `path/dataset.json` says what it was
    made from. Where it was made from the same photos before, nothing is done. Of two processes, one waits for
    the other.

    Args:
        source: the unpacked folder with cat.0.jpg, ..., dog.0.jpg, ...
        path: where to; it must not exist, or be empty.

    Raises:
        UserError: photos are missing; `path` holds something else, or other photos; the disk is full.
    """
    source, path = source.expanduser().absolute(), path.expanduser().absolute()
    if _is_prepared(source, path):
        return
    with _alone(path):
        if not _is_prepared(source, path):
            _copy_photos(source, path)


def draw_synthetic(
    path: Path, train: int, validation: int, test: int, size: int, seed: int, decoy_count: int = 0
) -> None:
    """Draw cats and dogs into `path` with `synthetic.draw_dataset`, unless they lie there already.

    Of two processes, one waits for the other.

    Raises:
        UserError: `path` holds something else; the disk is full.
    """
    counts = (train, validation, test, size, seed, decoy_count)
    if is_drawn(path, *counts):
        return
    with _alone(path):
        if not is_drawn(path, *counts):
            draw_dataset(path, *counts)


def read_mnist(path: Path) -> tuple[np.ndarray, ...]:
    """The arrays of Keras' mnist.npz: x (N, 28, 28) uint8 and y (N,) int64 to train, then to test.

    Raises:
        UserError: the file is missing, or another.
    """
    try:
        with np.load(path) as file:
            x_train, y_train, x_test, y_test = (file[key] for key in MNIST_ARRAYS)
        for x, y in ((x_train, y_train), (x_test, y_test)):
            if x.shape != (len(y), 28, 28) or x.dtype != np.uint8 or np.unique(y).tolist() != list(range(10)):
                raise ValueError(f"x {x.shape} {x.dtype}, y {y.shape}, not (N, 28, 28) uint8, (N,) 0-9")
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise UserError(
            f"dataset.path={path}: is not Keras' mnist.npz with {', '.join(MNIST_ARRAYS)}: {reason}; give "
            "that file, or dataset.path=null to download it"
        ) from error
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock beside `path`; what goes wrong with the disk becomes a UserError."""
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"{path}: waiting for another process that fills this folder")
            lock.acquire()
        yield
    except OSError as error:
        raise UserError(
            f"dataset.path={path}: cannot be filled ({error.filename or path}: {error.strerror}); "
            "make room, or give another dataset.path"
        ) from error
    finally:
        lock.release()


def _photos() -> dict[str, str]:
    """For each photo, by its name in the prepared folder, its name in the Kaggle folder."""
    return {
        f"{split}/{animal}/{animal}.{number}.jpg": f"{animal}.{number}.jpg"
        for split, numbers in NUMBERS.items()
        for animal in ANIMALS
        for number in numbers
    }


def _is_prepared(source: Path, path: Path) -> bool:
    """Whether `path` was made from the photos of `source`; False where there is nothing yet."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("prepared_by") != PREPARED_BY:
        raise UserError(
            f"dataset.path={path}: holds something that was not made from dataset.source={source}; leave "
            "dataset.source out to use it as it is, or give another dataset.path"
        )
    if manifest["source"] == str(source) and not source.exists():  # the raw photos may be thrown away
        return True
    _check_source(source)
    if _digest(source, _photos()) != manifest["digest"]:
        raise UserError(
            f"dataset.path={path}: was made from other photos (of {manifest['source']}) than those of "
            f"dataset.source={source}; delete it, or give another dataset.path"
        )
    return True


def _check_source(source: Path) -> None:
    if not source.is_dir():
        what = "is not a folder" if source.exists() else "does not exist"
        raise UserError(f"dataset.source={source}: {what}; give the folder with the photos of {DOWNLOAD}")
    there = set(os.listdir(source))
    missing = [name for name in _photos().values() if name not in there]
    if missing:
        below = source / "train"
        advice = f"the folder with the photos of {DOWNLOAD}"
        raise UserError(
            f"dataset.source={source}: {missing[0]} and {len(missing) - 1} more are missing of the 4000 "
            f"photos {{cat,dog}}.{{0..1999}}.jpg; give {below if (below / missing[0]).is_file() else advice}"
        )


def _copy_photos(source: Path, path: Path) -> None:
    _check_source(source)
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        for split in NUMBERS:
            for animal in ANIMALS:
                (unfinished / split / animal).mkdir(parents=True)
        for name, original in progress(list(_photos().items()), "copying photos"):
            shutil.copyfile(source / original, unfinished / name)
        digest = _digest(unfinished, {name: name for name in _photos()})
        manifest = {"prepared_by": PREPARED_BY, "source": str(source), "digest": digest}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if path.exists():
            path.rmdir()  # empty
        os.rename(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _digest(folder: Path, names: dict[str, str]) -> str:
    """Over the photos that lie in `folder` under the values of `names`, whatever they are called there."""
    contents = file_digests([str(folder / name) for name in names.values()], "comparing photos")
    return combined_digest(names, [0] * len(names), contents)
