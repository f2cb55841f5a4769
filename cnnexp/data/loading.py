"""The images of a split in the size of the network: decoded in threads, and kept where there is room for them."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from filelock import FileLock, Timeout

from cnnexp.console import progress, say
from cnnexp.data.dataset import Split
from cnnexp.data.images import read_square, resize, to_channels, warnings_caught
from cnnexp.data.parallel import in_parts
from cnnexp.errors import UserError

GIB = 2**30
CHUNK = 64  # images decoded between two steps of the progress bar
DECODER = 1  # raise it when the same file gives other pixels


@dataclass(frozen=True)
class CacheLimits:
    """Where decoded images may be kept.

    memory_bytes: of those of one split.
    folder:       for a file with those of a split that are more than that; None: these are decoded for each batch.
    folder_bytes: of all files in it. The least recently used give way; a split that is larger is not kept.
    """

    memory_bytes: int = 4 * GIB
    folder: Path | None = None
    folder_bytes: int = 0


class ImageLoader:
    """The images of a split in the size of the network.

    They are decoded at the first use and kept in memory or in a file, if there is room; otherwise they are decoded
    anew for each batch.

    Args:
        split: its files or arrays.
        image_size: height and width, in pixels.
        channels: 3 for RGB, 1 for grey.
        threads: how many files are decoded at a time.
        room: for the decoded images.
    """

    def __init__(
        self, split: Split, image_size: int, channels: int, threads: int, room: CacheLimits | None = None
    ) -> None:
        self.split, self.threads, self.room = split, threads, room or CacheLimits()
        self.shape = (len(split.ids), image_size, image_size, channels)
        self.kept: np.ndarray | ImageFile | None = None
        self.loading = Lock()
        self.taken = 0  # by `take_few`
        size = int(np.prod(self.shape))
        self.in_memory = size <= self.room.memory_bytes
        self.in_file = not self.in_memory and self.room.folder is not None and size <= self.room.folder_bytes

    def __len__(self) -> int:
        return len(self.split.ids)

    def load(self) -> None:
        """Decode every image now, so that a bad file is found before a long training; keep them if there is room.

        Raises:
            ImageError: for the first file that cannot be read.
            UserError: the file of decoded images cannot be written.
        """
        with self.loading:
            if self.kept is None:
                self._load()

    def _load(self) -> None:
        described = f"reading {self.split.name} images"
        if self.in_memory:
            images = np.empty(self.shape, np.uint8)
            for start, chunk in self._chunks(described):
                images[start : start + len(chunk)] = chunk
            self.kept = images
        elif self.in_file:
            assert self.room.folder is not None
            digest = hashlib.sha256(repr((self.split.digest, self.shape, DECODER)).encode()).hexdigest()
            file = ImageFile(self.room.folder / f"{digest[:32]}.images", self.shape)
            file.fill(self._chunks(described), self.room.folder_bytes)
            self.kept = file
        else:
            for _ in self._chunks(described):
                pass

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images with these positions: (B, image_size, image_size, C) uint8 in 0..255, RGB or grey."""
        if self.kept is None and (self.in_memory or self.in_file):
            self.load()
        if self.kept is None:
            return self._decode(indices)
        return self.kept[indices] if isinstance(self.kept, np.ndarray) else self.kept.take(indices)

    def take_few(self, indices: np.ndarray) -> np.ndarray:
        """`take` that does not decode all images for the sake of some, before half of them were asked for like this."""
        self.taken += len(indices)
        if self.kept is not None or 2 * self.taken > len(self):
            return self.take(indices)
        with warnings_caught():  # a JPEG that is damaged was refused before
            return self._decode(indices)

    def _chunks(self, description: str) -> Iterator[tuple[int, np.ndarray]]:
        """All images in their order, decoded as they are asked for, and the position of the first of each chunk."""
        starts = range(0, len(self), CHUNK)

        def decoded() -> Iterator[tuple[int, np.ndarray] | None]:  # an item for each image, for the progress bar
            for start in starts:
                with warnings_caught():  # a JPEG that is damaged was refused before
                    chunk = self._decode(np.arange(start, min(start + CHUNK, len(self))))
                yield start, chunk
                yield from [None] * (len(chunk) - 1)

        yield from filter(None, progress(decoded(), description, total=len(self)))

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        paths, arrays = self.split.paths, self.split.arrays
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        _, size, _, channels = self.shape

        def decode(part: slice) -> None:
            for position in range(part.start, part.stop):
                index = indices[position]
                if paths is not None:
                    images[position] = read_square(paths[index], size, channels)
                else:
                    assert arrays is not None
                    images[position] = to_channels(resize(arrays[index], size), channels)

        in_parts(self.threads, len(indices), decode)
        return images


