"""The one trainer of every experiment: fit phase after phase, then evaluate on the test images once."""

import time
from dataclasses import dataclass, field

import keras
import numpy as np

from cnnexp.console import warn
from cnnexp.data.loading import ImageLoader
from cnnexp.data.pipeline import FeatureArrays
from cnnexp.errors import RunError
from cnnexp.models.build import flip_averaged
from cnnexp.models.kept import once_for
from cnnexp.training.callbacks import EpochListener, EpochMetrics
from cnnexp.training.checkpoint import PhaseReport, TrainState, read_checkpoint
from cnnexp.training.features import FrozenSplit, cut_model
from cnnexp.training.inputs import Cache, PhaseData, SplitData, TrainingData, evaluation_inputs, phase_inputs, predict
from cnnexp.training.phases import Phase, PhaseTrainer, Settings, changing_variables
from cnnexp.training.recipe import loss_and_accuracy, predicted_classes

HALF = ("float16", "bfloat16")


@dataclass
class FitResult:
    """What a training gave.

    model:         the trained network, whole: photo in, probability out; with flip averaging it holds both views.
    history:       the figures of each epoch; `selected_epoch` is the index of the one whose weights were kept.
    phases:        what each phase came to.
    validation_*:  of `model`.
    probabilities: (N, 1 or classes) float32, of the test images.
    train_seconds: of all epochs; `cache_seconds` went into the features of what is frozen.
    feature_difference: the largest one of a probability between `model` and what the features gave, where there are
                   features.
    """

    model: keras.Model
    history: list[EpochMetrics] = field(default_factory=list)
    phases: list[PhaseReport] = field(default_factory=list)
    selected_epoch: int = 0
    validation_loss: float = float("nan")
    validation_accuracy: float = float("nan")
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 1), np.float32))
    train_seconds: float = 0.0
    cache_seconds: float = 0.0
    feature_difference: float | None = None


def train(
    model: keras.Model,
    data: TrainingData,
    phases: list[Phase],
    settings: Settings,
    on_epoch: EpochListener,
    cache: Cache | None = None,
    flip_averaging: bool = False,
    resume: bool = False,
) -> FitResult:
    """Train `model` phase after phase and evaluate it on the test images once.

    What is frozen in a phase is computed once for the validation and test images, and for the training images too
    where they are not augmented; then only the rest of the model runs in each step.

    Args:
        model: takes (B, H, W, C) in 0..255, gives probabilities.
        phases: one or more.
        on_epoch: receives each epoch, counted from 0 through all phases, with its figures. An epoch that was done
            before a resumed training stopped is not handed on again.
        cache: of features; None: every step runs the whole model.
        flip_averaging: the network's answer is the mean over the image and its mirror image.
        resume: go on from `settings.checkpoint`, if there is one, and end as if it had never stopped.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
        UserError: a file cannot be read, the cache cannot be written, the checkpoint is damaged.
        RunError: see `check_agreement`.
    """
    result = FitResult(model)
    stored = read_checkpoint(settings.checkpoint) if resume and settings.checkpoint else None
    progress, arrays = stored or (TrainState(), {})
    checkpointed: dict[str, keras.Variable] = {}
    restored = not arrays
    for number, phase in enumerate(phases):
        phase.freeze()
        checkpointed |= changing_variables(model)
        if number < progress.phase:
            continue
        began = time.perf_counter()
        if not restored:
            for name, variable in checkpointed.items():
                variable.assign(arrays[f"model/{name}"])
        inputs = phase_inputs(model, data, cache, _shallower_cut(model, phases[number:]) if cache else None)
        views = _views(inputs, data, cache, flip_averaging) if number == len(phases) - 1 else []
        result.cache_seconds += time.perf_counter() - began if inputs.cut else 0.0
        run = PhaseTrainer(model, phase, inputs, data, settings, progress, checkpointed)
        if not restored:
            run.restore(arrays)
            restored = True
        report = run.run([on_epoch])
        result.selected_epoch = progress.selected_epoch
        progress.next_phase(report)
    result.history, result.phases = progress.history, progress.finished
    result.train_seconds = sum(report.seconds for report in progress.finished)
    _evaluate(result, inputs, views, data, settings, flip_averaging)
    if inputs.cut:
        half = (cache and cache.store.dtype == "float16") or any(layer.compute_dtype in HALF for layer in model.layers)
        tolerance = 2e-2 if half else 1e-4
        found = check_agreement(result.model, data.test.images, result.probabilities, tolerance)
        result.feature_difference = found
    return result


