"""Variants side by side: how good each is, how surely, what each step gained, and what it cost.

Accuracies and gains are fractions (0 to 1) here; `tables`, `chart` and `page` show them in percent and points.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from cnnexp.errors import UserError
from cnnexp.metrics.names import (
    EPOCHS,
    FINAL_VAL_ACC,
    PARAMETERS,
    TEST_ACC,
    TOTAL_SECONDS,
    TRAINABLE_PARAMETERS,
    VAL_ACC,
    image_count,
)
from cnnexp.metrics.statistics import mcnemar_exact, mean_and_spread, wilson_interval
from cnnexp.report.predictions import VAL_PREDICTIONS, Predictions, read_predictions

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """One run, as it was recorded. None stands for what a run did not record."""

    run_id: str
    name: str  # of the variant; runs of one name differ in their seed
    seed: int
    status: str  # FINISHED, FAILED, KILLED, RUNNING; only finished runs are averaged
    test_accuracy: float | None = None
    test_total: int | None = None  # test images
    val_accuracy: float | None = None
    train_seconds: float | None = None
    epochs: int | None = None
    total_parameters: int | None = None
    trainable_parameters: int | None = None
    reference_accuracy: float | None = None  # a published figure to stand beside ours
    predictions_path: str | Path | None = None  # predictions.csv of the test images
    order: int = 0  # place in the sweep; variants are shown by the lowest of their runs
    monitor: str = VAL_ACC  # `trainer.monitor`: the figure by which one of several runs is chosen
    objective: float | None = None  # that figure, of the weights that were kept
    figures: dict[str, float] = field(default_factory=dict)  # of the test, by name, with NAME_low and NAME_high

    def with_metrics(self, metrics: Mapping[str, float]) -> "Result":
        """The run with the figures that it recorded under the names of `cnnexp.metrics.names`."""

        def count(name: str) -> int | None:
            return int(metrics[name]) if name in metrics else None

        return replace(
            self,
            test_accuracy=metrics.get(TEST_ACC),
            test_total=count(image_count("test")),
            val_accuracy=metrics.get(FINAL_VAL_ACC),
            train_seconds=metrics.get(TOTAL_SECONDS),
            epochs=count(EPOCHS),
            total_parameters=count(PARAMETERS),
            trainable_parameters=count(TRAINABLE_PARAMETERS),
            figures={name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")},
        )

    @property
    def val_predictions_path(self) -> Path | None:
        """Of the answers to the validation images, which lie beside those to the test images; older runs have none."""
        return None if self.predictions_path is None else Path(self.predictions_path).with_name(VAL_PREDICTIONS)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the test accuracy, 95 % (Wilson); None where there is none."""
        if self.test_accuracy is None or not self.test_total:
            return None
        return wilson_interval(round(self.test_accuracy * self.test_total), self.test_total)

    @property
    def finished(self) -> bool:
        """Whether there is a test accuracy to speak of."""
        if self.status != "FINISHED" or self.test_accuracy is None or not self.test_total:
            return False
        return math.isfinite(self.test_accuracy)


@dataclass(frozen=True)
class PairedComparison:
    """A variant against the variant before it (the nearest with a test accuracy)."""

    previous: str  # name of that variant
    gain: float | None  # mean test accuracy less that of `previous`; None where the test images differ
    p_value: float | None  # McNemar's exact test, lowest seed against lowest seed
    fixed: tuple[str, ...] = ()  # images that only the newer run got right
    broken: tuple[str, ...] = ()  # images that only the older run got right
    seconds_per_point: float | None = None  # training time of the variant by percentage point gained
    parameters_per_point: float | None = None  # its trainable parameters by percentage point gained
    note: str = ""  # why there is no p value


@dataclass(frozen=True)
class Variant:
    """A variant: the mean of its finished runs, None where no run has the figure."""

    name: str
    run_ids: tuple[str, ...]  # every run, finished or not, lowest seed first
    statuses: tuple[str, ...]
    seeds: tuple[int, ...]  # of the finished runs, and so are the figures below
    test_accuracies: tuple[float, ...]
    test_accuracy: float | None
    test_spread: float | None  # sample standard deviation over seeds; None for a single one
    test_total: int | None
    interval: tuple[float, float] | None  # Wilson, 95 %
    val_accuracy: float | None
    val_spread: float | None
    reference_accuracy: float | None
    train_seconds: float | None
    epochs: int | None
    total_parameters: int | None
    trainable_parameters: int | None
    step: PairedComparison | None  # None for the first variant and for one without a test accuracy


@dataclass(frozen=True)
class Comparison:
    """The rows in the order of the progression, and the runs that they were made from."""

    rows: tuple[Variant, ...]
    runs: tuple[Result, ...]

    @property
    def decimals(self) -> int:
        """Digits of a percentage that mean something."""
        return decimals(self.rows)


def decimals(rows: Iterable[Variant]) -> int:
    """Digits of a percentage that mean something: one for up to 1000 test images, two above."""
    return 1 if max((row.test_total or 0 for row in rows), default=0) <= 1000 else 2


