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
    check_layer_names,
    fit,
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
    run_id = tracker.start_run(config.name, flatten(job.resolved), _tags(job, dataset, parent), parent_run_id=parent)
    with recorded(tracker, job, run_id, order):
        began = time.perf_counter()
        _log_input(tracker, dataset, config)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            log.info("epoch %d: %s", epoch + 1, metrics)
            tracker.log_metrics(metrics, step=epoch + 1)

        fitted = fit(config, network, data, on_epoch)
        metrics = {
            "final/val_loss": fitted.validation_loss,
            "final/val_acc": fitted.validation_accuracy,
            "test/loss": fitted.test_loss,
            "test/acc": fitted.test_accuracy,
            "time/train_s": fitted.train_seconds,
            "time/features_s": fitted.cache_seconds,
            "time/total_s": time.perf_counter() - began,
            "count/parameters": counts.total,
            "count/trainable_parameters": counts.trainable,
            "count/trainable_tensors": counts.trainable_tensors,
            "count/train_images": len(data.train.labels),
            "count/validation_images": len(data.validation.labels),
            "count/test_images": len(data.test.labels),
        }
        if config.phases:
            for phase in fitted.phases:
                metrics[f"phase/{phase.name}/trainable_parameters"] = phase.trainable_parameters
                metrics[f"phase/{phase.name}/trainable_tensors"] = phase.trainable_tensors
                metrics[f"phase/{phase.name}/time_s"] = phase.seconds
        tracker.log_metrics(metrics, step=len(fitted.history))
        tracker.set_tags({f"frozen_digest.{phase.name}": phase.frozen_digest for phase in fitted.phases})
        artifacts.write(job.folder, job.resolved, job.overrides, network, dataset, data, fitted)
        for file in artifacts.FILES:
            if (job.folder / file).is_file():
                tracker.log_artifact(job.folder / file, folder=str(Path(file).parent) if "/" in file else None)
        if config.tracking.log_model:
            tracker.log_model(fitted.model, data.test.images.take(np.arange(1)), dataset.class_names)
        result = _result(job, run_id, order, fitted, metrics)
        _write_result(job.folder, result)
    _show(config, result, job.folder)
    return _monitored(config.trainer.monitor, fitted)


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


def _monitored(name: str, fitted: FitResult) -> float:
    final = {"val/loss": fitted.validation_loss, "val/acc": fitted.validation_accuracy}
    return final[name] if name in final else fitted.history[fitted.selected_epoch][name]


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
    fitted: FitResult | None = None,
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
        val_accuracy=fitted.validation_accuracy if fitted else None,
        train_seconds=metrics.get("time/total_s"),
        epochs=len(fitted.history) if fitted else None,
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
