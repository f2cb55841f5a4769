"""What a run came to: its figures, as metrics, as a file beside its other files, and as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnexp.config import Config
from cnnexp.console import say, table, warn
from cnnexp.errors import UserError
from cnnexp.report.compare import Result
from cnnexp.report.statistics import wilson_interval
from cnnexp.tracking.protocols import RunStore

if TYPE_CHECKING:
    from cnnexp.models.counts import Totals
    from cnnexp.runs.folder import RunFolder
    from cnnexp.runs.job import Job
    from cnnexp.tracking.info import RunInfo
    from cnnexp.training.inputs import TrainingData
    from cnnexp.training.trainer import FitResult


def final_metrics(fitted: FitResult, counts: Totals, data: TrainingData, config: Config) -> dict[str, float]:
    """The figures of the weights that were kept, and what they cost; of each phase too, where the config lists some."""
    metrics = {
        "final/val_loss": fitted.validation_loss,
        "final/val_acc": fitted.validation_accuracy,
        "test/loss": fitted.test_loss,
        "test/acc": fitted.test_accuracy,
        "time/train_s": fitted.train_seconds,
        "time/features_s": fitted.cache_seconds,
        "count/epochs": len(fitted.history),
        "count/parameters": counts.total,
        "count/trainable_parameters": counts.trainable,
        "count/trainable_tensors": counts.trainable_tensors,
        "count/train_images": len(data.train.labels),
        "count/validation_images": len(data.validation.labels),
        "count/test_images": len(data.test.labels),
    }
    if fitted.feature_difference is not None:
        metrics["agreement/max_difference"] = fitted.feature_difference
    for phase in fitted.phases if config.phases else []:
        metrics[f"phase/{phase.name}/trainable_parameters"] = phase.trainable_parameters
        metrics[f"phase/{phase.name}/trainable_tensors"] = phase.trainable_tensors
        metrics[f"phase/{phase.name}/time_s"] = phase.seconds
    return metrics


def monitored(name: str, fitted: FitResult) -> float:
    """The figure `trainer.monitor` of the weights that were kept."""
    final = {"val/loss": fitted.validation_loss, "val/acc": fitted.validation_accuracy}
    return final[name] if name in final else fitted.history[fitted.selected_epoch][name]


def make_result(
    job: Job,
    run_id: str,
    order: int,
    fitted: FitResult | None = None,
    metrics: dict[str, float] | None = None,
    status: str = "FINISHED",
) -> Result:
    """The run for `cnnexp compare`; without `fitted` and `metrics`, of one that did not finish."""
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
        predictions_path=str(job.folder.predictions) if metrics else None,
        order=order,
    )


def show(config: Config, result: Result, folder: RunFolder) -> None:
    """Print the table at the end of a run, and where its files are."""
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


def read_result(tracker: RunStore, info: RunInfo, order: int, folder: Path) -> Result:
    """What a run of the store came to; the answers of a finished one are fetched into `folder`."""
    from cnnexp.report.mistakes import MISTAKES  # and OpenCV

    metrics, reference = info.metrics, info.params.get("reference_accuracy", "null")
    predictions = None
    if info.status == "FINISHED":
        place = folder / "predictions" / info.run_id
        predictions = _download(tracker, info.run_id, "predictions.csv", place)
        _download(tracker, info.run_id, MISTAKES, place)
    return Result(
        run_id=info.run_id,
        name=info.params.get("name", info.name),
        seed=int(info.params.get("seed", 0)),
        status=info.status,
        test_accuracy=metrics.get("test/acc"),
        test_total=_count(metrics, "count/test_images"),
        val_accuracy=metrics.get("final/val_acc"),
        train_seconds=metrics.get("time/total_s"),
        epochs=_count(metrics, "count/epochs"),
        total_parameters=_count(metrics, "count/parameters"),
        trainable_parameters=_count(metrics, "count/trainable_parameters"),
        reference_accuracy=None if reference == "null" else float(reference),
        predictions_path=predictions,
        order=order,
    )


def _count(metrics: dict[str, float], name: str) -> int | None:
    return int(metrics[name]) if name in metrics else None


def _download(tracker: RunStore, run_id: str, name: str, folder: Path) -> Path | None:
    """The file, or None and a line where the run has none: the comparison then goes without."""
    try:
        path: Path = tracker.download(run_id, name, folder)
    except UserError as error:
        warn(f"cnnexp: {error}")
        return None
    return path