def summarise(results: Sequence[Result]) -> Comparison:
    """Merge the seeds of each variant and compare each variant with the one before it.

    Args:
        results: the runs; `order`, then their place in the list, decides the order of the variants.
    """
    ordered = sorted(results, key=lambda result: result.order)
    groups: dict[str, list[Result]] = {}
    for result in ordered:
        groups.setdefault(result.name, []).append(result)
    rows: list[Variant] = []
    previous: tuple[Variant, Predictions | str] | None = None
    for runs in groups.values():
        runs.sort(key=lambda run: run.seed)
        row = merge(runs)
        if row.test_accuracy is not None:
            answers = _answers(runs)
            if previous is not None:
                row = replace(row, step=_step(*previous, row, answers))
            previous = row, answers
        rows.append(row)
    return Comparison(tuple(rows), tuple(ordered))


def in_seeds(runs: Sequence[Result]) -> list[Result]:
    """The finished ones, one of each seed, the lowest seed first: a run that was trained twice is no second seed."""
    by_seed = {run.seed: run for run in reversed(runs) if run.finished}
    return [by_seed[seed] for seed in sorted(by_seed)]


def merge(runs: Sequence[Result]) -> Variant:
    """The mean of runs that differ only in their seed, which come with the lowest first; without a step."""
    done = in_seeds(runs)
    accuracies = tuple(float(run.test_accuracy) for run in done if run.test_accuracy is not None)
    accuracy, spread = mean_and_spread(accuracies) if accuracies else (None, None)
    total = min((run.test_total for run in done if run.test_total), default=None)
    # seeds answer for the same images, so they do not enlarge the sample: the interval is that of their mean
    interval = wilson_interval(accuracy * total, total) if accuracy is not None and total else None
    val_accuracies = [run.val_accuracy for run in done if run.val_accuracy is not None]
    val_accuracy, val_spread = mean_and_spread(val_accuracies) if val_accuracies else (None, None)
    return Variant(
        name=runs[0].name,
        run_ids=tuple(run.run_id for run in runs),
        statuses=tuple(run.status for run in runs),
        seeds=tuple(run.seed for run in done),
        test_accuracies=accuracies,
        test_accuracy=accuracy,
        test_spread=spread,
        test_total=total,
        interval=interval,
        val_accuracy=val_accuracy,
        val_spread=val_spread,
        reference_accuracy=_first(run.reference_accuracy for run in runs),
        train_seconds=_mean(run.train_seconds for run in done),
        epochs=_first(run.epochs for run in done),
        total_parameters=_first(run.total_parameters for run in done),
        trainable_parameters=_first(run.trainable_parameters for run in done),
        step=None,
    )


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_and_spread(known)[0] if known else None


def _answers(runs: list[Result]) -> Predictions | str:
    """The predictions of the finished run with the lowest seed, or why there are none."""
    path = next(run for run in runs if run.finished).predictions_path
    if path is None or not Path(path).is_file():
        return f"{runs[0].name} has no predictions.csv"
    try:
        return read_predictions(path)
    except UserError as error:
        return str(error)


def _step(
    older: Variant, older_answers: Predictions | str, newer: Variant, newer_answers: Predictions | str
) -> PairedComparison:
    assert older.test_accuracy is not None and newer.test_accuracy is not None
    gain = newer.test_accuracy - older.test_accuracy
    step = _with_costs(PairedComparison(older.name, gain, None), newer)
    for answers in (older_answers, newer_answers):
        if isinstance(answers, str):
            return replace(step, note=answers)
    assert isinstance(older_answers, Predictions) and isinstance(newer_answers, Predictions)
    if truth(older_answers) != truth(newer_answers):
        return PairedComparison(older.name, None, None, note=f"not the same test images as {older.name}")
    was_right = dict(zip(older_answers.ids, older_answers.correct.tolist(), strict=True))
    is_right = dict(zip(newer_answers.ids, newer_answers.correct.tolist(), strict=True))
    fixed = tuple(image for image in newer_answers.ids if is_right[image] and not was_right[image])
    broken = tuple(image for image in newer_answers.ids if was_right[image] and not is_right[image])
    return replace(step, p_value=mcnemar_exact(len(broken), len(fixed)), fixed=fixed, broken=broken)


def truth(answers: Predictions) -> dict[str, str]:
    """The class of each image, by name: two runs were tested on the same images where these are equal."""
    names = (answers.class_names[label] for label in answers.labels)
    return dict(zip(answers.ids, names, strict=True))


def _with_costs(step: PairedComparison, newer: Variant) -> PairedComparison:
    gained = 100 * (step.gain or 0.0)
    if gained <= 0:
        return step
    seconds, parameters = newer.train_seconds, newer.trainable_parameters
    return replace(
        step,
        seconds_per_point=None if seconds is None else seconds / gained,
        parameters_per_point=None if parameters is None else parameters / gained,
    )
