"""What the intervals of a run's figures cost beside scikit-learn's figures of the same number of resamples."""

import time
import warnings

import numpy as np
from sklearn import metrics as peer

from bench.table import Row, take_turns
from cnnexp.metrics.intervals import RESAMPLES, class_intervals, intervals
from cnnexp.metrics.registry import Table

IMAGES, SHARES = 1000, (0.4, 0.3, 0.3)


def rows(repetitions: int) -> list[Row]:
    """Twenty intervals: of 11 figures, and of precision, recall and F1 of each of 3 classes."""
    rng = np.random.default_rng(3)
    labels = rng.choice(len(SHARES), IMAGES, p=SHARES)
    scores = np.exp(rng.normal(size=(IMAGES, len(SHARES))) + 2.0 * np.eye(len(SHARES))[labels])
    table = Table(labels, scores / scores.sum(axis=1, keepdims=True))
    counted = 2 if repetitions < 3 else 20  # of the peer's resamples, which all take the same time
    ours_s, peer_s = take_turns("intervals", repetitions, lambda: ours(table), lambda: theirs(table, counted))
    return [Row("figures/intervals", f"scikit-learn, {counted} of {RESAMPLES} resamples counted", ours_s, peer_s)]


def ours(table: Table) -> float:
    """Seconds of all intervals of a run on 1000 test images."""
    began = time.perf_counter()
    intervals(table)
    class_intervals(table.labels, table.probabilities.argmax(axis=1), len(SHARES))
    return time.perf_counter() - began


def theirs(table: Table, counted: int) -> float:
    """Seconds of the same figures by scikit-learn, for all resamples, by those of some."""
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for _ in range(counted):
        drawn = rng.integers(IMAGES, size=IMAGES)
        labels, probabilities = table.labels[drawn], table.probabilities[drawn]
        predicted, happened = probabilities.argmax(axis=1), np.eye(len(SHARES))[labels]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class that a resample lacks
            peer.balanced_accuracy_score(labels, predicted)
            peer.precision_recall_fscore_support(labels, predicted, average="macro")
            peer.precision_recall_fscore_support(labels, predicted)
            peer.matthews_corrcoef(labels, predicted)
            peer.roc_auc_score(happened, probabilities, average="macro")
            peer.average_precision_score(happened, probabilities)
            peer.log_loss(labels, probabilities, labels=range(len(SHARES)))
        np.mean(predicted == labels)
        np.mean(np.sum((probabilities - happened) ** 2, axis=1))
    return (time.perf_counter() - began) * RESAMPLES / counted
