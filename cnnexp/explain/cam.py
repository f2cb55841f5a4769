"""What the methods share: activations, gradients of the class score, and the scale of a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from cnnexp.console import progress
from cnnexp.errors import UserError
from cnnexp.explain.target import check_classes, class_logit, logit_model
from cnnexp.models.kept import once_for

BATCH_SIZE = 8  # images at a time, in a compiled function: all activations of a batch are kept for the gradient
FEW = 2  # images: for so few, nothing is compiled

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
    indices = np.broadcast_to(np.asarray(class_index, np.int64), (len(images),))
    check_classes(network.outputs[1].shape[-1], indices)
    if len(images) > FEW:
        step = partial(activations_and_gradients, network)
        run = once_for(network, "gradients", lambda: tf.function(step, autograph=False))
    else:
        run = partial(activations_and_gradients, network)
    maps: dict[str, list[np.ndarray]] = {name: [] for name in combinations}
    for start in progress(range(0, len(images), BATCH_SIZE), "explaining"):
        batch = np.arange(start, min(start + BATCH_SIZE, len(images)))
        rows = np.resize(batch, BATCH_SIZE) if len(images) > FEW else batch  # a compiled function takes one size
        found = run(tf.constant(images[rows], tf.float32), tf.constant(indices[rows]))
        activations, gradients = (tensor.numpy()[: len(batch)] for tensor in found)
        for name, combine in combinations.items():
            maps[name].append(combine(activations, gradients))
    return {name: normalised(np.concatenate(batches)) for name, batches in maps.items()}


def activations_and_gradients(
    network: keras.Model, images: tf.Tensor, class_index: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A^k and dy^c/dA^k, both (B, h, w, k) float32, from one pass forward and one backward.

    The network is in inference mode: no dropout, moving statistics in batch normalization.

    Args:
        network: from `logit_model`.
        images: (B, H, W, C) float32, 0..255.
        class_index: (B,) int64.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        activations, logits = network(images, training=False)
        scores = class_logit(logits, class_index)
    gradients = tape.gradient(scores, activations)
    return tf.cast(activations, tf.float32), tf.cast(gradients, tf.float32)


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
