"""Whether some classes have many more images than others."""

import numpy as np

UNBALANCED = 3  # times the images of the rarest class, from which on that is said


def image_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The images of each class, (num_classes,) int64, of labels (N,)."""
    return np.bincount(labels, minlength=num_classes)


def is_unbalanced(labels: np.ndarray, num_classes: int) -> bool:
    """Whether the most frequent class has at least three times the images of the rarest."""
    counts = image_counts(labels, num_classes)
    return bool(counts.max() >= UNBALANCED * counts.min())
