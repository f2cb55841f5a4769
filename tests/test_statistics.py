"""The statistics against scipy, statsmodels, scikit-learn and values worked out by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.metrics
from made_runs import guesses

from cnnexp.metrics.paired import count_signs
from cnnexp.metrics.registry import Table, figures
from cnnexp.metrics.statistics import (
    average_precision,
    brier_score,
    calibration,
    confusion_matrix,
    mean_and_spread,
    precision_recall_curve,
    roc_auc,
    roc_curve,
    wilson_interval,
)
from cnnexp.report import scoring


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 20), (7, 20), (975, 1000), (9919, 10000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_scipy(correct: int, total: int, confidence: float) -> None:
    expected = scipy.stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    assert wilson_interval(correct, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    # z^2 = 3.84146: centre (0.5 + 0.192073) / 1.384146, half 1.95996 sqrt(0.025 + 0.0096036) / 1.384146
    low, high = wilson_interval(5, 10)
    assert (low, high) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)
    # what 1000 test photos can say about 97.5 %
    assert wilson_interval(975, 1000) == pytest.approx((0.9634, 0.9830), abs=1e-4)
    # a mean over seeds need not be a whole number of photos
    assert wilson_interval(974.5, 1000)[0] < wilson_interval(975, 1000)[0]


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="right of"):
        wilson_interval(correct, total)


def test_confusion_matrix() -> None:
    assert confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0]), 3).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [2, 0, 0],
    ]
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 7, (2, 500))
    expected = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(9))
    assert (confusion_matrix(truth, predicted, 9) == expected).all()  # two classes never occur


def scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers with many ties, (200,) bool and float."""
    rng = np.random.default_rng(seed)
    positive = rng.uniform(size=200) < 0.3
    return positive, np.round(rng.normal(positive, 1.0), 1)


@pytest.mark.parametrize("seed", range(5))
def test_curves_equal_scikit_learn(seed: int) -> None:
    positive, score = scores(seed)
    for ours, theirs in zip(
        roc_curve(positive, score),
        sklearn.metrics.roc_curve(positive, score, drop_intermediate=False),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs)
    assert roc_auc(positive, score) == pytest.approx(sklearn.metrics.roc_auc_score(positive, score))
    assert average_precision(positive, score) == pytest.approx(sklearn.metrics.average_precision_score(positive, score))
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(positive, score)
    curve = precision_recall_curve(positive, score)
    np.testing.assert_allclose(curve[0], precision[-2::-1])  # theirs runs backwards and ends in (1, 0)
    np.testing.assert_allclose(curve[1], recall[-2::-1])
    np.testing.assert_allclose(curve[2], thresholds[::-1])


def test_area_by_hand() -> None:
    # positives 0.9 and 0.4, negatives 0.5, 0.4 and 0.1: of six pairs, four are ordered, one is tied
    positive, score = np.array([True, False, True, False, False]), np.array([0.9, 0.5, 0.4, 0.4, 0.1])
    assert roc_auc(positive, score) == pytest.approx(4.5 / 6)
    # thresholds 0.9 (P 1, R 1/2), 0.5 (R unchanged), 0.4 (P 2/4, R 1)
    assert average_precision(positive, score) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_curves_need_both_classes() -> None:
    with pytest.raises(ValueError, match="ROC"):
        roc_curve(np.ones(3, bool), np.arange(3))
    with pytest.raises(ValueError, match="ROC"):
        roc_curve(np.zeros(3, bool), np.arange(3))
    with pytest.raises(ValueError, match="precision"):
        precision_recall_curve(np.zeros(3, bool), np.arange(3))


def test_calibration_by_hand() -> None:
    # bins (0, .5] and (.5, 1]: {0.3 right, 0.5 wrong} and {0.8 right, 0.9 right, 1.0 wrong, 0.7 right}
    probability = np.array([0.3, 0.5, 0.8, 0.9, 1.0, 0.7])
    kept = calibration(probability, np.array([1, 0, 1, 1, 0, 1], bool), bins=2)
    assert kept.count.tolist() == [2, 4]
    assert kept.confidence == pytest.approx([0.4, 0.85])
    assert kept.accuracy == pytest.approx([0.5, 0.75])
    assert kept.error == pytest.approx(2 / 6 * 0.1 + 4 / 6 * 0.1)


def test_calibration_bins() -> None:
    probability, correct = np.array([0.0, 0.55, 0.95]), np.array([False, True, True])
    kept = calibration(probability, correct, bins=10)
    assert kept.count.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert math.isnan(kept.accuracy[1])
    assert kept.error == pytest.approx((0 + 0.45 + 0.05) / 3)
    assert calibration(probability, correct, bins=1).error == pytest.approx(2 / 3 - 0.5)
    with pytest.raises(ValueError, match="at least one"):
        calibration(np.array([]), np.array([]))


