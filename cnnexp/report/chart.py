"""The progression as one picture, made to be shown: how good each variant is, how surely, at what cost."""

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

from cnnexp.report.compare import Comparison, Variant
from cnnexp.report.style import BLUE, LINES, ORANGE, new_figure, save_png
from cnnexp.report.tables import runs_text
from cnnexp.report.wording import big, duration, p_text, percent, points
from cnnexp.sheet import GREEN, INK, MUTED, PAPER, RED, shorten

PANELS = [6.0, 1.35, 1.7, 1.95]  # relative widths: accuracy, step, time, parameters
BAND = "#f4f7fa"
LANE = 0.1  # our figures stand so much above the middle of their line
SURE = 0.05  # a step with a smaller p value is coloured


def draw_progression(path: str | Path, comparison: Comparison, title: str) -> None:
    """Write the chart of `comparison` as a PNG, 1600 pixels wide, 900 high for seven to nine variants."""
    save_png(progression_figure(comparison, title), path)


def progression_figure(comparison: Comparison, title: str) -> Figure:
    """One line a variant, from top to bottom: accuracy, gain on the one before, training time, parameters."""
    rows = comparison.rows
    height = max(min(9.0, 2.3 + 0.96 * len(rows)), 2.4 + 0.72 * len(rows))
    figure = new_figure(16, height, title)
    size = min(24.0, 24 * 66 / max(len(title), 1))  # a long headline gets smaller letters
    figure.suptitle(title, x=0.012, ha="left", fontsize=size, fontweight="bold", color=INK)
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
    _heading(axes, f"test accuracy{images}")
    ends = [end for row in comparison.rows for end in (*(row.interval or ()), *row.test_accuracies)]
    ends += [row.reference_accuracy for row in comparison.rows if row.reference_accuracy is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    longest = max((len(_accuracy_text(row, comparison.decimals)) for row in comparison.rows), default=0)
    taken = 0.05 + 0.019 * longest  # share of the panel that the label of the best takes
    room = max(high - low, 0.01)
    axes.set_xlim(low - 0.05 * room, low - 0.05 * room + 1.05 * room / (1 - taken))
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if axes.get_xlim()[0] <= tick <= 1.0001])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.grid(axis="x", color=LINES, linewidth=1)
    path = [(row.test_accuracy, place - LANE) for place, row in enumerate(comparison.rows) if row.interval]
    axes.plot(*zip(*path, strict=True) if path else ([], []), color=BLUE, linewidth=2, alpha=0.25, zorder=1)
    for place, row in enumerate(comparison.rows):
        _draw_variant(axes, place, row, comparison.decimals)
    _legend(axes, comparison)


def _draw_variant(axes: Axes, place: int, row: Variant, decimals: int) -> None:
    """Two lanes, so that nothing overlaps: ours above, the published figure below."""
    if row.reference_accuracy is not None:
        axes.plot(row.reference_accuracy, place + 0.27, "D", ms=9, mfc="none", mec=ORANGE, mew=2, zorder=3)
        point = (row.reference_accuracy, place + 0.27)
        _label(axes, point, percent(row.reference_accuracy, 1), ORANGE, 12)
    if row.test_accuracy is None or row.interval is None:
        axes.text(
            0.01,
            place,
            runs_text(row),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=RED,
            fontsize=14,
        )
        return
    lane = place - LANE
    axes.plot(row.interval, [lane, lane], color=BLUE, linewidth=3, solid_capstyle="butt", alpha=0.55, zorder=2)
    for end in row.interval:
        axes.plot([end, end], [lane - 0.09, lane + 0.09], color=BLUE, linewidth=2, alpha=0.55, zorder=2)
    axes.plot(row.test_accuracy, lane, "o", ms=13, color=BLUE, mec="white", mew=1.5, zorder=4)
    if len(row.test_accuracies) > 1:
        above = np.full(len(row.test_accuracies), lane - 0.2)
        axes.plot(row.test_accuracies, above, "o", ms=6, color=INK, alpha=0.5, mew=0, zorder=3)
    end = max(row.interval[1], *row.test_accuracies)
    _label(axes, (end, lane), _accuracy_text(row, decimals), INK, 17, fontweight="bold")


def _accuracy_text(row: Variant, decimals: int) -> str:
    return percent(row.test_accuracy, decimals, row.test_spread)


def _label(axes: Axes, point: tuple[float, float], text: str, colour: str, size: int, **style: Any) -> None:
    """`text` to the right of a point, with a rim that keeps lines off the letters."""
    rim = [withStroke(linewidth=4, foreground=PAPER)]
    style.update(color=colour, fontsize=size, path_effects=rim, zorder=5)
    axes.annotate(text, point, (11, 0), textcoords="offset points", va="center_baseline", **style)


def _legend(axes: Axes, comparison: Comparison) -> None:
    rows = comparison.rows
    blue: dict[str, Any] = {"color": BLUE, "marker": "o", "ms": 11, "linewidth": 3}
    keys = [Line2D([], [], label="ours, with its 95 % interval (Wilson)", **blue)]
    if any(len(row.test_accuracies) > 1 for row in rows):
        keys.append(Line2D([], [], color=INK, alpha=0.5, marker="o", ms=6, linewidth=0, label="single seeds"))
    if any(row.reference_accuracy is not None for row in rows):
        hollow: dict[str, Any] = {"marker": "D", "ms": 9, "mfc": "none", "mec": ORANGE, "mew": 2}
        keys.append(Line2D([], [], linewidth=0, label="published", **hollow))
    if any(row.step and row.step.p_value is not None for row in rows):
        text = f"gain in colour: p < {SURE} (McNemar, exact), in grey: may be chance"
        keys.append(Line2D([], [], color=GREEN, marker="$+$", ms=11, linewidth=0, label=text))
    look: dict[str, Any] = {"frameon": False, "fontsize": 12.5, "labelcolor": INK, "columnspacing": 2.5}
    axes.figure.legend(handles=keys, loc="outside lower left", ncols=len(keys), **look)


def _write_steps(axes: Axes, comparison: Comparison) -> None:
    _heading(axes, "gain, points")
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    for place, row in enumerate(comparison.rows):
        step = row.step
        if step is None or step.gain is None:
            continue
        sure = step.p_value is not None and step.p_value < SURE
        colour = MUTED if not sure else GREEN if step.gain > 0 else RED
        text = points(step.gain, comparison.decimals)
        axes.text(0.02, place - LANE, text, va="center_baseline", color=colour, fontsize=17)
        if step.p_value is not None:
            p = p_text(step.p_value)
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
