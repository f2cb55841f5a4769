"""The common look of figures.

Drawn with matplotlib's objects alone: no pyplot and no global settings, which belong to the user's notebook.
"""

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnnexp.console import visible
from cnnexp.files import write_atomic
from cnnexp.sheet import INK, MUTED, PAPER

LINES, BLUE, ORANGE = "#dde3e9", "#1f6fb4", "#e07b24"
TINTS = LinearSegmentedColormap.from_list("tints", [PAPER, "#9cc3e3", BLUE, "#12436d"])
LETTER = 0.085  # inches: how wide a letter of 10 points is, and generously so


class Margins(NamedTuple):
    """Inches between the edges of a sheet and its axes, where titles and labels stand."""

    left: float
    right: float
    bottom: float
    top: float = 0.95


def new_figure(width: float, height: float, title: str, margins: Margins | None = None) -> Figure:
    """An empty sheet of `width` x `height` inches, 100 pixels an inch.

    With `margins` the axes fill what these leave. Without, Matplotlib measures every text, so that nothing overlaps
    whatever there is to show; that takes as long again as drawing, so it is for what is drawn once in a sweep.
    """
    layout = None if margins else ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(width, height), dpi=100, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    size = min(14.0, 14 * 8 * width / max(len(title), 1))  # a letter is an eighth of an inch
    place = {"y": 1 - 0.12 / height} if margins else {}  # at a place of its own, nothing would keep clear of it
    figure.suptitle(title, fontsize=size, fontweight="bold", color=INK, **place)
    if margins:
        left, right, bottom, top = margins
        figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure


def headline(figure: Figure, title: str) -> None:
    """A title above a chart of 16 inches, at its left; a long one gets smaller letters."""
    size = min(24.0, 24 * 66 / max(len(title), 1))
    figure.suptitle(title, x=0.012, ha="left", fontsize=size, fontweight="bold", color=INK)


def save_png(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path`."""
    write_atomic(path, _png(figure))


def save_titled(figure: Figure, path: str | Path) -> bytes:
    """`save_png`, and the same PNG without the title and the paper beside it."""
    save_png(figure, path)
    figure.set_layout_engine("none")  # everything stays where it is
    title = next(text for text in figure.texts if text.get_text() == figure.get_suptitle())
    width, _ = figure.get_size_inches()
    below = title.get_window_extent().y0 / figure.dpi - 0.05
    title.set_visible(False)
    return _png(figure, bbox_inches=Bbox.from_bounds(0, 0, width, below))


def _png(figure: Figure, **options: Any) -> bytes:
    """Packed lightly: the files are a little larger, and written in half the time."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name may hold a dollar sign
        text.set_text("\n".join(map(visible, text.get_text().split("\n"))))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks becomes a box
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1}, **options)
    return buffer.getvalue()


def style(axes: Axes, x_label: str, y_label: str, subtitle: str = "") -> None:
    """The common look: thin grid behind, no box, quiet ticks."""
    axes.set_axisbelow(True)
    axes.grid(color=LINES, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=MUTED, length=0, labelsize=10)
    axes.set_xlabel(x_label, color=MUTED, fontsize=10)
    axes.set_ylabel(y_label, color=MUTED, fontsize=10)
    axes.set_title(subtitle, loc="left", y=1.0, fontsize=11, color=INK)  # with a place given, none is looked for
