"""Arrays on disk that any number of processes share: one computes an entry, and the least recently used give way.

An entry is written under another ending and renamed once it is whole. Who writes, opens or removes it holds
`ENTRY.lock`, and who changes how much the folder holds has `.lock` besides; the operating system frees a lock when its
process ends, however it ends.
"""

import io
import itertools
import math
import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnexp.console import say, warn
from cnnexp.errors import UserError
from cnnexp.files import locked, locked_if_free

PATIENCE_S = 2.0  # how long a process waits for another one before it says so
POLL_S = 0.2
GIB = 2**30

Batches = Generator[Sequence[np.ndarray], None, None]  # of contiguous arrays, one for each of an entry's first parts


class Entry(NamedTuple):
    """What an entry takes of the disk, and when it was last used, in seconds since 1970."""

    key: str
    size_bytes: int
    last_used: float


class Part(NamedTuple):
    """A file of an entry: its name in the entry's folder, how it begins, and its whole size."""

    name: str  # "" where the entry is the file
    head: bytes
    size_bytes: int

    def lies_in(self, entry: Path) -> bool:
        """Whether it is there, begins so and is as large."""
        try:
            with (entry / self.name).open("rb") as file:
                return file.read(len(self.head)) == self.head and os.fstat(file.fileno()).st_size == self.size_bytes
        except OSError:
            return False


