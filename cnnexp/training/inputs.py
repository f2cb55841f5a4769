"""What a training is made of, and what each phase of it runs on: images, or the cached features of what is frozen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnexp.config.training import TrainerConfig
from cnnexp.console import progress
from cnnexp.data.balance import is_unbalanced
from cnnexp.data.loading import ImageLoader
from cnnexp.data.pipeline import AugmentedPasses, EvalBatches, FeatureArrays
from cnnexp.metrics.names import FIGURE_NAMES, VAL_ACC
from cnnexp.training.devices import Strategy
from cnnexp.training.feature_store import FeatureStore
from cnnexp.training.features import FrozenSplit, cut_model, features_key
from cnnexp.training.losses import CROSS_ENTROPY, LossPlan


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
class Training:
    """What all phases of a training share.

    model:      takes (B, H, W, C) in 0..255, gives probabilities.
    data:       the images, and how they are augmented.
    config:     the group `trainer`.
    seed:       decides the order of the images.
    store:      of features; None: every step runs the whole model.
    checkpoint: the file that is written after each epoch, or None.
    loss:       what is made small.
    positive:   of two classes, the number of that which the curves of an epoch's figures are of.
    strategy:   for several devices, see `cnnexp.training.devices`; the batch is shared out among them.
    """

    model: keras.Model
    data: TrainingData
    config: TrainerConfig
    seed: int = 0
    store: FeatureStore | None = None
    checkpoint: Path | None = None
    loss: LossPlan = CROSS_ENTROPY
    strategy: Strategy | None = None
    positive: int = 1

    @property
    def one_hot(self) -> bool:
        """Whether the targets of more than two classes cannot be class numbers."""
        return bool(self.data.augmentation.mixup or self.loss.one_hot)

    @property
    def epoch_figures(self) -> tuple[str, ...]:
        """The figures that are computed of the validation images after each epoch, beside loss and accuracy."""
        asked = self.config.epoch_metrics
        if asked is None:
            asked = ["f1_macro"] if is_unbalanced(self.data.train.labels, self.data.num_classes) else []
        wanted = {f"val/{name}" for name in asked} | {self.config.monitor}
        return tuple(name for name in (*FIGURE_NAMES, *self.config.figures) if f"val/{name}" in wanted - {VAL_ACC})


# ---------------------------------------------------------------------------------------- views of a split


@dataclass(frozen=True)
class View:
    """The images of a split as they are, mirrored, or changed in one pass of the augmentation.

    name:        tells the view from the others of the split in the keys of the feature cache.
    description: of its features, for the progress bar.
    take:        gives the images with these positions, (B, H, W, C) uint8.
    """

    split: SplitData
    name: str
    description: str
    take: Callable[[np.ndarray], Any]


def plain_view(split: SplitData) -> View:
    """The images as they are."""
    return View(split, "", f"features of {split.images.split.name} images", split.images.take)


def mirrored_view(split: SplitData) -> View:
    """The images with left and right exchanged."""

    def take(indices: np.ndarray) -> np.ndarray:
        return split.images.take(indices)[:, :, ::-1]

    return View(split, "mirrored ", f"features of mirrored {split.images.split.name} images", take)


def augmented_views(data: TrainingData, count: int) -> list[View]:
    """The training images in the first `count` passes of their augmentation."""
    augmentation, split = data.augmentation, data.train

    def view(number: int) -> View:
        def take(indices: np.ndarray) -> np.ndarray:
            return augmentation(split.images.take(indices), indices, np.full(len(indices), number))

        name = f"{augmentation.description} seed {augmentation.seed} pass {number}"
        return View(split, name, f"features of augmented pass {number + 1} of {count}", take)

    return [view(number) for number in range(count)]


def training_views(training: Training) -> list[View]:
    """The views of the training images whose features are kept: none where the images change from step to step."""
    data, passes = training.data, training.config.augmented_passes
    if data.augmentation.mixup:
        return []
    if data.augmentation.transform is None:
        return [plain_view(data.train)]
    return augmented_views(data, passes) if passes else []


def feature_keys(cut: FrozenSplit, training: Training) -> list[str]:
    """The names of the cache entries that a training with this cut reads, but for those of mirrored images."""
    assert training.store is not None
    views = [plain_view(training.data.validation), plain_view(training.data.test), *training_views(training)]
    return [_key(cut, view, training) for view in views]


def _key(cut: FrozenSplit, view: View, training: Training) -> str:
    assert training.store is not None
    return features_key(cut, view.split.digest, training.data.image_size, training.store.dtype, view.name)


# ----------------------------------------------------------------------------------------------- one phase


class PhaseData:
    """What a phase runs on, for the layers that are frozen when this is made.

    Features of images that change from step to step are not kept, unless as `trainer.augmented_passes`.

    cut:                what is frozen and what is trained; None: every step runs the whole model.
    train_model:        which model the steps train, on `train`; `eval_model` is evaluated, on `of(split)`.
    train, validation:  images or features.
    augment_batches:    whether the training images are still to be augmented.

    Args:
        training: its model has `trainable` of its layers set.
        base: where a later phase cuts the model. Its features will be needed, and those of this phase, which
            freezes more, are computed from them.

    Raises:
        UserError: a file cannot be read; the cache cannot be written.
    """

    def __init__(self, training: Training, base: FrozenSplit | None = None) -> None:
        self.training = training
        self.cut = cut_model(training.model) if training.store else None
        shared = self.cut and base and _share_outputs(self.cut, base)
        self.base = None if shared else base
        self.validation = self.of(training.data.validation)
        self.train = self._train()
        for used in (self.train, self.validation):
            if isinstance(used, ImageLoader):
                used.load()  # all files are read, and a bad one found, before the first step
        self.eval_model = self.cut.trained if self.cut else training.model
        on_images = isinstance(self.train, ImageLoader)
        self.train_model = training.model if on_images else self.eval_model
        self.augment_batches = on_images and training.data.augmentation.transform is not None

    def of(self, split: SplitData, mirrored: bool = False) -> ImageLoader | FeatureArrays:
        """What `eval_model` answers for: images, or their features; mirrored only where there is a cut."""
        if self.cut is None:
            assert not mirrored
            return split.images
        return self._features(self.cut, mirrored_view(split) if mirrored else plain_view(split), self.base)

    def _train(self) -> ImageLoader | FeatureArrays | AugmentedPasses:
        cut, views = self.cut, training_views(self.training)
        if cut is None or not views:
            return self.training.data.train.images
        features = tuple(self._features(cut, view, self.base) for view in views)
        return AugmentedPasses(features) if self.training.data.augmentation.transform else features[0]

    def _features(self, cut: FrozenSplit, view: View, base: FrozenSplit | None = None) -> FeatureArrays:
        store, batch_size = self.training.store, self.training.config.evaluation_batch_size
        assert store is not None
        key, frozen, take = _key(cut, view, self.training), cut.frozen, view.take
        if base is not None and not store.has(key):
            take = self._features(base, view).take
            frozen = keras.Model(base.frozen.outputs, cut.frozen.outputs)
        frozen.jit_compile = False
        arrays, _ = store.features(key, frozen, take, len(view.split.labels), batch_size, view.description)
        return FeatureArrays(tuple(arrays))


def _share_outputs(one: FrozenSplit, other: FrozenSplit) -> bool:
    """Whether a tensor comes out of both; then Keras builds no model from the one's to the other's."""
    return not {id(tensor) for tensor in one.frozen.outputs}.isdisjoint(id(tensor) for tensor in other.frozen.outputs)


def predict(
    model: keras.Model, inputs: ImageLoader | FeatureArrays, batch_size: int, description: str | None = None
) -> np.ndarray:
    """The model's outputs for all inputs in order, (N, 1 or classes) float32; with a `description`, under a bar."""
    batches = EvalBatches(inputs, batch_size)
    shown = progress(batches, description, total=len(batches)) if description else batches
    return np.concatenate([model.predict_on_batch(x) for x in shown])
