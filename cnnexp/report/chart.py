"""The progression as one picture, made to be shown: how good each variant is, how surely, at what cost."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnexp.console import shorten
from cnnexp.metrics.names import rises
from cnnexp.metrics.registry import FIGURES
from cnnexp.report.compare import Comparison, Estimate, Variant
from cnnexp.report.style import BLUE, LINES, ORANGE, headline, new_figure, save_titled
from cnnexp.report.tables import runs_text
from cnnexp.report.wording import big, difference, duration, p_text, percent
from cnnexp.report.wording import figure as figure_text
from cnnexp.sheet import GREEN, INK, MUTED, PAPER, RED

PANELS = [6.0, 1.35, 1.7, 1.95]  # relative widths: accuracy, step, time, parameters
BAND = "#f4f7fa"
LANE = 0.1  # our figures stand so much above the middle of their line
SURE = 0.05  # a step with a smaller p value, corrected for all steps, is coloured


def draw_progression(path: str | Path, comparison: Comparison, title: str) -> bytes:
    """Write the chart of `comparison` as a PNG, 1600 pixels wide, 900 high for seven to nine variants.

    Returns:
        The PNG without its title, for a page that has one.
    """
    return save_titled(progression_figure(comparison, title), path)


def progression_figure(comparison: Comparison, title: str) -> Figure:
    """One line a variant, from top to bottom: the figure, its gain on the one before, training time, parameters."""
    rows = comparison.rows
    height = max(min(9.0, 2.3 + 0.96 * len(rows)), 2.4 + 0.72 * len(rows))
    figure = new_figure(16, height, title)
    headline(figure, title)
    accuracy, step, time, parameters = figure.subplots(1, 4, sharey=True, width_ratios=PANELS)
    for axes in (accuracy, step, time, parameters):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=MUTED, labelsize=12)
        axes.set_axisbelow(True)
        for place in range(0, len(rows), 2):
            axes.axhspan(place - 0.5, place + 0.5, color=BAND, linewidth=0, zorder=0)
    accuracy.set_ylim(len(rows) - 0.5, -0.5)
    names = [wrap(row.name) for row in rows]
    accuracy.set_yticks(range(len(rows)), names)
    size = 15 if max((name.count("\n") for name in names), default=0) < 2 else 12
    accuracy.tick_params("y", labelsize=size, labelcolor=INK, pad=10)
    _draw_accuracy(accuracy, comparison)
    _write_steps(step, comparison)
    _draw_costs(time, "training time", [row.train_seconds for row in rows], duration)
    _draw_costs(parameters, "trained parameters", [row.trainable_parameters for row in rows], big)
    return figure


def wrap(name: str, width: int = 24) -> str:
    """`name` on at most three lines, broken after punctuation if possible, its middle left out if needed."""
    name = shorten(name, 3 * width)
    lines = [""]
    for part in re.findall(r"[^_\-,=./ ]*[_\-,=./ ]?", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    if len(lines) > 3 or max(map(len, lines)) > width:
        lines = [name[start : start + width] for start in range(0, len(name), width)]
    return "\n".join(lines)


def _heading(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=14, fontweight="bold", pad=12, color=INK)


def _draw_accuracy(axes: Axes, comparison: Comparison) -> None:
    totals = sorted({row.test_total for row in comparison.rows if row.test_total})
    images = f" on {totals[0]:,} images" if len(totals) == 1 else ""
    metric, found = comparison.metric, [row.estimate(comparison.metric) for row in comparison.rows]
    way = "" if rises(metric) else ", the lower the better"
    _heading(axes, f"test {'accuracy' if metric == 'acc' else metric}{images}{way}")
    ends = [end for one in found if one for end in (*(one.interval or ()), *one.seeds)]
    ends += [row.reference_accuracy for row in _published(comparison) if row.reference_accuracy is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    longest = max((len(_text(comparison, one)) for one in found), default=0)
    taken = 0.05 + 0.019 * longest  # share of the panel that the label of the best takes
    room = max(high - low, 0.01)
    axes.set_xlim(low - 0.05 * room, low - 0.05 * room + 1.05 * room / (1 - taken))
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)
    most = min(FIGURES[metric].most if metric in FIGURES else math.inf, axes.get_xlim()[1])
    axes.set_xticks([tick for tick in ticks if axes.get_xlim()[0] <= tick <= most + 1e-4])
    percents = metric.endswith("acc")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %" if percents else f"{value:.4g}"))
    axes.grid(axis="x", color=LINES, linewidth=1)
    path = [(one.value, place - LANE) for place, one in enumerate(found) if one]
    axes.plot(*zip(*path, strict=True) if path else ([], []), color=BLUE, linewidth=2, alpha=0.25, zorder=1)
    for row in _published(comparison):
        _draw_published(axes, comparison.rows.index(row), row)
    for place, (row, one) in enumerate(zip(comparison.rows, found, strict=True)):
        _draw_variant(axes, place, row, (one, _text(comparison, one)))
    _legend(axes, comparison)


def _published(comparison: Comparison) -> list[Variant]:
    """The rows with a published figure, which are accuracies."""
    return [row for row in comparison.rows if comparison.metric == "acc" and row.reference_accuracy is not None]


def _draw_published(axes: Axes, place: int, row: Variant) -> None:
    """On the lower of two lanes, so that nothing overlaps: ours stands above."""
    assert row.reference_accuracy is not None
    axes.plot(row.reference_accuracy, place + 0.27, "D", ms=9, mfc="none", mec=ORANGE, mew=2, zorder=3)
    _label(axes, (row.reference_accuracy, place + 0.27), percent(row.reference_accuracy, 1), ORANGE, 12)


def _draw_variant(axes: Axes, place: int, row: Variant, shown: tuple[Estimate | None, str]) -> None:
    found, text = shown
    if found is None:
        axes.text(
            0.01,
            place,
            runs_text(row) if row.test_accuracy is None else "-",
            transform=axes.get_yaxis_transform(),
            va="center",
            color=RED,
            fontsize=14,
        )
        return
    lane = place - LANE
    if found.interval:
        axes.plot(found.interval, [lane, lane], color=BLUE, linewidth=3, solid_capstyle="butt", alpha=0.55, zorder=2)
        for end in found.interval:
            axes.plot([end, end], [lane - 0.09, lane + 0.09], color=BLUE, linewidth=2, alpha=0.55, zorder=2)
    axes.plot(found.value, lane, "o", ms=13, color=BLUE, mec="white", mew=1.5, zorder=4)
    if len(found.seeds) > 1:
        above = np.full(len(found.seeds), lane - 0.2)
        axes.plot(found.seeds, above, "o", ms=6, color=INK, alpha=0.5, mew=0, zorder=3)
    end = max(*(found.interval or ()), *found.seeds, found.value)
    _label(axes, (end, lane), text, INK, 17, fontweight="bold")


def _text(comparison: Comparison, found: Estimate | None) -> str:
    return figure_text(comparison.metric, found.value, comparison.decimals, found.spread) if found else "-"


def _label(axes: Axes, point: tuple[float, float], text: str, colour: str, size: int, **style: Any) -> None:
    """`text` to the right of a point, with a rim that keeps lines off the letters."""
    rim = [withStroke(linewidth=4, foreground=PAPER)]
    style.update(color=colour, fontsize=size, path_effects=rim, zorder=5)
    axes.annotate(text, point, (11, 0), textcoords="offset points", va="center_baseline", **style)


def _legend(axes: Axes, comparison: Comparison) -> None:
    rows = comparison.rows
    blue: dict[str, Any] = {"color": BLUE, "marker": "o", "ms": 11, "linewidth": 3}
    grouped = any(row.test_groups for row in rows)
    wilson = " over groups" if grouped else " (Wilson)" if comparison.metric == "acc" else ""
    sure = any((found := row.estimate(comparison.metric)) and found.interval for row in rows)
    keys = [Line2D([], [], label="ours" + f", with its 95 % interval{wilson}" * sure, **blue)]
    if any(len(row.test_accuracies) > 1 for row in rows):
        keys.append(Line2D([], [], color=INK, alpha=0.5, marker="o", ms=6, linewidth=0, label="single seeds"))
    if _published(comparison):
        hollow: dict[str, Any] = {"marker": "D", "ms": 9, "mfc": "none", "mec": ORANGE, "mew": 2}
        keys.append(Line2D([], [], linewidth=0, label="published", **hollow))
    if any(row.step and row.step.p_value is not None for row in rows):
        several = sum(row.step is not None and row.step.p_value is not None for row in rows) > 1
        how = "paired test, Holm" if several else "paired test"
        on = f" on {shorten(comparison.against, 24)}" if comparison.against else ""
        text = f"gain{on} in colour: p < {SURE} ({how}), in grey: may be chance"
        keys.append(Line2D([], [], color=GREEN, marker="$+$", ms=11, linewidth=0, label=text))
    look: dict[str, Any] = {"frameon": False, "fontsize": 12.5, "labelcolor": INK, "columnspacing": 2.5}
    axes.figure.legend(handles=keys, loc="outside lower left", ncols=len(keys), **look)


def _write_steps(axes: Axes, comparison: Comparison) -> None:
    _heading(axes, "gain, points" if comparison.metric.endswith("acc") else "gain")
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    for place, row in enumerate(comparison.rows):
        step = row.step
        if step is None or step.gain is None:
            continue
        sure = step.p_holm is not None and step.p_holm < SURE
        better = (step.gain > 0) == rises(comparison.metric)
        colour = MUTED if not sure else GREEN if better else RED
        text = difference(comparison.metric, step.gain, comparison.decimals)
        axes.text(0.02, place - LANE, text, va="center_baseline", color=colour, fontsize=17)
        if step.p_holm is not None:  # the one that decides the colour
            p = p_text(step.p_holm)
            text = f"p {p}" if p.startswith("<") else f"p = {p}"
            axes.text(0.02, place + 0.22, text, va="center", color=MUTED, fontsize=11)


def _draw_costs(axes: Axes, heading: str, values: Sequence[float | None], text: Callable[[float | None], str]) -> None:
    """Bars from zero, each with its figure above it."""
    _heading(axes, heading)
    axes.set_xticks([])
    axes.set_xlim(0, 1.02 * max((value for value in values if value), default=1.0))
    for place, value in enumerate(values):
        if value is not None:
            axes.barh(place + 0.18, value, 0.2, color=MUTED, alpha=0.65)
            axes.text(0, place - LANE, text(value), va="center_baseline", color=INK, fontsize=13)
