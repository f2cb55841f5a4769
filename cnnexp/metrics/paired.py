"""Whether two variants differ: both answered the same images, each with all of its seeds.

A variant's figure is the mean over its seeds; what is drawn or tossed are images, or groups of images that belong
together, each with the answers of all seeds. Were the variants equally good, it would be a coin's toss which of them
gave which of two answers to an image, so the p value is the share of tosses that part them at least as far (Fisher
1935, "The design of experiments", chapter 3):

- a figure that is a mean over the images: a toss turns the sign of the image's difference. Of an accuracy all tosses
  are counted, with half of those that part them just as far (the mid p, since the exact test is too cautious): for one
  seed that is McNemar's test with the mid p (Fagerland 2013, doi 10.1186/1471-2288-13-91).
- an area below a curve: the same with what each image adds to it, to first order.
- a figure of the counts by class, and an area where classes have few images: a toss swaps the two answers to the image,
  of all seeds.

`tests/test_paired.py` has the simulation that shows the size of the tests. Tosses have a fixed seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cnnexp.metrics.counts import Counts, counts
from cnnexp.metrics.intervals import ROUNDING, Interval, deviation, half_width, interval, resamples
from cnnexp.metrics.registry import FIGURES, Figure, WeightedTable, answers

TOSSES = 9999
AT_ONCE = 1111
ENOUGH = 50  # tosses that part two variants as far: no more are needed (Besag and Clifford 1991, Biometrika 78)
MOST_OF_ALL_TOSSES = 2_000  # images times classes; of more, areas are computed for AT_ONCE tosses alone
MOST_COUNTED = 30_000  # of the sum of whole differences; above, they are tossed
SEED = 28


@dataclass(frozen=True)
class Measured:
    """A figure of a variant.

    tables: of each seed the probabilities, (N, K).
    value:  mean over its seeds.
    values: (N,) what each image adds, of a figure that has these; else None.
    groups: (N,) int, of each image its group, 0 to `drawn` - 1.
    drawn:  how many groups there are.
    """

    figure: Figure
    labels: np.ndarray
    tables: tuple[np.ndarray, ...]
    value: float
    values: np.ndarray | None
    groups: np.ndarray
    drawn: int

    @cached_property
    def resampled(self) -> np.ndarray | None:
        """(1000,) the figure over the resamples; None where it has values, or resamples do not tell."""
        function = self.figure.resampled
        if function is None or self.values is not None:
            return None
        blocks = resamples(len(self.labels), self.groups if self.drawn < len(self.labels) else None)
        means = [
            np.mean([function(WeightedTable(self.labels, table, weights)) for table in self.tables], axis=0)
            for weights in blocks
        ]
        return np.concatenate(means)

    @property
    def interval(self) -> Interval | None:
        """95 %, of these networks on other images; see `cnnexp.metrics.intervals`."""
        error = _error(self.values, self.resampled, self.groups)
        return interval(self.value, error, self.drawn, (self.figure.least, self.figure.most))


def measure(
    name: str, labels: np.ndarray, tables: Sequence[np.ndarray], groups: np.ndarray | None = None
) -> Measured | None:
    """A figure of a variant.

    Args:
        name: of `FIGURES`.
        labels: (N,) int.
        tables: of each seed the probabilities, (N, K) float.
        groups: (N,), which images belong together; None: each stands for itself.

    Returns:
        None where the figure is not defined, or a probability is not finite.
    """
    figure = FIGURES[name]
    if not all(np.isfinite(table).all() for table in tables):
        return None
    value = math.fsum(figure.function(labels, table) for table in tables) / len(tables)
    if not math.isfinite(value):
        return None
    members = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    values = image_values(figure, labels, tables)
    return Measured(figure, labels, tuple(tables), value, values, members, int(members.max()) + 1)


def image_values(figure: Figure, labels: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray | None:
    """(N,) what each image adds to a figure, the mean over the seeds; None of one that is no sum over images."""
    found = [figure.values(labels, table) if figure.values else None for table in tables]
    known = [values for values in found if values is not None]
    return np.mean(known, axis=0) if len(known) == len(found) else None


def _error(values: np.ndarray | None, resampled: np.ndarray | None, groups: np.ndarray) -> float:
    """The standard error over resamples of the groups: of a mean what endless ones would give."""
    if values is not None:
        parts = np.bincount(groups, values - values.mean())
        return math.sqrt(float(parts @ parts)) / len(values)
    return math.nan if resampled is None else deviation(resampled)


def gain_interval(older: Measured, newer: Measured) -> Interval | None:
    """The 95 % interval of the newer one's figure less that of the older, of the same images; Student's t.

    Returns:
        None where the difference did not vary, or resamples do not tell.
    """
    if older.values is not None and newer.values is not None:
        error = _error(newer.values - older.values, None, newer.groups)
    elif older.resampled is not None and newer.resampled is not None:
        error = _error(None, newer.resampled - older.resampled, newer.groups)
    else:
        return None
    if newer.drawn < 2 or not error > ROUNDING:
        return None
    half = half_width(error, newer.drawn)
    gain, most = newer.value - older.value, newer.figure.most - newer.figure.least
    return max(gain - half, -most), min(gain + half, most)


def p_value(older: Measured, newer: Measured) -> float | None:
    """Two-sided: could both be equally good? Of the same figure, images and groups, in the same order.

    Returns:
        0 to 1; None for the calibration error, which is no sum over images.
    """
    if older.values is not None and newer.values is not None:
        times = math.lcm(len(older.tables), len(newer.tables))
        differences = np.bincount(newer.groups, times * (newer.values - older.values))
        whole = np.rint(differences)
        if np.abs(differences - whole).max() < ROUNDING * times * len(newer.labels) and (
            np.abs(whole).sum() <= MOST_COUNTED
        ):
            return count_signs(whole.astype(np.int64))
        return _toss(lambda heads: differences.sum() - 2 * (differences @ heads), differences.sum(), newer.drawn)
    gain = newer.value - older.value
    if newer.figure.formula is not None:
        return _toss(_swapped(older, newer), gain, newer.drawn)
    if newer.figure.resampled is None:
        return None
    many = len(newer.labels) * newer.tables[0].shape[1] > MOST_OF_ALL_TOSSES
    return _toss(_exchanged(older, newer), gain, newer.drawn, AT_ONCE if many else TOSSES)


def count_signs(differences: np.ndarray) -> float:
    """The mid p of whole differences, (G,) int, whose signs are tossed: the chance that their sum is further from 0,
    and half of that of being just as far. Of differences of 1 it is that of McNemar's test."""
    from scipy.special import gammaln  # not needed by who only names a figure

    total = int(differences.sum())
    if total == 0:
        return 1.0
    chances = np.ones(1)  # of each sum of those that are turned
    for size, count in zip(*np.unique(np.abs(differences[differences != 0]), return_counts=True), strict=True):
        turned = np.arange(count + 1)
        ways = gammaln(count + 1) - gammaln(turned + 1) - gammaln(count - turned + 1)
        some = np.zeros(count * size + 1)
        some[::size] = np.exp(ways - count * math.log(2))
        chances = np.convolve(chances, some)
    # the sum is all of them less twice what is turned
    sums = np.abs(len(chances) - 1 - 2 * np.arange(len(chances)))
    return float(min(1.0, chances[sums > abs(total)].sum() + chances[sums == abs(total)].sum() / 2))


