"""A sweep: its parent run, opened before the first job, and the table and chart at its end."""

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cnnexp.console import say, warn
from cnnexp.drawing import draw_aside
from cnnexp.errors import UserError
from cnnexp.files import write_whole
from cnnexp.runs import search
from cnnexp.runs.folder import STOPPED, SWEEP_FILE, held, parent_run

if TYPE_CHECKING:
    from cnnexp.report.compare import Result


Kind = Literal["progression", "grid", "search"]

CHART_AGAIN_S = 20  # at least, between two charts of the jobs that are done so far


@dataclass
class Sweep:
    """The sweep of this process, if it runs one."""

    folder: Path | None = None
    tracker: Any = None
    run_id: str = ""  # of the parent run
    name: str = "sweep"
    line: list[str] = field(default_factory=list)  # the overrides, without passwords
    monitor: str = "val/acc"
    failed: bool = False
    lock: ExitStack = field(default_factory=ExitStack)  # keeps other processes out of the folder
    chart: "Future[None] | None" = None  # of the jobs that are done so far
    charted: float = -math.inf  # when it was last begun, by the monotonic clock

    def draw_so_far(self) -> None:
        """Have the chart drawn, unless it was or is being drawn a moment ago; its failure is none of the sweep."""
        from cnnexp.runs.comparison import draw_so_far

        assert self.folder is not None
        if time.monotonic() - self.charted < CHART_AGAIN_S or (self.chart and not self.chart.done()):
            return
        first = self.chart is None
        self.chart, self.charted = draw_aside(draw_so_far, self.folder, self.name), time.monotonic()
        if first and self.chart:
            say(f"chart {self.folder / 'comparison.png'}, which grows with the jobs")


current = Sweep()


class SweepCallback(Callback):
    """Prepares the store and opens the parent run before any job starts, so that parallel jobs cannot race."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent run, anew or again, and leave its id where every job finds it: in the sweep's folder."""
        from cnnexp.config import typed
        from cnnexp.runs.tracker import open_tracker
        from cnnexp.tracking.notes import sweep_name, sweep_note
        from cnnexp.tracking.record import environment_tags, redact

        job_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        tracker = open_tracker(typed(_as_root(job_config)))
        tracker.prepare()
        folder = Path(config.hydra.sweep.dir).resolve()
        line = [redact(str(override)) for override in config.hydra.overrides.task]
        name = sweep_name(line)
        current.lock.enter_context(held(folder))
        (folder / STOPPED).unlink(missing_ok=True)
        run_id = parent_run(folder)
        if run_id is not None:
            tracker.resume_run(run_id)
            say(f"goes on with the sweep in {folder}; sweep.resume=false trains all jobs anew")
        else:
            tags = {"overrides": " ".join(line), "run_dir": str(folder), "sweep": "parent", **environment_tags()}
            tags["sweep.grid"] = " ".join(swept(line, config.hydra.sweeper.get("params") or {}))
            run_id = tracker.start_run(name, {}, tags, description=sweep_note(line, folder))
            content = {"parent_run_id": run_id, "overrides": line, "name": name, "kind": kind(config)}
            write_whole(folder / SWEEP_FILE, json.dumps(content).encode())
        current.folder, current.tracker, current.run_id = folder, tracker, run_id
        current.name, current.line, current.monitor = name, line, str(config.trainer.monitor)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Let go of the job's config, which Hydra would keep until the end of the sweep: megabytes of small objects.

        And have the chart of what is done so far drawn, beside the next job.
        """
        job_return.cfg = job_return.hydra_cfg = None
        if current.folder:
            current.draw_so_far()


def swept(line: list[str], params: dict[str, Any]) -> list[str]:
    """The overrides with several values, those of the command line and those that a file gives the sweeper."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [*(f"{key}={value}" for key, value in params.items()), *line]
    parsed = OverridesParser.create().parse_overrides(given)
    return [override.input_line for override in parsed if override.is_sweep_override() and override.input_line]


def kind(config: DictConfig) -> Kind:
    """What a sweep is: a list of experiments, maybe each with several seeds, is a progression."""
    if search.is_search(config.hydra):
        return "search"
    line = [str(override) for override in config.hydra.overrides.task]
    keys = {override.split("=")[0] for override in swept(line, config.hydra.sweeper.get("params") or {})}
    return "progression" if "experiment" in keys and keys <= {"experiment", "seed"} else "grid"


def chooses(folder: Path) -> bool:
    """Whether this is the folder of a grid or a search, of which one job is chosen."""
    file = folder / SWEEP_FILE
    return file.is_file() and json.loads(file.read_text()).get("kind") in ("grid", "search")