class ArrayStore:
    """A folder that holds nothing but entries, with what one kind of store says of itself.

    limit_bytes: of the whole folder, entries being written included; the least recently used entries give way. One
                 that is being written or opened stays. One that is merely read or mapped may go: its process keeps
                 it, as a removed file lives on until nobody has it open. None: no limit.
    """

    folder: Path
    limit_bytes: int | None

    ending = ""  # of an entry that is a file; "" where entries are folders
    unfinished = ".tmp"  # what an entry ends in while it is written
    name = ""  # of the store
    limit_key = ""  # of the config
    without = ""  # the override that works without the store
    waiting = ""  # for an entry {} that another process writes
    failure = ""  # the folder {} cannot be written for the reason {}, and what helps

    def path(self, key: str) -> Path:
        """Of an entry, whether it is there or not."""
        return self.folder / f"{key}{self.ending}"

    def entries(self) -> list[Entry]:
        """What lies in the folder, the least recently used first; damaged entries too, but not unfinished ones."""
        found = []
        for path in self._paths(self.ending):
            with suppress(FileNotFoundError):  # another process has just removed it
                found.append(Entry(path.stem, _size(path), path.stat().st_mtime))
        return sorted(found, key=lambda entry: entry.last_used)

    @contextmanager
    def entry(self, key: str, parts: Sequence[Part], batches: Batches, described: str) -> Iterator[bool]:
        """Have an entry as long as it takes to open it; one process writes it. Yields whether it was there already.

        Args:
            key: of the entry.
            parts: its files; a full disk is an error before the first batch is asked for.
            batches: what they hold after their heads; asked for only where the entry is not there.
            described: the arrays, in the plural, for messages.

        Raises:
            UserError: the folder cannot be written, the disk is full, or the entry is larger than the limit.
            Exception: what `batches` raises.
        """
        with ExitStack() as stack:
            with self._disk_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self._lock(key), self.waiting.format(described), PATIENCE_S))
            found = all(part.lies_in(self.path(key)) for part in parts)
            if not found:
                if self.path(key).exists():
                    warn(f"{self.path(key)}: this entry of the {self.name} is damaged and computed again")
                self._write(key, parts, batches, described)
            with suppress(OSError):  # of another user
                os.utime(self.path(key))
            yield found

    def remove(self, key: str) -> bool:
        """Remove an entry, whole or not, and its lock file; False where a process holds it."""
        unfinished, lock = self._unfinished(key), self._lock(key)
        with locked_if_free(lock) as held:
            if held:
                _remove(unfinished, ignore_errors=True)
                with suppress(FileNotFoundError):
                    self.path(key).rename(unfinished)  # from here on nobody takes it for an entry
                _remove(unfinished, ignore_errors=True)
                lock.unlink(missing_ok=True)  # last: who waits for it makes a new one
            return held

    def _write(self, key: str, parts: Sequence[Part], batches: Batches, described: str) -> None:
        unfinished = self._unfinished(key)
        with ExitStack() as stack, closing(batches):
            stack.callback(_remove, unfinished, ignore_errors=True)
            with self._disk_errors(), self._room(key, sum(part.size_bytes for part in parts), described):
                if not self.ending:
                    unfinished.mkdir()
                files = [stack.enter_context((unfinished / part.name).open("wb", buffering=0)) for part in parts]
                for file, part in zip(files, parts, strict=True):  # a full disk is an error now, not after an hour
                    _write(file, memoryview(part.head))
                    file.truncate(part.size_bytes)
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(file.fileno(), 0, part.size_bytes)
            for batch in batches:
                with self._disk_errors():
                    for file, rows in zip(files, batch, strict=False):
                        _write(file, rows.data)
            assert [file.tell() for file in files] == [part.size_bytes for part in parts]
            with self._disk_errors():
                for file in files:
                    os.fsync(file.fileno())
                with locked(self._lock()):  # who counts what the folder holds sees one of the two names
                    unfinished.rename(self.path(key))

    @contextmanager
    def _room(self, key: str, needed: int, described: str) -> Iterator[None]:
        """Hold the lock of the folder, once the limit leaves room for `needed` bytes of an entry that is held."""
        if self.limit_bytes is not None and needed > self.limit_bytes:
            enough = f"{math.ceil(needed / GIB * 1000) / 1000:g}"
            raise UserError(
                f"{self.limit_key}={self.limit_bytes / GIB:.3g}: {described} take {enough} GiB; "
                f"set {self.limit_key}={enough} or more, or {self.without}"
            )
        for attempt in itertools.count():
            with locked(self._lock()):
                self._clear(key)
                if self._make_room(needed):
                    yield
                    return
            if attempt == int(PATIENCE_S / POLL_S):
                say(f"waiting for room for {described}: other processes fill {self.limit_key}")
            time.sleep(POLL_S)

    def _clear(self, key: str) -> None:
        """Remove what is left of `key`, which this process holds, and what dead processes left of other keys."""
        _remove(self.path(key))
        _remove(self._unfinished(key))
        left = {path.stem for path in self._paths(self.unfinished)}
        held = {path.name.removesuffix(f"{self.ending}.lock") for path in self.folder.glob(f"?*{self.ending}.lock")}
        for other in left | {name for name in held if not self.path(name).exists()}:
            if other != key:
                self.remove(other)

    def _make_room(self, needed: int) -> bool:
        """Remove entries until `needed` bytes fit; False where others that are in use now take too much."""
        if self.limit_bytes is None:
            return True
        room = self.limit_bytes - sum(map(_size, self._paths(self.ending, self.unfinished)))
        for entry in self.entries():
            if room >= needed:
                break
            if self.remove(entry.key):
                room += entry.size_bytes
        return room >= needed

    def _paths(self, *endings: str) -> list[Path]:
        """The folders, or the files, that end so."""
        inside = self.folder.iterdir() if self.folder.is_dir() else ()
        return [path for path in inside if path.suffix in endings and path.is_dir() == (not self.ending)]

    def _unfinished(self, key: str) -> Path:
        return self.folder / f"{key}{self.unfinished}"

    def _lock(self, key: str | None = None) -> Path:
        """The lock file of an entry, or that of the whole folder."""
        return self.folder / ".lock" if key is None else Path(f"{self.path(key)}.lock")

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(self.failure.format(self.folder, error.strerror or error)) from error


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; another process may be removing them."""
    total = 0
    with suppress(FileNotFoundError):
        for file in path.iterdir() if path.is_dir() else [path]:
            total += file.stat().st_size
    return total


def _remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors)
    else:
        path.unlink(missing_ok=True)


def _write(file: io.FileIO, content: memoryview) -> None:
    """Write everything: a single call may write less, as on a disk that is nearly full."""
    rest = content.cast("B")
    while rest:
        rest = rest[file.write(rest) :]
