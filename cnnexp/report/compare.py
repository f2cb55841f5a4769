"""Variants side by side: how good each is, how surely, what each step gained, and what it cost.

Accuracies and gains of accuracy are fractions (0 to 1) here; `tables`, `chart` and `page` show them in percent and
points.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import TypeVar

from cnnexp.errors import UserError
from cnnexp.metrics.names import (
    EPOCHS,
    FIGURE_NAMES,
    FINAL_VAL_ACC,
    PARAMETERS,
    TEST_ACC,
    TOTAL_SECONDS,
    TRAINABLE_PARAMETERS,
    VAL_ACC,
    figure_of,
    final,
    group_count,
    image_count,
    own_figures,
    rises,
)
from cnnexp.metrics.paired import gain_interval, holm, p_value
from cnnexp.metrics.registry import FIGURES
from cnnexp.metrics.statistics import mean_and_spread, wilson_interval
from cnnexp.report.answered import Answers, any_unbalanced, read_answers
from cnnexp.report.predictions import VAL_PREDICTIONS

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
    val_figures: dict[str, float] = field(default_factory=dict)  # of the validation images, by name
    data_digest: str = ""  # of the data set; "" where it is not known
    positive: str | None = None  # of two classes, the one that areas below curves are of; None: the second
    test_groups: int | None = None  # that the test images come in; None: each stands for itself

    def with_metrics(self, metrics: Mapping[str, float]) -> "Result":
        """The run with the figures that it recorded under the names of `cnnexp.metrics.names`."""

        def count(name: str) -> int | None:
            return int(metrics[name]) if name in metrics else None

        return replace(
            self,
            test_accuracy=metrics.get(TEST_ACC),
            test_total=count(image_count("test")),
            test_groups=count(group_count("test")),
            val_accuracy=metrics.get(FINAL_VAL_ACC),
            train_seconds=metrics.get(TOTAL_SECONDS),
            epochs=count(EPOCHS),
            total_parameters=count(PARAMETERS),
            trainable_parameters=count(TRAINABLE_PARAMETERS),
            figures=_below("test/", metrics),
            val_figures=_below(final("val/"), metrics),
        )

    @property
    def val_predictions_path(self) -> Path | None:
        """Of the answers to the validation images, which lie beside those to the test images; older runs have none."""
        return None if self.predictions_path is None else Path(self.predictions_path).with_name(VAL_PREDICTIONS)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the test accuracy, 95 %: Wilson's, or over groups as it was recorded; None where there is none."""
        if self.test_accuracy is None or not self.test_total:
            return None
        if self.test_groups:
            low, high = (self.figures.get(f"acc_{end}") for end in ("low", "high"))
            return None if low is None or high is None else (low, high)
        return wilson_interval(round(self.test_accuracy * self.test_total), self.test_total)

    @property
    def finished(self) -> bool:
        """Whether there is a test accuracy to speak of."""
        if self.status != "FINISHED" or self.test_accuracy is None or not self.test_total:
            return False
        return math.isfinite(self.test_accuracy)


