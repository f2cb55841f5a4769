"""A tracked model tested again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnexp.commands.evaluate import Request
from cnnexp.config import Config
from cnnexp.console import say
from cnnexp.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from cnnexp.data.dataset import Dataset, Split
    from cnnexp.models.classifier import RecordedModel
    from cnnexp.report.predictions import Predictions
    from cnnexp.tracking.info import RunInfo


RECORDED = {"acc": "test/acc", "loss": "test/loss", "ece": "test/ece"}


@dataclass(frozen=True)
class Evaluation:
    """What came out: the figures `acc`, `loss`, `ece` of `predictions`; `recorded` holds the run's own, if they are
    of the same split of the same data set, to the last byte if `same_data`."""

    predictions: "Predictions"
    figures: dict[str, float]
    recorded: dict[str, float]
    same_data: bool


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


def _evaluate(
    config: Config, model: "RecordedModel", dataset: "Dataset", info: "RunInfo", request: Request, own: bool
) -> Evaluation:
    import numpy as np

    from cnnexp.models.classifier import class_probabilities
    from cnnexp.report.predictions import Predictions
    from cnnexp.report.statistics import calibration
    from cnnexp.training.recipe import loss_and_accuracy

    numbers = np.array(class_numbers(model.class_names, dataset.class_names))
    known: dict[str, Split] = {split.name: split for split in (dataset.train, dataset.validation, dataset.test)}
    splits = list(known.values()) if request.split == "all" else [known[request.split]]
    outputs = np.concatenate([_outputs(config, model, split) for split in splits])
    labels = numbers[np.concatenate([split.labels for split in splits])]
    loss, accuracy = loss_and_accuracy(outputs, labels)
    probabilities = class_probabilities(outputs)
    predicted = (outputs[:, 0] > 0.5).astype(np.int64) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    ids = tuple(image for split in splits for image in split.ids)
    predictions = Predictions(ids, labels, predicted, probabilities, model.class_names)
    error = calibration(predictions.confidence, predictions.correct).error
    same_data = dataset.digest == info.tags.get("data_digest")
    comparable = request.split == "test" and (own or same_data)
    recorded = {key: info.metrics[name] for key, name in RECORDED.items() if comparable and name in info.metrics}
    return Evaluation(predictions, {"acc": accuracy, "loss": loss, "ece": error}, recorded, same_data)


def _outputs(config: Config, model: "RecordedModel", split: "Split") -> "np.ndarray":
    """(N, 1 or classes) float32"""
    from cnnexp.runs.build import split_images
    from cnnexp.training.inputs import predict

    images = split_images(config, split, model.image_size, model.channels)
    model.model.jit_compile = False
    return predict(model.model, images, config.trainer.evaluation_batch_size, f"testing on {split.name} images")


def _interval(predictions: "Predictions") -> tuple[float, float]:
    from cnnexp.report.statistics import wilson_interval

    return wilson_interval(int(predictions.correct.sum()), len(predictions.labels))


def _confusion(predictions: "Predictions") -> "np.ndarray":
    from cnnexp.report.statistics import confusion_matrix

    return confusion_matrix(predictions.labels, predictions.predicted, len(predictions.class_names))


def _log(tracker: Any, run_id: str, dataset: str, split: str, figures: dict[str, float]) -> None:
    from cnnexp.tracking.record import storable_name

    for key, value in figures.items():
        tracker.client().log_metric(run_id, storable_name(f"evaluate/{dataset}/{split}/{key}"), value)
    say(f"recorded in run {run_id} as evaluate/{dataset}/{split}/...")
