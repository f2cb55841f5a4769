"""What a run came to: its figures, as metrics, as a file beside its other files, and as a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from cnnexp.config import Config
from cnnexp.console import say, table, warn
from cnnexp.errors import UserError
from cnnexp.formats import number
from cnnexp.metrics.names import (
    AGREEMENT,
    EPOCHS,
    FEATURES_SECONDS,
    FINAL_VAL_ACC,
    FINAL_VAL_LOSS,
    PARAMETERS,
    TEST_ACC,
    TEST_LOSS,
    TOTAL_SECONDS,
    TRAIN_SECONDS,
    TRAINABLE_PARAMETERS,
    TRAINABLE_TENSORS,
    VAL_ACC,
    VAL_LOSS,
    image_count,
    phase_figure,
)
from cnnexp.report.compare import Result
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import REUSED_FROM

if TYPE_CHECKING:
    from cnnexp.runs.build import RunParts
    from cnnexp.runs.folder import RunFolder
    from cnnexp.runs.job import Job
    from cnnexp.tracking.info import RunInfo
    from cnnexp.training.trainer import FitResult


SHARES = (TEST_ACC, FINAL_VAL_ACC)  # of images: at most 1
COUNTS = (image_count("test"), EPOCHS, PARAMETERS, TRAINABLE_PARAMETERS)


def final_metrics(parts: RunParts, fitted: FitResult) -> dict[str, float]:
    """The figures of the weights that were kept, and what they cost; of each phase too, where the config lists some."""
    from cnnexp.models.counts import totals  # and Keras

    counts = totals(parts.network)
    metrics = {
        FINAL_VAL_LOSS: fitted.validation_loss,
        FINAL_VAL_ACC: fitted.validation_accuracy,
        TEST_LOSS: fitted.test_loss,
        TEST_ACC: fitted.test_accuracy,
        TRAIN_SECONDS: fitted.train_seconds,
        FEATURES_SECONDS: fitted.cache_seconds,
        EPOCHS: len(fitted.history),
        PARAMETERS: counts.total,
        TRAINABLE_PARAMETERS: counts.trainable,
        TRAINABLE_TENSORS: counts.trainable_tensors,
        **{image_count(split.name): len(split.labels) for split in parts.dataset.splits},
    }
    if fitted.feature_difference is not None:
        metrics[AGREEMENT] = fitted.feature_difference
    for phase in fitted.phases if parts.config.phases else []:
        metrics[phase_figure(phase.name, "trainable_parameters")] = phase.trainable_parameters
        metrics[phase_figure(phase.name, "trainable_tensors")] = phase.trainable_tensors
        metrics[phase_figure(phase.name, "time_s")] = phase.seconds
    return metrics


def monitored(name: str, fitted: FitResult) -> float:
    """The figure `trainer.monitor` of the weights that were kept."""
    final = {VAL_LOSS: fitted.validation_loss, VAL_ACC: fitted.validation_accuracy}
    return final[name] if name in final else fitted.history[fitted.selected_epoch][name]


def make_result(
    job: Job, run_id: str, order: int, metrics: dict[str, float] | None = None, status: str = "FINISHED"
) -> Result:
    """The run for `cnnexp compare`; without `metrics`, of one that did not finish."""
    return Result(
        run_id,
        job.config.name,
        job.config.seed,
        status,
        reference_accuracy=job.config.reference_accuracy,
        predictions_path=str(job.folder.predictions) if metrics else None,
        order=order,
    ).with_metrics(metrics or {})


def show(config: Config, result: Result, folder: RunFolder) -> None:
    """Print the table at the end of a run, and where its files are."""
    assert result.test_accuracy is not None and result.interval is not None
    low, high = result.interval
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

    reference = info.params.get("reference_accuracy", "null")
    figures = {name: _figure(info, name) for name in (*SHARES, *COUNTS, TOTAL_SECONDS)}
    predictions = None
    if info.status == "FINISHED":
        origin = info.tags.get(REUSED_FROM) or info.run_id
        place = folder / "predictions" / origin
        predictions = _download(tracker, origin, "predictions.csv", place)
        _download(tracker, origin, MISTAKES, place)
    return Result(
        info.run_id,
        info.params.get("name", info.name),
        int(_number(info, "seed", info.params.get("seed", "0"), int) or 0),
        info.status,
        reference_accuracy=None if reference == "null" else _number(info, "reference_accuracy", reference, float),
        predictions_path=predictions,
        order=order,
    ).with_metrics({name: figure for name, figure in figures.items() if figure is not None})


def _figure(info: RunInfo, name: str) -> float | None:
    """A figure of a run; None where it has none."""
    if name not in info.metrics:
        return None
    return _number(info, name, info.metrics[name], int if name in COUNTS else float, 1 if name in SHARES else math.inf)


def _number(
    info: RunInfo, name: str, given: str | float, kind: type[int] | type[float], most: float = math.inf
) -> float | None:
    """What a run recorded as a number from 0 to `most`; None and a line where it is none."""
    found = number(given, kind)
    if found is None or not 0 <= found <= most:
        warn(f"cnnexp: run {info.run_id}: {name}={given}: is no such figure; left out")
        return None
    return found


def _download(tracker: RunStore, run_id: str, name: str, folder: Path) -> Path | None:
    """The file, or None and a line where the run has none: the comparison then goes without."""
    try:
        path: Path = tracker.download(run_id, name, folder)
    except UserError as error:
        warn(f"cnnexp: {error}")
        return None
    return path
