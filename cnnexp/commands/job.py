"""One run: assemble, train, record."""

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from cnnexp.commands.results import RESULT, final_metrics, make_result, monitored, show, write_result
from cnnexp.commands.stores import open_tracker, register_model
from cnnexp.commands.unfinished import CHECKPOINT, JOURNAL, STOPPED, RunState, held, read_state, status, write_state
from cnnexp.config import Config, typed
from cnnexp.console import say, warn
from cnnexp.data.dataset import Dataset
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
    """Train, evaluate, record; a run that was stopped in this folder goes on where its last epoch ended.

    Args:
        parent: the run id of the sweep this job belongs to.
        order: its number there.

    Returns:
        The monitored figure, `trainer.monitor`, of the weights that were kept.

    Raises:
        UserError: bad input, or another process works in the run's folder.
    """
    with held(job.folder):
        return _run(job, parent, order)


def _run(job: Job, parent: str | None, order: int) -> float:
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
    earlier = _earlier(job, dataset)
    state = RunState(earlier.run_id if earlier else "", config_hash(job.resolved), dataset.digest)
    write_state(job.folder, state)  # before there is a run: from here on a kill leaves a folder that can go on
    run_id = _open_run(tracker, job, dataset, parent, earlier)
    state = replace(state, run_id=run_id)
    write_state(job.folder, state)
    (job.folder / RESULT).unlink(missing_ok=True)
    with recorded(tracker, job, run_id, order):
        began = time.perf_counter()
        _log_input(tracker, dataset, config)

        told: set[int] = set()

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            told.add(epoch)
            log.info("epoch %d: %s", epoch + 1, metrics)
            tracker.log_metrics(metrics, step=epoch + 1)

        fitted = fit(config, network, data, on_epoch, job.folder / CHECKPOINT, resume=earlier is not None)
        for epoch in set(range(len(fitted.history))) - told:  # a kill may have kept them from the store
            tracker.log_metrics(fitted.history[epoch], step=epoch + 1)
        metrics = final_metrics(fitted, network, data, config) | {"time/total_s": time.perf_counter() - began}
        tracker.log_metrics(metrics, step=0)
        tracker.set_tags({f"frozen_digest.{phase.name}": phase.frozen_digest for phase in fitted.phases})
        _record_files(tracker, job, network, dataset, data, fitted)
        result = make_result(job, run_id, order, fitted, metrics)
        tracker.set_tags({NOTE_TAG: _note(job, result)})
    objective = monitored(config.trainer.monitor, fitted)
    write_state(job.folder, replace(state, objective=objective))
    write_result(job.folder, result)  # from here on the run is finished
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    show(config, result, job.folder)
    if config.tracking.register and parent is None:
        register_model(tracker, run_id, config.tracking.register)
    return objective


def _earlier(job: Job, dataset: Dataset) -> RunState | None:
    """The run that was stopped in this folder, if it computed the same; files of another one are removed."""
    state = read_state(job.folder)
    if state is None or status(job.folder) == "FINISHED":
        return None
    if state.config_hash == config_hash(job.resolved) and state.data_digest == dataset.digest:
        return state
    if job.config.trainer.resume and state.data_digest != dataset.digest:
        raise UserError(
            f"trainer.resume=true: the images are no longer those of the run in {job.folder}; "
            "leave it out to train from the start"
        )
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return None


def _open_run(
    tracker: Tracker | NullTracker, job: Job, dataset: Dataset, parent: str | None, earlier: RunState | None
) -> str:
    """The id of the run that is recorded from here on: the earlier one if there is one, or a new one."""
    run_id, params = earlier.run_id if earlier else "", None
    if earlier and not run_id:  # killed while its run was being opened, maybe before it had all its params
        begun = tracker.find_runs({"run_dir": str(job.folder), "config_hash": earlier.config_hash}, limit=1)
        run_id, params = begun[0].run_id if begun else "", _params(job)
    if not run_id:
        return _start(tracker, job, dataset, parent)
    try:
        tracker.resume_run(run_id, job.folder / JOURNAL, params)
    except UserError as error:
        warn(f"cnnexp: {error}; a new run is recorded")
        return _start(tracker, job, dataset, parent)
    say(f"goes on with run {run_id}")
    return run_id


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
    """`run_job` for a sweep: a job that is done is skipped; a failure is recorded, said in one line, and is no end.

    With `sweep.on_failure=stop` no job starts after a failure.
    """
    say(f"[{order}] {' '.join(job.overrides)}")
    stopped = job.folder.parent / STOPPED
    if stopped.exists():
        say(f"[{order}] is not started: a job failed, and sweep.on_failure=stop")
        return float("nan")
    try:
        if (done := _done(job)) is not None:
            say(f"[{order}] is done already, run {done.run_id}")
            return float("nan") if done.objective is None else done.objective
        (job.folder / RESULT).unlink(missing_ok=True)
        return run_job(job, parent, order)
    except Exception as error:  # one failing job must not end the others
        if job.config.sweep.on_failure == "stop":
            stopped.touch()
        expected = isinstance(error, UserError)
        if not expected:
            log.error("%s", redact(traceback.format_exc()))
        warn(f"cnnexp: job {order} failed: {'' if expected else type(error).__name__ + ': '}{redact(str(error))}")
        if not (job.folder / RESULT).is_file():  # it failed before its run began
            tracker = open_tracker(job.config)
            tracker.prepare()
            run_id = _start(tracker, job, None, parent)
            tracker.log_text(redact(traceback.format_exc()), "traceback.txt")
            tracker.end_run("FAILED", error=redact(str(error)))
            write_result(job.folder, make_result(job, run_id, order, status="FAILED"))
        return float("nan")


def _done(job: Job) -> RunState | None:
    """The finished run in this folder, if it computed what this job is to compute."""
    state = read_state(job.folder)
    if state is None or status(job.folder) != "FINISHED" or state.config_hash != config_hash(job.resolved):
        return None
    return state if state.data_digest == load_dataset(job.config).digest else None


@contextmanager
def recorded(tracker: Tracker | NullTracker, job: Job, run_id: str, order: int) -> Iterator[None]:
    """Close the run with the truth: FINISHED, KILLED by an interrupt, or FAILED with the error."""
    try:
        yield
    except BaseException as error:
        ending: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
        tracker.log_text(redact(traceback.format_exc()), "traceback.txt")
        kind = type(error).__name__ if ending == "FAILED" else "interrupted"
        tracker.end_run(ending, error=f"{kind}: {redact(str(error))}" if str(error) else kind)
        write_result(job.folder, make_result(job, run_id, order, status=ending))
        raise
    tracker.end_run("FINISHED")


def _start(tracker: Tracker | NullTracker, job: Job, dataset: Dataset | None, parent: str | None) -> str:
    name = run_name(job.config.name, job.overrides, sweep.shared_overrides(job.folder.parent))
    note = run_note(job.resolved, job.overrides, job.folder)
    tags, journal = _tags(job, dataset, parent), job.folder / JOURNAL
    return tracker.start_run(name, _params(job), tags, parent, note, journal=journal)


def _params(job: Job) -> dict[str, str]:
    """The config, without what differs between a run and its resumption."""
    return {key: value for key, value in flatten(job.resolved).items() if key not in ("trainer.resume", "sweep.resume")}


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
