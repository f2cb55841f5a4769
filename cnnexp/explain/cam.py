"""What the methods share: activations, gradients of the class score, and the scale of a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from cnnexp.console import progress
from cnnexp.errors import UserError
from cnnexp.explain.target import class_logit, logit_model

BATCH_SIZE = 16  # images at a time: all activations of a batch are kept for the gradient

# (B, h, w, k) activations, (B, h, w, k) gradients -> (B, h, w) class activation map
Combination = Callable[[np.ndarray, np.ndarray], np.ndarray]


def gradient_heatmap(
    model: keras.Model,
    images: np.ndarray,
    class_index: int | np.ndarray,
    layer: str | None,
    combine: Combination,
) -> np.ndarray:
    """The heat maps of a method that needs activations and gradients only.

    Args:
        model: see `logit_model`.
        images: (B, H, W, C) uint8 or float, raw 0..255, of the size the network takes.
        class_index: (B,) classes to explain, or one for all images.
        layer: name, or None for `default_layer`.
        combine: the method.

    Returns:
        (B, h, w) float32 in 0..1, as large as the layer's feature maps; all 0 where nothing speaks for
        the class.

    Raises:
        UserError: no such layer or class, or images of another size.
    """
    return gradient_heatmaps(model, images, class_index, layer, {"": combine})[""]


def gradient_heatmaps(
    model: keras.Model,
    images: np.ndarray,
    class_index: int | np.ndarray,
    layer: str | None,
    combinations: Mapping[str, Combination],
) -> dict[str, np.ndarray]:
    """The heat maps of several methods, by name, for the cost of one; see `gradient_heatmap`."""
    network = logit_model(model, layer)
    check_images(network, images)
    indices = np.broadcast_to(np.asarray(class_index), (len(images),))
    maps: dict[str, list[np.ndarray]] = {name: [] for name in combinations}
    for start in progress(range(0, len(images), BATCH_SIZE), "explaining"):
        batch = slice(start, start + BATCH_SIZE)
        activations, gradients = activations_and_gradients(network, images[batch], indices[batch])
        for name, combine in combinations.items():
            maps[name].append(combine(activations, gradients))
    return {name: normalised(np.concatenate(batches)) for name, batches in maps.items()}


def activations_and_gradients(
    network: keras.Model, images: np.ndarray, class_index: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A^k and dy^c/dA^k, both (B, h, w, k) float32, from one pass forward and one backward.

    The network is in inference mode: no dropout, moving statistics in batch normalization.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        inputs = tf.cast(images, tf.float32)
        tape.watch(inputs)
        activations, logits = network(inputs, training=False)
        scores = class_logit(logits, class_index)
    gradients = tape.gradient(scores, activations)
    return tf.cast(activations, tf.float32).numpy(), tf.cast(gradients, tf.float32).numpy()


def normalised(maps: np.ndarray) -> np.ndarray:
    """ReLU, then each map divided by its maximum: (B, h, w) -> (B, h, w) float32 in 0..1."""
    positive = np.maximum(maps, 0).astype(np.float32)
    peak = positive.max(axis=(1, 2), keepdims=True)
    return np.divide(positive, peak, out=np.zeros_like(positive), where=peak > 0)


def check_images(model: keras.Model, images: np.ndarray) -> None:
    """Raise UserError where the images do not fit the network's input."""
    wanted = tuple(model.input_shape[1:])
    given = tuple(images.shape[1:])
    fits = len(given) == len(wanted) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))
    if images.ndim != 4 or not len(images) or not fits:
        raise UserError(f"images of shape {images.shape}: the network takes (images, {', '.join(map(str, wanted))})")
