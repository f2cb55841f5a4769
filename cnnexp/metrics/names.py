"""The names of the figures that a run records, and which way each is better."""

import re
from collections.abc import Iterable, Mapping

# by epoch
TRAIN_LOSS, TRAIN_ACC = "train/loss", "train/acc"
VAL_LOSS, VAL_ACC = "val/loss", "val/acc"
LEARNING_RATE = "lr"
EPOCH_SECONDS = "time/epoch_s"  # of the training steps, without the validation
IMAGES_PER_SECOND = "images_per_s"

# of a table of answers: `cnnexp.metrics.registry` says what each is, and computes it
FIGURE_NAMES = (
    "acc",
    "balanced_acc",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "mcc",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
    "top5_acc",
)
MONITORED = (VAL_ACC, VAL_LOSS, TRAIN_ACC, TRAIN_LOSS, *(f"val/{name}" for name in FIGURE_NAMES[1:]))
FALLING = re.compile(r"(loss|error|(\b|_)(brier|ece))$")  # the names of those that are better when lower

# of the weights that were kept
FINAL_VAL_LOSS, FINAL_VAL_ACC = "final/val_loss", "final/val_acc"
TEST_LOSS, TEST_ACC = "test/loss", "test/acc"
TEST_ECE, TEST_BRIER = "test/ece", "test/brier"
TEST_ROC_AUC, TEST_AVERAGE_PRECISION = "test/roc_auc", "test/average_precision"

# counts, totals and times: MLflow's UI sorts what is below `x/` behind the curves
AGREEMENT = "x/agreement/max_difference"  # of a probability, between the whole network and the cached features
TRAIN_SECONDS, FEATURES_SECONDS, TOTAL_SECONDS = "x/time/train_s", "x/time/features_s", "x/time/total_s"
EPOCHS = "x/count/epochs"
PARAMETERS = "x/count/parameters"
TRAINABLE_PARAMETERS, TRAINABLE_TENSORS = "x/count/trainable_parameters", "x/count/trainable_tensors"
JOBS, FAILED_JOBS = "x/count/jobs", "x/count/failed"  # of a sweep

BEFORE = re.compile(r"(count|phase|agreement)/|time/(train|features|total)_s$")  # without `x/`, in earlier versions


def image_count(split: str) -> str:
    """The name of the number of images of a split: train, validation or test."""
    return f"x/count/{split}_images"


def group_count(split: str) -> str:
    """The name of the number of groups that the images of a split come in."""
    return f"x/count/{split}_groups"


def phase_figure(phase: str, figure: str) -> str:
    """The name of a figure of a phase: trainable_parameters, trainable_tensors or time_s."""
    return f"x/phase/{phase}/{figure}"


def decision_figure(name: str) -> str:
    """The name of a figure of how probabilities become answers, as `threshold` or `val_recall`."""
    return f"x/decision/{name}"


def final(name: str) -> str:
    """Of a validation figure by epoch, the name of that of the weights that were kept: `final/val_acc` of `val/acc`."""
    return name.replace("val/", "final/val_", 1)


def current(name: str) -> str:
    """What a figure of any version is called now."""
    return f"x/{name}" if BEFORE.match(name) else name


def spellings(name: str) -> list[str]:
    """The names under which a figure may be recorded: its own, and that of earlier versions."""
    before = name.removeprefix("x/")
    return [name, before] if current(before) != before else [name]


def current_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures by their names of now; one that is recorded under both has the value of the newer."""
    return {current(name): value for name, value in figures.items() if current(name) != name} | {
        name: value for name, value in figures.items() if current(name) == name
    }


def rises(name: str) -> bool:
    """Whether a figure is the better the higher it is."""
    return not FALLING.search(name)


def figure_of(monitor: str) -> str | None:
    """The name of a monitored figure, of `FIGURE_NAMES` or the user's own; None for one of the training images."""
    if monitor == VAL_LOSS:
        return "log_loss"
    return monitor.removeprefix("val/") if monitor.startswith("val/") else None


def own_figures(metrics: Iterable[str]) -> list[str]:
    """The figures of the user's own among what a run recorded: those of the test images that are not ours."""
    found = [name.removeprefix("test/") for name in metrics if name.startswith("test/")]
    return [name for name in found if name not in (*FIGURE_NAMES, "loss") and not name.endswith(("_low", "_high"))]


def is_better(name: str, one: float, other: float, min_delta: float = 0.0) -> bool:
    """Whether one value of a figure is better than another by more than `min_delta`; NaN never is."""
    gain = one - other if rises(name) else other - one
    return gain > min_delta
