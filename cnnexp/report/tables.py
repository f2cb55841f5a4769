"""A comparison in words, for a terminal or a page, and in files for other programs: CSV, JSON."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cnnexp.files import write_atomic
from cnnexp.formats import csv_text
from cnnexp.metrics.names import FIGURE_NAMES, VAL_ACC, figure_of, rises
from cnnexp.report.columns import GAIN_INTERVAL, HOLM, dropped_of
from cnnexp.report.compare import Comparison, Estimate, Pair, PairedComparison, Variant
from cnnexp.report.grid import Grid, Point
from cnnexp.report.wording import (
    big,
    difference,
    duration,
    figure,
    heading,
    p_text,
    percent,
    setting,
    short_keys,
)


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first `names` columns are names, the others figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


def table_rows(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column heads, and a row of text a variant, for a terminal or a page; "-" where there is no figure.

    Published figures have a column only where there is one, p values of several tests another for Holm's correction.
    """
    several = sum(row.step is not None and row.step.p_value is not None for row in comparison.rows) > 1
    absent = set() if any(row.reference_accuracy is not None for row in comparison.rows) else {"published %"}
    absent |= set() if several else {HOLM}
    rows = [_texts(row, comparison) for row in comparison.rows]
    columns = tuple(name for name in (rows[0] if rows else ()) if name not in absent)
    return columns, [tuple(row[name] for name in columns) for row in rows]


def beside(comparison: Comparison | Grid) -> tuple[str, ...]:
    """The columns of figures that are only shown, and decide nothing: what a narrow terminal does without first."""
    return tuple(heading(f"test/{name}") for name in comparison.others)


def dropped(comparison: Comparison) -> tuple[str, ...]:
    """What a narrow terminal does without, the first first."""
    return (*beside(comparison), *dropped_of(comparison.metric))


def _texts(row: Variant, comparison: Comparison) -> dict[str, str]:
    """By column, in their order."""
    step, decimals, metric = row.step, comparison.decimals, comparison.metric
    compared = row.estimate(metric)
    texts = {
        "variant": row.name,
        "runs": runs_text(row),
        "val %": percent(row.val_accuracy, decimals, row.val_spread),
        "test %": percent(row.test_accuracy, decimals, row.test_spread),
    }
    if metric != "acc":
        texts[heading(f"test/{metric}")] = _estimate(metric, compared, decimals)
    texts["95 % interval"] = _interval(metric, compared, decimals)
    for name in comparison.others:
        texts[heading(f"test/{name}")] = _whole(name, row.estimate(name), decimals)
    return texts | {
        "published %": percent(row.reference_accuracy, decimals),
        "gain": difference(metric, step.gain if step else None, decimals),
        GAIN_INTERVAL: _range(metric, step.interval if step else None, decimals),
        "p": p_text(step.p_value if step else None),
        HOLM: p_text(step.p_holm if step else None),
        "fixed/broken": f"{len(step.fixed)}/{len(step.broken)}" if step and not step.note else "-",
        "time": duration(row.train_seconds),
        "trainable": big(row.trainable_parameters),
        "time/point": duration(step.seconds_per_point if step else None),
        "trainable/point": big(step.parameters_per_point if step else None),
    }


def _estimate(name: str, found: Estimate | None, decimals: int) -> str:
    return figure(name, found.value, decimals, found.spread) if found else "-"


def _interval(name: str, found: Estimate | None, decimals: int) -> str:
    if found is None or found.interval is None:
        return "-"
    return " - ".join(figure(name, end, decimals) for end in found.interval)


def _whole(name: str, found: Estimate | None, decimals: int) -> str:
    """A figure with its interval."""
    around = _interval(name, found, decimals)
    return _estimate(name, found, decimals) + ("" if around == "-" else f" ({around})")


def _range(name: str, ends: tuple[float, float] | None, decimals: int) -> str:
    """Of a gain."""
    return "-" if ends is None else " to ".join(difference(name, end, decimals) for end in ends)


