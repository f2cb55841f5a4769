"""Figures that follow from how often each class was there, was answered, and was got right.

Counts may be weighted, and have any number of leading axes: (..., K) for K classes, so that one formula serves a table
of answers and a thousand resamples of it.
"""

from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """Of each class, (..., K) each: the images answered right, those that are of it, those answered with it."""

    right: np.ndarray
    actual: np.ndarray
    answered: np.ndarray


def counts(labels: np.ndarray, predicted: np.ndarray, num_classes: int, weights: np.ndarray | None = None) -> Counts:
    """The counts of a table of answers.

    Args:
        labels: (N,) int, true classes, 0 to K - 1.
        predicted: (N,) int, the classes that were answered.
        num_classes: K.
        weights: (N, B), how often each image counts in each of B resamples; None: once, in one.

    Returns:
        (K,) each, with `weights` (B, K).
    """
    if weights is None:
        groups = (labels[labels == predicted], labels, predicted)
        return Counts(*(np.bincount(group, minlength=num_classes).astype(np.float64) for group in groups))
    classes = np.arange(num_classes)
    actual, answered = (
        (group[:, np.newaxis] == classes).astype(weights.dtype) for group in (np.asarray(labels), np.asarray(predicted))
    )
    both = np.concatenate(
        [actual * answered, actual, answered], axis=1
    )  # one product: it takes as long as each of them
    return Counts(*np.split((weights.T @ both).astype(np.float64), 3, axis=1))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part` of `whole`; 0 of nothing, as scikit-learn has it."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The mean over the classes that count, (...,)."""
    return np.sum(values * counted, axis=-1) / np.sum(counted, axis=-1)


def _seen(given: Counts) -> np.ndarray:
    """Whether a class was there or was answered: the others do not count in a mean over classes."""
    return given.actual + given.answered > 0


def precision(given: Counts) -> np.ndarray:
    """(..., K): of the answers with a class, the share that is right; 0 where there is none."""
    return _share(given.right, given.answered)


def recall(given: Counts) -> np.ndarray:
    """(..., K): of the images of a class, the share that is found; 0 where there is none."""
    return _share(given.right, given.actual)


def f1(given: Counts) -> np.ndarray:
    """(..., K): the harmonic mean of precision and recall of a class; 0 where it was neither there nor answered."""
    return _share(2 * given.right, given.actual + given.answered)


def precision_macro(given: Counts) -> np.ndarray:
    """(...,): the mean of the classes' precisions, over those that were there or answered."""
    return _mean(precision(given), _seen(given))


def recall_macro(given: Counts) -> np.ndarray:
    """(...,): the mean of the classes' recalls, over those that were there or answered."""
    return _mean(recall(given), _seen(given))


def f1_macro(given: Counts) -> np.ndarray:
    """(...,): the mean of the classes' F1, over those that were there or answered."""
    return _mean(f1(given), _seen(given))


def balanced_accuracy(given: Counts) -> np.ndarray:
    """(...,): the mean of the classes' recalls, over those that were there."""
    return _mean(recall(given), given.actual > 0)


def matthews(given: Counts) -> np.ndarray:
    """(...,): Matthews' correlation of truth and answer, -1 to 1 (Gorodkin 2004 for more than two classes, "Comparing
    two K-category assignments by a K-category correlation coefficient", Comput. Biol. Chem. 28); 0 where all images
    are of one class, or all answers."""
    total = given.actual.sum(axis=-1)
    both = np.sum(given.actual * given.answered, axis=-1)
    covariance = given.right.sum(axis=-1) * total - both
    spread = (total**2 - np.sum(given.actual**2, axis=-1)) * (total**2 - np.sum(given.answered**2, axis=-1))
    return _share(covariance, np.sqrt(spread))
