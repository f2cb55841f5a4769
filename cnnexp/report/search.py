"""Charts of a hyper-parameter search. Each function writes one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from cnnexp.report.style import BLUE, LINES, ORANGE, TINTS, new_figure, save_png, style
from cnnexp.sheet import INK, MUTED, PAPER

Value = float | int | str | bool | None

FEW_TRIALS = 10  # for each searched key


@dataclass(frozen=True)
class Axis:
    """One searched key: the value of each trial, and whether its interval is logarithmic."""

    name: str
    values: Sequence[Value]
    logarithmic: bool = False

    @property
    def categorical(self) -> bool:
        """Whether the values have no order."""
        return any(not isinstance(value, int | float) or isinstance(value, bool) for value in self.values)

    def positions(self) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """Where the trials lie between 0, the least value, and 1, and the ticks: (place, text)."""
        if self.categorical:
            names = list(dict.fromkeys(map(str, self.values)))
            places = dict(zip(names, np.linspace(0, 1, len(names)) if len(names) > 1 else [0.5], strict=True))
            return np.array([places[str(value)] for value in self.values]), [(at, name) for name, at in places.items()]
        numbers = np.array(self.values, np.float64)
        if self.logarithmic:
            numbers = np.log10(numbers)
        low, high = float(numbers.min()), float(numbers.max())
        shares = (0.0, 0.5, 1.0) if high > low else (0.5,)
        ends = [low + share * (high - low) for share in shares]
        ticks = [
            (share, f"{10**end if self.logarithmic else end:.3g}") for share, end in zip(shares, ends, strict=True)
        ]
        return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5), ticks


def draw_parallel_coordinates(
    path: str | Path, axes: Sequence[Axis], figures: Sequence[float], monitor: str, maximize: bool
) -> None:
    """A line for each trial through its values, the darker the better it did; the best is orange.

    Args:
        path: the PNG file.
        axes: the searched keys, each with a value for every trial.
        figures: what each trial reached.
        monitor: the name of that figure.
        maximize: whether more is better.
    """
    columns = [*axes, Axis(monitor, list(figures))]
    placed = [axis.positions() for axis in columns]
    figure = new_figure(max(6.0, 2.2 * len(columns)), 4.6, f"{len(figures)} trials")
    chart = figure.subplots()
    _bare(chart)
    lines = np.stack([positions for positions, _ in placed], axis=1)  # (trials, columns)
    better = np.array(figures) if maximize else -np.array(figures)
    order = np.lexsort((-np.arange(len(better)), better))  # of equals the first trial counts as the better one
    for rank, trial in enumerate(order):
        best = rank == len(order) - 1
        shade = TINTS(0.25 + 0.75 * rank / max(1, len(order) - 1))
        chart.plot(lines[trial], color=ORANGE if best else shade, linewidth=2.6 if best else 1.2)
    for column, (axis, (_, ticks)) in enumerate(zip(columns, placed, strict=True)):
        chart.axvline(column, color=LINES, linewidth=1.5, zorder=0)
        chart.text(column, 1.06, _short(axis.name), ha="center", fontsize=10, color=INK)
        for at, text in ticks:
            paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.8}
            chart.text(column + 0.04, at, text, fontsize=9, color=MUTED, va="center", bbox=paper)
    chart.set_xlim(-0.35, len(columns) - 0.5)
    chart.set_ylim(-0.06, 1.16)
    save_png(figure, path)


def draw_importance(path: str | Path, importances: dict[str, float], monitor: str, trials: int) -> None:
    """A bar for each searched key: its share in what made trials differ, and from how few trials that is told.

    Args:
        path: the PNG file.
        importances: 0 to 1 by key.
        monitor: the name of the figure that was searched for.
        trials: how many there were; a bar needs ten or so.
    """
    few = ": too few to be sure" if trials < FEW_TRIALS * len(importances) else ""
    names = sorted(importances, key=lambda name: importances[name])
    figure = new_figure(7, 1.6 + 0.45 * len(names), f"What {monitor} depended on, from {trials} trials{few}")
    chart = figure.subplots()
    style(chart, "share", "")
    chart.barh(range(len(names)), [importances[name] for name in names], color=BLUE, height=0.6)
    chart.set_yticks(range(len(names)), names, color=INK)
    chart.set_xlim(0, max(1e-9, *importances.values()) * 1.15)
    for row, name in enumerate(names):
        chart.text(importances[name], row, f" {importances[name]:.2f}", va="center", fontsize=10, color=MUTED)
    save_png(figure, path)


def _bare(chart: Axes) -> None:
    chart.spines[:].set_visible(False)
    chart.set_xticks([])
    chart.set_yticks([])


def _short(name: str) -> str:
    return name.rpartition(".")[2] if len(name) > 22 else name
