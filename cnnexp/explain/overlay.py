"""Heat maps laid over photos, and sheets of them with captions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cnnexp.data.opencv import cv2
from cnnexp.explain.placement import Grid, even_grid
from cnnexp.files import write_whole

WEIGHT = 0.4  # of the heat map, as in the tutorial
PANEL_INCHES = 2.7
MARGIN_INCHES = 0.1
SIDE_INCHES = PANEL_INCHES - 2 * MARGIN_INCHES  # of the square that a picture is fitted into
HEAD_INCHES = 0.5
LINE_INCHES = 0.17  # a line of a caption
LINE_LETTERS = 34
TOP = 5  # classes that are named, at most
DPI = 100


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
    pictures = [SIDE_INCHES * max(_height(panel) for panel in row) for row in rows]
    texts = [[_shortened(panel.caption) for panel in row] for row in rows]
    captions = [LINE_INCHES * max(text.count("\n") + 1 for text in row) for row in texts]
    top = sum(pictures) + sum(captions) + 2 * MARGIN_INCHES * len(rows)
    width, height = PANEL_INCHES * max(len(row) for row in rows), top + (HEAD_INCHES if title else 0)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.text(0.1 / width, 1, f"\n{title}", va="top", fontsize=13, fontweight="bold", parse_math=False)
    for row, row_texts, above, picture in zip(rows, texts, captions, pictures, strict=True):
        top -= above + MARGIN_INCHES
        for column, (panel, text) in enumerate(zip(row, row_texts, strict=True)):
            _draw(figure, panel, text, column * PANEL_INCHES + MARGIN_INCHES, top)
        top -= picture + MARGIN_INCHES
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks becomes a box
        canvas.draw()
    write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])


def _height(panel: Panel) -> float:
    """Of the picture, as a share of `SIDE_INCHES`, into which it is fitted."""
    height, width = panel.image.shape[:2]
    return min(height / width, 1.0)


def _draw(figure: Figure, panel: Panel, text: str, left: float, top: float) -> None:
    """Draw a panel whose picture has its upper left corner so many inches from the sheet's lower left one."""
    width, height = figure.get_size_inches()
    place = (left / width, (top - SIDE_INCHES) / height, SIDE_INCHES / width, SIDE_INCHES / height)
    axes = figure.add_axes(place)
    image = np.repeat(panel.image, 3, axis=2) if panel.image.shape[2] == 1 else panel.image
    axes.imshow(image, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_anchor("NW")
    figure.text(left / width, (top + 0.04) / height, text, va="bottom", fontsize=9, parse_math=False)


def _shortened(text: str) -> str:
    """Each line cut to what a panel is wide."""
    return "\n".join(
        line if len(line) <= LINE_LETTERS else f"{line[: LINE_LETTERS - 1]}…" for line in text.splitlines()
    )


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as a PNG that appears whole or not at all; its folder is made."""
    write_whole(path, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
