"""A sheet of heat maps over images, for `cnnexp explain` and for the artifacts of a run."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from cnnexp.explain.methods import METHODS
from cnnexp.explain.overlay import Panel, caption, contact_sheet, overlay, top_classes
from cnnexp.explain.placement import cell_grid


def draw_heat_maps(
    path: Path,
    title: str,
    model: keras.Model,
    class_names: Sequence[str],
    names: Sequence[str],
    images: np.ndarray,
    probabilities: np.ndarray,
    classes: np.ndarray,
    methods: Sequence[str] = ("gradcam",),
    layer: str | None = None,
) -> None:
    """Write one row a photo: the photo with its top classes, then an overlay for each method.

    Args:
        path: the PNG file.
        names: N captions.
        images: (N, H, W, C) uint8, raw.
        probabilities: (N, classes).
        classes: (N,) the class that each map speaks for.
        methods: keys of `METHODS`.
        layer: whose maps are used; None for the last convolution.

    Raises:
        UserError: the model has no such layer, or none with maps.
    """
    maps = {method: METHODS[method](model, images, classes, layer) for method in methods}
    grid = cell_grid(model, layer)
    rows = []
    for index, (name, image) in enumerate(zip(names, images, strict=True)):
        row = [Panel(image, caption(name, top_classes(probabilities[index], class_names)))]
        for method in methods:
            label = f"{method}\nfor {class_names[classes[index]]}"
            row.append(Panel(overlay(image, maps[method][index], grid), label))
        rows.append(row)
    contact_sheet(path, rows, title)


def mistake_overlays(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, method: str = "gradcam"
) -> np.ndarray:
    """Photos under the heat maps of some classes: what the network saw in them.

    Args:
        model: see `cnnexp.explain.target.logit_model`.
        images: (N, H, W, C) uint8 RGB or grey, raw 0..255.
        classes: (N,) the class that each map speaks for, as the one that was wrongly predicted.
        method: a key of `METHODS`.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        UserError: the network has no feature maps.
    """
    maps = METHODS[method](model, images, classes)
    grid = cell_grid(model)
    return np.stack([overlay(image, heatmap, grid) for image, heatmap in zip(images, maps, strict=True)])
