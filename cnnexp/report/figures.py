"""Pictures of one run: curves, confusion, worst mistakes. Each function writes one PNG.

Drawn with matplotlib's objects alone: no pyplot and no global settings, which belong to the user's notebook.
"""

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cnnexp.files import write_whole

INK, MUTED, LINES, PAPER = "#1c2733", "#66727f", "#dde3e9", "#ffffff"
BLUE, ORANGE, GREEN, RED = "#1f6fb4", "#e07b24", "#23855a", "#c23b3b"
TINTS = LinearSegmentedColormap.from_list("tints", [PAPER, "#9cc3e3", BLUE, "#12436d"])
PLAIN: dict[str, Any] = {"color": INK, "parse_math": False}  # a name may hold a dollar sign
MOST_TICKS = 30  # more classes than this get no names on the axes
MOST_NUMBERS = 12  # more classes than this get no numbers in the cells
MOST_CELLS = 150  # more classes than this share cells
MOST_ERRORS = 24


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty sheet of `width` x `height` inches, 100 pixels an inch, laid out so that nothing overlaps."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(width, height), dpi=100, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold", **PLAIN)
    return figure


def save_png(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks becomes a box
        figure.savefig(buffer, format="png")
    write_whole(path, buffer.getvalue())


def style(axes: Axes, x_label: str, y_label: str, subtitle: str = "") -> None:
    """The common look: thin grid behind, no box, quiet ticks."""
    axes.set_axisbelow(True)
    axes.grid(color=LINES, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=MUTED, length=0, labelsize=10)
    axes.set_xlabel(x_label, color=MUTED, fontsize=10)
    axes.set_ylabel(y_label, color=MUTED, fontsize=10)
    axes.set_title(subtitle, loc="left", fontsize=11, **PLAIN)


def draw_curves(path: str | Path, history: dict[str, list[float]], title: str) -> None:
    """Accuracy and loss by epoch, side by side; the best validation epoch is marked.

    Args:
        path: the PNG file.
        history: `train/acc`, `val/acc`, `train/loss`, `val/loss`, a value an epoch; others are not drawn.
        title: the headline.
    """
    figure = new_figure(11, 4.2, title)
    for axes, metric, words in zip(figure.subplots(1, 2), ("acc", "loss"), ("accuracy", "loss"), strict=True):
        style(axes, "epoch", "", words)
        for split, name, colour in (("train", "training", BLUE), ("val", "validation", ORANGE)):
            values = np.array(history.get(f"{split}/{metric}", []), np.float64)
            if not np.isfinite(values).any():
                continue
            epochs = np.arange(1, len(values) + 1)
            dot = "o" if len(values) < 16 else ""
            axes.plot(epochs, values, color=colour, linewidth=2, marker=dot, ms=4, label=name)
            if split == "val":
                best = int(np.nanargmax(values) if metric == "acc" else np.nanargmin(values))
                label = f"best {values[best]:.4f}, epoch {best + 1}"
                axes.plot(best + 1, values[best], "o", ms=10, mfc="none", mec=colour, mew=2, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.lines:
            axes.set_xlim(0.5, max(len(line.get_xdata()) for line in axes.lines) + 0.5)
            axes.legend(frameon=False, labelcolor=INK, fontsize=10)
    save_png(figure, path)


def draw_confusion(path: str | Path, matrix: np.ndarray, class_names: Sequence[str], title: str) -> None:
    """Confusion matrix, rows coloured by share; above 12 classes with a list of the most frequent confusions.

    Args:
        path: the PNG file.
        matrix: (n, n) int, row = true class, column = predicted class.
        class_names: n names; left out above 30 classes, as are the numbers in the cells above 12. Above 150,
            a cell stands for a block of classes and shows the largest share in it.
        title: the headline.
    """
    count = len(class_names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    many = count > MOST_NUMBERS
    side = min(9.0, 4.2 + 0.35 * count)
    figure = new_figure(side + (5.0 if many else 1.2), side, title)
    axes, *beside = figure.subplots(1, 1 + many, squeeze=False, width_ratios=[3, 1] if many else None)[0]
    right = f"{int(np.trace(matrix))} of {int(matrix.sum())} right, {count} classes"
    style(axes, "predicted class", "true class", right)
    axes.grid(False)
    extent = (-0.5, count - 0.5, count - 0.5, -0.5)
    image = axes.imshow(_pooled(share), cmap=TINTS, vmin=0, vmax=1, interpolation="nearest", extent=extent)
    axes.set_xticks([])
    axes.set_yticks([])
    if count <= MOST_TICKS:
        names = [shorten(name, 24) for name in class_names]
        axes.set_xticks(range(count), names, parse_math=False)
        if max(map(len, names)) * count > 40:
            axes.tick_params("x", rotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names, parse_math=False)
    if many:
        _list_confusions(beside[0], matrix, class_names)
    else:
        _write_cells(axes, matrix, share)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, format=lambda value, _: f"{100 * value:.0f} %")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, length=0)
    bar.set_label("share of the true class", color=MUTED)
    save_png(figure, path)


def _pooled(share: np.ndarray) -> np.ndarray:
    """`share` as it is, or the largest of each block, so that a cell is never smaller than some pixels."""
    block = math.ceil(len(share) / MOST_CELLS)
    room = -len(share) % block
    cells = np.pad(share, (0, room)).reshape((len(share) + room) // block, block, -1, block)
    return cells.max(axis=(1, 3))


def _write_cells(axes: Axes, matrix: np.ndarray, share: np.ndarray) -> None:
    few = len(matrix) <= 6
    for row, column in np.ndindex(matrix.shape):
        text = f"{matrix[row, column]}" + (f"\n{100 * share[row, column]:.1f} %" if few else "")
        colour = PAPER if share[row, column] > 0.45 else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=13 if few else 10)


def _list_confusions(axes: Axes, matrix: np.ndarray, class_names: Sequence[str], most: int = 15) -> None:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    cells = np.argsort(-wrong, axis=None, kind="stable")[:most]
    lines = [
        f"{wrong[row, column]}  {shorten(class_names[row], 20)} → {shorten(class_names[column], 20)}"
        for row, column in zip(*np.unravel_index(cells, wrong.shape), strict=True)
        if wrong[row, column]
    ]
    axes.set_axis_off()
    axes.set_title("most frequent confusions" if lines else "no confusions", loc="left", fontsize=11, **PLAIN)
    words = "\n".join(lines)
    axes.text(0, 0.98, words, transform=axes.transAxes, va="top", fontsize=10, linespacing=1.7, **PLAIN)


def shorten(name: str, longest: int) -> str:
    """`name`, its middle left out where it is longer than `longest` characters."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 3
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def draw_errors(
    path: str | Path,
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    predicteds: Sequence[str],
    probabilities: Sequence[float],
    ids: Sequence[str],
    title: str,
    overlays: Sequence[np.ndarray] | np.ndarray | None = None,
) -> None:
    """Contact sheet of wrong answers: at most 24, the most confident first.

    Args:
        path: the PNG file.
        images: N times (H, W, 3) uint8 RGB or (H, W, 1) uint8 grey, 0..255; sizes may differ.
        truths: N names of true classes.
        predicteds: N names of predicted classes.
        probabilities: N, given to the predicted class, 0 to 1.
        ids: N names of the images.
        title: the headline.
        overlays: N times (H, W, 3) uint8 RGB, the image with its heat map, to stand beside it.
    """
    order = np.argsort(-np.asarray(probabilities, np.float64), kind="stable")[:MOST_ERRORS]
    wide = overlays is not None
    columns = min(4, max(2, len(order))) if wide else min(6, max(3, len(order)))
    rows = max(1, math.ceil(len(order) / columns))
    figure = new_figure((3.5 if wide else 2.1) * columns, (2.45 if wide else 2.75) * rows + 0.6, title)
    if not len(order):
        figure.text(0.5, 0.45, "no mistakes", ha="center", fontsize=16, color=GREEN)
    elif wide:
        figure.supxlabel("right of each image: where the network saw its answer", color=MUTED, fontsize=10)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, index in zip(cells, order, strict=False):
        picture = images[index] if overlays is None else _beside(images[index], overlays[index])
        _draw_picture(axes, picture)
        answer = f"{shorten(predicteds[index], 16)} {100 * probabilities[index]:.1f} %"
        axes.set_title(answer, fontsize=11, fontweight="bold", color=RED, parse_math=False)
        below = f"truth: {shorten(truths[index], 18)}\n{shorten(ids[index], 26)}"
        axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=9, **PLAIN)
    save_png(figure, path)


def _beside(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Two pictures of (H, W, 1 or 3) and (H, W, 3) as one, (H, 2 W, 3)."""
    return np.concatenate([np.broadcast_to(image, overlay.shape), overlay], axis=1)


def _draw_picture(axes: Axes, picture: np.ndarray) -> None:
    """A picture in a red frame; grey ones, and pixels large enough to be seen, as they are."""
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.shape[-1] == 1 else {}
    axes.imshow(picture, interpolation="nearest" if picture.shape[0] < 64 else "antialiased", **grey)
    height, width = picture.shape[:2]
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=RED, linewidth=2))
