"""Intervals of figures: by hand, against theory, and how often they hold the true figure."""

import math
from unittest.mock import Mock

import numpy as np
import pytest
from scipy.stats import t as student

from cnnexp.metrics import registry
from cnnexp.metrics.intervals import RESAMPLES, class_intervals, interval, intervals, resamples
from cnnexp.metrics.registry import FIGURES, Table, class_figures, figures
from cnnexp.metrics.statistics import wilson_interval

Drawn = tuple[np.ndarray, np.ndarray]


def draw(rng: np.random.Generator, images: int, shares: tuple[float, ...], distance: float) -> Drawn:
    """Images of classes with these shares, and answers that are the better the larger the distance."""
    labels = rng.choice(len(shares), images, p=shares)
    scores = rng.normal(size=(images, len(shares)))
    scores[np.arange(images), labels] += distance
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return labels, exponents / exponents.sum(axis=1, keepdims=True)


def test_an_interval_by_hand() -> None:
    half = student.ppf(0.975, 99) * 0.03 * math.sqrt(100 / 99)
    # logit 0.9 = log 9, and its slope there 1 / (0.9 * 0.1)
    ends = [math.log(9) - half / 0.09, math.log(9) + half / 0.09]
    expected = [1 / (1 + math.exp(-end)) for end in ends]
    assert interval(0.9, 0.03, 100, (0, 1)) == pytest.approx(expected)
    low, high = interval(0.8, 0.06, 100, (-1, 1)) or (0, 0)  # the same on twice the scale
    assert [(low + 1) / 2, (high + 1) / 2] == pytest.approx(expected)
    assert interval(0.5, 0.03, 100, (0, math.inf)) == pytest.approx(
        [0.5 * math.exp(-2 * half), 0.5 * math.exp(2 * half)]
    )


def test_the_error_of_a_mean_is_that_of_theory() -> None:
    rng = np.random.default_rng(1)
    labels, probabilities = draw(rng, 500, (0.5, 0.5), 1.0)
    losses = -np.log(probabilities[np.arange(500), labels])
    half = student.ppf(0.975, 499) * losses.std(ddof=1) / math.sqrt(500)
    factor = math.exp(half / losses.mean())
    expected = (losses.mean() / factor, losses.mean() * factor)
    assert intervals(Table(labels, probabilities), ["log_loss"])["log_loss"] == pytest.approx(expected, rel=0.01)


def test_accuracy_keeps_wilson_and_groups_do_not() -> None:
    labels, probabilities = draw(np.random.default_rng(2), 200, (0.6, 0.4), 1.5)
    right = int((probabilities.argmax(axis=1) == labels).sum())
    assert intervals(Table(labels, probabilities))["acc"] == wilson_interval(right, 200)
    each = intervals(Table(labels, probabilities), ["acc"], groups=np.arange(200))["acc"]
    assert each == pytest.approx(wilson_interval(right, 200), abs=0.004)
    alike = Table(np.repeat(labels, 10), np.repeat(probabilities, 10, axis=0))
    plain, grouped = intervals(alike), intervals(alike, groups=np.repeat(np.arange(200), 10))
    single = intervals(Table(labels, probabilities))
    for name in ("acc", "f1_macro", "roc_auc"):
        assert np.ptp(grouped[name]) == pytest.approx(np.ptp(single[name]), rel=0.05)
        assert np.ptp(grouped[name]) > 2.5 * np.ptp(plain[name])


def test_resamples_are_the_same_ones_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = resamples(50)
    assert whole.shape == (50, RESAMPLES) and (whole.sum(axis=0) == 50).all()
    monkeypatch.setattr("cnnexp.metrics.intervals.MOST_CELLS", 50 * 300)
    parts = list(resamples(50))
    assert [part.shape[1] for part in parts] == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    groups = np.array(["a", "b", "a"])
    (grouped,) = resamples(3, groups)
    assert (grouped[0] == grouped[2]).all() and set(grouped.sum(axis=0)) == {2, 3, 4}


def test_where_resamples_do_not_tell_there_is_none() -> None:
    labels = np.array([0, 0, 1, 1] * 10)
    perfect = np.eye(2)[labels] * 0.8 + 0.1
    found = intervals(Table(labels, perfect))
    assert set(found) == {"acc"}, "every resample of right answers is right"
    assert found["acc"] == wilson_interval(40, 40)
    assert set(intervals(Table(np.zeros(9, int), np.tile([0.7, 0.3], (9, 1))))) == {"acc"}
    assert intervals(Table(labels, np.full((40, 2), np.nan))) == {}
    assert interval(1.0, 0.1, 40, (0, 1)) is interval(0.5, 0.0, 40, (0, 1)) is interval(0.5, 0.1, 1, (0, 1)) is None


