"""Results of several runs as table, chart, page and CSV."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from cnnexp.console import table
from cnnexp.report.chart import draw_progression
from cnnexp.report.compare import Comparison, Result, table_rows, write_csv
from cnnexp.report.page import write_page


def read_results(sweep_folder: Path) -> list[Result]:
    """What the jobs of a sweep left in their folders, in the order of the jobs."""
    files = sorted(sweep_folder.glob("*/result.json"), key=lambda file: int(file.parent.name))
    results = [Result(**json.loads(file.read_text())) for file in files]
    lines = [yaml.safe_load((file.parent / ".hydra" / "overrides.yaml").read_text()) for file in files]
    return distinguish(results, lines)


def distinguish(results: Sequence[Result], lines: Sequence[Sequence[str]]) -> list[Result]:
    """Add to each name the overrides that set the run apart, so that only runs that differ in the seed share one.

    Args:
        results: of some runs.
        lines: their overrides.
    """
    shared = set.intersection(*(set(line) for line in lines)) if lines else set()
    named = []
    for result, line in zip(results, lines, strict=True):
        own = [o for o in line if o not in shared and not o.startswith(("seed=", "experiment="))]
        named.append(replace(result, name=" ".join([result.name, *own])))
    return named


def show_comparison(comparison: Comparison) -> None:
    """Print the table."""
    columns, rows = table_rows(comparison)
    table("", columns, rows)


def write_report(folder: Path, comparison: Comparison, title: str) -> list[Path]:
    """Write comparison.png, .html and .csv into `folder`, and return their paths."""
    chart, page, figures = (folder / f"comparison.{kind}" for kind in ("png", "html", "csv"))
    folder.mkdir(parents=True, exist_ok=True)
    draw_progression(chart, comparison, title)
    write_page(page, comparison, chart, title)
    write_csv(figures, comparison)
    return [chart, page, figures]
