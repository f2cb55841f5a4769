"""A tracked model tested again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnexp.config import Config
from cnnexp.console import say
from cnnexp.errors import UserError
from cnnexp.metrics.names import FIGURE_NAMES
from cnnexp.tracking.protocols import RunStore

if TYPE_CHECKING:
    import numpy as np

    from cnnexp.data.dataset import Dataset, Split
    from cnnexp.models.classifier import LoadedModel
    from cnnexp.report.classes import ClassRow
    from cnnexp.report.predictions import Predictions
    from cnnexp.tracking.info import RunInfo


RECORDED = {name: f"test/{name}" for name in ("acc", "loss", *FIGURE_NAMES)}


@dataclass(frozen=True)
class Evaluation:
    """What came out: the figures of `predictions`, `acc`, `loss` and all others that are defined; `recorded` holds the
    run's own, if they are of the same split; `same_data` says whether the images are those of the run, to the last
    byte."""

    predictions: "Predictions"
    figures: dict[str, float]
    recorded: dict[str, float]
    same_data: bool

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy, 95 % (Wilson)."""
        from cnnexp.metrics.statistics import wilson_interval

        return wilson_interval(int(self.predictions.correct.sum()), len(self.predictions.labels))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 %, of every figure that has one."""
        from cnnexp.metrics.intervals import intervals

        return intervals(self.predictions.labels, self.predictions.probabilities)

    @property
    def classes(self) -> "list[ClassRow]":
        """The figures of each class that has images or answers."""
        from cnnexp.report.classes import class_rows

        return [row for row in class_rows(self.predictions) if row.support or row.values["precision"]]

    @property
    def confusion(self) -> "np.ndarray":
        """(classes, classes) int, row = true class, column = answer."""
        from cnnexp.metrics.statistics import confusion_matrix

        predictions = self.predictions
        return confusion_matrix(predictions.labels, predictions.predicted, len(predictions.class_names))


def class_numbers(model_names: Sequence[str], data_names: Sequence[str]) -> list[int]:
    """For each class of the data, the number that the model has for the class of this name.

    Raises:
        UserError: the model has no class of this name.
    """
    unknown = [name for name in data_names if name not in model_names]
    if unknown:
        raise UserError(
            f"dataset: has the class {unknown[0]!r}, which the model does not know; it knows {', '.join(model_names)}"
        )
    return [list(model_names).index(name) for name in data_names]


def evaluate(config: Config, model: "LoadedModel", dataset: "Dataset", info: "RunInfo", split: str) -> Evaluation:
    """Let the model of a run answer for images.

    Args:
        config: how images are read, and in what batches.
        model: of the run.
        dataset: its classes must be among those of the model.
        info: the run.
        split: train, validation, test, or all three.

    Raises:
        UserError: a class that the model does not know.
    """
    import numpy as np

    from cnnexp.metrics.registry import figures
    from cnnexp.models.classifier import class_probabilities
    from cnnexp.report.predictions import Predictions
    from cnnexp.training.recipe import loss_and_accuracy, predicted_classes

    numbers = np.array(class_numbers(model.class_names, dataset.class_names))
    known: dict[str, Split] = {part.name: part for part in dataset.splits}
    splits = list(known.values()) if split == "all" else [known[split]]
    outputs = np.concatenate([_outputs(config, model, part) for part in splits])
    labels = numbers[np.concatenate([part.labels for part in splits])]
    loss, accuracy = loss_and_accuracy(outputs, labels)
    probabilities = class_probabilities(outputs)
    ids = tuple(image for part in splits for image in part.ids)
    predictions = Predictions(ids, labels, predicted_classes(outputs), probabilities, model.class_names)
    others = {name: value for name, value in figures(labels, probabilities).items() if name not in ("acc", "log_loss")}
    same_data = dataset.digest == info.tags.get("data_digest")
    recorded = {key: info.metrics[name] for key, name in RECORDED.items() if split == "test" and name in info.metrics}
    return Evaluation(predictions, {"acc": accuracy, "loss": loss, **others}, recorded, same_data)


def _outputs(config: Config, model: "LoadedModel", split: "Split") -> "np.ndarray":
    """(N, 1 or classes) float32"""
    from cnnexp.runs.build import split_images
    from cnnexp.training.inputs import predict

    images = split_images(config, split, model.image_size, model.channels)
    model.model.jit_compile = False
    return predict(model.model, images, config.trainer.evaluation_batch_size, f"testing on {split.name} images")


def log_evaluation(tracker: RunStore, run_id: str, dataset: str, split: str, figures: dict[str, float]) -> None:
    """Add figures to a finished run, as evaluate/DATASET/SPLIT/NAME."""
    tracker.add_metrics(run_id, {f"evaluate/{dataset}/{split}/{key}": value for key, value in figures.items()})
    say(f"recorded in run {run_id} as evaluate/{dataset}/{split}/...")