def _below(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Wanted:
    """What is compared.

    metric:  of `FIGURE_NAMES` or the user's own; None: the figure that all runs monitor, else accuracy.
    against: the variant that the others are compared with, its name or the beginning of the id of one of its runs;
             None: each with the one before it.
    pairs:   whether each pair of variants is compared, too.
    """

    metric: str | None = None
    against: str | None = None
    pairs: bool = False


@dataclass(frozen=True)
class Estimate:
    """A figure of a variant on the test images: mean and standard deviation over its seeds, each of them, and the 95 %
    interval, None where there is none."""

    value: float
    spread: float | None
    seeds: tuple[float, ...]
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class PairedComparison:
    """A variant against another: the one before it (the nearest with a test accuracy), or the chosen one."""

    previous: str  # name of that other
    gain: float | None  # the figure less that of `previous`, means over seeds; None where the images differ
    p_value: float | None  # of all seeds, see `cnnexp.metrics.paired`
    interval: tuple[float, float] | None = None  # of the gain, 95 %
    p_holm: float | None = None  # the p value, corrected for all tests of the table
    fixed: tuple[str, ...] = ()  # images that only the newer run got right, of the runs of lowest seed
    broken: tuple[str, ...] = ()  # images that only the older run got right
    seconds_per_point: float | None = None  # training time of the variant by 0.01 of the figure that it is better
    parameters_per_point: float | None = None  # its trainable parameters by 0.01 of the figure
    note: str = ""  # why there is no p value


@dataclass(frozen=True)
class Pair:
    """Two variants of which neither stands before the other; the gain is that of `variant` on `other`."""

    variant: str
    other: str
    gain: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    p_holm: float | None
    note: str


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
    test_groups: int | None  # that the test images come in; None: each stands for itself
    interval: tuple[float, float] | None  # 95 %: Wilson's, or over groups
    val_accuracy: float | None
    val_spread: float | None
    reference_accuracy: float | None
    train_seconds: float | None
    epochs: int | None
    total_parameters: int | None
    trainable_parameters: int | None
    step: PairedComparison | None  # None for the first variant and for one without a test accuracy
    figures: dict[str, Estimate] = field(default_factory=dict)  # on the test images, besides accuracy

    def estimate(self, name: str) -> Estimate | None:
        """A figure on the test images; None where it is not known."""
        if name != "acc":
            return self.figures.get(name)
        if self.test_accuracy is None:
            return None
        return Estimate(self.test_accuracy, self.test_spread, self.test_accuracies, self.interval)


@dataclass(frozen=True)
class Comparison:
    """The rows in the order of the progression, and the runs that they were made from.

    metric:  the figure on the test images by which variants are compared.
    against: the variant with which the others are compared; None: each with the one before it.
    """

    rows: tuple[Variant, ...]
    runs: tuple[Result, ...]
    metric: str = "acc"
    against: str | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def decimals(self) -> int:
        """Digits of a percentage that mean something."""
        return decimals(self.rows)

    @property
    def others(self) -> tuple[str, ...]:
        """The figures beside accuracy and `metric` that some variant has."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.figures if name != self.metric))


def decimals(rows: Iterable[Variant]) -> int:
    """Digits of a percentage that mean something: one for up to 1000 test images, two above."""
    return 1 if max((row.test_total or 0 for row in rows), default=0) <= 1000 else 2


def monitored_figure(results: Iterable[Result]) -> str:
    """The figure that all finished runs monitor on the validation images, else accuracy."""
    monitors = {result.monitor for result in results if result.finished}
    return (figure_of(monitors.pop()) if len(monitors) == 1 else None) or "acc"


def summarise(results: Sequence[Result], wanted: Wanted | None = None) -> Comparison:
    """Merge the seeds of each variant and compare each variant with the one before it, or with a chosen one.

    Args:
        results: the runs; `order`, then their place in the list, decides the order of the variants.
        wanted: what is compared.

    Raises:
        UserError: no variant has the wanted figure, or the name of `against`.
    """
    wanted = wanted or Wanted()
    ordered = sorted(results, key=lambda result: result.order)
    groups: dict[str, list[Result]] = {}
    for result in ordered:
        groups.setdefault(result.name, []).append(result)
    metric = wanted.metric or monitored_figure(results)
    made = [_Made.of(sorted(runs, key=lambda run: run.seed)) for runs in groups.values()]
    names = shown_figures([metric, monitored_figure(results)], (one.answers for one in made))
    made = [one.with_figures(names) for one in made]
    if wanted.metric:
        check_known(metric, [one.variant for one in made], results)
    done = [one for one in made if one.variant.test_accuracy is not None]
    base = None if wanted.against is None else _named(wanted.against, done)
    steps = [(base, one) for one in done if one is not base] if base else list(pairwise(done))
    pairs = list(combinations(done, 2)) if wanted.pairs else []
    tests = {(older.variant.name, newer.variant.name): (older, newer) for older, newer in [*steps, *pairs]}
    tested = {both: _step(older, newer, metric) for both, (older, newer) in tests.items()}  # a step is a pair, too

    def corrected(some: Sequence[tuple[_Made, _Made]]) -> list[PairedComparison]:
        return _corrected([tested[older.variant.name, newer.variant.name] for older, newer in some])

    compared = corrected(steps)
    by_name = {newer.variant.name: step for (_, newer), step in zip(steps, compared, strict=True)}
    rows = tuple(replace(one.variant, step=by_name.get(one.variant.name)) for one in made)
    found = corrected(pairs)
    return Comparison(
        rows,
        tuple(ordered),
        metric,
        base.variant.name if base else None,
        tuple(_pair(newer.variant.name, step) for (_, newer), step in zip(pairs, found, strict=True)),
    )


def in_seeds(runs: Sequence[Result]) -> list[Result]:
    """The finished ones, one of each seed, the lowest seed first: a run that was trained twice is no second seed."""
    by_seed = {run.seed: run for run in reversed(runs) if run.finished}
    return [by_seed[seed] for seed in sorted(by_seed)]


def digest_of(runs: Sequence[Result]) -> str:
    """Of the data set that all of them were trained on; "" where it is not known, or not one."""
    digests = {run.data_digest for run in runs}
    return digests.pop() if len(digests) == 1 else ""


def positive_of(runs: Sequence[Result]) -> str | None:
    """The positive class of all of them; None for the second, and where they have not one."""
    names = {run.positive for run in runs}
    return names.pop() if len(names) == 1 else None


def merge(runs: Sequence[Result]) -> Variant:
    """The mean of runs that differ only in their seed, which come with the lowest first; without a step."""
    done = in_seeds(runs)
    accuracies = tuple(float(run.test_accuracy) for run in done if run.test_accuracy is not None)
    accuracy, spread = mean_and_spread(accuracies) if accuracies else (None, None)
    total = min((run.test_total for run in done if run.test_total), default=None)
    groups = min((run.test_groups for run in done if run.test_groups), default=None)
    # seeds answer for the same images, so they do not enlarge the sample: the interval is that of their mean
    interval = wilson_interval(accuracy * total, total) if accuracy is not None and total else None
    if groups:
        interval = done[0].interval if len(done) == 1 else None
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
        test_groups=groups,
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


def with_interval(variant: Variant, answers: Answers | str) -> Variant:
    """The variant with the interval of its accuracy over groups, which several seeds share, where there are groups."""
    if variant.interval is not None or variant.test_groups is None or isinstance(answers, str):
        return variant
    measured = answers.measure("acc")
    return replace(variant, interval=measured.interval if measured else None)


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_and_spread(known)[0] if known else None


# ------------------------------------------------------------------------------------------------- figures


def shown_figures(wanted: Iterable[str], answers: Iterable[Answers | str]) -> list[str]:
    """The figures beside accuracy: those that are wanted, and F1 where the test images of some class are rare."""
    names = dict.fromkeys(name for name in wanted if name != "acc")
    return [*(names | dict.fromkeys(["f1_macro"] if any_unbalanced(answers) else []))]


def estimate(name: str, runs: Sequence[Result], answers: Answers | str) -> Estimate | None:
    """A figure of finished runs that differ in their seed, as they recorded it, or else of their answers."""
    recorded = [run.figures[name] for run in runs if name in run.figures]
    low, high = (runs[0].figures.get(f"{name}_{end}") for end in ("low", "high")) if runs else (None, None)
    measured = None
    if isinstance(answers, Answers) and (len(recorded) < len(runs) or len(runs) > 1 or low is None):
        measured = answers.measure(name)
    if len(recorded) < len(runs) and measured is not None and isinstance(answers, Answers):
        recorded = [FIGURES[name].function(answers.labels_for(name), table) for table in answers.tables_for(name)]
    if not recorded or len(recorded) < len(runs):
        return None
    value, spread = mean_and_spread(recorded)
    interval = measured.interval if measured else None
    if len(runs) == 1 and low is not None and high is not None:
        interval = low, high
    return Estimate(value, spread, tuple(recorded), interval)


def check_known(metric: str, variants: Iterable[Variant], results: Sequence[Result]) -> None:
    """Refuse a figure that none of the variants with a finished run has.

    Raises:
        UserError: that.
    """
    finished = [row for row in variants if row.test_accuracy is not None]
    if not finished or any(row.estimate(metric) for row in finished):
        return
    recorded = {f"test/{name}" for run in results for name in run.figures}
    known = [name for name in FIGURE_NAMES if name == "acc" or f"test/{name}" in recorded]
    known += sorted(own_figures(recorded))
    raise UserError(f"--metric {metric}: no finished run has it of its test images; they have {', '.join(known)}")


# --------------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True)
class _Made:
    """A variant, and what it is compared by: its finished runs, one a seed, and their answers or why there are none."""

    variant: Variant
    runs: Sequence[Result]
    answers: Answers | str

    @classmethod
    def of(cls, runs: Sequence[Result]) -> "_Made":
        variant, done = merge(runs), in_seeds(runs)
        paths = [None if run.predictions_path is None else Path(run.predictions_path) for run in done]
        answers = read_answers(variant.name, paths, digest_of(done), positive_of(done))
        return cls(with_interval(variant, answers), done, answers)

    def with_figures(self, names: Iterable[str]) -> "_Made":
        found = {name: estimate(name, self.runs, self.answers) for name in names}
        figures = {name: figure for name, figure in found.items() if figure is not None}
        return replace(self, variant=replace(self.variant, figures=figures))


def _named(name: str, variants: Sequence[_Made]) -> _Made:
    """The variant of this name, or else the one with a run whose id begins so."""
    found = [one for one in variants if one.variant.name == name]
    if not found and name:
        found = [one for one in variants if any(run_id.startswith(name) for run_id in one.variant.run_ids)]
    if len(found) != 1:
        known = "; ".join(one.variant.name for one in variants)
        which = "fits several variants" if len(found) > 1 else "is none of the variants that have finished"
        raise UserError(f"--against {name}: {which}; name one of: {known}; or give the beginning of a run id")
    return found[0]


def _step(older: _Made, newer: _Made, metric: str) -> PairedComparison:
    before, after = older.variant.estimate(metric), newer.variant.estimate(metric)
    gain = after.value - before.value if before and after else None
    name = older.variant.name
    before_digest, digest = digest_of(older.runs), digest_of(newer.runs)
    if before_digest and digest and before_digest != digest:
        return PairedComparison(name, None, None, note=f"not the same data as {name}")
    step = _with_costs(PairedComparison(name, gain, None), newer.variant, metric)
    for answers in (older.answers, newer.answers):
        if isinstance(answers, str):
            return replace(step, note=answers)
    assert isinstance(older.answers, Answers) and isinstance(newer.answers, Answers)
    if not newer.answers.same_images(older.answers):
        return PairedComparison(name, None, None, note=f"not the same test images as {name}")
    if not newer.answers.same_groups(older.answers):
        return replace(step, note=f"not the same groups of test images as {name} (dataset.group)")
    was, now = older.answers.lowest, newer.answers.lowest
    was_right = dict(zip(was.ids, was.correct.tolist(), strict=True))
    is_right = dict(zip(now.ids, now.correct.tolist(), strict=True))
    fixed = tuple(image for image in now.ids if is_right[image] and not was_right[image])
    broken = tuple(image for image in now.ids if was_right[image] and not is_right[image])
    step = replace(step, fixed=fixed, broken=broken)
    one, other = older.answers.measure(metric), newer.answers.measure(metric)
    if one is None or other is None:
        return replace(step, note=f"{metric} is not defined for these answers" if metric in FIGURES else "")
    return replace(step, p_value=p_value(one, other), interval=gain_interval(one, other))


def _corrected(steps: Sequence[PairedComparison]) -> list[PairedComparison]:
    found = holm([step.p_value for step in steps])
    return [replace(step, p_holm=p) for step, p in zip(steps, found, strict=True)]


def _pair(name: str, step: PairedComparison) -> Pair:
    return Pair(name, step.previous, step.gain, step.interval, step.p_value, step.p_holm, step.note)


def _with_costs(step: PairedComparison, newer: Variant, metric: str) -> PairedComparison:
    gained = 100 * (step.gain or 0.0) * (1 if rises(metric) else -1)
    if gained <= 0:
        return step
    seconds, parameters = newer.train_seconds, newer.trainable_parameters
    return replace(
        step,
        seconds_per_point=None if seconds is None else seconds / gained,
        parameters_per_point=None if parameters is None else parameters / gained,
    )
