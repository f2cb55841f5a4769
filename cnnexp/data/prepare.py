"""Folders that are filled once, by one process, and appear when everything is in them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cnnexp.console import say
from cnnexp.data.synthetic import draw_dataset, is_drawn
from cnnexp.errors import UserError


@contextmanager
def alone(path: Path, key: str = "dataset.path") -> Iterator[None]:
    """Hold the lock beside `path`, a file or folder that is to be made; of two processes, one waits for the other.

    Args:
        path: its folder is made.
        key: of the config, for messages.

    Raises:
        UserError: the system refuses to write, or the disk is full.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"{path}: waiting for another process that makes it")
            lock.acquire()
        yield
    except OSError as error:
        raise UserError(
            f"{key}={path}: cannot be filled ({error.filename or path}: {error.strerror}); "
            f"make room, or give another {key}"
        ) from error
    finally:
        lock.release()


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` that is renamed to `path` at the end, and removed where there was an error.

    What a killed process left there is removed first, so the caller must be `alone`.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            path.rmdir()  # empty
        os.rename(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
    with alone(path):
        if not is_drawn(path, *counts):
            draw_dataset(path, *counts)
