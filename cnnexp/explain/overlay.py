"""Heat maps laid over photos, and their captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnexp.console import visible
from cnnexp.data.opencv import cv2
from cnnexp.explain.placement import Grid, even_grid

WEIGHT = 0.5  # of the heat map
TOP = 5  # classes that are named, at most


def overlay(photo: np.ndarray, heatmap: np.ndarray, grid: Grid | None = None, weight: float = WEIGHT) -> np.ndarray:
    """Lay a heat map over a photo: JET x weight + photo x (1 - weight).

    Colours that are added to the photo, as in Chollet, "Deep Learning with Python", 5.4.3, are clipped on a white one.

    Args:
        photo: (H, W, 3) uint8 RGB, or (H, W, 1) grey.
        heatmap: (h, w) float in 0..1.
        grid: where its cells lie in the photo; None: spread evenly over it, as in the book.
        weight: of the colours, those of 0 (dark blue) too.

    Returns:
        (H, W, 3) uint8 RGB; where the map is 0 all over, the photo as it is: one colour would look like an answer.
    """
    if not heatmap.any():
        return np.broadcast_to(photo, (*photo.shape[:2], 3)).copy()
    large = enlarged_heatmap(heatmap, photo.shape[:2], grid)
    colours = cv2.applyColorMap((255 * large).astype(np.uint8), cv2.COLORMAP_JET)
    return np.rint(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB) * weight + photo * (1 - weight)).astype(np.uint8)


def enlarged_heatmap(heatmap: np.ndarray, size: tuple[int, int], grid: Grid | None = None) -> np.ndarray:
    """(h, w) float in 0..1 -> (H, W) float32 in 0..1, interpolated linearly between the centres of the cells.

    Args:
        heatmap: beyond its outermost centres it goes on as it is there.
        size: (H, W).
        grid: where its cells lie in the image; None: spread evenly over it.
    """
    height, width = size
    grid = grid or even_grid((heatmap.shape[0], heatmap.shape[1]), size)
    (top, left), (down, right) = grid.first, grid.stride
    to_cells = np.array([[1 / right, 0, (0.5 - left) / right], [0, 1 / down, (0.5 - top) / down]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(
        heatmap.astype(np.float32), to_cells, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.clip(large, 0, 1)


def top_classes(probabilities: np.ndarray, class_names: Sequence[str], count: int = TOP) -> list[tuple[str, float]]:
    """The likeliest classes with their probabilities, likeliest first.

    Args:
        probabilities: (n,) of one image, or (1,) with the probability of the second of two classes.
        class_names: n names, or two.
        count: how many at most.
    """
    values = np.asarray(probabilities, np.float64).ravel()
    if len(values) == 1:
        values = np.array([1 - values[0], values[0]])
    order = np.argsort(-values, kind="stable")[:count]
    return [(class_names[index], float(values[index])) for index in order]


def caption(name: str, classes: Sequence[tuple[str, float]], truth: str = "") -> str:
    """A picture's name, where it is known the class that it is of, and a line for each class: `97.3 % dog`."""
    lines = [name, *([f"true: {truth}"] if truth else [])]
    lines += [f"{100 * probability:.1f} % {label}" for label, probability in classes]
    return "\n".join(map(visible, lines))