def _toss(statistic: Callable[[np.ndarray], np.ndarray], observed: float, coins: int, most: int = TOSSES) -> float:
    """The share of tosses that part two variants at least as far as they are; of `most` at most.

    Args:
        statistic: of `heads`, (coins, B) float32 of 0 and 1, how far they are, (B,).
        observed: how far they are without a toss.
    """
    rng = np.random.default_rng(SEED)
    least = abs(observed) * (1 - 1e-6) - ROUNDING  # heads are float32
    further = done = 0
    while done < most and further < ENOUGH:
        bits = np.frombuffer(rng.bytes(-(-coins * AT_ONCE // 8)), np.uint8)
        heads = np.unpackbits(bits, count=coins * AT_ONCE).reshape(coins, AT_ONCE).astype(np.float32)
        further += int((np.abs(statistic(heads)) >= least).sum())
        done += AT_ONCE
    return (further + 1) / (done + 1)


def _swapped(older: Measured, newer: Measured) -> Callable[[np.ndarray], np.ndarray]:
    """How far two variants are apart, where the answers to an image whose coin shows heads are swapped.

    A seed of the one is put beside a seed of the other; of unlike numbers each as often as the others of its variant.
    """
    number, formula = newer.tables[0].shape[1], newer.figure.formula
    assert formula is not None
    first, second = ([answers(table) for table in variant.tables] for variant in (older, newer))
    times = math.lcm(len(first), len(second))
    given = np.array([[first[at % len(first)], second[at % len(second)]] for at in range(times)])  # (times, 2, N)
    unlike = np.flatnonzero((given[:, 0] != given[:, 1]).any(axis=0))  # only these images matter
    is_class = given[:, :, np.newaxis, unlike] == np.arange(number)[:, np.newaxis]
    answered = is_class[:, 1].astype(np.float32) - is_class[:, 0]
    right = answered * (newer.labels[unlike] == np.arange(number)[:, np.newaxis])
    moved = np.stack([right, answered], axis=1).reshape(2 * times * number, len(unlike))
    whole = [[counts(newer.labels, predicted, number) for predicted in pair] for pair in given]
    old, new = (Counts(*(np.array([pair[at] for pair in whole])[:, :, np.newaxis].swapaxes(0, 1))) for at in (0, 1))

    def statistic(heads: np.ndarray) -> np.ndarray:
        """Counts are (times, B, K)."""
        swapped = (moved @ heads[newer.groups[unlike]]).reshape(times, 2, number, -1).swapaxes(2, 3)
        right, answered = np.asarray(swapped, np.float64).swapaxes(0, 1)
        older_now = Counts(old.right + right, old.actual, old.answered + answered)
        newer_now = Counts(new.right - right, new.actual, new.answered - answered)
        return np.asarray(np.mean(formula(newer_now) - formula(older_now), axis=0))

    return statistic


def _exchanged(older: Measured, newer: Measured) -> Callable[[np.ndarray], np.ndarray]:
    """The same of any figure: all answers stand in one table, in which those that a variant holds weigh 1."""
    function, labels = newer.figure.resampled, np.tile(newer.labels, 2)
    assert function is not None
    times = math.lcm(len(older.tables), len(newer.tables))
    both = [
        np.concatenate([older.tables[at % len(older.tables)], newer.tables[at % len(newer.tables)]])
        for at in range(times)
    ]

    def statistic(heads: np.ndarray) -> np.ndarray:
        swapped = heads[newer.groups]
        new, old = np.concatenate([swapped, 1 - swapped]), np.concatenate([1 - swapped, swapped])
        gains = [
            function(WeightedTable(labels, table, new)) - function(WeightedTable(labels, table, old)) for table in both
        ]
        return np.mean(gains, axis=0)

    return statistic


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values of several tests, corrected so that of all that say nothing one in twenty tables has any below 0.05
    (Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6); None stays."""
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    least = 0.0
    for place, (p, at) in enumerate(known):
        least = max(least, min(1.0, (len(known) - place) * p))
        found[at] = least
    return found