def test_of_each_class() -> None:
    labels = np.array([0] * 20 + [1] * 10 + [2] * 0 + [3] * 5)
    answer = np.array([0] * 18 + [1] * 2 + [1] * 7 + [0] * 3 + [3] * 5)
    found = class_intervals(labels, answer, 4)
    assert found["recall"] == [wilson_interval(18, 20), wilson_interval(7, 10), None, wilson_interval(5, 5)]
    assert found["precision"] == [wilson_interval(18, 21), wilson_interval(7, 9), None, wilson_interval(5, 5)]
    f1 = class_figures(labels, answer, 4)["f1"]
    assert found["f1"][2] is found["f1"][3] is None
    for number in (0, 1):
        low, high = found["f1"][number] or (1, 0)
        assert 0 < low < f1[number] < high < 1
    grouped = class_intervals(labels, answer, 4, groups=np.arange(35))
    assert grouped["recall"][0] == pytest.approx(found["recall"][0], abs=0.06)


def test_what_several_figures_need_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spies = [Mock(wraps=getattr(registry, name)) for name in ("counts", "_curve")]
    monkeypatch.setattr(registry, "counts", spies[0])
    monkeypatch.setattr(registry, "_curve", spies[1])
    table = Table(*draw(np.random.default_rng(3), 1000, (0.4, 0.3, 0.3), 2.0))
    for figure in FIGURES.values():
        figure.function(table.labels, table.probabilities)
    alone = spies[0].call_count
    intervals(table)
    assert spies[0].call_count == 2 * alone + 1, "once for all that are made of counts"
    assert spies[1].call_count == 3, "once a class for both areas"


# -------------------------------------------------------------------------------------------------- coverage


def coverage(
    names: list[str], images: int, shares: tuple[float, ...], distance: float, tables: int, alike: int = 1
) -> tuple[dict[str, float], dict[str, float]]:
    """Of so many tables, the share whose interval holds the figure of all images that there are, 400,000: with
    groups of `alike` equal images, and without regard to them."""
    rng = np.random.default_rng([images, alike])
    truth = figures(Table(*draw(rng, 400_000, shares, distance)), names)
    held, plain = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for _ in range(tables):
        one = draw(rng, images, shares, distance)
        labels, probabilities = (np.repeat(part, alike, axis=0) for part in one)
        groups = None if alike == 1 else np.repeat(np.arange(images), alike)
        for found, counted in ((intervals(Table(labels, probabilities), names, groups), held),) + (
            () if alike == 1 else ((intervals(Table(labels, probabilities), names), plain),)
        ):
            for name in names:
                low, high = found.get(name, (0.0, 1.0))  # a perfect figure claims nothing
                counted[name] += (low <= truth[name] <= high) / tables
    return held, plain


@pytest.mark.long
@pytest.mark.parametrize("images", [200, 1000])
@pytest.mark.parametrize(("shares", "distance"), [((0.5, 0.5), 1.5), ((0.8, 0.2), 1.5), ((0.5, 0.3, 0.2), 2.0)])
def test_intervals_hold_the_true_figure(images: int, shares: tuple[float, ...], distance: float) -> None:
    held, _ = coverage(["acc", "f1_macro", "roc_auc"], images, shares, distance, tables=2000)
    assert all(0.93 <= share <= 0.97 for share in held.values()), held


@pytest.mark.long
@pytest.mark.parametrize("groups", [20, 50, 100])
def test_intervals_of_groups_hold_the_true_figure(groups: int) -> None:
    held, plain = coverage(["acc", "f1_macro", "roc_auc"], groups, (0.6, 0.4), 1.0, tables=1000, alike=10)
    assert all(share >= 0.9 for share in held.values()), held
    assert all(share < 0.8 for share in plain.values()), plain


def test_every_figure_has_a_range() -> None:
    for seed in range(20):
        for name, value in figures(
            Table(*draw(np.random.default_rng(seed), 40, (0.4, 0.2, 0.1, 0.1, 0.1, 0.1), seed / 8))
        ).items():
            assert FIGURES[name].least <= value <= FIGURES[name].most
