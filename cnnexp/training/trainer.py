"""The one trainer of every experiment: fit phase after phase, then evaluate on the test images once."""

import time
from dataclasses import dataclass, field

import keras
import numpy as np

from cnnexp.console import warn
from cnnexp.data.loading import ImageLoader
from cnnexp.data.pipeline import FeatureArrays
from cnnexp.errors import RunError
from cnnexp.metrics.decision import ARGMAX, Decision
from cnnexp.metrics.names import VAL_ACC, VAL_LOSS
from cnnexp.models.build import flip_averaged
from cnnexp.models.kept import once_for
from cnnexp.training.callbacks import EpochListener, EpochMetrics
from cnnexp.training.checkpoint import PhaseReport, TrainState, read_checkpoint
from cnnexp.training.features import FrozenSplit, cut_model
from cnnexp.training.inputs import PhaseData, SplitData, Training, predict
from cnnexp.training.phases import Phase, PhaseTrainer, changing_variables
from cnnexp.training.recipe import loss_and_accuracy, predicted_classes

HALF = ("float16", "bfloat16")


@dataclass
class FitResult:
    """What a training gave.

    model:         the trained network, whole: photo in, probability out; with flip averaging it holds both views.
    history:       the figures of each epoch; `selected_epoch` is the index of the one whose weights were kept.
    phases:        what each phase came to.
    validation_*:  of `model`.
    probabilities: (N, 1 or classes) float32, of the test images; `validation_probabilities` of the validation images.
    train_seconds: of all epochs; `cache_seconds` went into the features of what is frozen.
    feature_difference: the largest one of a probability between `model` and what the features gave, where there are
                   features.
    decision:      how probabilities become answers; the training knows none but the most probable class.
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
    validation_probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 1), np.float32))
    train_seconds: float = 0.0
    cache_seconds: float = 0.0
    feature_difference: float | None = None
    decision: Decision = ARGMAX


def train(training: Training, phases: list[Phase], on_epoch: EpochListener, resume: bool = False) -> FitResult:
    """Train the model phase after phase and evaluate it on the test images once.

    What is frozen in a phase is computed once for the validation and test images, and for the training images too
    where they are not augmented; then only the rest of the model runs in each step.

    Args:
        training: what the phases share.
        phases: one or more.
        on_epoch: receives each epoch, counted from 0 through all phases, with its figures. An epoch that was done
            before a resumed training stopped is not handed on again.
        resume: go on from the checkpoint, if there is one, and end as if the training had never stopped.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
        UserError: a file cannot be read, the cache cannot be written, the checkpoint is damaged.
        RunError: see `check_agreement`.
    """
    model, result = training.model, FitResult(training.model)
    stored = read_checkpoint(training.checkpoint) if resume and training.checkpoint else None
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
        inputs = PhaseData(training, _shallower_cut(model, phases[number:]) if training.store else None)
        answering = _answering(inputs) if number == len(phases) - 1 else []
        result.cache_seconds += time.perf_counter() - began if inputs.cut else 0.0
        run = PhaseTrainer(phase, inputs, progress, checkpointed)
        if not restored:
            run.restore(arrays)
            restored = True
        report = run.run(on_epoch)
        result.selected_epoch = progress.selected_epoch
        progress.next_phase(report)
    result.history, result.phases = progress.history, progress.finished
    result.train_seconds = sum(report.seconds for report in progress.finished)
    _evaluate(result, inputs, answering)
    if inputs.cut:
        half = training.store and training.store.dtype == "float16"
        half = half or any(layer.compute_dtype in HALF for layer in model.layers)
        result.feature_difference = check_agreement(
            result.model, training.data.test.images, result.probabilities, tolerance=2e-2 if half else 1e-4
        )
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
class _Answering:
    """What the final network answers for: a split as it is, and mirrored where both are asked for and features kept."""

    split: SplitData
    plain: ImageLoader | FeatureArrays
    mirrored: ImageLoader | FeatureArrays | None


def _answering(inputs: PhaseData) -> list[_Answering]:
    """Validation and test split, computed before a long training so that nothing is missing after it."""
    both = inputs.training.config.flip_averaging and inputs.cut is not None
    found = []
    for split in (inputs.training.data.validation, inputs.training.data.test):
        plain = inputs.of(split)
        if isinstance(plain, ImageLoader):
            plain.load()
        found.append(_Answering(split, plain, inputs.of(split, mirrored=True) if both else None))
    return found


def _evaluate(result: FitResult, inputs: PhaseData, answering: list[_Answering]) -> None:
    """Fill in the figures of the final network; the test images are seen here and nowhere before."""
    validation, test = answering
    config = inputs.training.config
    if config.flip_averaging:
        network = result.model
        result.model = once_for(network, "flip averaged", lambda: flip_averaged(network))
    result.model.jit_compile = False

    def outputs(asked: _Answering, description: str) -> np.ndarray:
        size = config.evaluation_batch_size
        if not config.flip_averaging:
            return predict(inputs.eval_model, asked.plain, size, description)
        if asked.mirrored is None:
            return predict(result.model, asked.plain, size, description)
        both = [predict(inputs.eval_model, x, size, description) for x in (asked.plain, asked.mirrored)]
        return (both[0] + both[1]) / 2

    kept = result.history[result.selected_epoch]
    result.validation_loss, result.validation_accuracy = kept[VAL_LOSS], kept[VAL_ACC]
    found = result.validation_probabilities = outputs(validation, "validating")
    if config.flip_averaging:
        result.validation_loss, result.validation_accuracy = loss_and_accuracy(found, validation.split.labels)
    result.probabilities = outputs(test, "testing")
    result.test_loss, result.test_accuracy = loss_and_accuracy(result.probabilities, test.split.labels)


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
