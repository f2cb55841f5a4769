"""From splits to batches of NumPy arrays; which images a batch has depends on seed, epoch and step alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np

from cnnexp.data.loading import ImageLoader
from cnnexp.data.parallel import in_order
from cnnexp.data.randomness import Purpose, stream

X = np.ndarray | tuple[np.ndarray, ...]


class BatchSource(Protocol):
    """What batches are taken from: `ImageLoader`, or `FeatureArrays` of cached features."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Any: ...


# -------------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Inputs that are already computed: one or several arrays (N, ...), which may be memory-mapped."""

    arrays: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take(self, indices: np.ndarray) -> X:
        """The rows with these positions, (B, ...): an array, or a tuple where there are several."""
        rows = tuple(array[indices] for array in self.arrays)
        return rows if len(rows) > 1 else rows[0]


@dataclass(frozen=True, eq=False)
class AugmentedPasses:
    """Inputs computed for several passes over the images, each augmented anew, and used in turn."""

    passes: tuple[FeatureArrays, ...]

    def __len__(self) -> int:
        return len(self.passes[0])

    def take(self, indices: np.ndarray, passes: np.ndarray) -> X:
        """The rows (B, ...) with these positions, each from pass number `passes` modulo the number of kept ones."""
        rows = self.passes[0].take(indices[:0])
        outputs = rows if isinstance(rows, tuple) else (rows,)
        taken = tuple(np.empty((len(indices), *output.shape[1:]), output.dtype) for output in outputs)
        for number in np.unique(passes % len(self.passes)):
            chosen = passes % len(self.passes) == number
            found = self.passes[number].take(indices[chosen])
            for output, values in zip(taken, found if isinstance(found, tuple) else (found,), strict=True):
                output[chosen] = values
        return taken if len(taken) > 1 else taken[0]


# --------------------------------------------------------------------------------------------------- order


@lru_cache(maxsize=4)
def order(n: int, pass_number: int, seed: int) -> np.ndarray:
    """The order of one pass over `n` images, another for each pass: a permutation, (n,), read-only."""
    permutation = stream(Purpose.ORDER, seed, pass_number).permutation(n)
    permutation.setflags(write=False)
    return permutation


