"""The feature cache on disk: what a network's fixed part makes of the images, computed once and memory-mapped.

An entry is a folder: `0.npy`, `1.npy`, ... for the outputs of the fixed part, and `meta.json` with their sizes. It is
written as `KEY.tmp` and renamed once it is whole. Who writes, opens or removes it holds `KEY.lock`, and who changes how
much the folder holds has `.lock` besides; the operating system frees a lock when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from cnnexp.console import progress, say, warn
from cnnexp.errors import UserError

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
Take = Callable[[np.ndarray], np.ndarray]
PATIENCE_S = 2.0  # how long a process waits for another one before it says so
POLL_S = 0.2
GIB = 2**30
LARGEST_FLOAT16 = 65504.0


class Entry(NamedTuple):
    """What a key's folder takes of the disk, and when it was last used, in seconds since 1970."""

    key: str
    size_bytes: int
    last_used: float


@dataclass(frozen=True)
class FeatureStore:
    """A folder of cached features that any number of processes share.

    folder:      holds nothing else.
    dtype:       of the stored features, "float32" or "float16".
    limit_bytes: of the whole folder, entries being written included; the least recently used entries give way. One
                 that is being written or opened stays. One that is merely mapped may go: its process keeps it, as a
                 removed file lives on until the last map of it is closed. None: no limit.
    """

    folder: Path
    dtype: str = "float32"
    limit_bytes: int | None = None

    def features(
        self, key: str, fixed: keras.Model, take: Take, count: int, batch_size: int, description: str | None = None
    ) -> tuple[list[np.ndarray], bool]:
        """The fixed part's outputs for `count` images, computed by one process at most.

        Args:
            key: from `cnnexp.training.features.features_key`.
            fixed: the model up to the cut; of it only `outputs` and `predict_on_batch` are used.
            take: gives the images of some indices, (B, H, W, C) uint8.
            count: number of images.
            batch_size: of the forward pass.
            description: what the progress report calls it, in the plural: "features of 2000 images".

        Returns:
            One read-only memory-mapped array (count, ...) in `dtype` for each output of `fixed`, and whether they
            were there already.

        Raises:
            UserError: the folder cannot be written, the disk is full, the entry is larger than the limit, or a feature
                is too large for float16.
        """
        described = description or f"features of {count} images"
        shapes = [(count, *output.shape[1:]) for output in fixed.outputs]
        with self._disk_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = _patiently(self._lock(key), described)
        with lock:
            arrays = self._open(key, shapes)
            found = arrays is not None
            if arrays is None:
                self._compute(key, shapes, fixed, take, batch_size, described)
                arrays = self._open(key, shapes)
                assert arrays is not None, key
            with self._disk_errors():
                os.utime(self.folder / key)
        return arrays, found

    def has(self, key: str) -> bool:
        """Whether the features of this key are there, in files of the sizes they were written with."""
        entry = self.folder / key
        try:
            sizes = json.loads((entry / "meta.json").read_bytes())["bytes"]
            return [(entry / f"{number}.npy").stat().st_size for number in range(len(sizes))] == sizes
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def entries(self) -> list[Entry]:
        """What lies in the folder, the least recently used first; damaged entries too, but not unfinished ones."""
        found = []
        for path in self._folders():
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                if path.suffix != ".tmp":
                    found.append(Entry(path.name, _size(path), path.stat().st_mtime))
        return sorted(found, key=lambda entry: entry.last_used)

    # ------------------------------------------------------------------------------------ reading and writing

    def _open(self, key: str, shapes: list[Shape]) -> list[np.ndarray] | None:
        """The entry's arrays, or None where it is not there or damaged."""
        entry = self.folder / key
        if not entry.exists():
            return None
        with contextlib.suppress(OSError, ValueError):
            if self.has(key):
                return [self._map(entry / f"{number}.npy", shape) for number, shape in enumerate(shapes)]
        warn(f"{entry}: this entry of the feature cache is damaged and computed again")
        return None

    def _map(self, path: Path, shape: Shape) -> np.ndarray:
        header = _header(shape, self.dtype)
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                raise ValueError(path)
        return np.memmap(path, self.dtype, "r", len(header), shape)

    def _compute(
        self, key: str, shapes: list[Shape], fixed: keras.Model, take: Take, batch_size: int, described: str
    ) -> None:
        count, unfinished = shapes[0][0], self.folder / f"{key}.tmp"
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
            with self._disk_errors():
                self._reserve(key, shapes, described)
                paths = [unfinished / f"{number}.npy" for number in range(len(shapes))]
                files = [stack.enter_context(path.open("r+b", buffering=0)) for path in paths]
                for file, shape in zip(files, shapes, strict=True):
                    file.seek(len(_header(shape, self.dtype)))
            for start in progress(range(0, count, batch_size), described):
                indices = np.arange(start, min(start + batch_size, count))
                results = fixed.predict_on_batch(take(indices))
                for file, result in zip(files, results if isinstance(results, list) else [results], strict=True):
                    rows = self._stored(result)
                    with self._disk_errors():
                        _write(file, rows.data)
            assert [file.tell() for file in files] == self._sizes(shapes)
            with self._disk_errors():
                files.append(stack.enter_context((unfinished / "meta.json").open("wb", buffering=0)))
                _write(files[-1], memoryview(self._meta(shapes)))
                for file in files:
                    os.fsync(file.fileno())
                with self._lock(""):  # who counts what the folder holds sees one of the two names
                    unfinished.rename(self.folder / key)

    def _stored(self, result: np.ndarray) -> np.ndarray:
        """A batch of features in the stored dtype, contiguous."""
        result = np.asarray(result, np.float32)
        if self.dtype == "float16":
            largest = float(np.abs(result).max())
            if largest > LARGEST_FLOAT16:
                raise UserError(
                    f"trainer.feature_dtype=float16: a feature is as large as {largest:.6g}, beyond "
                    f"{LARGEST_FLOAT16:g}, where float16 ends; set trainer.feature_dtype=float32"
                )
        return np.ascontiguousarray(result, self.dtype)

    # ------------------------------------------------------------------------------------------ room and locks

    def _reserve(self, key: str, shapes: list[Shape], described: str) -> None:
        """Create the unfinished entry in its full size, once the limit allows it."""
        needed = sum(self._sizes(shapes)) + len(self._meta(shapes))
        if self.limit_bytes is not None and needed > self.limit_bytes:
            enough = f"{math.ceil(needed / GIB * 1000) / 1000:g}"
            raise UserError(
                f"trainer.feature_cache_limit={self.limit_bytes / GIB:.3g}: {described} take {enough} GiB; "
                f"set trainer.feature_cache_limit={enough} or more, or trainer.feature_cache=false"
            )
        for attempt in itertools.count():
            with self._lock(""):
                self._clear(key)
                if self._make_room(needed):
                    self._allocate(self.folder / f"{key}.tmp", shapes)
                    return
            if attempt == int(PATIENCE_S / POLL_S):
                say(f"waiting for room for {described}: other processes fill trainer.feature_cache_limit")
            time.sleep(POLL_S)

    def _allocate(self, folder: Path, shapes: list[Shape]) -> None:
        """Make the files in their full size: a full disk is an error now, and not after an hour of computing."""
        folder.mkdir()
        for number, (shape, size) in enumerate(zip(shapes, self._sizes(shapes), strict=True)):
            with (folder / f"{number}.npy").open("wb", buffering=0) as file:
                _write(file, memoryview(_header(shape, self.dtype)))
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)

    def _sizes(self, shapes: list[Shape]) -> list[int]:
        return [len(_header(shape, self.dtype)) + math.prod(shape) * np.dtype(self.dtype).itemsize for shape in shapes]

    def _meta(self, shapes: list[Shape]) -> bytes:
        return json.dumps({"bytes": self._sizes(shapes)}).encode()

    def _clear(self, key: str) -> None:
        """Remove what is left of `key`, whose lock this process holds, and what dead processes left of other keys."""
        for name in (key, f"{key}.tmp"):
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)
        left = {path.stem for path in self.folder.glob("*.tmp")}
        locked = {path.stem for path in self.folder.glob("?*.lock")}
        for other in left | {name for name in locked if not (self.folder / name).exists()}:
            if other != key:
                self.remove(other)

    def _make_room(self, needed: int) -> bool:
        """Remove entries until `needed` bytes fit; False where others that are in use now take too much."""
        if self.limit_bytes is None:
            return True
        room = self.limit_bytes - sum(_size(path) for path in self._folders())
        for entry in self.entries():
            if room >= needed:
                break
            if self.remove(entry.key):
                room += entry.size_bytes
        return room >= needed

    def remove(self, key: str) -> bool:
        """Remove an entry, whole or not, and its lock file; False where a process holds its lock."""
        entry, unfinished, lock = self.folder / key, self.folder / f"{key}.tmp", self._lock(key)
        try:
            with lock.acquire(blocking=False):
                shutil.rmtree(unfinished, ignore_errors=True)
                with contextlib.suppress(FileNotFoundError):
                    entry.rename(unfinished)  # from here on nobody takes it for an entry
                shutil.rmtree(unfinished, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)  # last: who waits for it makes a new one
        except Timeout:
            return False
        return True

    def _folders(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir()] if self.folder.is_dir() else []

    def _lock(self, key: str) -> FileLock:
        """The lock of a key, or with "" that of the whole folder."""
        return FileLock(self.folder / f"{key}.lock")

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder}: the feature cache cannot be written ({error.strerror or error}); make room, lower "
                f"trainer.feature_cache_limit, set paths.cache=FOLDER, or train without it: trainer.feature_cache=false"
            ) from error


def _header(shape: Shape, dtype: str) -> bytes:
    """How a file of NumPy's format begins."""
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    begin = io.BytesIO()
    np.lib.format.write_array_header_1_0(begin, described)
    return begin.getvalue()


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; another process may be removing it."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def _write(file: io.FileIO, content: memoryview) -> None:
    """Write everything: a single call may write less, as on a disk that is nearly full."""
    rest = content.cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def _patiently(lock: FileLock, described: str) -> contextlib.AbstractContextManager:
    """The lock, acquired; says a line where that takes long."""
    try:
        return lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        say(f"waiting for {described}: another process computes them")
        return lock.acquire()
