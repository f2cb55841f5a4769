"""The one trainer of every experiment: compile, fit, evaluate on the test images once."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnexp.console import progress
from cnnexp.data.pipeline import Arrays, EvalBatches, Images, TrainBatches
from cnnexp.training.callbacks import EpochMetrics, EpochReport, ShowProgress, Validation, loss_and_accuracy
from cnnexp.training.features import Cut, cached_features, cut_model, features_key


@dataclass(frozen=True)
class Part:
    """One split, ready to train on: `images.take(indices)` gives (B, H, W, C) uint8; labels (N,) int64."""

    images: Images
    labels: np.ndarray
    digest: str


@dataclass(frozen=True)
class TrainingData:
    """The three splits, and the random augmentation of the first."""

    train: Part
    validation: Part
    test: Part
    num_classes: int
    image_size: int
    augmentation: Any | None = None


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know."""

    epochs: int
    batch_size: int
    steps_per_epoch: int | None
    evaluation_batch_size: int
    seed: int
    cache_folder: Path | None  # None: no feature cache


@dataclass
class FitResult:
    """What a training gave.

    `history` has the figures of each epoch; `probabilities` (N, 1 or classes) float32 are those of the test images.
    """

    history: list[EpochMetrics] = field(default_factory=list)
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 1), np.float32))
    train_seconds: float = 0.0
    cache_seconds: float = 0.0


OptimizerFactory = Callable[[int], keras.optimizers.Optimizer]  # called with the steps of an epoch


def train(
    model: keras.Model,
    data: TrainingData,
    optimizer: OptimizerFactory,
    settings: Settings,
    on_epoch: Callable[[int, EpochMetrics], None],
) -> FitResult:
    """Train `model`, whose layers are already frozen or not, and evaluate it on the test images once.

    What is frozen is computed once for the validation and test images, and for the training images too where they
    are not augmented; then only the rest of the model runs in each step.

    Args:
        model: takes (B, H, W, C) in 0..255, gives probabilities.
        optimizer: makes the optimizer, given the number of steps in an epoch.
        on_epoch: receives each epoch, counted from 0, with its figures.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
    """
    result = FitResult()
    began = time.perf_counter()
    plan = _plan(model, data, settings)
    result.cache_seconds = time.perf_counter() - began if plan.cut else 0.0
    batches = TrainBatches(
        plan.train,
        data.train.labels,
        num_classes=data.num_classes,
        batch_size=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        seed=settings.seed,
        augmentation=data.augmentation,
    )
    learner, judge = plan.learner, plan.judge
    learner.compile(
        optimizer=optimizer(len(batches)),
        loss=_loss(data.num_classes),
        metrics=[_accuracy(data.num_classes)],
        jit_compile=False,
    )
    judge.jit_compile = False

    def validate() -> tuple[float, float]:
        probabilities = predict(judge, plan.validation, settings.evaluation_batch_size)
        return loss_and_accuracy(probabilities, data.validation.labels)

    began = time.perf_counter()
    _fit(learner, batches, settings, validate, [on_epoch, lambda _, metrics: result.history.append(metrics)])
    result.train_seconds = time.perf_counter() - began
    result.probabilities = predict(judge, plan.test, settings.evaluation_batch_size, "testing")
    result.test_loss, result.test_accuracy = loss_and_accuracy(result.probabilities, data.test.labels)
    if plan.cut:
        check_agreement(model, data.test.images, result.probabilities)
    return result


@dataclass(frozen=True)
class _Plan:
    """Which model each step trains (`learner`) and which one is evaluated (`judge`), and what each of them gets."""

    cut: Cut | None
    learner: keras.Model
    judge: keras.Model
    train: Images | Arrays
    validation: Images | Arrays
    test: Images | Arrays


def _plan(model: keras.Model, data: TrainingData, settings: Settings) -> _Plan:
    cut = cut_model(model) if settings.cache_folder else None
    validation = _fixed_inputs(cut, data.validation, data, settings)
    test = _fixed_inputs(cut, data.test, data, settings)
    train_on_features = cut is not None and data.augmentation is None
    inputs = _fixed_inputs(cut, data.train, data, settings) if train_on_features else data.train.images
    for used in (inputs, validation, test):
        if isinstance(used, Images):
            used.load()  # all files are read, and a bad one found, before the first step
    tail = cut.tail if cut else model
    return _Plan(cut, tail if train_on_features else model, tail, inputs, validation, test)


def _fit(
    learner: keras.Model,
    batches: TrainBatches,
    settings: Settings,
    validate: Callable[[], tuple[float, float]],
    receivers: list[Callable[[int, EpochMetrics], None]],
) -> None:
    steps = len(batches)
    shown = ShowProgress(settings.epochs, steps)
    report = EpochReport(batches.images_per_epoch, [*receivers, shown.show_epoch])
    try:
        learner.fit(
            _stream(batches, settings.epochs),
            steps_per_epoch=steps,
            epochs=settings.epochs,
            callbacks=[Validation(validate), report, shown],
            shuffle=False,  # the stream has its own order
            verbose=0,
        )
    finally:
        shown.progress.stop()


def _stream(batches: TrainBatches, epochs: int) -> tf.data.Dataset:
    """Every batch of the run in order, prepared while the step before it runs."""

    def generate() -> Iterator[tuple[Any, np.ndarray]]:
        for epoch in range(epochs):
            for step in range(len(batches)):
                yield batches.batch(epoch, step)

    x, y = batches.batch(0, 0)
    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), (x, y))
    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2)


def _fixed_inputs(cut: Cut | None, part: Part, data: TrainingData, settings: Settings) -> Images | Arrays:
    """The images of a split, or their cached features where a part of the model is fixed."""
    if cut is None:
        return part.images
    assert settings.cache_folder is not None
    cut.fixed.jit_compile = False
    key = features_key(cut.fixed, part.digest, data.image_size, "float32")
    arrays, _ = cached_features(
        settings.cache_folder, key, cut.fixed, part.images.take, len(part.labels), settings.evaluation_batch_size
    )
    return Arrays(tuple(arrays))


def predict(model: keras.Model, inputs: Images | Arrays, batch_size: int, description: str | None = None) -> np.ndarray:
    """The model's outputs for all inputs in order, (N, 1 or classes) float32; with a `description`, under a bar."""
    batches = EvalBatches(inputs, batch_size)
    shown = progress(batches, description, total=len(batches)) if description else batches
    return np.concatenate([model.predict_on_batch(x) for x in shown])


def check_agreement(model: keras.Model, images: Images, probabilities: np.ndarray) -> None:
    """Assert that the whole model gives, for a few images, what came out of the cached path (within 1e-4)."""
    indices = np.arange(min(8, len(probabilities)))
    model.jit_compile = False
    whole = model.predict_on_batch(images.take(indices))
    difference = float(np.abs(whole - probabilities[indices]).max())
    assert difference <= 1e-4, f"whole model and cached features differ by {difference:g}"


def _loss(num_classes: int) -> keras.losses.Loss:
    if num_classes == 2:
        return keras.losses.BinaryCrossentropy()
    return keras.losses.SparseCategoricalCrossentropy()


def _accuracy(num_classes: int) -> keras.metrics.Metric:
    if num_classes == 2:
        return keras.metrics.BinaryAccuracy(name="acc")
    return keras.metrics.SparseCategoricalAccuracy(name="acc")
