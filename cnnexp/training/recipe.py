"""Accuracy and targets of a training, plain or with mixup, and its figures on the validation and test images."""

import keras
import numpy as np
from keras import ops


def targets(labels: np.ndarray, num_classes: int, one_hot: bool = False) -> np.ndarray:
    """Labels (N,) as the loss wants them.

    Returns:
        (N, 1) float32, 0 or 1, for two classes; otherwise (N, num_classes) float32 if `one_hot`, or (N,) int32.
    """
    if num_classes == 2:
        return labels.astype(np.float32)[:, np.newaxis]
    return np.eye(num_classes, dtype=np.float32)[labels] if one_hot else labels.astype(np.int32)


def accuracy(num_classes: int, one_hot: bool) -> keras.metrics.Metric:
    """The share of images whose likeliest class is that of the target; of a mixed image, the larger part's."""
    if num_classes == 2:
        return keras.metrics.MeanMetricWrapper(_same_side, name="acc")
    if one_hot:
        return keras.metrics.CategoricalAccuracy(name="acc")
    return keras.metrics.SparseCategoricalAccuracy(name="acc")


def _same_side(targets: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    return ops.cast(ops.equal(targets > 0.5, probabilities > 0.5), "float32")


def mixed(x: np.ndarray, y: np.ndarray, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A batch mixed with itself in another order: m * batch + (1 - m) * shuffled batch, m from Beta(alpha, alpha).

    One m for the whole batch, as in the authors' code (Zhang et al. 2018, arXiv 1710.09412, equation 1).

    Args:
        x: (B, H, W, C) uint8.
        y: (B, ...) float32 targets.
        alpha: more than 0; the larger, the nearer m is to 1/2.
        rng: decides m and the order.

    Returns:
        float32 images in 0..255, and targets.
    """
    share = np.float32(rng.beta(alpha, alpha))
    other = rng.permutation(len(x))
    x = x.astype(np.float32)
    return share * x + (1 - share) * x[other], share * y + (1 - share) * y[other]


def loss_and_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, as Keras computes them (probabilities clipped to 1e-7).

    Args:
        probabilities: (N, 1) of class 1, or (N, classes).
        labels: (N,) class numbers.
    """
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1 - 1e-7)
    if clipped.shape[1] == 1:
        of_truth = np.where(labels == 1, clipped[:, 0], 1 - clipped[:, 0])
    else:
        of_truth = clipped[np.arange(len(labels)), labels]
    return float(-np.log(of_truth).mean()), float((predicted_classes(probabilities) == labels).mean())


def predicted_classes(probabilities: np.ndarray) -> np.ndarray:
    """(N,) int64: the class that a network answers with, from (N, 1) of class 1, or (N, classes)."""
    if probabilities.shape[1] == 1:
        return (probabilities[:, 0] > 0.5).astype(np.int64)
    return probabilities.argmax(axis=1)
