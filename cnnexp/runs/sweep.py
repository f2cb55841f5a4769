"""A sweep: its parent run, opened before the first job, and the table and chart at its end."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from cnnexp.config import hydra_driver
from cnnexp.config.composition import CommandLineJobs
from cnnexp.console import say, warn
from cnnexp.drawing import draw_aside, drawing_process
from cnnexp.errors import RunError, UserError, first_line, is_of_hydra
from cnnexp.files import is_disk_full
from cnnexp.formats import bare_key
from cnnexp.process import lead
from cnnexp.runs import search
from cnnexp.runs.folder import SweepFolder, SweepManifest, removed_if_empty
from cnnexp.runs.parent import record_choice, show_progress, sweep_tags
from cnnexp.runs.planning import adopt_jobs, folder_override, kind, recorded_line, recorded_swept
from cnnexp.runs.settings import Report, report_of
from cnnexp.runs.tasks import train_in_sweep
from cnnexp.tracking.faults import fault_of, is_outage, reason
from cnnexp.tracking.protocols import RunTracker

if TYPE_CHECKING:
    from cnnexp.report.compare import Result
    from cnnexp.tracking.info import RunInfo, Status


GO_ON = "the same line goes on with the sweep"
CHART_AGAIN_S = 20  # at least, between two charts of the jobs that are done so far


@dataclass
class Sweep:
    """A sweep that this process runs: its folder, its parent run, and what it has come to.

    tracker: on the parent run, `run_id`.
    name:    for its chart.
    line:    the overrides, without passwords; `swept` those with several values.
    monitor: `trainer.monitor`.
    report:  how its jobs are shown.
    """

    folder: SweepFolder
    tracker: RunTracker
    run_id: str
    name: str
    line: list[str]
    swept: list[str]
    monitor: str
    report: Report
    failed: bool = False
    _chart: Future[None] | None = None  # of the jobs that are done so far
    _charted: float = -math.inf  # when it was last begun, by the monotonic clock

    def train(self, composed: DictConfig) -> float:
        """`train_in_sweep` in this process, and the chart of what is done so far, drawn beside the next job."""
        objective = train_in_sweep(composed)
        self.draw_so_far()
        return objective

    def draw_so_far(self) -> None:
        """Have the chart drawn, unless it was or is being drawn a moment ago; its failure is none of the sweep."""
        from cnnexp.runs.comparison import draw_so_far

        if time.monotonic() - self._charted < CHART_AGAIN_S or (self._chart and not self._chart.done()):
            return
        first = self._chart is None
        self._chart, self._charted = draw_aside(draw_so_far, self.folder.path, self.name, self.report), time.monotonic()
        if first and self._chart:
            say(f"chart {self.folder.path / 'comparison.png'}, which grows with the jobs")


def run_sweep(plan: CommandLineJobs, folder: Path | None) -> bool:
    """Open store, folder and parent run, let Hydra run the jobs, and show what came out.

    Args:
        plan: from `check_line`.
        folder: of the sweep that goes on; None: a new one.

    Returns:
        Whether every job finished.

    Raises:
        UserError: the store cannot be opened, or another process works in the folder; no job was started.
    """
    settings = plan.shared.hydra
    is_search = not plan.jobs and search.is_search(settings)
    added = search.search_overrides(plan.shared, plan.overrides) if is_search else []
    if is_search:
        search.check_storage(plan.shared)
    place = folder or Path(settings.sweep.dir)
    with _opened(plan, place) as sweep:
        adopt_jobs(plan, place)
        here = settings.runtime.choices["hydra/launcher"] == "basic"  # the jobs are run by this process
        line = [*plan.overrides, *added, folder_override("sweep", place)]
        lead()
        with drawing_process() if here else nullcontext(), _launching(settings, SweepFolder(place)):
            hydra_driver.run_sweep(sweep.train if here else train_in_sweep, line, plan.config_dir, plan.name)
        _finish(sweep)
        if sweep.tracker.lost:
            raise RunError(f"{sweep.tracker.lost}; the jobs are done, and {place} compares them; {GO_ON}")
    return not sweep.failed


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Says in one line what befell store or disk while a sweep was at work.

    Raises:
        RunError: a store that went away or was damaged, or a disk that is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise RunError(f"{folder}: the disk is full; make room: {GO_ON}") from error
        if is_outage(error):
            raise RunError(f"{folder}: the store does not answer any more ({reason(error)}); {GO_ON}") from error
        if fault := fault_of(error):
            raise RunError(f"{folder}: the store is of no more use: {fault.value} ({reason(error)})") from error
        raise


@contextmanager
def _launching(settings: DictConfig, folder: SweepFolder) -> Iterator[None]:
    """What is raised while jobs are run is no mistake of the line, which was checked before.

    Raises:
        RunError: a job could not say that it failed, or the launcher failed before the first job.
    """
    try:
        yield
    except RunError:
        raise
    except UserError as error:
        raise RunError(f"{error}; {GO_ON}") from error
    except Exception as error:
        if is_of_hydra(error) or is_disk_full(error) or folder.jobs():
            raise
        choice = f"hydra/launcher={settings.runtime.choices['hydra/launcher']}"
        raise RunError(f"{choice}: no job was begun: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def _opened(plan: CommandLineJobs, folder: Path) -> Iterator[Sweep]:
    """Make the parent run, or open it again, before any job starts, so that parallel jobs cannot race.

    Its id is left where every job finds it, in the sweep's folder. It is closed whatever happens.
    """
    from cnnexp.runs.tracker import open_tracker
    from cnnexp.tracking.notes import NOTE_TAG, sweep_name, sweep_note
    from cnnexp.tracking.record import environment_tags

    search.forget()
    shared = plan.shared
    tracker = open_tracker(OmegaConf.to_object(shared.tracking))  # type: ignore[arg-type]
    tracker.prepare()
    line, swept = recorded_line(plan), recorded_swept(plan)
    report = report_of({bare_key(override) for override in swept}, str(shared.sweep.report))
    kept = SweepFolder(folder.resolve())
    name = sweep_name(line, [o for o in swept if o not in line])
    with removed_if_empty(kept.path), _going_on(kept.path), kept.lock():
        kept.stopped.unlink(missing_ok=True)
        run_id = kept.parent_run_id
        if run_id is not None:
            tracker.resume_run(run_id)
            say(f"goes on with the sweep in {kept}; sweep.resume=false trains all jobs anew")
        else:
            tags = {"overrides": " ".join(line), "run_dir": str(kept), "sweep": "parent", **environment_tags()}
            tags |= sweep_tags(shared, swept)
            run_id = tracker.start_run(name, {}, {NOTE_TAG: sweep_note(line, kept.path), **tags})
        try:
            if not kept.parent_run_id:
                kept.begin(SweepManifest(run_id, line, name, kind(plan), swept))
            yield Sweep(kept, tracker, run_id, name, line, swept, str(shared.trainer.monitor), report)
        except BaseException as error:
            status: Status = "FAILED" if isinstance(error, Exception | SystemExit) else "KILLED"
            with suppress(Exception):  # the error says more
                tracker.end_run(status, error=f"{type(error).__name__}: {error}")
            raise


def _finish(sweep: Sweep) -> None:
    from cnnexp.runs.comparison import (
        Layout,
        compare,
        distinguish,
        facts_of_jobs,
        read_jobs,
        show_comparison,
        write_report,
    )
    from cnnexp.tracking.notes import NOTE_TAG, sweep_note

    folder = sweep.folder.path
    ended, lines = read_jobs(folder)
    results = distinguish(ended, lines)
    unfinished = [result for result in results if result.status != "FINISHED"]
    sweep.failed = bool(unfinished) or not results
    places = sweep.folder.jobs()
    for result in unfinished:
        warn(f"cnnexp: job {result.order} ({result.name}) is {result.status}; see {places[result.order]}")
    if results:
        comparison = compare(ended, lines, Layout(sweep.report))
        record_choice(sweep.tracker, sweep.run_id, comparison)
        show_comparison(comparison)
        facts = facts_of_jobs(sweep.folder, sweep.line, sweep.swept)
        for file in write_report(folder, comparison, f"{sweep.name}: {len(results)} runs", facts):
            sweep.tracker.log_artifact(file)
        say(f"chart {folder / 'comparison.png'}")
        say(f"page  {folder / 'comparison.html'}")
    for file in () if sweep.folder.has_several_data else search.draw_charts(folder, sweep.monitor):
        sweep.tracker.log_artifact(file)
        say(f"chart {file}")
    rows = [(result.name, sweep.tracker.run_link(result.run_id), _figures(result)) for result in results]
    note = sweep_note(sweep.line, folder, rows)
    sweep.tracker.set_tags({NOTE_TAG: note, "sweep.report": sweep.report})
    _register_best(sweep)
    _explain_best(sweep)
    if (file := folder / "optimization_results.yaml").is_file():  # by the search's plugin
        sweep.tracker.log_artifact(file)
    show_progress(sweep.tracker, sweep.folder, sweep.monitor)
    if unfinished or not results:
        sweep.tracker.end_run("FAILED", error=f"{len(unfinished)} of {len(results)} jobs did not finish")
    else:
        sweep.tracker.end_run("FINISHED")


def _figures(result: "Result") -> list[str]:
    """Those of `notes.FIGURES`."""
    if result.test_accuracy is None or result.interval is None:
        return [result.status, "", "", "", ""]
    low, high = result.interval
    validation = "" if result.val_accuracy is None else f"{result.val_accuracy:.4f}"
    trained = "" if result.trainable_parameters is None else f"{result.trainable_parameters:,}"
    seconds = "" if result.train_seconds is None else f"{result.train_seconds:.0f}"
    return [f"{result.test_accuracy:.4f}", f"{low:.3f} to {high:.3f}", validation, trained, seconds]


def _explain_best(sweep: Sweep) -> None:
    """Explain the chosen job of a grid or a search, where none was asked to explain itself."""
    from cnnexp.runs.explanation import explain_job

    best = sweep.folder.best_job(sweep.monitor) if sweep.folder.chooses else None
    if sweep.folder.chooses and sweep.folder.has_several_data:
        done = next(job for job in sweep.folder.ended_jobs() if job.status == "FINISHED")
        if done.read_config()["tracking"]["explain"] == "auto":
            say("no job is explained: not all are of the same images, so none is the best; see tracking.explain=true")
    if best is not None:
        explain_job(sweep.tracker, best.origin)
    sweep.folder.remove_networks()


def _register_best(sweep: Sweep) -> None:
    """Under each name that jobs give as `tracking.register`, the best of the finished jobs that give it; of different
    images, of each data set the best."""
    from cnnexp.runs.tracker import register_model
    from cnnexp.tracking.registry import best_run

    runs = sweep.tracker.children(sweep.run_id)
    names = dict.fromkeys(run.params.get("tracking.register", "null") for run in runs)
    for name in names:
        if name == "null":
            continue
        by_data: dict[str, list[RunInfo]] = {}
        for run in runs:
            if run.params.get("tracking.register") == name:
                by_data.setdefault(run.tags.get("data_digest", ""), []).append(run)
        found = [best_run(some, sweep.monitor) for some in by_data.values()]
        best = [run for run in found if run is not None]
        try:
            if not best:
                raise UserError(f"tracking.register={name}: no job finished, so there is no model to register")
            made = [register_model(sweep.tracker, run.run_id, name) for run in best]
            sweep.tracker.set_tags({f"registered.{name}": " ".join(made)})
        except UserError as error:
            warn(f"cnnexp: {error}")
            sweep.failed = True
