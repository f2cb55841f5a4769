"""One training on several devices: each takes a part of every batch, and what they learn is summed after each step."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from cnnexp.data.pipeline import TrainBatches, X

Strategy: TypeAlias = tf.distribute.Strategy


@lru_cache  # a second strategy would count its sums from the beginning, and meet those of the first
def chosen_strategy(name: str) -> Strategy | None:
    """How the steps of a training are shared out; None: one device takes them whole.

    Args:
        name: "auto": all GPUs, if there are several. "mirrored": all GPUs, or all (virtual) CPUs where there is none.
    """
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if name == "auto" and len(gpus) < 2:
        return None
    assert name in ("auto", "mirrored"), name
    return tf.distribute.MirroredStrategy(gpus or [device.name for device in tf.config.list_logical_devices("CPU")])


def replicated(model: keras.Model, strategy: Strategy | None) -> keras.Model:
    """A model of the same layers that `fit` trains under the strategy, in whose scope their weights must be made.

    `model` itself, made outside of the scope, stays what it is: it evaluates on one device.
    """
    if strategy is None:
        return model
    with strategy.scope():
        return keras.Model(model.inputs, model.outputs, name=model.name)


def shared_out(batches: TrainBatches, first: int, last: int, strategy: Strategy) -> tf.distribute.DistributedDataset:
    """Every batch of the epochs `first` to `last` - 1 in order, cut into a part (x, y, sample weights) a device."""
    devices = strategy.num_replicas_in_sync

    def generate() -> Iterator[tuple[X, np.ndarray, np.ndarray]]:
        for x, y in batches.epochs(first, last):
            yield from parts(x, y, devices)

    def dataset(_: tf.distribute.InputContext) -> tf.data.Dataset:
        example = next(parts(*batches.batch(first, 0), devices))
        return tf.data.Dataset.from_generator(generate, output_signature=signature(example)).prefetch(2 * devices)

    return strategy.distribute_datasets_from_function(dataset)


def signature(example: Any) -> Any:
    """The `tf.TensorSpec` of arrays (B, ...), in any nest, for any B."""
    return tf.nest.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), example)


def parts(x: X, y: np.ndarray, devices: int) -> Iterator[tuple[X, np.ndarray, np.ndarray]]:
    """A batch in parts of one size, with sample weights (b,) float32 that make the mean of their losses the batch's.

    A batch that does not divide is filled up with its first row, at weight 0.
    """
    real = len(y)
    size = -(-real // devices)
    rows = np.arange(size * devices)
    weights = np.where(rows < real, size * devices / real, 0).astype(np.float32)
    rows[real:] = 0
    for start in range(0, size * devices, size):
        part = rows[start : start + size]
        taken = tuple(array[part] for array in x) if isinstance(x, tuple) else x[part]
        yield taken, y[part], weights[start : start + size]
