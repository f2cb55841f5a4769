"""How sure an accuracy is, and what one classifier's answers say beside another's.

`truth` and `predicted` are (N,) class indices; `positive` is (N,) bool; `score`, `probability` (N,) floats.

scikit-learn has most of these, and the tests compare with it, but importing it takes the process that draws figures
three seconds, for which the end of every run would wait. Its average precision is summed in the other direction, so
that four in ten differ in the last digit, and with it the verdict of `cnnexp reproduce` on runs that are recorded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]


def wilson_interval(correct: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, "Probable inference, the law of succession, and
    statistical inference", J. Am. Stat. Assoc. 22).

    Args:
        correct: right answers, 0 to `total`; a fraction where it is a mean over several runs.
        total: answers.
        confidence: probability that the interval holds the true proportion.

    Returns:
        low, high: within 0 to 1.

    Raises:
        ValueError: `total` below 1, or `correct` outside 0 to `total`.
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"{correct} right of {total}: expected 0 <= correct <= total and total >= 1")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    # Wilson 1927: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    centre = share + z**2 / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == total else (centre + half) / scale
    return low, high


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, (num_classes, num_classes) int64: row = true class, column = predicted class."""
    cells = np.asarray(truth, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def counts_by_threshold(positive: np.ndarray, score: np.ndarray) -> Curve:
    """True and false positives where all scores >= threshold are called positive; thresholds fall."""
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    order = np.argsort(-score, kind="stable")
    positive, score = positive[order], score[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # equal scores share one threshold
    true_positives = np.cumsum(positive)[last]
    return true_positives, last + 1 - true_positives, score[last]


def roc_curve(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Receiver operating characteristic.

    Returns:
        false_positive_rate, true_positive_rate, thresholds: (T + 1,) each, from (0, 0) at inf to (1, 1).

    Raises:
        ValueError: `positive` is all true or all false.
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError("a ROC curve needs positive and negative images")
    true_positives, false_positives, thresholds = counts_by_threshold(positive, score)
    return (
        np.append(0, false_positives) / false_positives[-1],
        np.append(0, true_positives) / true_positives[-1],
        np.append(np.inf, thresholds),
    )


def roc_auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive image scores above a negative one (ties count half)."""
    false_positive_rate, true_positive_rate, _ = roc_curve(positive, score)
    return float(np.trapezoid(true_positive_rate, false_positive_rate))


def precision_recall_curve(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Precision and recall at each threshold, recall rising.

    Returns:
        precision, recall, thresholds: (T,) each; thresholds fall.

    Raises:
        ValueError: no image is positive.
    """
    if not np.any(positive):
        raise ValueError("a precision-recall curve needs positive images")
    true_positives, false_positives, thresholds = counts_by_threshold(positive, score)
    precision = true_positives / (true_positives + false_positives)
    return precision, true_positives / true_positives[-1], thresholds


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve as a sum of steps: sum over thresholds of (R_n - R_{n-1}) P_n."""
    precision, recall, _ = precision_recall_curve(positive, score)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def brier_score(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of probabilities (Brier 1950, "Verification of forecasts expressed in terms of
    probability", Monthly Weather Review 78): Brier's own sum over the classes, 0 to 2; for two classes half of it,
    which is that of the positive class alone, 0 to 1.

    Args:
        truth: (N,) class indices.
        probabilities: (N, n), each row with the sum 1.

    Raises:
        ValueError: there is no image.
    """
    if not len(truth):
        raise ValueError("a Brier score needs at least one image")
    happened = np.arange(probabilities.shape[1]) == np.asarray(truth)[:, np.newaxis]
    score = float(np.mean(np.sum((probabilities - happened) ** 2, axis=1)))
    return score / 2 if probabilities.shape[1] == 2 else score


@dataclass(frozen=True)
class Calibration:
    """What was promised and what was kept, in equal bins of the promised probability; empty bins hold nan."""

    edges: np.ndarray  # (bins + 1,) from 0 to 1
    count: np.ndarray  # (bins,) int64, images
    confidence: np.ndarray  # (bins,) mean probability promised
    accuracy: np.ndarray  # (bins,) share that was right
    error: float  # expected calibration error, 0 to 1


def calibration(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> Calibration:
    """Reliability of the predicted class's probability (Naeini 2015; Guo et al. 2017, arXiv 1706.04599).

    Args:
        probability: (N,) probability given to the predicted class, 0 to 1.
        correct: (N,) bool, whether that class was right.
        bins: intervals ((m - 1) / bins, m / bins] of probability; the first also holds 0.

    Raises:
        ValueError: there is no image.
    """
    probability, correct = np.asarray(probability, np.float64), np.asarray(correct, bool)
    if not len(probability):
        raise ValueError("a calibration needs at least one image")
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    held = np.where(count, count, np.nan)
    confidence = np.bincount(index, weights=probability, minlength=bins) / held
    accuracy = np.bincount(index, weights=correct, minlength=bins) / held
    # Guo 2017, equation 3: ECE = sum over bins of |B_m| / n * |acc(B_m) - conf(B_m)|
    error = float(np.nansum(count * np.abs(accuracy - confidence)) / len(probability))
    return Calibration(edges, count, confidence, accuracy, error)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation (n - 1); the latter is None for a single value.

    Raises:
        ValueError: `values` is empty.
    """
    if not len(values):
        raise ValueError("no values to average")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
