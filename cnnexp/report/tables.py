"""A comparison in words, for a terminal or a page, and in files for other programs: CSV, JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cnnexp.files import write_atomic
from cnnexp.formats import csv_text
from cnnexp.metrics.names import VAL_ACC
from cnnexp.report.compare import Comparison, PairedComparison, Variant
from cnnexp.report.grid import Grid, Point
from cnnexp.report.wording import (
    big,
    difference,
    duration,
    figure,
    heading,
    p_text,
    percent,
    points,
    setting,
    short_keys,
)

COLUMNS = (
    "variant",
    "runs",
    "val %",
    "test %",
    "95 % interval",
    "published %",
    "gain",
    "p",
    "fixed/broken",
    "time",
    "trainable",
    "time/point",
    "trainable/point",
)
# what a narrow terminal does without, the first first
DROPPED = (
    "trainable/point",
    "time/point",
    "published %",
    "trainable",
    "time",
    "fixed/broken",
    "95 % interval",
    "runs",
    "p",
    "val %",
    "gain",
)
DROPPED_OF_GRID = ("trainable", "time", "95 % interval", "runs", "test %", "p")  # then keys, the last first


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first `names` columns are names, the others figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


def table_rows(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column heads, and a row of text a variant, for a terminal or a page; "-" where there is no figure.

    Published figures have a column only where there is one.
    """
    published = any(row.reference_accuracy is not None for row in comparison.rows)
    kept = [place for place, column in enumerate(COLUMNS) if published or column != "published %"]
    rows = [_texts(row, comparison.decimals) for row in comparison.rows]
    return tuple(COLUMNS[place] for place in kept), [tuple(row[place] for place in kept) for row in rows]


def _texts(row: Variant, decimals: int) -> tuple[str, ...]:
    step = row.step
    paired = step is not None and step.p_value is not None
    return (
        row.name,
        runs_text(row),
        percent(row.val_accuracy, decimals, row.val_spread),
        percent(row.test_accuracy, decimals, row.test_spread),
        _interval(row, decimals),
        percent(row.reference_accuracy, decimals),
        points(step.gain if step else None, decimals),
        p_text(step.p_value if step else None),
        f"{len(step.fixed)}/{len(step.broken)}" if paired and step else "-",
        duration(row.train_seconds),
        big(row.trainable_parameters),
        duration(step.seconds_per_point if step else None),
        big(step.parameters_per_point if step else None),
    )


def _interval(row: Variant, decimals: int) -> str:
    return "-" if row.interval is None else " - ".join(percent(end, decimals) for end in row.interval)


def grid_table(grid: Grid) -> Table:
    """A row a point, the best first: its rank, its value of each key that varies, the figure that chose, and the rest.

    The number of runs has a column only where a point has several, or one that did not finish.
    """
    head, keys = heading(grid.monitor), short_keys(grid.keys) or ["variant"]
    columns = ["rank", *keys, "runs", head, "mark", "p", *([] if grid.monitor == VAL_ACC else ["val %"])]
    columns += ["test %", "95 % interval", "time", "trainable"]
    rows = [_point_texts(grid, point) for point in grid.points]
    place = 1 + len(keys)
    if all(row[place] == "1" for row in rows):
        columns, rows = columns[:place] + columns[place + 1 :], [row[:place] + row[place + 1 :] for row in rows]
    return Table(columns, rows, place)


def _point_texts(grid: Grid, point: Point) -> list[str]:
    row = point.variant
    also = [] if grid.monitor == VAL_ACC else [percent(row.val_accuracy, grid.decimals, row.val_spread)]
    return [
        "-" if point.rank is None else str(point.rank),
        *([setting(value) for value in point.settings.values()] or [row.name]),
        runs_text(row),
        figure(grid.monitor, point.figure, grid.decimals, point.spread),
        "best" if point.best else "tie" if point.tied else "",
        p_text(point.p_value),
        *also,
        percent(row.test_accuracy, grid.decimals, row.test_spread),
        _interval(row, grid.decimals),
        duration(row.train_seconds),
        big(row.trainable_parameters),
    ]


def effect_table(grid: Grid) -> Table:
    """A row a value of each key: the mean of its points, and what it gains on the first value, all else equal."""
    rows = []
    for key, effect in zip(short_keys([effect.key for effect in grid.effects]), grid.effects, strict=True):
        for level in effect.levels:
            interval = "-"
            if level.interval is not None:
                interval = " to ".join(difference(grid.monitor, end, grid.decimals) for end in level.interval)
            paired = any(other.gain is not None for other in effect.levels)
            gain = difference(grid.monitor, level.gain, grid.decimals)
            gain = "first" if paired and level is effect.levels[0] else gain
            mean = figure(grid.monitor, level.mean, grid.decimals)
            rows.append([key, setting(level.value), str(level.points), mean, gain, interval])
    return Table(["key", "value", "points", f"mean {heading(grid.monitor)}", "gain", "95 % interval"], rows, 2)


def runs_text(row: Variant) -> str:
    """`3`, `2 of 3` or, where none is finished, the status of the last."""
    if not row.seeds:
        return row.statuses[-1].lower()
    return str(len(row.seeds)) + (f" of {len(row.run_ids)}" if len(row.seeds) < len(row.run_ids) else "")


def to_json(comparison: Comparison | Grid) -> str:
    """Every figure, unrounded, as JSON text: `rows`, the variants, or `points`, and `runs`; null for NaN, infinity."""
    return json.dumps(_plain(asdict(comparison)), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_csv(path: str | Path, comparison: Comparison | Grid) -> None:
    """`to_csv` as a file."""
    write_atomic(path, to_csv(comparison).encode("utf-8", "surrogateescape"))


def to_csv(comparison: Comparison | Grid) -> str:
    """One line a variant or point, unrounded; lists are joined by spaces, `fixed` and `broken` are counts.

    Of a point the rank, the keys that vary, its figure and how it stands against the best come first.
    """
    if isinstance(comparison, Grid):
        own = [name for name in _variant_values(comparison.points[0].variant) if name not in STEP]
        rows: list[list[object]] = [["rank", *comparison.keys, comparison.monitor, "spread", "p_value", "tied", *own]]
        for point in comparison.points:
            values = _variant_values(point.variant)
            first = [point.rank, *point.settings.values(), point.figure, point.spread, point.p_value, point.tied]
            rows.append([*first, *(values[name] for name in own)])
        return csv_text(rows)
    lines = [_variant_values(row) for row in comparison.rows]
    return csv_text([list(lines[0]), *(line.values() for line in lines)])


STEP = [item.name for item in fields(PairedComparison)]


def _variant_values(row: Variant) -> dict[str, Any]:
    """By column, in their order."""
    values = {item.name: getattr(row, item.name) for item in fields(Variant) if item.name not in ("interval", "step")}
    values |= {name: getattr(row.step, name, None) for name in STEP}
    if row.step:
        values |= {"fixed": len(row.step.fixed), "broken": len(row.step.broken)}
    values["interval_low"], values["interval_high"] = row.interval or (None, None)
    return {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}
