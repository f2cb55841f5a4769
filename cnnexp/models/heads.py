"""Heads: from the backbone's features to class probabilities."""

from __future__ import annotations

from keras import KerasTensor, config, layers


def flatten_dense(
    features: KerasTensor, num_classes: int, units: int, input_dropout: float = 0.0, dropout: float = 0.0
) -> KerasTensor:
    """Flatten -> [Dropout] -> Dense(units, ReLU) -> [Dropout] -> class probabilities.

    Args:
        features: (B, h, w, c) float32.
        num_classes: two classes give one sigmoid output, the probability of the second; more give a softmax.
        units: width of the dense layer.
        input_dropout: rate before the dense layer; 0 leaves the layer `head_input_dropout` out.
        dropout: rate after the dense layer; 0 leaves the layer `head_dropout` out.

    Returns:
        (B, 1) or (B, num_classes) float32, from the layer `predictions`.
    """
    x = layers.Flatten(name="flatten")(features)
    if input_dropout:
        x = layers.Dropout(input_dropout, name="head_input_dropout")(x)
    x = layers.Dense(units, activation="relu", name="head_dense")(x)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    return class_probabilities(x, num_classes)


def pooled(features: KerasTensor, num_classes: int, units: int = 0, dropout: float = 0.0) -> KerasTensor:
    """Global average pooling (Lin et al., arXiv 1312.4400) -> [Dense] -> [Dropout] -> class probabilities.

    Args:
        features: (B, h, w, c) float32.
        num_classes: as in `flatten_dense`.
        units: width of a dense ReLU layer in between; 0 leaves the layer `head_dense` out.
        dropout: rate before the output; 0 leaves the layer `head_dropout` out.

    Returns:
        (B, 1) or (B, num_classes) float32, from the layer `predictions`.
    """
    x = layers.GlobalAveragePooling2D(name="head_pool")(features)
    if units:
        x = layers.Dense(units, activation="relu", name="head_dense")(x)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    return class_probabilities(x, num_classes)


def class_probabilities(features: KerasTensor, num_classes: int) -> KerasTensor:
    """The layer `predictions` on (B, n): Dense(1, sigmoid) for two classes, Dense(n, softmax) for more.

    In full precision: 16 bits tell few probabilities near 1 apart.
    """
    assert num_classes >= 2, num_classes
    if num_classes == 2:
        return layers.Dense(1, activation="sigmoid", dtype=config.floatx(), name="predictions")(features)
    return layers.Dense(num_classes, activation="softmax", dtype=config.floatx(), name="predictions")(features)
