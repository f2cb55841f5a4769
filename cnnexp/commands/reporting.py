"""Results of several runs as table, chart, page and CSV."""

import json
from pathlib import Path

from cnnexp.console import table
from cnnexp.report.chart import draw_progression
from cnnexp.report.compare import Comparison, Result, table_rows, write_csv
from cnnexp.report.page import write_page


def read_results(sweep_folder: Path) -> list[Result]:
    """What the jobs of a sweep left in their folders, in the order of the jobs."""
    files = sweep_folder.glob("*/result.json")
    return sorted((Result(**json.loads(file.read_text())) for file in files), key=lambda result: result.order)


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
