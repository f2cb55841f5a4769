"""Sheets of heat maps over images."""

from collections.abc import Sequence

import keras
import numpy as np

from cnnexp.explain.methods import METHODS
from cnnexp.explain.overlay import overlay
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
    images: np.ndarray, captions: Sequence[str], classes: Sequence[str], overlays: dict[str, np.ndarray]
) -> list[list[Panel]]:
    """One row a photo for `contact_sheet`: the photo with its caption, then its overlay for each method.

    Args:
        images: (N, H, W, C) uint8, raw.
        captions: N, as `cnnexp.explain.overlay.caption` makes them.
        classes: N names of classes: what each map speaks for.
        overlays: from `overlaid`, by the method's name.
    """
    rows = []
    for index, (image, caption, name) in enumerate(zip(images, captions, classes, strict=True)):
        maps = []
        for method, pictures in overlays.items():
            speaks = "for" if (pictures[index] != image).any() else "nothing for"  # see `overlay`
            maps.append(Panel(pictures[index], f"{method}\n{speaks} {name}"))
        rows.append([Panel(image, caption), *maps])
    return rows