def pair_table(comparison: Comparison) -> Table:
    """A row a pair of variants: what the one gains on the other."""
    metric, decimals = comparison.metric, comparison.decimals
    rows = [
        [
            pair.variant,
            pair.other,
            difference(metric, pair.gain, decimals),
            _range(metric, pair.interval, decimals),
            p_text(pair.p_value),
            p_text(pair.p_holm),
        ]
        for pair in comparison.pairs
    ]
    return Table(["variant", "on", "gain", GAIN_INTERVAL, "p", HOLM], rows, 2)


def compared_by(comparison: Comparison, chosen: bool) -> str:
    """In a line what the gains are of.

    Args:
        chosen: whether the figure was asked for.
    """
    on = f"on {comparison.against}" if comparison.against else "on the variant before"
    way = "higher" if rises(comparison.metric) else "lower"
    why = "" if chosen else ", which the runs monitor" if comparison.metric != "acc" else ""
    more = "" if chosen else "; --metric NAME takes another"
    groups = over_groups(comparison.rows)
    more = f"; {groups}{more}" if groups else more
    if comparison.metric not in FIGURE_NAMES:
        return (
            f"gain: test {comparison.metric}{why}, {on}; {way} is better; your own, it has no interval and no p{more}"
        )
    return f"gain and p: test {comparison.metric}{why}, {on}; {way} is better{more}"


def over_groups(rows: Iterable[Variant]) -> str:
    """`over 34 groups of test images`, where these come in groups; else ""."""
    counts = sorted({row.test_groups for row in rows if row.test_groups})
    return f"over {' or '.join(f'{count:,}' for count in counts)} groups of test images" if counts else ""


def ranked_by(grid: Grid) -> str:
    """In a line why a grid is not ranked; what intervals and tests are over, if not over images; and what one goes
    without that is ranked by a figure of the user's own; else ""."""
    if not grid.not_ranked and len(grid.points) > 1 and figure_of(grid.monitor) not in (None, *FIGURE_NAMES):
        return f"{grid.monitor} is your own: it has no interval, no p and no correction; a tie is an equal figure"
    groups = over_groups([point.variant for point in grid.points])
    if grid.not_ranked:
        return f"{grid.not_ranked}; intervals are {groups}" if groups else grid.not_ranked
    return f"intervals and tests are {groups}" if groups else ""


def not_compared(comparison: Comparison) -> list[str]:
    """In a line each which variants were not set against each other, and why."""
    found = [(row.name, row.step) for row in comparison.rows if row.step]
    steps = [f"{name}: {step.note}" for name, step in found if step.note]
    return list(dict.fromkeys([*steps, *(f"{pair.variant}: {pair.note}" for pair in comparison.pairs if pair.note)]))


def grid_table(grid: Grid) -> Table:
    """A row a point, the best first: its rank, its value of each key that varies, the figure that chose, and the rest.

    The number of runs has a column only where a point has several, or one that did not finish; what compares points has
    none where they are not ranked.
    """
    head, keys = heading(grid.monitor), short_keys(grid.keys) or ["variant"]
    columns = ["rank", *keys, "runs", head, "mark", "p", HOLM, *([] if grid.monitor == VAL_ACC else ["val %"])]
    columns += ["test %", "95 % interval", *beside(grid), "time", "trainable"]
    rows = [_point_texts(grid, point) for point in grid.points]
    place = 1 + len(keys)
    absent = [place] if all(row[place] == "1" for row in rows) else []
    absent += [columns.index(HOLM)] if sum(point.p_value is not None for point in grid.points) < 2 else []
    absent += [columns.index(name) for name in ("rank", "mark", "p") if grid.not_ranked]
    kept = [column for column in range(len(columns)) if column not in absent]
    names = place - (0 in absent)
    return Table([columns[column] for column in kept], [[row[column] for column in kept] for row in rows], names)


def chosen_table(grid: Grid) -> Table:
    """The best point: its figure, the same corrected for having been chosen for it, and that of the test images."""
    best = grid.chosen
    if best is None:
        return Table([], [], 0)
    shown, decimals = heading(f"test/{best.metric}"), grid.decimals
    row = [
        setting_text(grid.points[0]),
        figure(grid.monitor, best.figure, decimals, grid.points[0].spread),
        figure(grid.monitor, best.corrected, decimals),
        _estimate(best.metric, best.test, decimals),
        _interval(best.metric, best.test, decimals),
    ]
    head = f"best of {best.points}"
    return Table([head, heading(grid.monitor), "corrected", shown, "95 % interval"], [row], 1)


