"""Small networks and pictures whose explanations are known, for the tests of `cnnexp.explain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from cnnexp.explain.measure import randomised, spearman

PHOTOS = np.random.default_rng(0).integers(0, 60, (5, 12, 12, 3), np.uint8)
for number in range(5):  # something bright on something dark
    PHOTOS[number, number + 1 : number + 6, 7 - number : 11 - number, number % 3 :] += 190


def network(head: str = "gap", units: int = 3, activation: str | None = "softmax", channels: int = 3) -> keras.Model:
    """`conv1`, `pool1`, `conv2`; global average pooling, or `pool2`, Flatten and `hidden`; `predictions`."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, channels), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(6, 3, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(8, 2, activation="relu", name="conv2")(x)
    if head == "gap":
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.MaxPooling2D(2, name="pool2")(x)
        x = layers.Flatten()(x)
        x = layers.Dense(16, activation="relu", name="hidden")(x)
    model = keras.Model(image, layers.Dense(units, activation, name="predictions")(x))
    kernel = np.sin(np.arange(x.shape[-1] * units) ** 2.0).reshape(-1, units)  # positive and negative for each class
    model.get_layer("predictions").set_weights([kernel, np.zeros(units)])
    return model


IMAGE = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 2, 2, 1)
BIAS = 3.0


def hand_network() -> keras.Model:
    """Feature maps x and 5 - x, and a logit with the gradients [[2, 0], [0, 2]] and [[-1, -1], [1, -1]]."""
    image = keras.Input((2, 2, 1))
    x = layers.Conv2D(2, 1, name="maps")(image)
    model = keras.Model(image, layers.Dense(1, "sigmoid", name="predictions")(layers.Flatten()(x)))
    model.get_layer("maps").set_weights([np.array([[[[1.0, -1.0]]]]), np.array([0.0, 5.0])])
    gradients = np.stack([[[2, 0], [0, 2]], [[-1, -1], [1, -1]]], axis=-1)
    model.get_layer("predictions").set_weights([gradients.reshape(8, 1), np.array([BIAS])])
    return model


def randomisation_check(
    heatmap: Callable[..., np.ndarray], model: keras.Model, *arguments: Any, seed: int = 0
) -> np.ndarray:
    """Rank correlation of the heat maps of a network with those of its `randomised` twin, (B,) in -1..1."""
    trained, random = (heatmap(network, *arguments) for network in (model, randomised(model, seed)))
    return np.array([spearman(a, b) for a, b in zip(trained, random, strict=True)])