def _shallower_cut(model: keras.Model, phases: list[Phase]) -> FrozenSplit | None:
    """Where the phase that trains most of `phases` cuts the model, if it is not the first; freezes as for the first."""
    first, *later = phases
    found = None
    trained = len(model.trainable_variables)
    for phase in later:
        phase.freeze()
        if len(model.trainable_variables) > trained:
            trained, found = len(model.trainable_variables), cut_model(model)
    first.freeze()
    return found


@dataclass(frozen=True)
class _Views:
    """The images of a split as they are, and mirrored where both are asked for."""

    part: SplitData
    plain: ImageLoader | FeatureArrays
    mirrored: ImageLoader | FeatureArrays | None


def _views(inputs: PhaseData, data: TrainingData, cache: Cache | None, flip_averaging: bool) -> list[_Views]:
    """Validation and test split, computed before a long training so that nothing is missing after it."""
    found = []
    for part in (data.validation, data.test):
        plain = evaluation_inputs(inputs.cut, part, data, cache)
        if isinstance(plain, ImageLoader):
            plain.load()
        flipped = flip_averaging and inputs.cut is not None
        mirrored = evaluation_inputs(inputs.cut, part, data, cache, flipped=True) if flipped else None
        found.append(_Views(part, plain, mirrored))
    return found


def _evaluate(
    result: FitResult,
    inputs: PhaseData,
    views: list[_Views],
    data: TrainingData,
    settings: Settings,
    flip_averaging: bool,
) -> None:
    """Fill in the figures of the final network; the test images are seen here and nowhere before."""
    validation, test = views
    size = settings.evaluation_batch_size
    if flip_averaging:
        network = result.model
        result.model = once_for(network, "flip averaged", lambda: flip_averaged(network))
    result.model.jit_compile = False

    def outputs(view: _Views, description: str) -> np.ndarray:
        if not flip_averaging:
            return predict(inputs.eval_model, view.plain, size, description)
        if view.mirrored is None:
            return predict(result.model, view.plain, size, description)
        both = [predict(inputs.eval_model, x, size, description) for x in (view.plain, view.mirrored)]
        return (both[0] + both[1]) / 2

    kept = result.history[result.selected_epoch]
    result.validation_loss, result.validation_accuracy = kept["val/loss"], kept["val/acc"]
    if flip_averaging:
        found = outputs(validation, "validating")
        result.validation_loss, result.validation_accuracy = loss_and_accuracy(found, data.validation.labels)
    result.probabilities = outputs(test, "testing")
    result.test_loss, result.test_accuracy = loss_and_accuracy(result.probabilities, data.test.labels)


def check_agreement(model: keras.Model, images: ImageLoader, probabilities: np.ndarray, tolerance: float) -> float:
    """Compare, for a few images, the answers of the whole model with what came out of the cached path.

    A larger difference than `tolerance` is said; the training is done, and its figures stand.

    Args:
        model: the trained network, whole.
        images: of the test split.
        probabilities: (N, 1 or classes) float32, by the cached path.
        tolerance: the largest difference of a probability that the order of a sum explains.

    Returns:
        The largest difference.

    Raises:
        RunError: an image gets another class, beyond the tolerance: what was trained is not what is recorded.
    """
    indices = np.arange(min(8, len(probabilities)))
    whole, cached = model.predict_on_batch(images.take_few(indices)), probabilities[indices]
    differences = np.abs(whole - cached).max(axis=1)
    beyond = ~(differences <= tolerance)  # NaN is
    found = f"the whole network and the cached features differ by {differences.max():.2g} in a probability"
    if (beyond & (predicted_classes(whole) != predicted_classes(cached))).any():
        raise RunError(
            f"{found} and in the class of an image: the test figures would not be those of the model. The weights are "
            "kept in the run's checkpoint; train without features, trainer.feature_cache=false"
        )
    if beyond.any():
        warn(
            f"cnnexp: {found}, more than {tolerance:g}; the classes are the same. The test figures are of the features"
        )
    return float(differences.max())
