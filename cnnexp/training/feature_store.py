"""The feature cache on disk: what a network's fixed part makes of the images, computed once and memory-mapped.

An entry is a folder: `0.npy`, `1.npy`, ... for the outputs of the fixed part, and `meta.json` with their sizes.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnexp.console import progress
from cnnexp.data.array_store import ArrayStore, Batches, Part
from cnnexp.errors import UserError

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
Take = Callable[[np.ndarray], np.ndarray]
LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True)
class FeatureStore(ArrayStore):
    """A folder of cached features that any number of processes share; see `ArrayStore`.

    dtype: of the stored features, "float32" or "float16".
    """

    folder: Path
    dtype: str = "float32"
    limit_bytes: int | None = None

    name = "feature cache"
    limit_key = "trainer.feature_cache_limit"
    without = "trainer.feature_cache=false"
    waiting = "waiting for {}: another process computes them"
    failure = (
        "{}: the feature cache cannot be written ({}); make room, lower trainer.feature_cache_limit, "
        "set paths.cache=FOLDER, or train without it: trainer.feature_cache=false"
    )

    def features(  # noqa: PLR0913 - the entry, what computes it, from which images, in which steps
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
        parts = self._parts(shapes)
        batches = self._batches(fixed, take, count, batch_size, described)
        with self.entry(key, parts, batches, described) as found:
            arrays: list[np.ndarray] = [
                np.memmap(self.path(key) / part.name, self.dtype, "r", len(part.head), shape)
                for part, shape in zip(parts, shapes, strict=False)
            ]
        return arrays, found

    def has(self, key: str) -> bool:
        """Whether the features of this key are there, in files of the sizes they were written with."""
        entry = self.path(key)
        try:
            sizes = json.loads((entry / "meta.json").read_bytes())["bytes"]
            return [(entry / f"{number}.npy").stat().st_size for number in range(len(sizes))] == sizes
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def _parts(self, shapes: Sequence[Shape]) -> list[Part]:
        headers = [_header(shape, self.dtype) for shape in shapes]
        values = [math.prod(shape) * np.dtype(self.dtype).itemsize for shape in shapes]
        sizes = [len(header) + size for header, size in zip(headers, values, strict=True)]
        meta = json.dumps({"bytes": sizes}).encode()
        names = [f"{number}.npy" for number in range(len(shapes))]
        return [*map(Part, names, headers, sizes), Part("meta.json", meta, len(meta))]

    def _batches(self, fixed: keras.Model, take: Take, count: int, batch_size: int, described: str) -> Batches:
        """The features of each batch, an array for each output."""
        for start in progress(range(0, count, batch_size), described):
            results = fixed.predict_on_batch(take(np.arange(start, min(start + batch_size, count))))
            yield [self._stored(result) for result in (results if isinstance(results, list) else [results])]

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


def _header(shape: Shape, dtype: str) -> bytes:
    """How a file of NumPy's format begins."""
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    begin = io.BytesIO()
    np.lib.format.write_array_header_1_0(begin, described)
    return begin.getvalue()