def stream_indices(step: int, batch_size: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Batch number `step` of an endless stream, which is the passes 0, 1, 2, ... in their orders, end to end.

    Returns:
        The images' positions, and the number of the pass that each is drawn for, both (batch_size,).
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    passes = positions // n
    indices = np.empty(batch_size, np.int64)
    for number in range(passes[0], passes[-1] + 1):
        of_pass = passes == number
        indices[of_pass] = order(n, number, seed)[positions[of_pass] % n]
    return indices, passes


@lru_cache(maxsize=1024)
def _order_of_class(n: int, pass_number: int, seed: int, number: int) -> np.ndarray:
    permutation = stream(Purpose.ORDER, seed, pass_number, 1 + number).permutation(n)
    permutation.setflags(write=False)
    return permutation


def balanced_indices(positions: np.ndarray, members: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What stands at some positions of an endless stream in which the classes take turns.

    The images of a class come in passes over that class, each in an order of its own: all of them equally often.

    Args:
        positions: (B,) int, counted from 0.
        members: of each class the positions of its images, at least one.
        seed: decides the orders.

    Returns:
        The images' positions, and the number of the pass over its class that each is drawn for, both (B,).
    """
    turns, classes = np.divmod(positions, len(members))
    indices, passes = np.empty_like(positions), np.empty_like(positions)
    for number in np.unique(classes):
        own, at = members[number], np.flatnonzero(classes == number)
        passes[at], places = np.divmod(turns[at], len(own))
        for drawn_for in np.unique(passes[at]):
            of_pass = passes[at] == drawn_for
            order_of_pass = _order_of_class(len(own), int(drawn_for), seed, int(number))
            indices[at[of_pass]] = own[order_of_pass[places[of_pass]]]
    return indices, passes


# ------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True, eq=False)
class TrainBatches:
    """The training batches of a run; each is a function of (seed, epoch, step): a run can resume anywhere.

    With `steps_per_epoch`, all batches are full, and an epoch begins in the stream where the one before it
    ended: 100 steps of 32 out of 2000 images are one pass and 1200 images of the next. With None, an epoch is
    one pass; its last batch may be smaller.

    inputs:          images or features.
    targets:         (N, ...), of each.
    batch_size:      B.
    steps_per_epoch: batches in an epoch, or None.
    seed:            decides the order.
    augmentation:    called as `(images, indices, passes)` for the images of a batch, or None.
    mix:             called as `(x, y, epoch, step)` for a whole batch, or None.
    balanced:        of each class the positions of its images, which are drawn so that classes come equally often;
                     None: every image comes equally often.
    threads:         how many batches of images are made at a time; what comes out does not depend on it.
    """

    inputs: BatchSource | AugmentedPasses
    targets: np.ndarray
    batch_size: int
    steps_per_epoch: int | None
    seed: int
    augmentation: Callable[[Any, np.ndarray, np.ndarray], np.ndarray] | None = None
    mix: Callable[[Any, np.ndarray, int, int], tuple[np.ndarray, np.ndarray]] | None = None
    balanced: tuple[np.ndarray, ...] | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.targets) > 0, (len(self.inputs), len(self.targets))

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.steps_per_epoch or math.ceil(len(self.inputs) / self.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch has, repetitions included."""
        return self.steps_per_epoch * self.batch_size if self.steps_per_epoch else len(self.inputs)

    def indices(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which images a batch has, and for which pass: twice (B,). Epochs and steps count from 0."""
        if self.balanced:
            start = epoch * self.images_per_epoch + step * self.batch_size
            stop = min(start + self.batch_size, (epoch + 1) * self.images_per_epoch)
            return balanced_indices(np.arange(start, stop), self.balanced, self.seed)
        if self.steps_per_epoch:
            return stream_indices(epoch * self.steps_per_epoch + step, self.batch_size, len(self.inputs), self.seed)
        start = step * self.batch_size
        indices = order(len(self.inputs), epoch, self.seed)[start : start + self.batch_size]
        return indices, np.full(len(indices), epoch)

    def batch(self, epoch: int, step: int) -> tuple[X, np.ndarray]:
        """A batch: x (B, H, W, C) uint8, or float32 if mixed, or features (B, ...), and its targets y."""
        indices, passes = self.indices(epoch, step)
        x = self._take(indices, passes)
        if self.augmentation is not None:
            x = self.augmentation(x, indices, passes)
        y = self.targets[indices]
        return self.mix(x, y, epoch, step) if self.mix else (x, y)

    def _take(self, indices: np.ndarray, passes: np.ndarray) -> X:
        return (
            self.inputs.take(indices, passes) if isinstance(self.inputs, AugmentedPasses) else self.inputs.take(indices)
        )

    def stacks(self, first: int, last: int, count: int) -> Iterator[tuple[X, np.ndarray]]:
        """The same as `epochs`, for features: `count` batches at a time as arrays (count, B, ...).

        Handed over one by one, a batch of features takes longer to reach TensorFlow than half a step on it. `count`
        divides the steps of an epoch, and no batch is smaller than others.
        """
        assert self.augmentation is None and self.mix is None and len(self) % count == 0

        def stack(rows: np.ndarray) -> np.ndarray:
            return rows.reshape(count, -1, *rows.shape[1:])

        for epoch, step in ((epoch, step) for epoch in range(first, last) for step in range(0, len(self), count)):
            drawn = [self.indices(epoch, step + number) for number in range(count)]
            indices, passes = (np.concatenate(part) for part in zip(*drawn, strict=True))
            x = self._take(indices, passes)
            yield tuple(map(stack, x)) if isinstance(x, tuple) else stack(x), stack(self.targets[indices])

    def epochs(self, first: int, last: int) -> Iterator[tuple[X, np.ndarray]]:
        """Every batch of the epochs `first` to `last` - 1 in order; those of images are made ahead, in threads."""
        threads = self.threads if isinstance(self.inputs, ImageLoader) else 1
        places = ((epoch, step) for epoch in range(first, last) for step in range(len(self)))
        return in_order(threads, (partial(self.batch, epoch, step) for epoch, step in places))


class EvalBatches:
    """All inputs in their order, in batches (B, ...); the last may be smaller."""

    def __init__(self, inputs: BatchSource, batch_size: int) -> None:
        self.inputs, self.batch_size = inputs, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.inputs) / self.batch_size)

    def __iter__(self) -> Iterator[X]:
        for start in range(0, len(self.inputs), self.batch_size):
            yield self.inputs.take(np.arange(start, min(start + self.batch_size, len(self.inputs))))
