"""Heat maps laid over photos, and sheets of them with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnexp.data.opencv import cv2
from cnnexp.explain.placement import Grid, even_grid
from cnnexp.sheet import Sheet

WEIGHT = 0.4  # of the heat map, as in the tutorial
PANEL, MARGIN, HEAD = 270, 10, 50  # pixels
SIDE = PANEL - 2 * MARGIN  # of the square that a picture is fitted into
LINE, LETTERS = 17, 12  # of a caption, and the size of its letters
LINE_LETTERS = 34
TOP = 5  # classes that are named, at most


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet: `image` (H, W, 3) uint8 RGB or (H, W, 1) grey, a `caption` of some lines."""

    image: np.ndarray
    caption: str


def overlay(photo: np.ndarray, heatmap: np.ndarray, grid: Grid | None = None, weight: float = WEIGHT) -> np.ndarray:
    """Lay a heat map over a photo: JET x weight + photo (Chollet, "Deep Learning with Python", 5.4.3).

    Args:
        photo: (H, W, 3) uint8 RGB, or (H, W, 1) grey.
        heatmap: (h, w) float in 0..1.
        grid: where its cells lie in the photo; None: spread evenly over it, as in the book.
        weight: of the colours; those of 0 (dark blue) are added too.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    large = enlarged_heatmap(heatmap, photo.shape[:2], grid)
    colours = cv2.applyColorMap((255 * large).astype(np.uint8), cv2.COLORMAP_JET)
    superimposed = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB) * weight + photo
    return np.clip(np.rint(superimposed), 0, 255).astype(np.uint8)


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


def caption(name: str, classes: Sequence[tuple[str, float]]) -> str:
    """A picture's name and a line for each class: `97.3 % dog`."""
    return "\n".join([name, *(f"{100 * probability:.1f} % {label}" for label, probability in classes)])


def contact_sheet(path: str | Path, rows: Sequence[Sequence[Panel]], title: str = "") -> None:
    """Write pictures with captions as a PNG: one row a photo, the photo first, then its overlays.

    Args:
        path: the PNG file; its folder is made.
        rows: the panels, each 270 pixels wide; rows may differ in length. A long line of a caption is cut.
        title: headline of the sheet.
    """
    pictures = [max(_height(panel) for panel in row) for row in rows]
    captions = [[panel.caption.splitlines() for panel in row] for row in rows]
    heads = [LINE * max(map(len, row)) for row in captions]
    height = sum(pictures) + sum(heads) + 2 * MARGIN * len(rows)
    sheet = Sheet(PANEL * max(len(row) for row in rows), round(height) + (HEAD if title else 0))
    top = 0.0
    if title:
        sheet.text(title, MARGIN, 14, 18, bold=True)
        top = float(HEAD)
    for row, texts, head, picture in zip(rows, captions, heads, pictures, strict=True):
        top += MARGIN
        for column, (panel, lines) in enumerate(zip(row, texts, strict=True)):
            left = column * PANEL + MARGIN
            first = top + head - LINE * len(lines)
            for number, line in enumerate(lines):
                sheet.text(_shortened(line), left, round(first + LINE * number), LETTERS)
            high = _height(panel)
            wide = min(SIDE, high * panel.image.shape[1] / panel.image.shape[0])
            sheet.picture(panel.image, left, round(top + head), round(wide), round(high))
        top += head + picture + MARGIN
    sheet.save(path)


def _height(panel: Panel) -> float:
    """Of the picture in pixels, fitted into a square of SIDE."""
    height, width = panel.image.shape[:2]
    return SIDE * min(height / width, 1.0)


def _shortened(line: str) -> str:
    """A line cut to what a panel is wide."""
    return line if len(line) <= LINE_LETTERS else f"{line[: LINE_LETTERS - 1]}…"
