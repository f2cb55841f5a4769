"""Sheets of heat maps over images, for `cnnexp explain` and for the artifacts of a run."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from cnnexp.console import warn
from cnnexp.data.loading import Images
from cnnexp.drawing import Draw, draw_now
from cnnexp.errors import UserError
from cnnexp.explain.methods import METHODS
from cnnexp.explain.overlay import caption, overlay, top_classes
from cnnexp.explain.placement import cell_grid
from cnnexp.report.figures import MOST_ERRORS, draw_errors
from cnnexp.report.predictions import Predictions, worst_mistakes
from cnnexp.sheet import Panel, contact_sheet

EXPLAINED = 8  # images on the sheet of a run
HEAT_MAPS = "explain/heatmaps.png"
ERRORS = "errors.png"


def draw_mistakes(
    folder: Path,
    title: str,
    predictions: Predictions,
    images: Images,
    model: keras.Model | None = None,
    draw: Draw = draw_now,
) -> None:
    """Draw the worst mistakes into `folder/errors.png`; with `model` also why they were made.

    Then each stands beside its heat map, for the class that was answered, and the first of them are drawn large in
    `folder/explain/heatmaps.png`; where there are no mistakes, why the first images were got right.

    Args:
        folder: of the run.
        title: headline of the sheets.
        predictions: of the test images.
        images: the test images.
        model: the network without flip averaging, or None. Where it has no heat maps, that is said.
        draw: draws, now or soon.
    """
    wrong = worst_mistakes(predictions, MOST_ERRORS)
    shown = wrong if len(wrong) or model is None else np.arange(min(EXPLAINED, len(predictions.labels)))
    if not len(shown):
        return
    pictures, classes = images.take_few(shown), predictions.predicted[shown]
    names, ids = predictions.class_names, [predictions.ids[index] for index in shown]
    overlays = None
    if model is not None:
        try:
            overlays = overlaid(model, pictures, classes)
        except UserError as error:  # a network of one's own may have no maps to show
            warn(f"cnnexp: no heat maps: {error}")
    if len(wrong):
        truths, answers = ([names[label] for label in labels] for labels in (predictions.labels[shown], classes))
        confidence = predictions.confidence[shown].tolist()
        draw(draw_errors, folder / ERRORS, list(pictures), truths, answers, confidence, ids, title, overlays)
    if overlays is not None:
        some = slice(EXPLAINED)
        rows = sheet_rows(
            names,
            ids[some],
            pictures[some],
            predictions.probabilities[shown[some]],
            classes[some],
            {"gradcam": overlays[some]},
        )
        draw(contact_sheet, folder / HEAT_MAPS, rows, title)


def overlaid(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, method: str = "gradcam", layer: str | None = None
) -> np.ndarray:
    """Images under heat maps: what speaks for some classes in them.

    Args:
        model: see `cnnexp.explain.target.logit_model`.
        images: (N, H, W, C) uint8 RGB or grey, raw 0..255.
        classes: (N,) the class that each map speaks for.
        method: a key of `METHODS`.
        layer: whose maps are used; None for the last convolution.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        UserError: the model has no such layer, or none with maps.
    """
    maps, grid = METHODS[method](model, images, classes, layer), cell_grid(model, layer)
    return np.stack([overlay(image, heatmap, grid) for image, heatmap in zip(images, maps, strict=True)])


def sheet_rows(
    class_names: Sequence[str],
    names: Sequence[str],
    images: np.ndarray,
    probabilities: np.ndarray,
    classes: np.ndarray,
    overlays: dict[str, np.ndarray],
) -> list[list[Panel]]:
    """One row a photo for `contact_sheet`: the photo with its top classes, then its overlay for each method.

    Args:
        class_names: of all classes.
        names: N captions.
        images: (N, H, W, C) uint8, raw.
        probabilities: (N, classes).
        classes: (N,) the class that each map speaks for.
        overlays: from `overlaid`, by the method's name.
    """
    rows = []
    for index, (name, image) in enumerate(zip(names, images, strict=True)):
        row = [Panel(image, caption(name, top_classes(probabilities[index], class_names)))]
        for method, pictures in overlays.items():
            row.append(Panel(pictures[index], f"{method}\nfor {class_names[classes[index]]}"))
        rows.append(row)
    return rows
