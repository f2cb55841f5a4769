"""A grid or a search: its points ranked by the figure that chooses among them, and what each of its keys does to it.

Everything here is of the validation images, for a choice is made here; the test images only stand beside it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median

import numpy as np

from cnnexp.errors import UserError
from cnnexp.formats import number
from cnnexp.metrics.names import VAL_ACC, VAL_LOSS, rises
from cnnexp.metrics.statistics import mcnemar_exact, mean_and_spread
from cnnexp.report.compare import Result, Variant, decimals, in_seeds, merge, truth
from cnnexp.report.predictions import Predictions, read_predictions

SURE = 0.05  # of two points whose difference has a larger p value, neither is better
MOST_LEVELS = 6  # a key of more numbers is cut in two halves
LEAST = 1e-7  # a probability that a loss is taken of, as Keras has it


@dataclass(frozen=True)
class Point:
    """A point of a grid, with one run or with one a seed, and how it stands against the best.

    settings: by each key that varies, its value; numbers in their shortest form.
    figure:   mean of `Grid.monitor` over the finished runs; `spread` is its standard deviation, None for one run.
    rank:     1 is the best, equal figures share one; None without a figure.
    p_value:  of the difference to the best, on the validation images of both runs of lowest seed: McNemar's exact test
              for an accuracy, for a loss the normal approximation over the images. None where the answers are not
              known, and for the best.
    tied:     whether the best is not to be told from it.
    """

    variant: Variant
    settings: Mapping[str, str]
    figure: float | None
    spread: float | None
    rank: int | None = None
    p_value: float | None = None
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
    interval: 95 % of `gain`, by Student's t over the pairs; None for less than two.
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
class Grid:
    """The points, the best first, those without a figure last; and the runs that they were made from."""

    monitor: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    effects: tuple[Effect, ...]
    runs: tuple[Result, ...]

    @property
    def decimals(self) -> int:
        """Digits of a percentage that mean something."""
        return decimals(point.variant for point in self.points)


def rank(results: Sequence[Result], settings: Sequence[Mapping[str, str]]) -> Grid:
    """Merge the seeds of each point, rank the points, and say what each key does.

    Args:
        results: the runs; of points with the same figure the one of the lowest `order` stands first.
        settings: of each run, its value of each key that varies; all have the same keys.
    """
    monitors = {result.monitor for result in results if result.finished}
    monitor = monitors.pop() if len(monitors) == 1 else VAL_ACC  # which all of them have
    groups: dict[tuple[str, ...], list[tuple[Result, Mapping[str, str]]]] = {}
    for result, values in sorted(zip(results, settings, strict=True), key=lambda pair: pair[0].order):
        groups.setdefault(tuple(values.values()), []).append((result, values))
    points: list[tuple[Point, list[Result]]] = []
    for group in groups.values():
        runs = sorted((result for result, _ in group), key=lambda run: run.seed)
        points.append((_point(runs, group[0][1], monitor), runs))
    keys = tuple(settings[0]) if settings else ()
    made = [point for point, _ in points if point.figure is not None]
    effects = tuple(_effect(key, made) for key in keys if len({point.settings[key] for point in made}) > 1)
    runs_in_order = tuple(sorted(results, key=lambda result: result.order))
    return Grid(monitor, keys, tuple(_ranked(points, monitor)), effects, runs_in_order)


def _point(runs: Sequence[Result], settings: Mapping[str, str], monitor: str) -> Point:
    known = [_figure(run, monitor) for run in in_seeds(runs)]
    figures = [figure for figure in known if figure is not None and math.isfinite(figure)]
    figure, spread = mean_and_spread(figures) if figures else (None, None)
    return Point(merge(runs), settings, figure, spread)


def _figure(run: Result, monitor: str) -> float | None:
    return run.val_accuracy if monitor == VAL_ACC else run.objective


def _ranked(points: Sequence[tuple[Point, Sequence[Result]]], monitor: str) -> Iterator[Point]:
    """The points with their ranks, the best first."""
    sign = -1 if rises(monitor) else 1
    worst_last = sorted(points, key=lambda p: math.inf if p[0].figure is None else sign * p[0].figure)
    best, best_runs = worst_last[0]
    chosen = _answers(best_runs)
    place = 0
    for at, (point, runs) in enumerate(worst_last):
        if point.figure is None:
            yield point
            continue
        if at == 0 or point.figure != worst_last[at - 1][0].figure:
            place = at + 1
        if at == 0:
            yield replace(point, rank=place)
            continue
        p_value = _p_value(chosen, _answers(runs), monitor)
        tied = point.figure == best.figure or (p_value is not None and p_value >= SURE)
        yield replace(point, rank=place, p_value=p_value, tied=tied)


def _answers(runs: Sequence[Result]) -> Predictions | None:
    """To the validation images, of the finished run with the lowest seed; None where they are not known."""
    path = next((run.val_predictions_path for run in runs if run.finished), None)
    if path is None or not path.is_file():
        return None
    try:
        return read_predictions(path)
    except UserError:
        return None


def _p_value(one: Predictions | None, other: Predictions | None, monitor: str) -> float | None:
    if one is None or other is None or truth(one) != truth(other):
        return None
    place = {image: number for number, image in enumerate(other.ids)}
    other = other.take(np.array([place[image] for image in one.ids], np.int64))
    if monitor == VAL_ACC:
        right, also = one.correct, other.correct
        return mcnemar_exact(int((right & ~also).sum()), int((also & ~right).sum()))
    if monitor == VAL_LOSS:
        more = _losses(other) - _losses(one)
        error = float(more.std(ddof=1)) / math.sqrt(len(more)) if len(more) > 1 else 0.0
        return None if not error else 2 * NormalDist().cdf(-abs(float(more.mean())) / error)
    return None  # of training images there are no answers


def _losses(answers: Predictions) -> np.ndarray:
    """(N,) cross-entropy of each image."""
    given = answers.probabilities[np.arange(len(answers.ids)), answers.labels]
    losses: np.ndarray = -np.log(np.clip(given, LEAST, 1))
    return losses


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
    return Effect(key, tuple(Level(text, len(half), _mean(half)) for text, half in halves if half), halved=True)


def _mean(points: Sequence[Point]) -> float:
    return math.fsum(point.figure for point in points if point.figure is not None) / len(points)
