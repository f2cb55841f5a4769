"""Whether some classes have many more images than others."""

from collections.abc import Sequence

import numpy as np

UNBALANCED = 3  # times the images of the rarest class, from which on that is said


def image_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The images of each class, (num_classes,) int64, of labels (N,)."""
    return np.bincount(labels, minlength=num_classes)


def members(labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The positions of the images of each class that has some."""
    return tuple(np.flatnonzero(labels == number) for number in np.unique(labels))


def is_unbalanced(labels: np.ndarray, num_classes: int) -> bool:
    """Whether the most frequent class has at least three times the images of the rarest."""
    counts = image_counts(labels, num_classes)
    return bool(counts.max() >= UNBALANCED * counts.min())


def unbalanced_line(class_names: Sequence[str], labels: np.ndarray) -> str | None:
    """What to know of training images whose classes are unbalanced, and what to choose; None where they are not."""
    if not is_unbalanced(labels, len(class_names)):
        return None
    counts = image_counts(labels, len(class_names))
    most, least = int(counts.argmax()), int(counts.argmin())
    return (
        f"the classes are unbalanced: {counts[most]:,} training images are {class_names[most]}, {counts[least]:,} "
        f"{class_names[least]}; accuracy says little of the rare ones: choose trainer.monitor=val/f1_macro, and "
        "loss.class_weight=balanced or trainer.balanced_sampling=true (`cnnexp guide figures`)"
    )
