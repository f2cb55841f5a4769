"""What a run came to: its figures, as metrics, as a file beside its other files, and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnexp.config import Config
from cnnexp.console import flat_table, say, warn
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
    final,
    group_count,
    image_count,
    phase_figure,
    rises,
)
from cnnexp.metrics.registry import Table, figures
from cnnexp.report.columns import DROPPED
from cnnexp.report.compare import Result, Wanted, summarise
from cnnexp.report.predictions import PREDICTIONS, VAL_PREDICTIONS, read_predictions
from cnnexp.report.tables import table_rows
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import REUSED_FROM

if TYPE_CHECKING:
    from cnnexp.runs.build import RunParts
    from cnnexp.runs.folder import RunFolder
    from cnnexp.runs.job import Job
    from cnnexp.tracking.info import RunInfo
    from cnnexp.training.trainer import FitResult


SHARES = (TEST_ACC, FINAL_VAL_ACC)  # of images: at most 1
COUNTS = (image_count("test"), group_count("test"), EPOCHS, PARAMETERS, TRAINABLE_PARAMETERS)


def final_metrics(parts: RunParts, fitted: FitResult) -> dict[str, float]:
    """The figures of the weights that were kept, and what they cost; of each phase too, where the config lists some."""
    from cnnexp.models.classifier import class_probabilities  # and Keras
    from cnnexp.models.counts import totals

    probabilities = class_probabilities(fitted.validation_probabilities)
    answered = fitted.decision.classes(probabilities)
    table = Table(parts.dataset.validation.labels, probabilities, answered, fitted.decision.positive)
    counts = totals(parts.network)
    metrics = {
        **{final(f"val/{name}"): value for name, value in figures(table).items()},
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
        **{group_count(split.name): split.group_count for split in parts.dataset.splits if split.group_count},
    }
    if fitted.feature_difference is not None:
        metrics[AGREEMENT] = fitted.feature_difference
    for phase in fitted.phases if parts.config.phases else []:
        metrics[phase_figure(phase.name, "trainable_parameters")] = phase.trainable_parameters
        metrics[phase_figure(phase.name, "trainable_tensors")] = phase.trainable_tensors
        metrics[phase_figure(phase.name, "time_s")] = phase.seconds
    return metrics


def monitored(name: str, fitted: FitResult, metrics: Mapping[str, float]) -> float:
    """The figure `trainer.monitor` of the weights that were kept, of which `final_metrics` gave the metrics."""
    of_kept = final(name)
    return metrics.get(of_kept, math.nan) if of_kept != name else fitted.history[fitted.selected_epoch][name]


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
        monitor=job.config.trainer.monitor,
        positive=job.config.decision.positive,
    ).with_metrics(metrics or {})


def show(config: Config, result: Result, folder: RunFolder) -> None:
    """Print the table at the end of a run, and where its files are."""
    columns, rows = table_rows(summarise([replace(result, name=config.name)], Wanted("acc")))
    shown = [columns.index(name) for name in ("variant", "val %", "test %", "95 % interval", "time", "trainable")]
    cells = [[rows[0][place] for place in shown]]
    flat_table("", [columns[place] for place in shown], cells, dropped=DROPPED)
    say(f"run {result.run_id}" if config.tracking.uri else "not tracked (tracking.uri is null)")
    say(f"files in {folder}")


def phases_in_words(config: Config) -> str:
    """What each phase of several is trained for, as `head 30 epochs, then finetune 6`; "" where there is one."""
    if len(config.phases) < 2:
        return ""
    counts = [epochs for _, epochs, _ in config.schedules()]
    first, *later = [f"{name} {count}" for name, count in zip(config.phases, counts, strict=True)]
    return f"phases: {', then '.join([f'{first} epochs', *later])}; {sum(counts)} in all"


def at_chance(result: Result, labels: np.ndarray) -> str:
    """A line where the test accuracy is not surely above that of one answer for all images; else "".

    Args:
        result: of the run.
        labels: (N,) int, the true classes of the test images.
    """
    share = float(np.bincount(labels).max()) / len(labels)
    if result.interval is None or result.interval[0] > share or share == 1:
        return ""
    return f"test accuracy is at chance: one answer for every image is right for {100 * share:.1f} % of them"


def show_classes(result: Result, folder: RunFolder) -> None:
    """Print what accuracy does not tell where classes are unbalanced: F1 and the weakest class, with intervals."""
    from cnnexp.report.classes import class_rows, weakest_line  # and Matplotlib

    rows = class_rows(read_predictions(folder.predictions))
    found = result.figures
    if "f1_macro" in found:
        around = ""
        if "f1_macro_low" in found:
            around = f" (95 % interval {found['f1_macro_low']:.3f} to {found['f1_macro_high']:.3f})"
        say(f"mean F1 of the classes {found['f1_macro']:.3f}{around}; {weakest_line(rows)}")


def read_result(tracker: RunStore, info: RunInfo, order: int, folder: Path, files: Sequence[str]) -> Result:
    """What a run of the store came to.

    Args:
        folder: `files` of a finished run, which lie in the store, are fetched into it. Answers to validation images,
            which older runs have not, are not missed.
    """
    reference = info.params.get("reference_accuracy", "null")
    known = {name: _figure(info, name) for name in (*SHARES, *COUNTS, TOTAL_SECONDS)}
    others = {
        name: value
        for name, value in info.metrics.items()
        if name.startswith(("test/", final("val/"))) and name not in known and math.isfinite(value)
    }
    monitor = info.params.get("trainer.monitor", VAL_ACC)
    origin = info.tags.get(REUSED_FROM) or info.run_id
    place = folder / "predictions" / origin
    for name in files if info.status == "FINISHED" else ():
        _download(tracker, origin, name, place)
    return Result(
        info.run_id,
        info.params.get("name", info.name),
        int(_number(info, "seed", info.params.get("seed", "0"), int) or 0),
        info.status,
        reference_accuracy=None if reference == "null" else _number(info, "reference_accuracy", reference, float),
        predictions_path=place / PREDICTIONS if info.status == "FINISHED" else None,
        order=order,
        monitor=monitor,
        objective=_objective(tracker, info, monitor),
        data_digest=info.tags.get("data_digest", ""),
        positive=info.params.get("decision.positive"),
    ).with_metrics({**others, **{name: figure for name, figure in known.items() if figure is not None}})


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


def _objective(tracker: RunStore, info: RunInfo, monitor: str) -> float | None:
    """The monitored figure of the weights that were kept."""
    if monitor.startswith("val/"):
        return info.metrics.get(final(monitor))
    chooses = info.params.get("trainer.keep_best") == "true"
    if info.params.get("trainer.early_stopping.patience", "null") == "null" and not chooses:  # the last epoch's
        return info.metrics.get(monitor)
    history = [value for _, value in tracker.history(info.run_id, monitor)]
    return (max if rises(monitor) else min)(history, default=None)


def _download(tracker: RunStore, run_id: str, name: str, folder: Path) -> None:
    """A line where the run has no such file: the comparison then goes without."""
    try:
        tracker.download(run_id, name, folder)
    except UserError as error:
        if name != VAL_PREDICTIONS:
            warn(f"cnnexp: {error}")
