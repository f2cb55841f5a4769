"""Files and folders that appear whole or not at all, made by one process at a time; files of others."""

import atexit
import errno
import hashlib
import io
import multiprocessing
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from cnnexp.console import say, warn_once
from cnnexp.errors import UserError
from cnnexp.process import identity, lives

# --------------------------------------------------------------------------------------------- files of others


class FileRefusedError(OSError):
    """What is there is not to be read as a file; `strerror` says why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))


@contextmanager
def open_file(path: str | Path) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading. Nothing else is waited for: a named pipe would wait for its writer.

    Raises:
        FileRefusedError: it is a pipe, a device, a folder or a socket, or a link to one.
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
    try:
        number = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise FileRefusedError(path, "it is no regular file") from error
        raise
    try:
        kind = os.fstat(number).st_mode
        if not stat.S_ISREG(kind):
            raise FileRefusedError(path, f"it is {'a directory, ' if stat.S_ISDIR(kind) else ''}no regular file")
    except BaseException:
        os.close(number)
        raise
    with open(number, "rb") as file:
        yield file


def read_file(path: str | Path, most_bytes: int) -> bytes:
    """The bytes of a regular file, as `open_file` opens it.

    Raises:
        FileRefusedError: as `open_file`; it has more than `most_bytes`.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise FileRefusedError(path, f"it has {size:,} bytes, more than {most_bytes:,}")
        return file.read(size)


# ---------------------------------------------------------------------------------------- work in progress

LONGEST_PART = 100  # characters of a name that are kept in that of the work in progress
LONGEST_PLACE = 80  # bytes of a folder for sockets, whose addresses may have some 100
OLD_S = 86_400.0  # untouched for so long, the work of a process of another machine counts as left
UNFINISHED = re.compile(r"\..*\.cnnexp-(?P<machine>.+)-(?P<process>\d+-\d*)-\d+", re.DOTALL)
_numbers = count()


def unfinished(path: Path) -> Path:
    """Where what is to stand at `path` is made: hidden, beside it, under a name that says whose work it is."""
    return path.with_name(f".{path.name[:LONGEST_PART]}.cnnexp-{_machine()}-{identity()}-{next(_numbers)}")


def _machine() -> str:
    """This one's name, in characters for the name of a file."""
    return re.sub(r"[^\w.-]", "_", platform.node())[:LONGEST_PART]


def is_left(path: Path) -> bool:
    """Whether this is `unfinished` work of a process that is no more."""
    found = UNFINISHED.fullmatch(path.name)
    if found is None:
        return False
    if found["machine"] == _machine():
        return not lives(found["process"])
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > OLD_S
    return False


def find_left(folder: Path) -> list[Path]:
    """What is left of work in a folder and all below it."""
    found = []
    for place, folders, files in os.walk(folder):
        left = [name for name in (*folders, *files) if is_left(Path(place) / name)]
        found += [Path(place) / name for name in left]
        folders[:] = [name for name in folders if name not in left]
    return sorted(found)


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; what cannot be removed stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, which is made, for what is needed as long as the block is at work."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = unfinished(folder / "scratch")
    scratch.mkdir()
    try:
        yield scratch
    finally:
        remove(scratch)


def name_sockets() -> None:
    """Give the folder of this process's sockets, which Python would call `pymp-*`, a name by which `find_left_sockets`
    tells what a kill has left of it."""
    settings: Any = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    folder = unfinished(Path(tempfile.gettempdir()) / "sockets")
    if settings.get("tempdir") is None and len(os.fsencode(folder)) <= LONGEST_PLACE:
        folder.mkdir(0o700)
        atexit.register(remove, folder)
        settings["tempdir"] = str(folder)


def find_left_sockets() -> list[Path]:
    """What `name_sockets` has left of processes of this user that were killed."""
    found = Path(tempfile.gettempdir()).glob(".sockets.cnnexp-*")
    return sorted(place for place in found if is_left(place) and place.lstat().st_uid == os.getuid())


# ------------------------------------------------------------------------------------------- folders of others


