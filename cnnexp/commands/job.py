"""One run: assemble, train, record."""

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from cnnexp.commands import artifacts, sweep
from cnnexp.commands.assemble import (
    build_network,
    check_layer_names,
    fit,
    training_data,
)
from cnnexp.commands.datasets import load_dataset
from cnnexp.commands.localisation import localisation_metrics
from cnnexp.commands.results import final_metrics, make_result, monitored, show, write_result
from cnnexp.commands.stores import open_tracker, register_model
from cnnexp.config import Config, typed
from cnnexp.console import say, warn
from cnnexp.data.sources import Dataset
from cnnexp.errors import UserError
from cnnexp.models.build import Network
from cnnexp.models.counts import totals
from cnnexp.report.compare import Result
from cnnexp.report.statistics import wilson_interval
from cnnexp.tracking.mlflow import NullTracker, Status, Tracker
from cnnexp.tracking.notes import NOTE_TAG, describing_tags, run_name, run_note
from cnnexp.tracking.record import config_hash, environment_tags, flatten, redact
from cnnexp.training.inputs import TrainingData
from cnnexp.training.runtime import prepare_tensorflow
from cnnexp.training.trainer import FitResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a run is made from.

    `resolved` is the composed config as plain values and `overrides` what the command line gave, both without
    passwords; `folder` is the run's own.
    """

    config: Config
    resolved: dict[str, Any]
    overrides: list[str]
    folder: Path

    @classmethod
    def from_hydra(cls, composed: DictConfig, folder: Path, overrides: list[str]) -> "Job":
        """Type and check what Hydra composed."""
        resolved = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(resolved, dict)
        values = {str(key): value for key, value in resolved.items()}
        values["tracking"]["uri"] = redact(values["tracking"]["uri"] or "") or None
        return cls(typed(composed), values, [redact(override) for override in overrides], folder.resolve())


def run_job(job: Job, parent: str | None = None, order: int = 0) -> float:
    """Train, evaluate, record.

    Args:
        parent: the run id of the sweep this job belongs to.
        order: its number there.

    Returns:
        The monitored figure, `trainer.monitor`, of the weights that were kept.
    """
    config = job.config
    tracker = open_tracker(config)
    check_layer_names(config)
    prepare_tensorflow(config.seed, config.trainer.deterministic)
    dataset = load_dataset(config)
    data = training_data(config, dataset)
    network = build_network(config, dataset.channels, len(dataset.class_names))
    counts = totals(network)
    tracker.prepare()
    say(f"{config.name}: {counts.trainable:,} of {counts.total:,} parameters are trained")
    run_id = _start(tracker, job, dataset, parent)
    with recorded(tracker, job, run_id, order):
        began = time.perf_counter()
        _log_input(tracker, dataset, config)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            log.info("epoch %d: %s", epoch + 1, metrics)
            tracker.log_metrics(metrics, step=epoch + 1)

        fitted = fit(config, network, data, on_epoch)
        metrics = final_metrics(fitted, network, data, config) | {"time/total_s": time.perf_counter() - began}
        tracker.log_metrics(metrics, step=0)
        tracker.set_tags({f"frozen_digest.{phase.name}": phase.frozen_digest for phase in fitted.phases})
        _record_files(tracker, job, network, dataset, data, fitted)
        result = make_result(job, run_id, order, fitted, metrics)
        write_result(job.folder, result)
        tracker.set_tags({NOTE_TAG: _note(job, result)})
    show(config, result, job.folder)
    if config.tracking.register and parent is None:
        register_model(tracker, run_id, config.tracking.register)
    return monitored(config.trainer.monitor, fitted)


def _record_files(
    tracker: Tracker | NullTracker,
    job: Job,
    network: Network,
    dataset: Dataset,
    data: TrainingData,
    fitted: FitResult,
) -> None:
    """Write the files of the run, and record them with the figures that come from them, and the model."""
    explain = job.config.tracking.explain
    scores = artifacts.write(job.folder, job.resolved, job.overrides, network, dataset, data, fitted, explain)
    if explain:
        scores |= localisation_metrics(network.model, dataset, data.test.images)
    tracker.log_metrics(scores, step=0)
    for file in artifacts.FILES:
        if (job.folder / file).is_file():
            tracker.log_artifact(job.folder / file, folder=str(Path(file).parent) if "/" in file else None)
    if job.config.tracking.log_model:
        tracker.log_model(fitted.model, data.test.images.take(np.arange(1)), dataset.class_names)


def run_in_sweep(job: Job, parent: str | None, order: int) -> float:
    """`run_job` for a sweep: a failure is recorded, said in one line, and the other jobs go on."""
    say(f"[{order}] {' '.join(job.overrides)}")
    try:
        return run_job(job, parent, order)
    except Exception as error:  # one failing job must not end the others
        expected = isinstance(error, UserError)
        if not expected:
            log.error("%s", traceback.format_exc())
        warn(f"cnnexp: job {order} failed: {'' if expected else type(error).__name__ + ': '}{error}")
        if not (job.folder / "result.json").is_file():  # it failed before its run began
            tracker = open_tracker(job.config)
            tracker.prepare()
            run_id = _start(tracker, job, None, parent)
            tracker.end_run("FAILED", error=str(error))
            write_result(job.folder, make_result(job, run_id, order, status="FAILED"))
        return float("nan")


@contextmanager
def recorded(tracker: Tracker | NullTracker, job: Job, run_id: str, order: int) -> Iterator[None]:
    """Close the run with the truth: FINISHED, KILLED by an interrupt, or FAILED with the error."""
    try:
        yield
    except BaseException as error:
        status: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
        tracker.log_text(traceback.format_exc(), "traceback.txt")
        tracker.end_run(status, error=f"{type(error).__name__}: {error}" if status == "FAILED" else "interrupted")
        write_result(job.folder, make_result(job, run_id, order, status=status))
        raise
    tracker.end_run("FINISHED")


def _start(tracker: Tracker | NullTracker, job: Job, dataset: Dataset | None, parent: str | None) -> str:
    name = run_name(job.config.name, job.overrides, sweep.shared_overrides(job.folder.parent))
    note = run_note(job.resolved, job.overrides, job.folder)
    return tracker.start_run(name, flatten(job.resolved), _tags(job, dataset, parent), parent, note)


def _note(job: Job, result: Result) -> str:
    assert result.test_accuracy is not None and result.test_total is not None and result.val_accuracy is not None
    interval = wilson_interval(round(result.test_accuracy * result.test_total), result.test_total)
    return run_note(job.resolved, job.overrides, job.folder, (result.test_accuracy, result.val_accuracy), interval)


def _tags(job: Job, dataset: Dataset | None, parent: str | None) -> dict[str, str]:
    return {
        **describing_tags(job.resolved),
        "sweep_id": parent or "",
        "overrides": " ".join(job.overrides),
        "config_hash": config_hash(job.resolved),
        "data_digest": dataset.digest if dataset else "",
        "run_dir": str(job.folder),
        **environment_tags(),
        **job.config.tracking.tags,
    }


def _log_input(tracker: Tracker | NullTracker, dataset: Dataset, config: Config) -> None:
    splits = {split.name: len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)}
    source = str(getattr(config.dataset, "path", None) or dataset.name)
    tracker.log_input(dataset.name, dataset.digest, source, splits)
