"""Sheets of heat maps over images."""

from collections.abc import Sequence

import keras
import numpy as np

from cnnexp.explain.methods import METHODS
from cnnexp.explain.overlay import caption, overlay, top_classes
from cnnexp.explain.placement import cell_grid
from cnnexp.sheet import Panel


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
