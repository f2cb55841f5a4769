"""The statistics against scipy, scikit-learn and values worked out by hand."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from cnnexp.report.statistics import (
    average_precision,
    calibration,
    confusion_matrix,
    mcnemar_exact,
    mean_and_spread,
    precision_recall_curve,
    roc_auc,
    roc_curve,
    wilson_interval,
)


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


def test_mcnemar_equals_the_binomial_test() -> None:
    rng = np.random.default_rng(0)
    for first, second in [
        (0, 0),
        (0, 1),
        (0, 5),
        (5, 0),
        (3, 3),
        (1000, 1100),
        *rng.integers(0, 60, (40, 2)).tolist(),
    ]:
        total = first + second
        expected = scipy.stats.binomtest(first, total).pvalue if total else 1.0
        assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(1, 5) == 2 * (1 + 6) / 64
    assert mcnemar_exact(4, 4) == 1.0  # 2 * 163 / 256 is more than certain
    assert mcnemar_exact(0, 1000) == 2.0**-999
    assert mcnemar_exact(0, 2000) == 0.0  # smaller than any float


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
