"""Results of several runs as table, chart, page and CSV."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cnnexp.console import flat_table, say, warn, warn_once
from cnnexp.errors import UserError
from cnnexp.files import write_atomic
from cnnexp.report.chart import draw_progression
from cnnexp.report.columns import DROPPED_OF_GRID, GAIN_INTERVAL
from cnnexp.report.compare import Comparison, Result, Wanted, summarise
from cnnexp.report.grid import Grid, rank
from cnnexp.report.grid_chart import draw_grid
from cnnexp.report.mistakes import MISTAKES, Mistake, read_mistakes
from cnnexp.report.page import write_page
from cnnexp.report.predictions import PREDICTIONS, VAL_PREDICTIONS
from cnnexp.report.tables import (
    beside,
    chosen_table,
    compared_by,
    dropped,
    effect_table,
    grid_table,
    not_compared,
    pair_table,
    ranked_by,
    table_rows,
    to_csv,
    write_csv,
)
from cnnexp.runs.folder import RunFolder, SweepFolder
from cnnexp.runs.result import read_result
from cnnexp.runs.settings import Report, report_of, split_line, varying
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import PACKAGES, environment_tags


def read_jobs(sweep_folder: Path) -> tuple[list[Result], list[list[str]]]:
    """What the jobs of a sweep left in their folders, and their overrides, in the order of the jobs; what cannot be
    read is named."""
    sweep, results, lines = SweepFolder(sweep_folder), [], []
    for number, job in sweep.jobs().items():
        if not job.has_ended:
            continue
        try:
            result, line = _read_result(job), sweep.overrides_of(number, job)
        except UserError as error:
            warn_once(f"cnnexp: {error}; this job is left out")
            continue
        results.append(replace(result, order=number))
        lines.append(line)
    return results, lines


def _read_result(job: RunFolder) -> Result:
    """With the data it is of, and with the figure that was monitored, which results of before do not hold."""
    result, manifest = job.read_result(), job.manifest
    result = replace(result, data_digest=manifest.data_digest if manifest else "")
    if result.objective is None and result.finished and manifest is not None and manifest.objective is not None:
        monitor = str(job.read_config()["trainer"]["monitor"])
        return replace(result, monitor=monitor, objective=manifest.objective)
    return result


@dataclass(frozen=True)
class Layout:
    """How runs are put side by side.

    report:  a progression in their order, or a grid of the keys in which they differ.
    wanted:  what is compared; in a grid the metric alone, of the validation images.
    configs: what is recorded of their configs, flattened, for keys that not every line says.
    apart:   whether runs stand apart in a grid that differ in nothing at all.
    """

    report: Report
    wanted: Wanted = field(default_factory=Wanted)
    configs: Sequence[Mapping[str, str]] | None = None
    apart: bool = False


def compare(results: Sequence[Result], lines: Sequence[Sequence[str]], layout: Layout) -> Comparison | Grid:
    """Put runs side by side.

    Args:
        results: of the runs.
        lines: their overrides.
    """
    if layout.report == "progression":
        return summarise(distinguish(results, lines), layout.wanted)
    settings = varying(lines, layout.configs or [{} for _ in lines])
    seen = [(*values.values(), result.seed) for values, result in zip(settings, results, strict=True)]
    if layout.apart and len(set(seen)) < len(seen):
        settings = [values | {"run": result.run_id[:8]} for values, result in zip(settings, results, strict=True)]
    of_no_point = [replace(result, reference_accuracy=None) for result in results]
    return rank(of_no_point, settings, layout.wanted.metric)


@dataclass(frozen=True)
class Asked:
    """What the line of `cnnexp compare` asks for.

    report: `sweep.report`; where it is auto, how the sweep was shown at its end, and then what it is: a sweep over
            experiments alone is a progression.
    wanted: what is compared. With a baseline or pairs, variants are compared as those of a progression.
    """

    report: str
    wanted: Wanted = field(default_factory=Wanted)

    def __post_init__(self) -> None:
        if self.report == "grid" and (self.wanted.pairs or self.wanted.against is not None):
            given = "--pairs" if self.wanted.pairs else "--against"
            raise UserError(f"{given} compares variants, and a grid has none; leave out {given} or sweep.report=grid")


def compare_runs(
    tracker: RunStore, infos: Sequence[RunInfo], parent: RunInfo | None, asked: Asked, folder: Path
) -> Comparison | Grid:
    """Put runs of the store side by side, the children of `parent` or any.

    Args:
        folder: their answers are fetched into it.

    Raises:
        UserError: no run has the figure that is asked for, or no variant the name.
    """
    lines = [split_line(info.tags.get("overrides", "")) for info in infos]
    configs = [info.params for info in infos]
    wanted = asked.report
    if asked.wanted.pairs or asked.wanted.against is not None:
        wanted = "progression"
    elif wanted == "auto" and parent is not None:
        wanted = parent.tags.get("sweep.report", "auto")
    swept = split_line(parent.tags.get("sweep.grid", "")) if parent else []
    keys = {override.split("=")[0] for override in swept}
    if parent and not swept:  # an old one
        keys = {key for values in varying(lines, configs) for key in values}
    report = report_of(keys, wanted)
    files = (PREDICTIONS, MISTAKES) if report == "progression" else (PREDICTIONS, VAL_PREDICTIONS)
    results = [read_result(tracker, info, order, folder, files) for order, info in enumerate(infos)]
    return compare(results, lines, Layout(report, asked.wanted, configs, apart=parent is None))


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


def show_comparison(comparison: Comparison | Grid, wide: bool = False, chosen: bool = False) -> None:
    """Print the tables; one line a row, at the cost of columns unless `wide`.

    Args:
        chosen: whether the figure was asked for, so that it need not be explained.
    """
    if isinstance(comparison, Grid):
        made, effects, best = grid_table(comparison), effect_table(comparison), chosen_table(comparison)
        but_first = made.columns[made.names - 1 : made.names - len(comparison.keys) : -1]  # of the keys, the last first
        order = (*beside(comparison), *DROPPED_OF_GRID, *but_first)
        out = flat_table("", made.columns, made.rows, made.names, order, wide)
        if said := ranked_by(comparison):
            say(said)
        if best.rows and len(comparison.points) > 1:
            flat_table("", best.columns, best.rows, best.names, ("95 % interval",), wide)
        if effects.rows:
            title = "what each key does, all else equal"
            flat_table(title, effects.columns, effects.rows, effects.names, ("points", "95 % interval"), wide)
    else:
        columns, rows = table_rows(comparison)
        out = flat_table("", columns, rows, 1, dropped(comparison), wide)
        if comparison.pairs:
            pairs = pair_table(comparison)
            flat_table("each pair", pairs.columns, pairs.rows, pairs.names, (GAIN_INTERVAL, "p"), wide)
        if len(comparison.rows) > 1:
            say(compared_by(comparison, chosen))
        for line in not_compared(comparison):
            say(f"not compared image by image: {line}")
    if out:
        say(f"left out: {', '.join(out)}; cnnexp compare --wide shows all")


def write_report(
    folder: Path, comparison: Comparison | Grid, title: str, facts: Mapping[str, str] | None = None
) -> list[Path]:
    """Write comparison.png, .html and .csv into `folder`, of pairs pairs.csv too, and return their paths.

    Args:
        facts: what the page says of where the figures come from, by short words.
    """
    chart, page, figures = (folder / f"comparison.{kind}" for kind in ("png", "html", "csv"))
    folder.mkdir(parents=True, exist_ok=True)
    untitled = draw_chart(chart, comparison, title)
    mistakes = {} if isinstance(comparison, Grid) else mistakes_by_variant(comparison)
    write_page(page, comparison, untitled, title, mistakes, facts)
    write_csv(figures, comparison)
    if isinstance(comparison, Grid) or not comparison.pairs:
        return [chart, page, figures]
    write_atomic(folder / "pairs.csv", to_csv(comparison, pairs=True).encode("utf-8", "surrogateescape"))
    return [chart, page, figures, folder / "pairs.csv"]


def facts_of_jobs(folder: SweepFolder, line: Sequence[str], swept: Sequence[str]) -> dict[str, str]:
    """What the page says of a sweep that has ended here and now."""
    data: dict[str, str] = {}  # by digest
    for job in folder.ended_jobs():
        manifest = job.manifest
        if manifest is not None and manifest.data_digest not in data:
            name = job.read_config()["dataset"]["name"]
            data[manifest.data_digest] = f"{name}, digest {manifest.data_digest[:12]}"
    return _facts(line, swept, data.values(), [datetime.now(UTC)], environment_tags())


def facts_of_runs(infos: Sequence[RunInfo], parent: RunInfo | None) -> dict[str, str]:
    """What the page says of runs of the store, which may be the children of `parent`."""
    data = {
        f"{info.params.get('dataset.name', '?')}, digest {info.tags.get('data_digest', '?')[:12]}": None
        for info in infos
    }
    line, swept = (parent.tags.get(tag, "") for tag in ("overrides", "sweep.grid")) if parent else ("", "")
    dates = [info.start_time for info in ([parent] if parent else infos)]
    return _facts(split_line(line), split_line(swept), data, dates, (parent or infos[0]).tags)


def _facts(
    line: Sequence[str],
    swept: Sequence[str],
    data: Iterable[str],
    dates: Sequence[datetime],
    tags: Mapping[str, str],
) -> dict[str, str]:
    days = dict.fromkeys(f"{date:%Y-%m-%d %H:%M} UTC" for date in (min(dates), max(dates)))
    versions = [f"{name} {tags[name]}" for name in ("python", *PACKAGES) if name in tags]
    facts = {
        "swept": "  ".join(swept),
        "data set": "; ".join(data),
        "date": " to ".join(days),
        "line": shlex.join(["cnnexp", "train", "-m", *line]) if line else "",
        "versions": ", ".join(versions),
    }
    return {word: text for word, text in facts.items() if text}


def draw_chart(path: Path, comparison: Comparison | Grid, title: str) -> bytes:
    """Draw comparison.png, and return it as PNG without its title."""
    if isinstance(comparison, Grid):
        return draw_grid(path, comparison, title)
    return draw_progression(path, comparison, title)


def draw_so_far(folder: Path, name: str, report: Report) -> None:
    """Draw comparison.png of the jobs of a sweep that are done so far, if there are any."""
    results, lines = read_jobs(folder)
    if results:
        title = f"{name}: {len(results)} runs so far"
        draw_chart(folder / "comparison.png", compare(results, lines, Layout(report)), title)


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