def setting_text(point: Point) -> str:
    """The values of a point, as `0.001, geometric`."""
    return ", ".join(map(setting, point.settings.values())) or point.variant.name


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
        p_text(point.p_holm),
        *also,
        percent(row.test_accuracy, grid.decimals, row.test_spread),
        _interval("acc", row.estimate("acc"), grid.decimals),
        *(_whole(name, row.estimate(name), grid.decimals) for name in grid.others),
        duration(row.train_seconds),
        big(row.trainable_parameters),
    ]


def effect_table(grid: Grid) -> Table:
    """A row a value of each key: the mean of its points, and what it gains on the first value, all else equal."""
    rows = []
    for key, effect in zip(short_keys([effect.key for effect in grid.effects]), grid.effects, strict=True):
        for level in effect.levels:
            interval = _range(grid.monitor, level.interval, grid.decimals)
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


def to_csv(comparison: Comparison | Grid, pairs: bool = False) -> str:
    """One line a variant or point, unrounded; lists are joined by spaces, `fixed` and `broken` are counts.

    Of a point the rank, the keys that vary, its figure and how it stands against the best come first. Figures of the
    test images besides accuracy come last, as `test/NAME`, with `_spread`, `_low` and `_high`.

    Args:
        pairs: one line a pair of variants in place of all that.
    """
    if isinstance(comparison, Grid):
        own = [name for name in _variant_values(comparison.points[0].variant, ()) if name not in STEP]
        own += _figure_columns(comparison.others)
        head = ["rank", *comparison.keys, comparison.monitor, "spread", "p_value", "p_holm", "tied", "corrected"]
        rows: list[list[object]] = [[*head, *own]]
        for point in comparison.points:
            values = _variant_values(point.variant, comparison.others)
            first = [point.rank, *point.settings.values(), point.figure, point.spread, point.p_value, point.p_holm]
            chosen = comparison.chosen if point.rank == 1 and not point.tied else None
            first += [point.tied, chosen.corrected if chosen else None]
            rows.append([*first, *(values[name] for name in own)])
        return csv_text(rows)
    if pairs:
        return _pairs_csv(comparison)
    names = [name for name in dict.fromkeys([comparison.metric, *comparison.others]) if name != "acc"]
    lines = [{"metric": comparison.metric, **_variant_values(row, names)} for row in comparison.rows]
    return csv_text([list(lines[0]), *(line.values() for line in lines)])


def _pairs_csv(comparison: Comparison) -> str:
    """One line a pair of variants, unrounded."""
    names = [item.name for item in fields(Pair) if item.name != "interval"]
    rows: list[list[object]] = [["metric", *names, "gain_low", "gain_high"]]
    for pair in comparison.pairs:
        rows.append([comparison.metric, *(getattr(pair, name) for name in names), *(pair.interval or (None, None))])
    return csv_text(rows)


STEP = [item.name for item in fields(PairedComparison) if item.name != "interval"] + ["gain_low", "gain_high"]


def _figure_columns(names: Sequence[str]) -> list[str]:
    return [f"test/{name}{end}" for name in names for end in ("", "_spread", "_low", "_high")]


def _variant_values(row: Variant, names: Sequence[str]) -> dict[str, Any]:
    """By column, in their order."""
    apart = ("interval", "step", "figures")
    values = {item.name: getattr(row, item.name) for item in fields(Variant) if item.name not in apart}
    values |= {name: getattr(row.step, name, None) for name in STEP}
    if row.step:
        values |= {"fixed": len(row.step.fixed), "broken": len(row.step.broken)}
        values["gain_low"], values["gain_high"] = row.step.interval or (None, None)
    values["interval_low"], values["interval_high"] = row.interval or (None, None)
    for name in names:
        found = row.estimate(name)
        ends = (found.interval if found else None) or (None, None)
        texts = (found.value, found.spread, *ends) if found else (None,) * 4
        values |= dict(zip(_figure_columns([name]), texts, strict=True))
    return {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}