class ImageFile:
    """Decoded images in a file, which any number of processes read; it appears whole or not at all.

    It is read and not mapped, because what is read of a mapped file counts as memory of the process: this way it
    stays flat, and the operating system still keeps in memory what it has room for.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.bytes_each = int(np.prod(shape[1:]))
        self.file = -1

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)

    def fill(self, chunks: Iterator[tuple[int, np.ndarray]], limit_bytes: int) -> None:
        """Open the file; if it is not there, write the images into it. Of two processes, one waits for the other.

        Args:
            chunks: the position of the first, and (B, H, W, C) uint8.
            limit_bytes: of all files in the folder; the least recently used are removed.

        Raises:
            UserError: the folder cannot be written, the disk is full.
        """
        with self._disk_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self.path}.lock")
            try:
                lock.acquire(timeout=2)
            except Timeout:
                say(f"waiting for another process that writes the same {self.shape[0]} decoded images")
                lock.acquire()
        try:
            if not self._open():
                self._write(chunks, limit_bytes)
                assert self._open()
        finally:
            lock.release()

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images with these positions, (B, H, W, C) uint8."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for image, index in zip(images, indices, strict=True):
            read = os.preadv(self.file, [image.data.cast("B")], int(index) * self.bytes_each)
            assert read == self.bytes_each, f"{self.path}: was cut short"
        return images

    def _open(self) -> bool:
        try:
            self.file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        if os.fstat(self.file).st_size != self.shape[0] * self.bytes_each:
            return False
        with contextlib.suppress(OSError):  # of another user
            os.utime(self.path)
        return True

    def _write(self, chunks: Iterator[tuple[int, np.ndarray]], limit_bytes: int) -> None:
        size = self.shape[0] * self.bytes_each
        partial = self.path.with_suffix(".partial")
        try:
            with self._disk_errors():
                _make_room(self.path.parent, limit_bytes - size)
                file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                with self._disk_errors():  # a full disk is an error now, and not when half of the images are decoded
                    os.posix_fallocate(file, 0, size)
                for start, images in chunks:
                    with self._disk_errors():
                        written = os.pwrite(file, images.data.cast("B"), start * self.bytes_each)
                        assert written == images.nbytes
                with self._disk_errors():
                    os.fsync(file)
            finally:
                os.close(file)
            with self._disk_errors():
                os.rename(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path.parent}: the decoded images cannot be kept ({error.strerror or error}); make room, set "
                "paths.cache=FOLDER, or decode them for each batch: trainer.image_cache_limit=0"
            ) from error


def _make_room(folder: Path, room: int) -> None:
    """Remove the least recently used files until the others take at most `room` bytes, and what killed processes left.

    A process that reads a removed file keeps it until it ends.
    """
    found = []
    for file in folder.glob("*.images"):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            found.append((file.stat().st_mtime, file.stat().st_size, file))
    for partial in folder.glob("*.partial"):
        with contextlib.suppress(Timeout), FileLock(f"{partial.with_suffix('.images')}.lock", timeout=0):
            partial.unlink(missing_ok=True)
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= room:
            return
        file.unlink(missing_ok=True)
        total -= size
