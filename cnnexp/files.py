"""Files and folders that appear whole or not at all, made by one process at a time."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cnnexp.console import say
from cnnexp.errors import UserError


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file, and its folder, so that a reader finds the old content or the new, never a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether there was no room for a file, or for a row of an SQLite store."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def exclusive(path: Path, key: str = "dataset.path") -> Iterator[None]:
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
def atomic_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` that is renamed to `path` at the end, and removed where there was an error.

    What a killed process left there is removed first, so the caller must be `exclusive`.
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
