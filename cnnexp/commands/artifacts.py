"""The files of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cnnexp.commands.heatmaps import draw_heat_maps
from cnnexp.console import warn
from cnnexp.data.sources import Dataset
from cnnexp.errors import UserError
from cnnexp.files import write_whole
from cnnexp.models.build import Network
from cnnexp.models.counts import layer_rows, totals
from cnnexp.report import figures
from cnnexp.report.predictions import Predictions, read_predictions, worst_mistakes, write_predictions
from cnnexp.report.statistics import confusion_matrix
from cnnexp.tracking.record import requirements_text
from cnnexp.training.trainer import FitResult, TrainingData

FILES = (
    "config.yaml",
    "overrides.yaml",
    "summary.txt",
    "requirements.txt",
    "curves.png",
    "confusion.png",
    "errors.png",
    "predictions.csv",
    "explain/heatmaps.png",
)
EXPLAINED = 8  # images on the sheet of heat maps


def write(
    folder: Path,
    resolved: dict[str, Any],
    overrides: list[str],
    network: Network,
    dataset: Dataset,
    data: TrainingData,
    fit: FitResult,
) -> None:
    """Write every file of `FILES` into `folder`; `errors.png` only where there are errors."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "config.yaml": yaml.safe_dump(resolved, sort_keys=False),
        "overrides.yaml": yaml.safe_dump(overrides),
        "summary.txt": summary_text(network),
        "requirements.txt": requirements_text(),
    }
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
    title = network.model.name
    history = {key: [epoch[key] for epoch in fit.history] for key in fit.history[0]}
    figures.draw_curves(folder / "curves.png", history, title)
    write_predictions(
        folder / "predictions.csv", dataset.test.ids, dataset.test.labels, _all_classes(fit), dataset.class_names
    )
    predictions = read_predictions(folder / "predictions.csv")
    matrix = confusion_matrix(predictions.labels, predictions.predicted, len(dataset.class_names))
    figures.draw_confusion(folder / "confusion.png", matrix, dataset.class_names, title)
    _draw_mistakes(folder, title, predictions, data)
    _draw_heat_maps(folder, network, predictions, data)


def _draw_mistakes(folder: Path, title: str, predictions: Predictions, data: TrainingData) -> None:
    worst = worst_mistakes(predictions)
    if not len(worst):
        return
    names = predictions.class_names
    figures.draw_errors(
        folder / "errors.png",
        list(data.test.images.take(worst)),
        [names[label] for label in predictions.labels[worst]],
        [names[label] for label in predictions.predicted[worst]],
        predictions.probabilities[worst, predictions.predicted[worst]].tolist(),
        [predictions.ids[index] for index in worst],
        title,
    )


def _draw_heat_maps(folder: Path, network: Network, predictions: Predictions, data: TrainingData) -> None:
    """Why the worst mistakes were made; where there are none, why the first test images were got right."""
    chosen = worst_mistakes(predictions, EXPLAINED)
    if not len(chosen):
        chosen = np.arange(min(EXPLAINED, len(predictions.labels)))
    try:
        draw_heat_maps(
            folder / "explain" / "heatmaps.png",
            network.model.name,
            network.model,
            predictions.class_names,
            [predictions.ids[index] for index in chosen],
            data.test.images.take(chosen),
            predictions.probabilities[chosen],
            predictions.predicted[chosen],
        )
    except UserError as error:  # a network of one's own may have no maps to show
        warn(f"cnnexp: no heat maps: {error}")


def summary_text(network: Network) -> str:
    """The layers and parameters as plain text."""
    lines = [
        f"{row.name:<28} {row.type:<24} {row.output_shape!s:<20} {row.parameters:>12,}  "
        f"{'trained' if row.trainable else '':<8} {row.formula}".rstrip()
        for row in layer_rows(network)
    ]
    sums = totals(network)
    lines.append(
        f"total {sums.total:,}, backbone {sums.backbone:,}, head {sums.head:,}, "
        f"trained {sums.trainable:,} in {sums.trainable_tensors} tensors"
    )
    return "\n".join(lines) + "\n"


def _all_classes(fit: FitResult) -> np.ndarray:
    """Probabilities of every class, (N, classes), also where the model puts out only that of class 1."""
    if fit.probabilities.shape[1] > 1:
        return fit.probabilities
    return np.concatenate([1 - fit.probabilities, fit.probabilities], axis=1)
