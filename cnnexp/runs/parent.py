"""What the parent run of a sweep says of it, up to date whenever a job ends."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cnnexp.console import redact, warn
from cnnexp.formats import override_group
from cnnexp.metrics.names import FAILED_JOBS, FINAL_VAL_ACC, FINAL_VAL_LOSS, JOBS
from cnnexp.runs.folder import SweepFolder
from cnnexp.tracking.notes import own_overrides
from cnnexp.tracking.protocols import RunStore

if TYPE_CHECKING:
    from cnnexp.report.compare import Comparison
    from cnnexp.report.grid import Grid

BEST = {FINAL_VAL_ACC: "best/val_acc", FINAL_VAL_LOSS: "best/val_loss"}


def sweep_tags(shared: DictConfig, grid: Sequence[str]) -> dict[str, str]:
    """`sweep.grid`, `sweep.keys`, `variant` and, where the line alone says it, `dataset` of a new parent run.

    Args:
        shared: the configuration that the jobs have in common.
        grid: the overrides with several values.
    """
    several = {override_group(override): override.partition("=")[2].replace(",", ", ") for override in grid}
    tags = {"sweep.grid": " ".join(grid), "sweep.keys": " ".join(several)}
    tags["variant"] = several.get("experiment") or several.get("name") or str(shared.name)
    if "experiment" not in several:  # it may choose another one
        tags["dataset"] = several.get("dataset") or str(shared.dataset.name)
    return tags


def show_progress(tracker: RunStore, folder: SweepFolder, monitor: str) -> None:
    """Record in the parent run how many jobs are done and failed, and which is the best by `trainer.monitor`,
    if all are of the same images.

    It is read from the jobs' folders, so that any process may do it. What goes wrong is said, and no end of the sweep.
    """
    parent = folder.parent_run_id
    if parent is None or not tracker.uri:
        return
    try:
        statuses = [job.status for job in folder.ended_jobs()]
        failed = sum(status != "FINISHED" for status in statuses)
        figures: dict[str, float] = {JOBS: len(statuses), FAILED_JOBS: failed}
        tags = {"sweep.state": f"{len(statuses) - failed} of {len(statuses)} jobs finished"}
        known, best = tracker.get_run(parent), folder.best_job(monitor)
        if best and best.manifest and best.manifest.run_id != known.tags.get("best.run_id"):
            run = tracker.find_run(best.manifest.run_id)  # or that which was taken for it
            figures |= {name: run.metrics[final] for final, name in BEST.items() if final in run.metrics}
            number = next(number for number, job in folder.jobs().items() if job == best)
            own = own_overrides(folder.overrides_of(number, best), folder.shared_overrides)
            tags |= {"best.run_id": run.run_id, "best.name": run.name, "best.params": redact(" ".join(own))}
            if "dataset" not in known.tags:
                tags["dataset"] = run.tags.get("dataset", "")
        if folder.has_several_data and known.tags.get("best.run_id"):  # of the first of its data sets
            figures |= {name: math.nan for name in BEST.values() if name in known.metrics}
            tags |= {"best.run_id": "", "best.name": "", "best.params": ""}
        tracker.add_metrics(
            parent, {name: value for name, value in figures.items() if known.metrics.get(name) != value}
        )
        tracker.add_tags(parent, tags)
    except Exception as error:  # of MLflow, the network, a file that another process removes
        warn(f"cnnexp: the sweep's run {parent} is not up to date: {redact(str(error) or type(error).__name__)}")


def record_choice(tracker: RunStore, run_id: str, comparison: "Comparison | Grid") -> None:
    """Record in the parent run of a grid or search what its best point is worth.

    These are means over its seeds: the figure that it was chosen for, as far as that is not one of the best job's, the
    same corrected for the choice as `best/val_corrected`, and that of the test images.
    """
    from cnnexp.report.grid import Grid

    if not isinstance(comparison, Grid) or comparison.chosen is None:
        return
    best = comparison.chosen
    figures = {f"best/{comparison.monitor.replace('/', '_')}": best.figure, "best/val_corrected": best.corrected}
    figures = {name: value for name, value in figures.items() if name not in BEST.values()}
    figures[f"best/test_{best.metric}"] = best.test.value if best.test else None
    try:
        tracker.add_metrics(run_id, {name: value for name, value in figures.items() if value is not None})
    except Exception as error:  # of MLflow, the network
        why = redact(str(error) or type(error).__name__)
        warn(f"cnnexp: what the best is worth was not recorded in the sweep's run {run_id}: {why}")
