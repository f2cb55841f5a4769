"""The files of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import yaml

from cnnexp.console import shorten, warn
from cnnexp.data.loading import ImageLoader
from cnnexp.drawing import Draw, draw_now
from cnnexp.errors import UserError
from cnnexp.explain.heatmaps import overlaid, sheet_rows
from cnnexp.explain.overlay import caption, top_classes
from cnnexp.files import write_atomic
from cnnexp.metrics.statistics import confusion_matrix
from cnnexp.models.build import Network
from cnnexp.models.classifier import class_probabilities
from cnnexp.models.counts import layer_rows, totals
from cnnexp.report import figures
from cnnexp.report.classes import CLASSES, ClassRow, class_rows, draw_classes, write_classes
from cnnexp.report.figures import MOST_ERRORS, draw_errors
from cnnexp.report.mistakes import MISTAKES, MOST_KEPT, write_mistakes
from cnnexp.report.predictions import (
    PREDICTIONS,
    VAL_PREDICTIONS,
    Predictions,
    read_predictions,
    worst_mistakes,
    write_predictions,
)
from cnnexp.report.scoring import draw_reliability, draw_roc_pr, scores
from cnnexp.runs.build import RunParts
from cnnexp.runs.folder import ERRORS, HEAT_MAPS
from cnnexp.runs.job import Job
from cnnexp.sheet import contact_sheet
from cnnexp.tracking.record import requirements_text, storable
from cnnexp.training.trainer import FitResult

EXPLAINED = 8  # images on the sheet of a run
MOST_CLASSES = 20  # whose figures are metrics; those of more would bury the others
LONGEST_TITLE = 60  # characters of a run's name above its pictures
FILES = (
    "config.yaml",
    "overrides.yaml",
    "summary.txt",
    "requirements.txt",
    "curves.png",
    "confusion.png",
    "reliability.png",
    "roc_pr.png",
    "classes.png",
    CLASSES,
    ERRORS,
    PREDICTIONS,
    VAL_PREDICTIONS,
    MISTAKES,
    HEAT_MAPS,
)


@dataclass(frozen=True)
class Answers:
    """What a network answered for the test images.

    predictions: its answers.
    images:      the test images.
    model:       the network without flip averaging, to say why; None where that is not asked for.
    """

    predictions: Predictions
    images: ImageLoader
    model: keras.Model | None = None


def write(job: Job, parts: RunParts, fitted: FitResult, explain: bool, draw: Draw) -> dict[str, float]:
    """Write the files of `FILES` into the run's folder; some only where there is something to show, pictures by `draw`.

    `errors.png` needs errors, `roc_pr.png` test images of two classes, `explain/heatmaps.png` a network with maps.
    Without `explain` there are no heat maps.

    Returns:
        The figures of `scores`, and of up to 20 classes their own, as `x/class/NAME/recall`.
    """
    folder, network, dataset, images = job.folder.path, parts.network, parts.dataset, parts.data.test.images
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "config.yaml": yaml.safe_dump(job.shown, sort_keys=False),
        "overrides.yaml": yaml.safe_dump(job.overrides),
        "summary.txt": summary_text(network),
        "requirements.txt": requirements_text(),
    }
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    title = shorten(job.run_name, LONGEST_TITLE)
    history = {key: [epoch[key] for epoch in fitted.history] for key in fitted.history[0]}
    phases = [(phase.name, phase.epochs) for phase in fitted.phases]
    draw(figures.draw_curves, folder / "curves.png", history, title, phases)
    for name, split, outputs in (
        (VAL_PREDICTIONS, dataset.validation, fitted.validation_probabilities),
        (PREDICTIONS, dataset.test, fitted.probabilities),
    ):
        if len(outputs):
            probabilities = class_probabilities(outputs)
            answered = fitted.decision.classes(probabilities), probabilities
            write_predictions(folder / name, split.ids, split.labels, answered, dataset.class_names, split.groups)
    predictions = replace(read_predictions(folder / PREDICTIONS), decision=fitted.decision)
    metrics = scores(predictions)
    rows = class_rows(predictions)
    write_classes(folder / CLASSES, rows)
    if metrics and len(rows) <= MOST_CLASSES:
        metrics |= class_metrics(rows)
    _draw_scores(draw, folder, title, predictions, rows)
    _keep_mistakes(folder / MISTAKES, predictions, images)
    draw_mistakes(folder, title, Answers(predictions, images, network.model if explain else None), draw)
    return metrics


def _draw_scores(draw: Draw, folder: Path, title: str, predictions: Predictions, rows: Sequence[ClassRow]) -> None:
    matrix = confusion_matrix(predictions.labels, predictions.predicted, len(predictions.class_names))
    draw(figures.draw_confusion, folder / "confusion.png", matrix, predictions.class_names, title)
    if np.isfinite(predictions.probabilities).all():
        draw(draw_reliability, folder / "reliability.png", predictions, title)
        draw(draw_roc_pr, folder / "roc_pr.png", predictions, title)
        draw(draw_classes, folder / "classes.png", rows, title)


def class_metrics(rows: Sequence[ClassRow]) -> dict[str, float]:
    """The figures of single classes as metrics to record: `x/class/NAME/recall`, precision, f1 and support."""
    names = storable({f"x/class/{row.name}": "" for row in rows})  # two classes never become one
    found: dict[str, float] = {}
    for name, row in zip(names, rows, strict=True):
        found |= {f"{name}/{figure}": value for figure, value in row.values.items()}
        found[f"{name}/support"] = row.support
    return found


def _keep_mistakes(path: Path, predictions: Predictions, images: ImageLoader) -> None:
    """The worst mistakes as thumbnails, from which comparisons take their pictures."""
    kept = worst_mistakes(predictions, MOST_KEPT)
    names, ids = predictions.class_names, [predictions.ids[index] for index in kept]
    truths, answers = ([names[n] for n in labels[kept]] for labels in (predictions.labels, predictions.predicted))
    write_mistakes(path, ids, truths, answers, list(images.take_few(kept)))


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


def draw_mistakes(folder: Path, title: str, answers: Answers, draw: Draw = draw_now) -> None:
    """Draw the worst mistakes into `folder/errors.png`; with a model also why they were made.

    Then each stands beside its heat map, for the class that was answered, and the first of them are drawn large in
    `folder/explain/heatmaps.png`; where there are no mistakes, why the first images were got right.

    Args:
        folder: of the run.
        title: headline of the sheets.
        answers: for the test images. Where the model has no heat maps, that is said.
        draw: draws, now or soon.
    """
    predictions, model = answers.predictions, answers.model
    wrong = worst_mistakes(predictions, MOST_ERRORS)
    shown = wrong if len(wrong) or model is None else np.arange(min(EXPLAINED, len(predictions.labels)))
    if not len(shown):
        return
    pictures, classes = answers.images.take_few(shown), predictions.predicted[shown]
    names = predictions.class_names
    overlays = None
    if model is not None:
        try:
            overlays = overlaid(model, pictures, classes)
        except UserError as error:  # a network of one's own may have no maps to show
            warn(f"cnnexp: no heat maps: {error}")
    if len(wrong):
        draw(draw_errors, folder / ERRORS, predictions.take(shown), list(pictures), title, overlays)
    if overlays is not None:
        some = slice(EXPLAINED)
        captions = [
            caption(
                predictions.ids[index],
                top_classes(predictions.probabilities[index], names),
                names[predictions.labels[index]],
            )
            for index in shown[some]
        ]
        rows = sheet_rows(
            pictures[some], captions, [names[label] for label in classes[some]], {"gradcam": overlays[some]}
        )
        draw(contact_sheet, folder / HEAT_MAPS, rows, title)
