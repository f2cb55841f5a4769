"""A grid or a search: its points ranked by the figure that chooses among them, and what each of its keys does to it.

Everything here is of the validation images, for a choice is made here; the test images only stand beside it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from cnnexp.formats import number
from cnnexp.metrics.chosen import corrected_for_choice
from cnnexp.metrics.names import VAL_ACC, figure_of, rises
from cnnexp.metrics.paired import holm, p_value
from cnnexp.metrics.registry import FIGURES
from cnnexp.metrics.statistics import mean_and_spread
from cnnexp.report.answered import Answers, read_answers
from cnnexp.report.compare import (
    Estimate,
    Result,
    Variant,
    check_known,
    decimals,
    digest_of,
    estimate,
    in_seeds,
    merge,
    positive_of,
    shown_figures,
    with_interval,
)

NOT_RANKED = "not compared: the points are not all of the same images, so none is the best, and no key gains anything"
SURE = 0.05  # of two points whose difference has a larger p value, neither is better
MOST_LEVELS = 6  # a key of more numbers is cut in two halves


@dataclass(frozen=True)
class Point:
    """A point of a grid, with one run or with one a seed, and how it stands against the best.

    settings: by each key that varies, its value; numbers in their shortest form.
    figure:   mean of `Grid.monitor` over the finished runs; `spread` is its standard deviation, None for one run.
    rank:     1 is the best, equal figures share one; None without a figure.
    p_value:  of the difference to the best, on the validation images, of all seeds (`cnnexp.metrics.paired`). None
              where the answers are not known, and for the best.
    p_holm:   the same, corrected for all points of the grid.
    tied:     whether the best is not to be told from it: `p_holm` is 0.05 or more, or the figures are equal.
    """

    variant: Variant
    settings: Mapping[str, str]
    figure: float | None
    spread: float | None
    rank: int | None = None
    p_value: float | None = None
    p_holm: float | None = None
    tied: bool = False

    @property
    def best(self) -> bool:
        """Whether it is the one that is chosen."""
        return self.rank == 1 and not self.tied


@dataclass(frozen=True)
class Level:
    """The points of a grid in which a key has one value, or where it has many, a value in one half of them.

    mean:     of their figures.
    gain:     mean difference to the points that differ in this key alone and have its first value; None without pairs.
    interval: 95 % of `gain`, by Student's t over the pairs; None for less than two. Of halves gain and interval are
              those of the difference of their means (Welch's t).
    """

    value: str
    points: int
    mean: float
    gain: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Effect:
    """What a key does: its levels, numbers rising, others in the order of the sweep; or the halves of many numbers."""

    key: str
    levels: tuple[Level, ...]
    halved: bool = False


@dataclass(frozen=True)
class Chosen:
    """The best point, side by side: the figure that it was chosen for, the same corrected for that, and of the test.

    points:    how many it was chosen from.
    corrected: see `cnnexp.metrics.chosen`; None where not every point has its answers to the same validation images.
    metric:    the name of that figure of the test images; accuracy for a figure of the training images.
    """

    figure: float
    points: int
    corrected: float | None
    metric: str
    test: Estimate | None


@dataclass(frozen=True)
class Grid:
    """The points, the best first, those without a figure last; and the runs that they were made from.

    not_ranked: in a line why no point has a rank: points of different images are never compared. They then come in the
                order of the sweep, and there is neither a best one nor an effect. "" where they are ranked.
    """

    monitor: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    effects: tuple[Effect, ...]
    runs: tuple[Result, ...]
    chosen: Chosen | None = None
    not_ranked: str = ""

    @property
    def decimals(self) -> int:
        """Digits of a percentage that mean something."""
        return decimals(point.variant for point in self.points)

    @property
    def others(self) -> tuple[str, ...]:
        """The figures beside accuracy that some point has of the test images."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.variant.figures))


def rank(results: Sequence[Result], settings: Sequence[Mapping[str, str]], metric: str | None = None) -> Grid:
    """Merge the seeds of each point, rank the points, and say what each key does, if all are of the same images.

    Args:
        results: the runs; of points with the same figure the one of the lowest `order` stands first.
        settings: of each run, its value of each key that varies; all have the same keys.
        metric: the figure of the validation images by which they are ranked; None: the one that all monitor, else
            accuracy.

    Raises:
        UserError: no run has `metric`.
    """
    monitors = {result.monitor for result in results if result.finished}
    monitor = monitors.pop() if len(monitors) == 1 else VAL_ACC  # which all of them have
    if metric is not None and metric != figure_of(monitor):
        monitor = f"val/{metric}"
    groups: dict[tuple[str, ...], list[tuple[Result, Mapping[str, str]]]] = {}
    for result, values in sorted(zip(results, settings, strict=True), key=lambda pair: pair[0].order):
        groups.setdefault(tuple(values.values()), []).append((result, values))
    made = [_Made.of(runs) for runs in groups.values()]
    names = shown_figures([name for name in (metric, figure_of(monitor)) if name], (one.answers for one in made))
    made = [one.with_figures(monitor, names) for one in made]
    if metric is not None:
        check_known(metric, [one.point.variant for one in made], results)
    keys = tuple(settings[0]) if settings else ()
    runs_in_order = tuple(sorted(results, key=lambda result: result.order))
    if _differ_in_images([one for one in made if one.point.figure is not None]):
        in_order = sorted((one.point for one in made), key=lambda point: point.figure is None)
        return Grid(monitor, keys, tuple(in_order), (), runs_in_order, not_ranked=NOT_RANKED)
    points = _ranked(made, monitor)
    known = [one.point for one in made if one.point.figure is not None]
    effects = tuple(_effect(key, known) for key in keys if len({point.settings[key] for point in known}) > 1)
    return Grid(monitor, keys, tuple(points), effects, runs_in_order, _chosen(made, points, monitor))


@dataclass(frozen=True)
class _Made:
    """A point, its finished runs, one a seed, and their answers to the validation images, or why there are none."""

    point: Point
    runs: Sequence[Result]
    answers: Answers | str

    @classmethod
    def of(cls, group: Sequence[tuple[Result, Mapping[str, str]]]) -> "_Made":
        runs = sorted((result for result, _ in group), key=lambda run: run.seed)
        variant, done = merge(runs), in_seeds(runs)
        answers = read_answers(
            variant.name, [run.val_predictions_path for run in done], digest_of(done), positive_of(done)
        )
        return cls(Point(variant, group[0][1], None, None), done, answers)

    def with_figures(self, monitor: str, names: Sequence[str]) -> "_Made":
        """With its figure of the validation images, and those of the test images."""
        known = [self._figure(at, monitor) for at in range(len(self.runs))]
        found = [figure for figure in known if figure is not None and math.isfinite(figure)]
        figure, spread = mean_and_spread(found) if found else (None, None)
        tested = self._tested(names)
        of_test = {name: made for name in names if (made := estimate(name, self.runs, tested)) is not None}
        variant = with_interval(replace(self.point.variant, figures=of_test), tested)
        return replace(self, point=replace(self.point, variant=variant, figure=figure, spread=spread))

    def _figure(self, at: int, monitor: str) -> float | None:
        """Of one of the runs: as it was recorded, or else of its answers."""
        run, name = self.runs[at], figure_of(monitor)
        if monitor == VAL_ACC:
            return run.val_accuracy
        if run.monitor == monitor:
            return run.objective
        if name in run.val_figures:
            return run.val_figures[name]
        if name not in FIGURES or isinstance(self.answers, str):
            return None
        return FIGURES[name].function(self.answers.labels_for(name), self.answers.tables_for(name)[at])

    def _tested(self, names: Sequence[str]) -> Answers | str:
        """The answers to the test images, where what was recorded does not do."""
        known = len(self.runs) == 1 and all(f"{name}_low" in self.runs[0].figures for name in names)
        if known or not (names or self.point.variant.test_groups):
            return "not needed"
        paths = [None if run.predictions_path is None else Path(run.predictions_path) for run in self.runs]
        return read_answers(self.point.variant.name, paths, digest_of(self.runs), positive_of(self.runs))


def _differ_in_images(made: Sequence[_Made]) -> bool:
    """Whether points are of different data sets, or of others of its images, as far as that is known.

    Seeds may divide the images each in its own way, if they do so in all points.
    """
    digests = {frozenset(run.data_digest for run in one.runs) for one in made}
    answers = [one.answers for one in made if isinstance(one.answers, Answers)]
    images = {(found.class_names, found.ids, found.labels.tobytes()) for found in answers}
    return len({found for found in digests if "" not in found}) > 1 or len(images) > 1


def _ranked(made: Sequence[_Made], monitor: str) -> list[Point]:
    """The points with their ranks, the best first."""
    sign = -1 if rises(monitor) else 1
    ordered = sorted(made, key=lambda one: math.inf if one.point.figure is None else sign * one.point.figure)
    known = [one for one in ordered if one.point.figure is not None]
    p_values = [_p_value(known[0].answers, one.answers, monitor) for one in known[1:]]
    points: list[Point] = []
    tests = [(None, None), *zip(p_values, holm(p_values), strict=True)]  # the best has none
    for at, (one, (p, corrected)) in enumerate(zip(known, tests, strict=False)):
        same = at > 0 and one.point.figure == known[at - 1].point.figure
        place = points[-1].rank if same else at + 1
        tied = at > 0 and (one.point.figure == known[0].point.figure or (corrected is not None and corrected >= SURE))
        points.append(replace(one.point, rank=place, p_value=p, p_holm=corrected, tied=tied))
    return [*points, *(one.point for one in ordered if one.point.figure is None)]


def _p_value(one: Answers | str, other: Answers | str, monitor: str) -> float | None:
    name = figure_of(monitor)
    if name is None or isinstance(one, str) or isinstance(other, str) or not _alike(one, other):
        return None  # of training images there are no answers
    measured, also = one.measure(name), other.measure(name)
    return None if measured is None or also is None else p_value(measured, also)


def _alike(one: Answers, other: Answers) -> bool:
    return one.same_images(other) and one.same_groups(other)


def _chosen(made: Sequence[_Made], points: Sequence[Point], monitor: str) -> Chosen | None:
    known = [one for one in made if one.point.figure is not None]
    if not known or points[0].figure is None:
        return None
    name = figure_of(monitor)
    answers = [one.answers for one in known if isinstance(one.answers, Answers)]
    corrected = None
    if name in FIGURES and len(answers) == len(known) and all(_alike(answers[0], other) for other in answers):
        tables = [other.tables_for(name) for other in answers]
        corrected = corrected_for_choice(name, answers[0].labels_for(name), tables, answers[0].groups)
    metric = name or "acc"
    return Chosen(points[0].figure, len(known), corrected, metric, points[0].variant.estimate(metric))


# ------------------------------------------------------------------------------------------------ effects


def _effect(key: str, points: Sequence[Point]) -> Effect:
    """Of a key with at least two values among `points`, which have figures."""
    values = list(dict.fromkeys(point.settings[key] for point in points))
    numbers = {value: found for value in values if (found := number(value, float)) is not None}
    if len(numbers) == len(values):
        values.sort(key=numbers.__getitem__)
        if len(values) > MOST_LEVELS:
            return _halves(key, points, numbers)
    levels = []
    for value in values:
        own = [point for point in points if point.settings[key] == value]
        gains = [] if value == values[0] else list(_gains(key, values[0], own, points))
        gain = mean_and_spread(gains)[0] if gains else None
        levels.append(Level(value, len(own), _mean(own), gain, _interval(gains)))
    return Effect(key, tuple(levels))


def _gains(key: str, first: str, own: Sequence[Point], points: Sequence[Point]) -> Iterator[float]:
    """How much better or worse each point is than the one that differs in `key` alone, and has its first value."""
    others = {
        tuple({**point.settings, key: first}.items()): point.figure for point in points if point.settings[key] == first
    }
    for point in own:
        before = others.get(tuple({**point.settings, key: first}.items()))
        if before is not None and point.figure is not None:
            yield point.figure - before


def _interval(gains: Sequence[float]) -> tuple[float, float] | None:
    if len(gains) < 2:
        return None
    from scipy.special import stdtrit  # not needed by who only trains

    mean, spread = mean_and_spread(gains)
    assert spread is not None
    half = float(stdtrit(len(gains) - 1, 0.975)) * spread / math.sqrt(len(gains))
    return mean - half, mean + half


def _halves(key: str, points: Sequence[Point], numbers: Mapping[str, float]) -> Effect:
    """Of a key that a search took many values of: the points below its median, and those above."""
    middle = median(numbers[point.settings[key]] for point in points)
    low = [point for point in points if numbers[point.settings[key]] <= middle]
    high = [point for point in points if numbers[point.settings[key]] > middle]
    halves = ((f"\N{LESS-THAN OR EQUAL TO} {middle:.3g}", low), (f"> {middle:.3g}", high))
    levels = [Level(text, len(half), _mean(half)) for text, half in halves if half]
    if len(levels) == 2:
        gain = levels[1].mean - levels[0].mean
        levels[1] = replace(levels[1], gain=gain, interval=_welch(low, high))
    return Effect(key, tuple(levels), halved=True)


def _welch(low: Sequence[Point], high: Sequence[Point]) -> tuple[float, float] | None:
    """95 % of the difference of two means (Welch 1947, "The generalization of Student's problem", Biometrika 34)."""
    from scipy.special import stdtrit  # not needed by who only trains

    parts = []
    for half in (low, high):
        _, spread = mean_and_spread([point.figure for point in half if point.figure is not None])
        if spread is None:
            return None
        parts.append((spread**2 / len(half), len(half) - 1))
    total = math.fsum(part for part, _ in parts)
    if total == 0:
        return None
    freedom = total**2 / math.fsum(part**2 / less for part, less in parts)
    half_width = float(stdtrit(freedom, 0.975)) * math.sqrt(total)
    gain = _mean(high) - _mean(low)
    return gain - half_width, gain + half_width


def _mean(points: Sequence[Point]) -> float:
    return math.fsum(point.figure for point in points if point.figure is not None) / len(points)
