"""What a training makes small: cross-entropy, focal loss, or a loss of one's own; with weights by class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops


def cross_entropy(num_classes: int, one_hot: bool, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Cross-entropy; smoothing by s moves targets from 0 and 1 to s/K and 1 - s + s/K (arXiv 1512.00567, section 7)."""
    if num_classes == 2:
        return keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)
    if one_hot:
        return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    assert label_smoothing == 0
    return keras.losses.SparseCategoricalCrossentropy()


def focal(num_classes: int, one_hot: bool, gamma: float = 2.0, label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Focal loss: -(1 - p)^gamma log p of the truth's probability p (Lin et al. 2017, arXiv 1708.02002, equation 4)."""
    if num_classes == 2:
        return keras.losses.BinaryFocalCrossentropy(gamma=gamma, label_smoothing=label_smoothing)
    assert one_hot
    # without the balancing factor of equation 5, for which `loss.class_weight` stands
    return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma, label_smoothing=label_smoothing)


class _Weighted(keras.losses.Loss):
    """A loss whose value of each image is multiplied by the weight of its class; of mixed classes by their mix."""

    def __init__(self, loss: Callable[[Any, Any], Any], weights: tuple[float, ...] | None) -> None:
        super().__init__(name="weighted")
        self.loss, self.weights = loss, weights

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        values = self.loss(y_true, y_pred)
        if self.weights is None:
            return values
        weights = ops.convert_to_tensor(self.weights, values.dtype)
        if len(y_true.shape) == 1:
            return values * ops.take(weights, ops.cast(y_true, "int32"))
        targets = ops.cast(y_true, values.dtype)
        if len(self.weights) == 2:  # (B, 1): the share of class 1
            targets = ops.concatenate([1 - targets, targets], axis=1)
        return values * ops.matmul(targets, weights)


@dataclass(frozen=True)
class LossPlan:
    """How the loss is made once the form of the targets is known.

    make:    of this module: takes num_classes, one_hot; see `cross_entropy`.
    is_ours: otherwise `make` takes nothing, and what it returns gets one-hot targets and probabilities, (B, K) each,
             of two classes (B, 1), and gives (B,) losses.
    one_hot: whether the targets of more than two classes have to be one-hot.
    weights: of the classes, or None.
    traced:  all that a traced step holds of it, as text; None where that is not known.
    """

    make: Callable[..., Any] = cross_entropy
    is_ours: bool = True
    one_hot: bool = False
    weights: tuple[float, ...] | None = None
    traced: str | None = "cross_entropy"

    def build(self, num_classes: int, one_hot: bool) -> keras.losses.Loss:
        """The loss."""
        made = self.make(num_classes=num_classes, one_hot=one_hot) if self.is_ours else self.make()
        if self.weights is None and isinstance(made, keras.losses.Loss):
            return made
        return _Weighted(made.call if isinstance(made, keras.losses.Loss) else made, self.weights)


CROSS_ENTROPY = LossPlan()
