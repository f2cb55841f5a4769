"""One run: assemble, train, record."""

import json
import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from cnnexp.commands import artifacts
from cnnexp.commands.assemble import (
    build_network,
    check_layer_name,
    optimizer_factory,
    settings,
    training_data,
)
from cnnexp.commands.datasets import load_dataset
from cnnexp.commands.stores import open_tracker
from cnnexp.config import Config, typed
from cnnexp.console import say, table, warn
from cnnexp.data.sources import Dataset
from cnnexp.errors import UserError
from cnnexp.files import write_whole
from cnnexp.models.counts import totals
from cnnexp.report.compare import Result
from cnnexp.report.statistics import wilson_interval
from cnnexp.tracking.mlflow import NullTracker, Status, Tracker
from cnnexp.tracking.record import config_hash, environment_tags, flatten, redact
from cnnexp.training.runtime import prepare_tensorflow
from cnnexp.training.trainer import FitResult, train

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
        The monitored figure of the last epoch.
    """
    config = job.config
    tracker = open_tracker(config)
    check_layer_name(config)
    prepare_tensorflow(config.seed, config.trainer.deterministic)
    dataset = load_dataset(config)
    data = training_data(config, dataset)
    network = build_network(config, dataset.channels, len(dataset.class_names))
    counts = totals(network)
    tracker.prepare()
    say(f"{config.name}: {counts.trainable:,} of {counts.total:,} parameters are trained")
    run_id = tracker.start_run(config.name, flatten(job.resolved), _tags(job, dataset, parent), parent_run_id=parent)
    with recorded(tracker, job, run_id, order):
        began = time.perf_counter()
        _log_input(tracker, dataset, config)
        monitored: list[float] = []

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            monitored.append(metrics[config.trainer.monitor])
            log.info("epoch %d: %s", epoch + 1, metrics)
            tracker.log_metrics(metrics, step=epoch + 1)

        fit = train(network.model, data, optimizer_factory(config), settings(config), on_epoch)
        metrics = {
            "test/loss": fit.test_loss,
            "test/acc": fit.test_accuracy,
            "time/train_s": fit.train_seconds,
            "time/features_s": fit.cache_seconds,
            "time/total_s": time.perf_counter() - began,
            "count/parameters": counts.total,
            "count/trainable_parameters": counts.trainable,
            "count/trainable_tensors": counts.trainable_tensors,
            "count/train_images": len(data.train.labels),
            "count/validation_images": len(data.validation.labels),
            "count/test_images": len(data.test.labels),
        }
        tracker.log_metrics(metrics, step=len(fit.history))
        artifacts.write(job.folder, job.resolved, job.overrides, network, dataset, data, fit)
        for file in artifacts.FILES:
            if (job.folder / file).is_file():
                tracker.log_artifact(job.folder / file, folder=str(Path(file).parent) if "/" in file else None)
        if config.tracking.log_model:
            tracker.log_model(network.model, data.test.images.take(np.arange(1)), dataset.class_names)
        result = _result(job, run_id, order, fit, metrics)
        _write_result(job.folder, result)
    _show(config, result, job.folder)
    return monitored[-1]


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
            run_id = tracker.start_run(
                job.config.name, flatten(job.resolved), _tags(job, None, parent), parent_run_id=parent
            )
            tracker.end_run("FAILED", error=str(error))
            _write_result(job.folder, _result(job, run_id, order, status="FAILED"))
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
        _write_result(job.folder, _result(job, run_id, order, status=status))
        raise
    tracker.end_run("FINISHED")


def _tags(job: Job, dataset: Dataset | None, parent: str | None) -> dict[str, str]:
    return {
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


def _result(
    job: Job,
    run_id: str,
    order: int,
    fit: FitResult | None = None,
    metrics: dict[str, float] | None = None,
    status: str = "FINISHED",
) -> Result:
    metrics = metrics or {}
    return Result(
        run_id=run_id,
        name=job.config.name,
        seed=job.config.seed,
        status=status,
        test_accuracy=metrics.get("test/acc"),
        test_total=int(metrics["count/test_images"]) if metrics else None,
        val_accuracy=fit.history[-1]["val/acc"] if fit else None,
        train_seconds=metrics.get("time/total_s"),
        epochs=len(fit.history) if fit else None,
        total_parameters=int(metrics["count/parameters"]) if metrics else None,
        trainable_parameters=int(metrics["count/trainable_parameters"]) if metrics else None,
        reference_accuracy=job.config.reference_accuracy,
        predictions_path=str(job.folder / "predictions.csv") if metrics else None,
        order=order,
    )


def _write_result(folder: Path, result: Result) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "result.json", json.dumps(asdict(result), indent=2).encode())


def _show(config: Config, result: Result, folder: Path) -> None:
    assert result.test_accuracy is not None and result.test_total is not None
    low, high = wilson_interval(round(result.test_accuracy * result.test_total), result.test_total)
    row = [
        config.name,
        f"{result.test_accuracy:.4f}",
        f"{low:.3f} to {high:.3f}",
        f"{result.val_accuracy:.4f}",
        f"{result.trainable_parameters:,}",
        f"{result.train_seconds:.1f} s",
    ]
    table("", ["variant", "test acc", "95 % interval", "val acc", "trained", "time"], [row])
    say(f"run {result.run_id}" if config.tracking.uri else "not tracked (tracking.uri is null)")
    say(f"files in {folder}")
