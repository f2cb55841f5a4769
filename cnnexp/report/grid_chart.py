"""A grid or a search as one picture: its points from the best down, and what each key does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from cnnexp.console import shorten
from cnnexp.formats import number
from cnnexp.metrics.names import rises
from cnnexp.report.chart import wrap
from cnnexp.report.grid import Effect, Grid, Point
from cnnexp.report.style import BLUE, LINES, ORANGE, TINTS, headline, new_figure, save_titled
from cnnexp.report.tables import chosen_table, runs_text, setting_text
from cnnexp.report.wording import figure as figure_text
from cnnexp.report.wording import setting, short_keys
from cnnexp.sheet import INK, MUTED, PAPER, RED

MOST_POINTS = 24  # in the list; the table has all
MOST_EFFECTS = 6  # charts of single keys, those that matter most
ACROSS = 2  # of them
ROW = 36  # letters of the labels below one
RIM = [withStroke(linewidth=4, foreground=PAPER)]  # keeps lines off letters


def draw_grid(path: str | Path, grid: Grid, title: str) -> bytes:
    """Write the chart as a PNG, 1600 pixels wide.

    Returns:
        The PNG without its title, for a page that has one.
    """
    return save_titled(grid_figure(grid, title), path)


def grid_figure(grid: Grid, title: str) -> Figure:
    """At the left the points with their figures, at the right a chart of each key and, for two keys, a heat map."""
    points = grid.points[:MOST_POINTS]
    effects = sorted(grid.effects, key=_range, reverse=True)[:MOST_EFFECTS]
    charts = len(effects) + (len(grid.effects) == len(grid.keys) == 2)
    across = min(charts, ACROSS)
    rows = -(-charts // ACROSS)
    figure = new_figure(16, max(1.9 + 0.42 * len(points), 1.4 + 3.3 * rows, 4.5), title)
    headline(figure, title)
    parts: Any = figure.subfigures(1, 2, width_ratios=[1, 1.15]) if charts else (figure, None)
    left, right = parts
    _draw_points(left.subplots(), grid, points)
    _legend(figure, grid, points, not all(effect.halved for effect in effects))
    if right is None:
        return figure
    cells = right.subplots(rows, across, squeeze=False).ravel()
    for axes, effect in zip(cells, effects, strict=False):
        _draw_effect(axes, grid, effect)
    if charts > len(effects):
        _draw_both(cells[len(effects)], grid)
    for axes in cells[charts:]:
        axes.set_visible(False)
    return figure


def _range(effect: Effect) -> float:
    means = [level.mean for level in effect.levels]
    return max(means) - min(means)


def _plain(axes: Axes, heading: str) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=MUTED, labelsize=11)
    axes.set_axisbelow(True)
    axes.set_title(heading, loc="left", fontsize=14, fontweight="bold", pad=10, color=INK)


def _axis(grid: Grid) -> FuncFormatter:
    percents = grid.monitor.endswith("acc")
    return FuncFormatter(lambda value, _: f"{100 * value:.4g} %" if percents else f"{value:.4g}")


# ------------------------------------------------------------------------------------------------- points


def _draw_points(axes: Axes, grid: Grid, points: Sequence[Point]) -> None:
    which = f", the {'first' if grid.not_ranked else 'best'} {len(points)} of {len(grid.points)}"
    more = which if len(points) < len(grid.points) else ""
    _plain(axes, f"{grid.monitor}{more}")
    axes.grid(axis="x", color=LINES, linewidth=1)
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.set_yticks(range(len(points)), [shorten(setting_text(point), 44) for point in points])
    axes.tick_params("y", labelsize=11, labelcolor=INK, pad=8)
    names, at = shorten(", ".join(short_keys(grid.keys)), 54), axes.transAxes
    offset: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "bottom"}
    size = 12 if len(names) <= 44 else 10
    axes.annotate(names, (0, 1), (-10, 9), xycoords=at, fontsize=size, color=MUTED, **offset)
    known = [(point.figure, point.spread or 0.0) for point in points if point.figure is not None]
    low, high = min((a - b for a, b in known), default=0.0), max((a + b for a, b in known), default=1.0)
    if grid.chosen and grid.chosen.corrected is not None and grid.points[0] in points:
        low, high = min(low, grid.chosen.corrected), max(high, grid.chosen.corrected)
    room = max(high - low, 0.02)
    axes.set_xlim(low - 0.08 * room, high + 0.42 * room)
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(*axes.get_xlim())
    most = 1.0001 if grid.monitor.endswith("acc") else high + room
    axes.set_xticks([tick for tick in ticks if axes.get_xlim()[0] <= tick <= min(most, axes.get_xlim()[1])])
    axes.xaxis.set_major_formatter(_axis(grid))
    _draw_chosen(axes, grid)
    for place, point in enumerate(points):
        if point.figure is None:
            at = axes.get_yaxis_transform()
            axes.text(0.02, place, runs_text(point.variant), transform=at, va="center", color=RED, fontsize=11)
            continue
        colour = ORANGE if point.best else BLUE if point.tied else MUTED
        if point.spread is not None:
            ends = [point.figure - point.spread, point.figure + point.spread]
            axes.plot(ends, [place, place], color=colour, linewidth=2, alpha=0.6)
        axes.plot(point.figure, place, "o", ms=9, color=colour, mec="white", mew=1)
        text = figure_text(grid.monitor, point.figure, grid.decimals, point.spread)
        end = point.figure + (point.spread or 0.0)
        if point.best and grid.chosen and grid.chosen.corrected is not None:
            end = max(end, grid.chosen.corrected)
        weight = "bold" if point.best else "normal"
        axes.annotate(
            text, (end, place), (9, 0), textcoords="offset points", va="center_baseline", fontsize=12, color=INK,
            fontweight=weight,
        )  # fmt: skip


def _draw_chosen(axes: Axes, grid: Grid) -> None:
    """What the best is worth: beside its point the figure corrected for the choice, below all three in words."""
    if grid.chosen is None or len(grid.points) < 2:
        return
    if grid.chosen.corrected is not None and axes.get_xlim()[0] <= grid.chosen.corrected:
        axes.plot(grid.chosen.corrected, 0, "o", ms=9, mfc="none", mec=ORANGE, mew=2, zorder=1)
    made = chosen_table(grid)
    cells, heads = made.rows[0], made.columns
    value, tested = (f"{heads[at]} {cells[at]}" for at in (1, 3))
    around = "" if cells[4] == "-" else f" ({cells[4]})"
    text = f"{heads[0]}: {value},\ncorrected for the choice {cells[2]};\n{tested}{around}"
    axes.set_xlabel(text, fontsize=12, color=INK, labelpad=10, loc="right")  # at the left there is room


def _legend(figure: Figure, grid: Grid, points: Sequence[Point], means: bool) -> None:
    kinds = [("best", ORANGE), ("not to be told from it", BLUE), ("others", MUTED)]
    kinds = [("not ranked: not all of the same images", MUTED)] if grid.not_ranked else kinds
    keys = [Line2D([], [], linewidth=0, marker="o", ms=9, color=colour, label=text) for text, colour in kinds]
    if grid.chosen and grid.chosen.corrected is not None and len(grid.points) > 1:
        hollow: dict[str, Any] = {"marker": "o", "ms": 9, "mfc": "none", "mec": ORANGE, "mew": 2}
        keys.insert(1, Line2D([], [], linewidth=0, label="the best, corrected for the choice", **hollow))
    if any(point.spread is not None for point in points):
        keys.append(Line2D([], [], color=MUTED, linewidth=2, label="± standard deviation over seeds"))
    if means:
        keys.append(Line2D([], [], color=BLUE, linewidth=2, marker="o", ms=8, label="mean of a value"))
    look: dict[str, Any] = {"frameon": False, "fontsize": 12.5, "labelcolor": INK, "columnspacing": 2.5}
    figure.legend(handles=keys, loc="outside lower left", ncols=len(keys), **look)


# ------------------------------------------------------------------------------------------------ effects


def _draw_effect(axes: Axes, grid: Grid, effect: Effect) -> None:
    """Each point as a small dot at its value, and the mean of each level."""
    (key,) = short_keys([effect.key])
    _plain(axes, shorten(key, 30))
    axes.grid(axis="y", color=LINES, linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(_axis(grid))
    points = [point for point in grid.points if point.figure is not None]
    figures = np.array([point.figure for point in points])
    own = [point.settings[effect.key] for point in points]
    names = [level.value for level in effect.levels]
    if not effect.halved:
        places = np.array([names.index(value) for value in own], float)
        axes.set_xticks(range(len(names)), _below(names))
        axes.set_xlim(-0.5, len(names) - 0.5)
        means = [level.mean for level in effect.levels]
        axes.plot(range(len(names)), means, "o-", ms=9, color=BLUE, linewidth=2, mec="white")
        for place, mean in enumerate(means):
            text = figure_text(grid.monitor, mean, grid.decimals)
            axes.annotate(
                text,
                (place, mean),
                (0, 10),
                textcoords="offset points",
                ha="center",
                fontsize=11,
                color=INK,
                path_effects=RIM,
            )
    else:  # many numbers: where each lies
        places = np.array([number(value, float) for value in own], float)
        if places.min() > 0 and places.max() > 30 * places.min():
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.plot(places, figures, "o", ms=5, color=MUTED, alpha=0.6, mew=0)


def _below(values: Sequence[str]) -> list[str]:
    """Values as labels of ticks across, on several lines where they are long."""
    return [wrap(setting(value), max(7, ROW // len(values))) for value in values]


def _draw_both(axes: Axes, grid: Grid) -> None:
    """The figure over two keys, the darker the better: cells where most pairs were tried, otherwise dots."""
    keys = [effect.key for effect in grid.effects]
    points = [point for point in grid.points if point.figure is not None]
    values = [_values(points, key) for key in keys]
    figures = np.array([point.figure for point in points])
    shades = figures if rises(grid.monitor) else -figures
    _plain(axes, shorten(f"{grid.monitor} of both", 30))
    for axis, name in zip((axes.xaxis, axes.yaxis), short_keys(keys), strict=True):
        axis.set_label_text(name, color=MUTED, fontsize=11)
    if 2 * len(points) < len(values[0]) * len(values[1]):
        places = [[values[at].index(point.settings[key]) for point in points] for at, key in enumerate(keys)]
        across, down = places
        axes.scatter(across, down, s=60, c=shades, cmap=TINTS, edgecolors=MUTED, linewidths=0.5)
    else:
        _draw_cells(axes, grid, points, shades)
    for axis, found, most in zip((axes.xaxis, axes.yaxis), values, (4, 6), strict=True):
        shown = range(0, len(found), -(-len(found) // most))
        values_shown = [found[place] for place in shown]
        is_across = axis is axes.xaxis
        texts = _below(values_shown) if is_across else [shorten(setting(v), 14) for v in values_shown]
        axis.set_ticks(list(shown), texts)


def _draw_cells(axes: Axes, grid: Grid, points: Sequence[Point], shades: np.ndarray) -> None:
    keys = [effect.key for effect in grid.effects]
    values = [_values(points, key) for key in keys]
    cells = np.full((len(values[1]), len(values[0])), np.nan)
    middle = (shades.min() + shades.max()) / 2
    for point, shade in zip(points, shades, strict=True):
        column, row = (values[at].index(point.settings[key]) for at, key in enumerate(keys))
        cells[row, column] = shade
        if cells.size <= 48:
            text = figure_text(grid.monitor, point.figure, grid.decimals)
            colour = PAPER if shade > middle else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)
    axes.imshow(cells, cmap=TINTS.with_extremes(bad=PAPER), aspect="auto")


def _values(points: Sequence[Point], key: str) -> list[str]:
    """Of a key, numbers rising, others in the order of the points."""
    found = list(dict.fromkeys(point.settings[key] for point in points))
    return found if None in (number(value, float) for value in found) else sorted(found, key=float)
