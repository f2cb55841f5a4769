"""A sweep: its parent run, opened before the first job, and the table and chart at its end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cnnexp.console import say, warn

SWEEP_FILE = "sweep.json"


@dataclass
class Sweep:
    """The sweep of this process, if it runs one."""

    folder: Path | None = None
    tracker: Any = None
    name: str = "sweep"
    failed: bool = False


current = Sweep()


class SweepCallback(Callback):
    """Prepares the store and opens the parent run before any job starts, so that parallel jobs cannot race."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent run, and leave its id where every job finds it: in the sweep's folder."""
        from cnnexp.commands.stores import open_tracker
        from cnnexp.config import typed
        from cnnexp.tracking.record import environment_tags

        job_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        tracker = open_tracker(typed(_as_root(job_config)))
        tracker.prepare()
        folder = Path(config.hydra.sweep.dir).resolve()
        line = [str(override) for override in config.hydra.overrides.task]
        name = next((o.split("=")[1] for o in line if o.startswith("sweep=")), "sweep")
        tags = {"overrides": " ".join(line), "run_dir": str(folder), "sweep": "parent", **environment_tags()}
        run_id = tracker.start_run(name, {}, tags)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SWEEP_FILE).write_text(json.dumps({"parent_run_id": run_id, "overrides": line, "name": name}))
        current.folder, current.tracker, current.name = folder, tracker, name


def _as_root(config: DictConfig) -> DictConfig:
    from cnnexp.config import Config

    return OmegaConf.merge(OmegaConf.structured(Config), config)  # type: ignore[return-value]


def parent_run(folder: Path) -> str | None:
    """The parent run's id, as a job finds it in the sweep's folder."""
    file = folder / SWEEP_FILE
    return json.loads(file.read_text())["parent_run_id"] if file.is_file() else None


@contextmanager
def finishing() -> Iterator[Sweep]:
    """Around Hydra's run: at the end of a sweep, show what came out and close its parent run, whatever happened."""
    current.folder = current.tracker = None
    current.failed = False
    try:
        yield current
    except BaseException as error:
        if current.tracker:
            status = "FAILED" if isinstance(error, Exception | SystemExit) else "KILLED"
            current.tracker.end_run(status, error=f"{type(error).__name__}: {error}")
        raise
    if current.folder:
        _finish(current)


def _finish(sweep: Sweep) -> None:
    from cnnexp.commands.reporting import read_results, show_comparison, write_report
    from cnnexp.report.compare import summarise

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
    sweep.tracker.log_metrics({"count/jobs": len(results), "count/failed": len(unfinished)}, step=0)
    if sweep.failed:
        sweep.tracker.end_run("FAILED", error=f"{len(unfinished)} of {len(results)} jobs did not finish")
    else:
        sweep.tracker.end_run("FINISHED")
