"""Pictures of one run: curves, confusion, worst mistakes. Each function writes one PNG."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnexp.console import shorten, shorten_all
from cnnexp.report.predictions import Predictions, worst_mistakes
from cnnexp.report.style import BLUE, LETTER, ORANGE, TINTS, Margins, new_figure, save_png, style
from cnnexp.sheet import GREEN, INK, MUTED, PAPER, RED, Sheet, fitted

MOST_TICKS = 30  # more classes than this get no names on the axes
MOST_NUMBERS = 12  # more classes than this get no numbers in the cells
MOST_CELLS = 150  # more classes than this share cells
MOST_ERRORS = 24
ROOM_FOR_NAME = 0.12  # of all epochs: the name of a shorter phase would run into the next one
CELL, GAP, HEAD, CAPTION, NOTE = 170, 30, 52, 80, 30  # pixels of the sheet of mistakes


def draw_curves(
    path: str | Path, history: dict[str, list[float]], title: str, phases: Sequence[tuple[str, int]] = ()
) -> None:
    """Accuracy and loss by epoch, side by side; the best validation epoch is marked, and where a phase begins.

    Args:
        path: the PNG file.
        history: `train/acc`, `val/acc`, `train/loss`, `val/loss`, a value an epoch; others are not drawn.
        title: the headline.
        phases: name and number of epochs of each, in their order.
    """
    figure = new_figure(11, 4.6, title, Margins(left=0.65, right=0.25, bottom=1.05))
    for axes, metric, words in zip(
        figure.subplots(1, 2, gridspec_kw={"wspace": 0.14}), ("acc", "loss"), ("accuracy", "loss"), strict=True
    ):
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
            place = (0.5, -0.17)  # below the chart, where it covers no curve
            axes.legend(loc="upper center", bbox_to_anchor=place, ncol=3, frameon=False, labelcolor=INK, fontsize=10)
        _mark_phases(axes, phases)
    save_png(figure, path)


def _mark_phases(axes: Axes, phases: Sequence[tuple[str, int]]) -> None:
    """A line where each phase but the first begins, with the names of the phases on both of its sides."""
    if len(phases) < 2:
        return
    axes.set_title(axes.get_title("left"), loc="left", y=1.0, fontsize=11, color=INK, pad=20)  # above their names
    first = 0
    for name, epochs in phases:
        if first:
            axes.axvline(first + 0.5, color=MUTED, linewidth=1, linestyle="--", zorder=0)
        if epochs >= ROOM_FOR_NAME * sum(count for _, count in phases):
            place, across = (first + 0.5, 1.02), axes.get_xaxis_transform()
            axes.annotate(f" {shorten(name, 14)}", place, xycoords=across, fontsize=9, color=MUTED)
        first += epochs


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
    names = shorten_all(class_names, 24) if count <= MOST_TICKS else []
    longest = max(map(len, names), default=0)
    slanted = longest * count > 40
    side = min(9.0, 4.2 + 0.35 * count)
    margins = Margins(
        0.75 + LETTER * longest, 0.3 if many else 1.05, 0.85 + LETTER * (0.75 * longest if slanted else 1), 0.9
    )
    figure = new_figure(side + (5.0 if many else 1.6), side, title, margins)
    axes, *beside = figure.subplots(
        1, 1 + many, squeeze=False, width_ratios=[3, 1.2] if many else None, gridspec_kw={"wspace": 0.3}
    )[0]
    right = f"{int(np.trace(matrix))} of {int(matrix.sum())} right, {count} classes"
    style(axes, "predicted class", "true class", right)
    axes.grid(False)
    extent = (-0.5, count - 0.5, count - 0.5, -0.5)
    image = axes.imshow(_pooled(share), cmap=TINTS, vmin=0, vmax=1, interpolation="nearest", extent=extent)
    axes.set_xticks([])
    axes.set_yticks([])
    if names:
        axes.set_xticks(range(count), names)
        if slanted:
            axes.tick_params("x", rotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
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
    names = shorten_all(class_names, 20)
    lines = [
        f"{wrong[row, column]}  {names[row]} → {names[column]}"
        for row, column in zip(*np.unravel_index(cells, wrong.shape), strict=True)
        if wrong[row, column]
    ]
    axes.set_axis_off()
    axes.set_title("most frequent confusions" if lines else "no confusions", loc="left", fontsize=11, color=INK)
    words = "\n".join(lines)
    axes.text(0, 0.98, words, transform=axes.transAxes, va="top", fontsize=10, linespacing=1.7, color=INK)


def draw_errors(
    path: str | Path,
    wrong: Predictions,
    images: Sequence[np.ndarray],
    title: str,
    overlays: Sequence[np.ndarray] | np.ndarray | None = None,
) -> None:
    """Contact sheet of wrong answers: at most 24, the most confident first.

    Args:
        path: the PNG file.
        wrong: N wrong answers.
        images: N times (H, W, 3) uint8 RGB or (H, W, 1) uint8 grey, 0..255; sizes may differ.
        title: the headline.
        overlays: N times (H, W, 3) uint8 RGB, the image with its heat map, to stand beside it.
    """
    order = worst_mistakes(wrong, MOST_ERRORS)
    wide = overlays is not None
    columns = min(4, max(2, len(order))) if wide else min(6, max(3, len(order)))
    rows = max(1, math.ceil(len(order) / columns))
    cell_width, cell_height = (CELL * (2 if wide else 1) + GAP, CELL + CAPTION)
    note = NOTE if wide and len(order) else 0
    sheet = Sheet(columns * cell_width + GAP, HEAD + rows * cell_height + note)
    middle = sheet.image.width // 2
    line, size = fitted(title, 19, sheet.image.width - 2 * GAP, bold=True)
    sheet.text(line, middle, 14, size, bold=True, middle=True)
    if not len(order):
        sheet.text("no mistakes", middle, HEAD + cell_height // 2 - 20, 22, GREEN, middle=True)
    for place, index in enumerate(order):
        row, column = divmod(place, columns)
        top, left = HEAD + row * cell_height, GAP + column * cell_width
        picture = images[index] if overlays is None else _beside(images[index], overlays[index])
        height, width = picture.shape[:2]
        scale = min((cell_width - GAP) / width, CELL / height)
        width, height = max(1, round(scale * width)), max(1, round(scale * height))
        centre = left + (cell_width - GAP) // 2
        truth, answer = (wrong.class_names[labels[index]] for labels in (wrong.labels, wrong.predicted))
        room = cell_width - GAP // 3
        answer, size = fitted(answer, 15, room, bold=True, end=f" {100 * wrong.confidence[index]:.1f} %")
        sheet.text(answer, centre, top, size, RED, bold=True, middle=True)
        sheet.picture(picture, centre - width // 2, top + 22, width, height, frame=RED)
        for below, text in ((28, f"truth: {truth}"), (44, wrong.ids[index])):
            line, size = fitted(text, 12, room)
            sheet.text(line, centre, top + below + height, size, middle=True)
    if note:
        words = "right of each image: where the network saw its answer; no colours where nothing speaks for it"
        sheet.text(words, middle, sheet.image.height - NOTE + 4, 13, MUTED, middle=True)
    sheet.save(path)


def _beside(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Two pictures of (H, W, 1 or 3) and (H, W, 3) as one, (H, 2 W, 3)."""
    return np.concatenate([np.broadcast_to(image, overlay.shape), overlay], axis=1)