def writable(folder: str | Path) -> Path:
    """A folder that is there or can be made, or where this user may not write there one of the user's own that stands
    for it: below XDG_CACHE_HOME, ~/.cache, or that of temporary files. That is said once."""
    wanted = Path(os.path.abspath(folder))
    if may_write(wanted):
        return Path(folder)
    homes = (os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~/.cache"))
    home = next((place for place in homes if place and may_write(Path(place))), None)
    own = Path(home, "cnnexp") if home else _scratch()
    place = own / hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12] / wanted.name
    warn_once(f"cnnexp: {folder}: this user may not write there; {place} is used in its place")
    return place


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="cnnexp-"))  # of a known name, it could be somebody else's


def may_write(folder: Path) -> bool:
    """Whether this user may write into a folder, or make it."""
    return not why_no_folder(folder)


def why_no_folder(path: Path, writable: bool = True) -> str:
    """Why a path is no folder that can be written, or made; "" where it can be.

    Args:
        path: the folder.
        writable: whether one that is there already must be writable.
    """
    near = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.lexists(parent))
    if not near.is_dir():
        return f"{'is' if near == path.absolute() else f'{near} is'} no folder"
    if (writable or near != path.absolute()) and not may_use(near, os.W_OK | os.X_OK):
        return f"no right to write to {near}"
    return ""


def may_use(path: Path, rights: int) -> bool:
    """`os.access`, by the user that the process acts for."""
    return os.access(path, rights, effective_ids=os.access in os.supports_effective_ids)


# ------------------------------------------------------------------------------------------------ appears whole


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file, and its folder, so that a reader finds the old content or the new, never a part of it."""
    with atomic_file(Path(path)) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path, sync: bool = False) -> Iterator[IO[bytes]]:
    """A hidden file beside `path`, open for writing, that takes its place at the end; its folder is made.

    Args:
        path: of a file that may exist.
        sync: have the content on the disk before it is seen at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unfinished(path)
    try:
        with partial.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A hidden folder beside `path` that is renamed to `path` at the end, and removed where there was an error.

    What a killed process left of the same work is removed first.

    Args:
        path: missing, or an empty folder.
        replace: it may be a folder that holds something, which goes when all is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = unfinished(path)
    same = made.name.rpartition(".cnnexp-")[0]
    for other in path.parent.iterdir():
        if other.name.rpartition(".cnnexp-")[0] == same and is_left(other):
            remove(other)
    made.mkdir()
    try:
        yield made
        if path.exists():
            (shutil.rmtree if replace else Path.rmdir)(path)
        os.rename(made, path)
    finally:
        remove(made)


@contextmanager
def atomic_move(folder: Path, path: str) -> Iterator[Path]:
    """A hidden temporary folder in `folder`, from which `path`, a file or folder, moves to `folder/path` at the end.

    What is there is replaced.
    """
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder) as temporary:
        yield temporary
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary / path, target)


# ---------------------------------------------------------------------------------------------------- locks


@contextmanager
def locked(file: Path, waiting: str = "", patience_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file. The operating system frees it when its process ends, however it ends.

    Args:
        file: its folder exists.
        waiting: a line that is said when another process has held it for `patience_s` more seconds; "" for none.
    """
    lock = FileLock(file)
    try:
        try:
            lock.acquire(timeout=patience_s)
        except Timeout:
            if waiting:
                say(waiting)
            lock.acquire()
        yield
    finally:
        lock.release()


@contextmanager
def locked_if_free(file: Path) -> Iterator[bool]:
    """Hold a lock file unless somebody else does; yields whether it is held now."""
    lock = FileLock(file)
    try:
        with suppress(Timeout):
            lock.acquire(timeout=0)
        yield lock.is_locked
    finally:
        lock.release()


def is_locked(file: Path) -> bool:
    """Whether somebody holds a lock file."""
    if not file.is_file():
        return False
    with locked_if_free(file) as free:
        return not free


@contextmanager
def exclusive(path: Path, key: str = "dataset.path") -> Iterator[None]:
    """Hold the lock beside `path`, a file or folder that is to be made; of two processes, one waits for the other.

    Args:
        path: its folder is made.
        key: of the config, for messages.

    Raises:
        UserError: the system refuses to write, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{path}.lock"), f"{path}: waiting for another process that makes it"):
            yield
    except OSError as error:
        raise UserError(
            f"{key}={path}: cannot be filled ({error.filename or path}: {error.strerror}); "
            f"make room, or give another {key}"
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether there was no room for a file, or for a row of an SQLite store."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