def test_mean_and_spread() -> None:
    assert mean_and_spread([0.959, 0.959, 0.961]) == pytest.approx((0.959667, 0.0011547), abs=1e-6)
    assert mean_and_spread([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_and_spread([])


def test_brier_by_hand() -> None:
    two = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    assert brier_score(np.array([0, 0, 1]), two) == pytest.approx((0.01 + 0.36 + 0.04) / 3)
    three = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    assert brier_score(np.array([0, 1]), three) == pytest.approx(((0.25 + 0.09 + 0.04) + (1 + 1)) / 2)
    with pytest.raises(ValueError, match="at least one"):
        brier_score(np.array([], int), np.empty((0, 2)))


# ----------------------------------------------------------------------------------- against other packages


def tables(count: int = 200) -> list[tuple[int, int, int, int]]:
    """Random 2x2 tables of two classifiers: (both right, only the first, only the second, both wrong).

    The first ones are the edges: no errors, all errors, no discordant pairs, all discordant, one image.
    """
    rng = np.random.default_rng(5)
    edges = [(50, 0, 0, 0), (0, 0, 0, 50), (20, 0, 0, 30), (0, 25, 25, 0), (0, 50, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0)]
    sizes = rng.choice([5, 40, 300, 1000, 10_000], count - len(edges))
    drawn = [rng.multinomial(size, rng.dirichlet([2.0, 0.5, 0.5, 1.0])) for size in sizes]
    return edges + [tuple(table.tolist()) for table in drawn]


def test_200_tables_equal_scipy() -> None:
    for both, first, second, neither in tables():
        right, total = both + first, both + first + second + neither
        interval = scipy.stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right, total) == pytest.approx((interval.low, interval.high), abs=1e-12)
        if first != second:
            binomial = scipy.stats.binom(first + second, 0.5)
            expected = scipy.stats.binomtest(first, first + second).pvalue - binomial.pmf(first)  # the mid p
            found = count_signs(np.repeat([1, -1], [first, second]))
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_200_tables_equal_statsmodels() -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    for both, first, second, neither in tables():
        right, total = both + first, both + first + second + neither
        interval = proportion.proportion_confint(right, total, alpha=0.05, method="wilson")
        assert wilson_interval(right, total) == pytest.approx(interval, abs=1e-12)
        if first != second:
            exact = contingency.mcnemar([[both, first], [second, neither]], exact=True).pvalue
            expected = exact - scipy.stats.binom(first + second, 0.5).pmf(first)
            assert count_signs(np.repeat([1, -1], [first, second])) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def answers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and probabilities (N, n) of 2 to 12 classes, coarse, so that many are equal.

    One in four has no errors, one in four nothing but errors.
    """
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(2, 13)), int(rng.integers(30, 200))
    labels = np.append(np.arange(classes), rng.integers(0, classes, count))
    scores = np.ceil(rng.uniform(0, 6, (len(labels), classes)))
    scores[np.arange(len(labels)), labels] += {0: 7.0, 1: -7.0}.get(seed % 4, 1.0)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return labels, odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")
def test_figures_of_200_tests_equal_scikit_learn() -> None:
    seen = set()
    for seed in range(200):
        labels, probabilities = answers(seed)
        ours = {f"test/{name}": value for name, value in figures(Table(labels, probabilities)).items()}
        seen.add(float((probabilities.argmax(axis=1) == labels).mean()))
        one_hot = np.eye(probabilities.shape[1], dtype=int)[labels]
        truth, score = (one_hot, probabilities) if one_hot.shape[1] > 2 else (labels, probabilities[:, 1])
        assert ours["test/roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, score, average="macro"))
        precision = sklearn.metrics.average_precision_score(truth, score, average="macro")
        assert ours["test/average_precision"] == pytest.approx(precision)
        assert ours["test/brier"] == pytest.approx(sklearn.metrics.brier_score_loss(labels, probabilities))
        assert ours["test/ece"] == pytest.approx(binned_gap(labels, probabilities))
    assert {0.0, 1.0} < seen


def binned_gap(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error once more, bin by bin as Guo et al. write it, with scipy's binning."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = -np.linspace(0, 1, 16)[::-1]  # negated, because scipy's bins hold their lower ends, Guo's the upper
    gaps, _, number = scipy.stats.binned_statistic(-confidence, right - confidence, "mean", edges)
    counts = np.bincount(number, minlength=17)[1:16]
    return float(np.sum(counts[counts > 0] * np.abs(gaps[counts > 0])) / len(labels))


def test_calibration_curve_equals_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    probability = rng.uniform(size=500)
    right = rng.uniform(size=500) < probability
    kept = calibration(probability, right, bins=15)
    share, mean = sklearn.calibration.calibration_curve(right, probability, n_bins=15)
    np.testing.assert_allclose(kept.accuracy[kept.count > 0], share)
    np.testing.assert_allclose(kept.confidence[kept.count > 0], mean)


def test_classes_without_images_do_not_count() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
    labels = np.array([0, 1, 1, 1])
    found = figures(Table(labels, probabilities))
    # class 0: 0.7 above all, 1; class 1: every score above 0.2, 1; class 2 has no image
    assert found["roc_auc"] == 1.0 and found["average_precision"] == 1.0
    only = figures(Table(np.zeros(4, int), probabilities))
    assert "ece" in only and not {"roc_auc", "average_precision"} & set(only)


def test_there_are_no_figures_of_what_is_not_finite() -> None:
    probabilities = np.array([[0.5, 0.5], [np.nan, np.nan]])
    assert figures(Table(np.array([0, 1]), probabilities)) == {}
    assert scoring.scores(guesses(probabilities, np.array([0, 1]))) == {}
