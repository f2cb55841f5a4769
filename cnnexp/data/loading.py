"""The images of a split in the size of the network: decoded in threads, and kept where there is room for them."""

import hashlib
import math
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from cnnexp.console import progress
from cnnexp.data.array_store import GIB, ArrayStore, Part
from cnnexp.data.dataset import Split
from cnnexp.data.images import read_square, resize, to_channels, warnings_caught
from cnnexp.data.parallel import in_parts

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
            store = ImageStore(self.room.folder, self.room.folder_bytes)
            whole = [Part("", b"", math.prod(self.shape))]
            chunks = ([chunk] for _, chunk in self._chunks(described))
            with store.entry(digest[:32], whole, chunks, f"{len(self)} decoded images"):
                self.kept = ImageFile(store.path(digest[:32]), self.shape)
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


@dataclass(frozen=True)
class ImageStore(ArrayStore):
    """A folder of files of decoded images that any number of processes share; see `ArrayStore`."""

    folder: Path
    limit_bytes: int | None

    ending = ".images"
    unfinished = ".partial"
    name = "image cache"
    limit_key = "trainer.image_cache_limit"
    without = "trainer.image_cache_limit=0"
    waiting = "waiting for another process that writes the same {}"
    failure = (
        "{}: the decoded images cannot be kept ({}); make room, set paths.cache=FOLDER, "
        "or decode them for each batch: trainer.image_cache_limit=0"
    )


class ImageFile:
    """A file of decoded images, open for reading; it may be removed meanwhile.

    It is read and not mapped, because what is read of a mapped file counts as memory of the process: this way it
    stays flat, and the operating system still keeps in memory what it has room for.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.bytes_each = math.prod(shape[1:])
        self.file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.file)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images with these positions, (B, H, W, C) uint8."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for image, index in zip(images, indices, strict=True):
            read = os.preadv(self.file, [image.data.cast("B")], int(index) * self.bytes_each)
            assert read == self.bytes_each, f"{self.path}: was cut short"
        return images
