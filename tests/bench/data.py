"""From JPEGs, or from decoded images, to augmented batches: our pipeline beside the two of Keras.

Every pass gives all photos once, in random order: x (B, 150, 150, 3) RGB in 0..255, and the labels, each as its
pipeline hands them to `fit`: ours bytes, which the network scales in its first layer, those of Keras float32.
From memory, where a pass takes us less than a tenth of a second, it is several passes, one behind the other.
"""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.table import Row, compare
from cnnexp.config.training import TrainerConfig
from cnnexp.data.augment import Geometric
from cnnexp.data.dataset import Split
from cnnexp.data.loading import CacheLimits, ImageLoader
from cnnexp.data.pipeline import TrainBatches
from cnnexp.process import import_tensorflow

SIZE, BATCH = 150, 32  # of the experiment `augmented`
FROM_FILES, FROM_MEMORY = 1, 5  # passes
PARAMETERS: dict[str, Any] = {  # of `augmentation=geometric`; the names are those of ImageDataGenerator
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "fill_mode": "nearest",
}
Passes = Callable[[int], Iterator[tuple[Any, Any]]]  # so many


def rows(photos: Path, repetitions: int) -> list[Row]:
    """Each source of images, from files and from memory, with each peer.

    The row of one thread shows what is left without the second: `ImageDataGenerator` has only one.
    """
    import_tensorflow()
    split = split_of(photos)
    directory, dataset = generator_from_files(photos), tf_data(photos, cached=False)
    files, memory = ours(split, keep=False), ours(split, keep=True)
    one_thread = ours(split, keep=False, threads=1)
    peers: list[tuple[str, str, Passes, Passes, int]] = [
        ("data/jpeg", "ImageDataGenerator.flow_from_directory", files, directory, FROM_FILES),
        ("data/jpeg_1_thread", "ImageDataGenerator.flow_from_directory", one_thread, directory, FROM_FILES),
        ("data/decoded", "ImageDataGenerator.flow", memory, generator_from_arrays(split), FROM_MEMORY),
        ("data/jpeg_tf_data", "image_dataset_from_directory, Random*", files, dataset, FROM_FILES),
        ("data/decoded_tf_data", "the same with .cache()", memory, tf_data(photos, cached=True), FROM_MEMORY),
    ]
    count = len(split.ids)
    return [
        compare(name, peer_name, repetitions, partial(consume, us, n), partial(consume, peer, n), n * count)
        for name, peer_name, us, peer, n in peers
    ]


def consume(passes: Passes, number: int) -> int:
    """Take every batch of so many passes; returns how many images there were."""
    return sum(int(x.shape[0]) for x, _ in passes(number))


def split_of(photos: Path) -> Split:
    """The photos as a split, all of them to train on."""
    paths = sorted(photos.glob("*/*"))
    classes = sorted({path.parent.name for path in paths})
    labels = np.array([classes.index(path.parent.name) for path in paths], np.int64)
    return Split("train", labels, tuple(map(str, paths)), None, tuple(path.name for path in paths), digest="")


# ---------------------------------------------------------------------------------------------------- ours


def ours(split: Split, keep: bool, threads: int = TrainerConfig.loader_threads) -> Passes:
    """Our batches; `keep` the decoded images in memory, as if they fit, or decode in each pass."""
    room = CacheLimits() if keep else CacheLimits(memory_bytes=0)
    batches = TrainBatches(
        ImageLoader(split, SIZE, 3, threads, room),
        split.labels.astype(np.float32)[:, np.newaxis],
        batch_size=BATCH,
        steps_per_epoch=None,
        seed=0,
        augmentation=lambda images, indices, passes: Geometric(**PARAMETERS).augment(images, indices, passes, 0),
        threads=threads,
    )
    done = 0

    def passes(number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal done
        first, done = done, done + number
        return batches.epochs(first, done)

    return passes


# --------------------------------------------------------------------------------------------------- peers


def generator_from_files(photos: Path) -> Passes:
    """`ImageDataGenerator.flow_from_directory` (resizes with the nearest pixel, its default)."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    with contextlib.redirect_stdout(io.StringIO()):  # "Found 400 images belonging to 2 classes."
        batches = ImageDataGenerator(**PARAMETERS).flow_from_directory(
            str(photos), target_size=(SIZE, SIZE), batch_size=BATCH, class_mode="binary", seed=0
        )
    return lambda number: itertools.islice(batches, number * len(batches))


def generator_from_arrays(split: Split) -> Passes:
    """`ImageDataGenerator.flow` on the decoded images."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    decoded = ImageLoader(split, SIZE, 3, TrainerConfig.loader_threads).take(np.arange(len(split.ids)))
    batches = ImageDataGenerator(**PARAMETERS).flow(decoded, split.labels, batch_size=BATCH, seed=0)
    return lambda number: itertools.islice(batches, number * len(batches))


def tf_data(photos: Path, cached: bool) -> Passes:
    """`image_dataset_from_directory` and Keras' layers, in parallel and ahead, as Keras' guides do it.

    A layer for the shear is left out: 0.2 degrees are nearly none, and each layer is a warp of its own.
    """
    import keras
    import tensorflow as tf

    layers = keras.layers
    augment = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(PARAMETERS["rotation_range"] / 360, fill_mode="nearest"),
            layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            layers.RandomZoom(0.2, 0.2, fill_mode="nearest"),
        ]
    )
    read = partial(
        keras.utils.image_dataset_from_directory,
        str(photos),
        label_mode="binary",
        image_size=(SIZE, SIZE),
        seed=0,
        verbose=False,
    )
    if cached:
        images = read(batch_size=None).cache()
        batches = images.shuffle(int(images.cardinality()), seed=0).batch(BATCH)
    else:
        batches = read(batch_size=BATCH)
    augmented = batches.map(lambda x, y: (augment(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return lambda number: iter(augmented.repeat(number).prefetch(tf.data.AUTOTUNE))
