"""The files of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cnnexp.commands.heatmaps import draw_heat_maps, mistake_overlays
from cnnexp.console import warn
from cnnexp.data.dataset import Dataset
from cnnexp.errors import UserError
from cnnexp.files import write_whole
from cnnexp.models.build import Network
from cnnexp.models.counts import layer_rows, totals
from cnnexp.report import figures
from cnnexp.report.mistakes import MISTAKES, MOST_KEPT, write_mistakes
from cnnexp.report.predictions import Predictions, read_predictions, worst_mistakes, write_predictions
from cnnexp.report.scoring import draw_reliability, draw_roc_pr, error_metrics
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
    "reliability.png",
    "roc_pr.png",
    "errors.png",
    "predictions.csv",
    MISTAKES,
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
    explain: bool = True,
) -> dict[str, float]:
    """Write the files of `FILES` into `folder`; some only where there is something to show.

    `errors.png` needs errors, `roc_pr.png` test images of two classes, `explain/heatmaps.png` a network with maps.
    Without `explain` there are no heat maps.

    Returns:
        The figures of `error_metrics`.
    """
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
    metrics = error_metrics(predictions)
    _draw_scores(folder, title, predictions)
    _show_mistakes(folder, network, predictions, data, explain)
    if explain:
        _draw_heat_maps(folder, network, predictions, data)
    return metrics


def _draw_scores(folder: Path, title: str, predictions: Predictions) -> None:
    matrix = confusion_matrix(predictions.labels, predictions.predicted, len(predictions.class_names))
    figures.draw_confusion(folder / "confusion.png", matrix, predictions.class_names, title)
    if np.isfinite(predictions.probabilities).all():
        draw_reliability(folder / "reliability.png", predictions.confidence, predictions.correct, title)
        draw_roc_pr(folder / "roc_pr.png", predictions, title)


def _show_mistakes(folder: Path, network: Network, predictions: Predictions, data: TrainingData, explain: bool) -> None:
    """The worst as a picture, each with what the network saw in it, and more of them as thumbnails."""
    kept = worst_mistakes(predictions, MOST_KEPT)
    names = predictions.class_names
    images = data.test.images.take(kept)
    ids = [predictions.ids[index] for index in kept]
    truths = [names[label] for label in predictions.labels[kept]]
    predicteds = [names[label] for label in predictions.predicted[kept]]
    write_mistakes(folder / MISTAKES, ids, truths, predicteds, list(images))
    if not len(kept):
        return
    worst = slice(figures.MOST_ERRORS)
    figures.draw_errors(
        folder / "errors.png",
        list(images[worst]),
        truths[worst],
        predicteds[worst],
        predictions.confidence[kept[worst]].tolist(),
        ids[worst],
        network.model.name,
        _overlays(network, images[worst], predictions.predicted[kept[worst]]) if explain else None,
    )


def _overlays(network: Network, images: np.ndarray, classes: np.ndarray) -> np.ndarray | None:
    """The images (N, H, W, C) under the heat maps of `classes` (N,); None where the network has no maps."""
    try:
        return mistake_overlays(network.model, images, classes)
    except UserError:  # `_draw_heat_maps` says so
        return None


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