def _as_root(config: DictConfig) -> DictConfig:
    from cnnexp.config import Config

    return OmegaConf.merge(OmegaConf.structured(Config), config)  # type: ignore[return-value]


@contextmanager
def finishing() -> Iterator[Sweep]:
    """Around Hydra's run and its drawing process: show a sweep's results, and close its parent run whatever happens."""
    current.folder = current.tracker = None
    search.forget()
    current.failed = False
    current.chart, current.charted = None, -math.inf
    try:
        yield current
        if current.folder:
            _finish(current)
    except BaseException as error:
        if current.tracker:
            status = "FAILED" if isinstance(error, Exception | SystemExit) else "KILLED"
            current.tracker.end_run(status, error=f"{type(error).__name__}: {error}")
        raise
    finally:
        current.lock.close()


def _finish(sweep: Sweep) -> None:
    from cnnexp.report.compare import summarise
    from cnnexp.runs.comparison import read_results, show_comparison, write_report
    from cnnexp.tracking.notes import NOTE_TAG, sweep_note

    assert sweep.folder is not None
    results = read_results(sweep.folder)
    unfinished = [result for result in results if result.status != "FINISHED"]
    sweep.failed = bool(unfinished) or not results
    for result in unfinished:
        warn(f"cnnexp: job {result.order} ({result.name}) is {result.status}; see {sweep.folder / str(result.order)}")
    if results:
        comparison = summarise(results)
        show_comparison(comparison)
        for file in write_report(sweep.folder, comparison, f"{sweep.name}: {len(results)} runs"):
            sweep.tracker.log_artifact(file)
        say(f"chart {sweep.folder / 'comparison.png'}")
        say(f"page  {sweep.folder / 'comparison.html'}")
    for file in search.draw_charts(sweep.folder, sweep.monitor):
        sweep.tracker.log_artifact(file)
        say(f"chart {file}")
    rows = [(result.name, sweep.tracker.run_link(result.run_id), _figures(result)) for result in results]
    sweep.tracker.set_tags({NOTE_TAG: sweep_note(sweep.line, sweep.folder, rows)})
    _register_best(sweep)
    _explain_best(sweep)
    state = f"{len(results) - len(unfinished)} of {len(results)} jobs finished"
    sweep.tracker.set_tags({"sweep.state": state})
    sweep.tracker.log_metrics({"count/jobs": len(results), "count/failed": len(unfinished)}, step=0)
    if unfinished or not results:
        sweep.tracker.end_run("FAILED", error=f"{len(unfinished)} of {len(results)} jobs did not finish")
    else:
        sweep.tracker.end_run("FINISHED")


def _figures(result: "Result") -> list[str]:
    """Those of `notes.FIGURES`."""
    from cnnexp.report.statistics import wilson_interval

    if result.test_accuracy is None or not result.test_total:
        return [result.status, "", "", "", ""]
    low, high = wilson_interval(round(result.test_accuracy * result.test_total), result.test_total)
    validation = "" if result.val_accuracy is None else f"{result.val_accuracy:.4f}"
    trained = "" if result.trainable_parameters is None else f"{result.trainable_parameters:,}"
    seconds = "" if result.train_seconds is None else f"{result.train_seconds:.0f}"
    return [f"{result.test_accuracy:.4f}", f"{low:.3f} to {high:.3f}", validation, trained, seconds]


def _explain_best(sweep: Sweep) -> None:
    """Explain the chosen job of a grid or a search, where none was asked to explain itself."""
    from cnnexp.runs.explanation import explain_job
    from cnnexp.runs.folder import MODEL, best_job

    assert sweep.folder is not None
    best = best_job(sweep.folder, sweep.monitor) if chooses(sweep.folder) else None
    if best is not None:
        explain_job(sweep.tracker, best)
    for file in sweep.folder.rglob(MODEL):
        file.unlink()


def _register_best(sweep: Sweep) -> None:
    """Under each name that jobs give as `tracking.register`, the best of the finished jobs that give it."""
    from cnnexp.runs.tracker import register_model
    from cnnexp.tracking.registry import best_run

    runs = sweep.tracker.children(sweep.run_id)
    names = dict.fromkeys(run.params.get("tracking.register", "null") for run in runs)
    for name in names:
        if name == "null":
            continue
        best = best_run(run for run in runs if run.params.get("tracking.register") == name)
        try:
            if best is None:
                raise UserError(f"tracking.register={name}: no job finished, so there is no model to register")
            sweep.tracker.set_tags({f"registered.{name}": register_model(sweep.tracker, best.run_id, name)})
        except UserError as error:
            warn(f"cnnexp: {error}")
            sweep.failed = True
