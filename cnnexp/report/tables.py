"""A comparison in words, for a terminal or a page, and in files for other programs: CSV, JSON."""

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cnnexp.files import write_atomic
from cnnexp.formats import csv_bytes
from cnnexp.report.compare import Comparison, PairedComparison, Variant
from cnnexp.report.wording import big, duration, p_text, percent, points

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
        "-" if row.interval is None else " - ".join(percent(end, decimals) for end in row.interval),
        percent(row.reference_accuracy, decimals),
        points(step.gain if step else None, decimals),
        p_text(step.p_value if step else None),
        f"{len(step.fixed)}/{len(step.broken)}" if paired and step else "-",
        duration(row.train_seconds),
        big(row.trainable_parameters),
        duration(step.seconds_per_point if step else None),
        big(step.parameters_per_point if step else None),
    )


def runs_text(row: Variant) -> str:
    """`3`, `2 of 3` or, where none is finished, the status of the last."""
    if not row.seeds:
        return row.statuses[-1].lower()
    return str(len(row.seeds)) + (f" of {len(row.run_ids)}" if len(row.seeds) < len(row.run_ids) else "")


def to_json(comparison: Comparison) -> str:
    """Every figure, unrounded, as JSON text: `rows`, the variants, and `runs`; null for NaN and infinity."""
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


def write_csv(path: str | Path, comparison: Comparison) -> None:
    """One line a variant, unrounded; lists are joined by spaces, `fixed` and `broken` are counts."""
    names = [
        item.name for item in (*fields(Variant), *fields(PairedComparison)) if item.name not in ("interval", "step")
    ]
    names += ["interval_low", "interval_high"]
    rows: list[list[object]] = [[*names]]
    for row in comparison.rows:
        record = asdict(row)
        step = record.pop("step") or {}
        low, high = record.pop("interval") or (None, None)
        record.update(step, interval_low=low, interval_high=high)
        if step:
            record.update(fixed=len(step["fixed"]), broken=len(step["broken"]))
        cells = [record.get(name) for name in names]
        rows.append([" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in cells])
    write_atomic(path, csv_bytes(rows))
