"""How good the answers are for each class: `classes.csv`, its picture, and the weakest class in a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnexp.console import shorten
from cnnexp.files import write_atomic
from cnnexp.formats import csv_bytes
from cnnexp.metrics.intervals import Interval, class_intervals
from cnnexp.metrics.registry import OF_CLASS, class_figures
from cnnexp.report.predictions import Predictions
from cnnexp.report.style import BLUE, LETTER, ORANGE, Margins, new_figure, save_png, style
from cnnexp.sheet import INK, MUTED

CLASSES = "classes.csv"
MOST_DRAWN = 40  # of more classes, those with the smallest F1 are drawn
PANELS = (
    ("recall", "of its images, the share that is found", BLUE),
    ("precision", "of its answers, the share right", ORANGE),
)


@dataclass(frozen=True)
class ClassRow:
    """One class: its images, and by figure (precision, recall, f1) the value, and its 95 % interval or None."""

    name: str
    support: int
    values: dict[str, float]
    intervals: dict[str, Interval | None]


def class_rows(predictions: Predictions) -> list[ClassRow]:
    """Every class, in the order of the data."""
    answered = predictions.labels, predictions.predicted, len(predictions.class_names)
    values, around = class_figures(*answered), class_intervals(*answered, predictions.groups)
    return [
        ClassRow(
            name,
            int(values["support"][number]),
            {figure: float(values[figure][number]) for figure in OF_CLASS},
            {figure: around[figure][number] for figure in OF_CLASS},
        )
        for number, name in enumerate(predictions.class_names)
    ]


def write_classes(path: str | Path, rows: Sequence[ClassRow]) -> None:
    """Write `classes.csv`: class, support, and each figure with its interval; an empty cell where there is none."""
    table: list[list[object]] = [
        ["class", "support", *(f"{figure}{end}" for figure in OF_CLASS for end in ("", "_low", "_high"))]
    ]
    for row in rows:
        cells: list[object] = []
        for figure in OF_CLASS:
            cells += [row.values[figure], *(row.intervals[figure] or ("", ""))]
        table.append([row.name, row.support, *cells])
    write_atomic(path, csv_bytes(table))


def weakest(rows: Sequence[ClassRow]) -> ClassRow:
    """The class of which the smallest share of images is found, of those that have images."""
    return min((row for row in rows if row.support), key=lambda row: row.values["recall"])


def weakest_line(rows: Sequence[ClassRow]) -> str:
    """`weakest class: trash, of 34 images 62 % are found (45 to 77 %)`"""
    row = weakest(rows)
    interval = row.intervals["recall"]  # of groups that are all found there is none
    between = f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f} %)" if interval else ""
    share = f"{100 * row.values['recall']:.0f} % are found{between}"
    return f"weakest class: {row.name}, of {row.support:,} images {share}"


def draw_classes(path: str | Path, rows: Sequence[ClassRow], title: str) -> None:
    """Recall and precision of each class with their 95 % intervals, the smallest F1 at the top.

    Args:
        path: the PNG file.
        rows: of more than 40, those with the smallest F1 are drawn.
        title: the headline.
    """
    shown = sorted(rows, key=lambda row: row.values["f1"])[:MOST_DRAWN]
    names = [f"{shorten(row.name, 24)}  {row.support:,}" for row in shown]
    longest = max(map(len, names))
    margins = Margins(LETTER * longest + 0.35, 0.25, 0.65)
    figure = new_figure(9 + LETTER * longest, 1.9 + 0.3 * len(shown), title, margins)
    places = np.arange(len(shown))
    some = f", the {MOST_DRAWN} weakest of {len(rows)}" if len(rows) > MOST_DRAWN else ""
    for axes, (name, words, colour) in zip(
        figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06}), PANELS, strict=True
    ):
        style(axes, words, "", f"{name} of each class{some}")
        for place, row in enumerate(shown):
            around = row.intervals[name]
            if around:
                axes.plot(around, (place, place), color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
        axes.plot([row.values[name] for row in shown], places, "o", color=colour, ms=6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks(places, names)
        for label in axes.get_yticklabels():
            label.set(color=INK)
    figure.supxlabel(
        "beside a name: its images; lines: 95 % intervals", color=MUTED, fontsize=9, y=0.08 / figure.get_figheight()
    )
    save_png(figure, path)
