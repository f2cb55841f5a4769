"""What each phase of a training runs on: images, or the cached features of the part that is frozen in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cnnexp.console import progress
from cnnexp.data.loading import ImageLoader
from cnnexp.data.pipeline import AugmentedPasses, EvalBatches, FeatureArrays
from cnnexp.training.feature_store import FeatureStore
from cnnexp.training.features import FrozenSplit, cut_model, features_key

Taken = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class SplitData:
    """One split, ready to train on: `images.take(indices)` gives (B, H, W, C) uint8; labels (N,) int64."""

    images: ImageLoader
    labels: np.ndarray
    digest: str


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images.

    transform:   has `augment(images, indices, passes, seed)`, see `cnnexp.data.augment`; None for none.
    description: tells this augmentation from every other; features of augmented images are kept under it.
    seed:        of its random numbers.
    mixup:       alpha, see `cnnexp.training.recipe.mixed`; 0 for none.
    """

    transform: Any | None = None
    description: str = ""
    seed: int = 0
    mixup: float = 0.0

    def stream(self, number: int) -> str:
        """What tells one pass over the augmented images from every other, in the keys of the feature cache."""
        return f"{self.description} seed {self.seed} pass {number}"

    def __call__(self, images: np.ndarray, indices: np.ndarray, passes: np.ndarray) -> np.ndarray:
        """(B, H, W, C) uint8 changed, each image for its pass; see `Geometric.augment`."""
        assert self.transform is not None
        return self.transform.augment(images, indices, passes, self.seed)


@dataclass(frozen=True)
class TrainingData:
    """The three splits, and the random augmentation of the first."""

    train: SplitData
    validation: SplitData
    test: SplitData
    num_classes: int
    image_size: int
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class PhaseData:
    """Which model the steps of a phase train, which one is evaluated, and what each of them gets.

    `augment_batches` says whether the training images are still to be augmented.
    """

    cut: FrozenSplit | None
    train_model: keras.Model
    eval_model: keras.Model
    train: ImageLoader | FeatureArrays | AugmentedPasses
    validation: ImageLoader | FeatureArrays
    augment_batches: bool


@dataclass(frozen=True)
class Cache:
    """The feature cache as the trainer uses it."""

    store: FeatureStore
    batch_size: int  # of the forward pass
    augmented_passes: int | None = None  # how many are kept; None: the images are augmented anew in each epoch


def phase_inputs(
    model: keras.Model, data: TrainingData, cache: Cache | None, base: FrozenSplit | None = None
) -> PhaseData:
    """Choose, and compute what is to be cached, for the layers that are frozen now.

    Features of images that change from step to step are not kept, unless as `augmented_passes`.

    Args:
        model: with `trainable` of its layers set.
        data: the splits.
        cache: of features, or None.
        base: where a later phase cuts the model. Its features will be needed, and those of this phase, which
            freezes more, are computed from them.

    Raises:
        UserError: a file cannot be read; the cache cannot be written.
    """
    cut = cut_model(model) if cache else None
    if cut and base and _share_outputs(cut, base):
        base = None
    validation = evaluation_inputs(cut, data.validation, data, cache, base)
    augmentation = data.augmentation
    train: ImageLoader | FeatureArrays | AugmentedPasses = data.train.images
    if cache and cut and augmentation.transform and cache.augmented_passes and not augmentation.mixup:
        train = _augmented_passes(cut, data, cache, cache.augmented_passes, base)
    elif cut and not augmentation.transform and not augmentation.mixup:
        train = evaluation_inputs(cut, data.train, data, cache, base)
    for used in (train, validation):
        if isinstance(used, ImageLoader):
            used.load()  # all files are read, and a bad one found, before the first step
    tail = cut.trained if cut else model
    on_images = isinstance(train, ImageLoader)
    augment_batches = on_images and augmentation.transform is not None
    return PhaseData(cut, model if on_images else tail, tail, train, validation, augment_batches)


def _share_outputs(one: FrozenSplit, other: FrozenSplit) -> bool:
    """Whether a tensor comes out of both; then Keras builds no model from the one's to the other's."""
    return not {id(tensor) for tensor in one.frozen.outputs}.isdisjoint(id(tensor) for tensor in other.frozen.outputs)


def evaluation_inputs(
    cut: FrozenSplit | None,
    part: SplitData,
    data: TrainingData,
    cache: Cache | None,
    base: FrozenSplit | None = None,
    flipped: bool = False,
) -> ImageLoader | FeatureArrays:
    """The images of a split, or their cached features where a part of the model is fixed.

    Args:
        flipped: the mirror images; only where there is a cut.
    """
    if cut is None:
        assert not flipped
        return part.images
    assert cache is not None

    def mirrored(indices: np.ndarray) -> np.ndarray:
        return part.images.take(indices)[:, :, ::-1]

    name, what = part.images.split.name, "mirrored " * flipped
    description = f"features of {what}{name} images"
    take = mirrored if flipped else part.images.take
    return _features(cut, part, data, cache, take, what, description, base)


def feature_keys(cut: FrozenSplit, data: TrainingData, cache: Cache) -> list[str]:
    """The names of the cache entries that a training with this cut reads: of all splits, or of all augmented passes."""
    augmentation = data.augmentation
    wanted = [(data.validation, ""), (data.test, "")]
    if augmentation.transform is None and not augmentation.mixup:
        wanted.append((data.train, ""))
    elif cache.augmented_passes and not augmentation.mixup:
        wanted += [(data.train, augmentation.stream(number)) for number in range(cache.augmented_passes)]
    return [features_key(cut, part.digest, data.image_size, cache.store.dtype, stream) for part, stream in wanted]


def _augmented_passes(
    cut: FrozenSplit, data: TrainingData, cache: Cache, count: int, base: FrozenSplit | None
) -> AugmentedPasses:
    augmentation = data.augmentation

    def one(number: int) -> FeatureArrays:
        def take(indices: np.ndarray) -> np.ndarray:
            return augmentation(data.train.images.take(indices), indices, np.full(len(indices), number))

        description = f"features of augmented pass {number + 1} of {count}"
        return _features(cut, data.train, data, cache, take, augmentation.stream(number), description, base)

    return AugmentedPasses(tuple(one(number) for number in range(count)))


def _features(
    cut: FrozenSplit,
    part: SplitData,
    data: TrainingData,
    cache: Cache,
    take: Taken,
    stream: str,
    description: str,
    base: FrozenSplit | None = None,
) -> FeatureArrays:
    fixed, images = cut.frozen, take
    key = features_key(cut, part.digest, data.image_size, cache.store.dtype, stream)
    if base is not None and not cache.store.has(key):
        images = _features(base, part, data, cache, take, stream, description).take
        fixed = keras.Model(base.frozen.outputs, cut.frozen.outputs)
    fixed.jit_compile = False
    arrays, _ = cache.store.features(key, fixed, images, len(part.labels), cache.batch_size, description)
    return FeatureArrays(tuple(arrays))


def predict(
    model: keras.Model, inputs: ImageLoader | FeatureArrays, batch_size: int, description: str | None = None
) -> np.ndarray:
    """The model's outputs for all inputs in order, (N, 1 or classes) float32; with a `description`, under a bar."""
    batches = EvalBatches(inputs, batch_size)
    shown = progress(batches, description, total=len(batches)) if description else batches
    return np.concatenate([model.predict_on_batch(x) for x in shown])
