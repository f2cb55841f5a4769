"""Results of several runs as table, chart, page and CSV."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cnnexp.console import table, warn
from cnnexp.errors import UserError
from cnnexp.report.chart import draw_progression
from cnnexp.report.compare import Comparison, Result, summarise
from cnnexp.report.mistakes import MISTAKES, Mistake, read_mistakes
from cnnexp.report.page import write_page
from cnnexp.report.tables import table_rows, write_csv
from cnnexp.runs.folder import SweepFolder


def read_results(sweep_folder: Path) -> list[Result]:
    """What the jobs of a sweep left in their folders, in the order of the jobs; what cannot be read is named."""
    sweep, results, lines = SweepFolder(sweep_folder), [], []
    for number, job in sweep.jobs().items():
        if not job.has_ended:
            continue
        try:
            result, line = job.read_result(), sweep.overrides_of(number, job)
        except UserError as error:
            warn(f"cnnexp: {error}; this job is left out")
            continue
        results.append(replace(result, order=number))
        lines.append(line)
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
    write_page(page, comparison, chart, title, mistakes_by_variant(comparison))
    write_csv(figures, comparison)
    return [chart, page, figures]


def draw_so_far(folder: Path, name: str) -> None:
    """Draw comparison.png of the jobs of a sweep that are done so far, if there are any."""
    results = read_results(folder)
    if results:
        draw_progression(folder / "comparison.png", summarise(results), f"{name}: {len(results)} runs so far")


def mistakes_by_variant(comparison: Comparison) -> dict[str, dict[str, Mistake]]:
    """What the step of each variant fixed and broke, by image name, as far as the runs kept pictures of it.

    What a step fixed was a mistake of the variant before it, what it broke is one of the variant: of its finished
    run with the lowest seed, like the p value. The pictures lie in the `mistakes.zip` beside the run's predictions.
    """
    archives: dict[str, Path] = {}
    for run in sorted(comparison.runs, key=lambda run: run.seed):
        if run.finished and run.predictions_path is not None:
            archives.setdefault(run.name, Path(run.predictions_path).with_name(MISTAKES))
    found: dict[str, dict[str, Mistake]] = {}
    for row in comparison.rows:
        if row.step:
            found[row.name] = _read(archives.get(row.step.previous), row.step.fixed)
            found[row.name] |= _read(archives.get(row.name), row.step.broken)
    return found


def _read(archive: Path | None, images: Sequence[str]) -> dict[str, Mistake]:
    if archive is None or not archive.is_file() or not images:
        return {}
    try:
        return read_mistakes(archive, set(images))
    except UserError as error:
        warn(f"cnnexp: {error}")
        return {}
