"""Score-CAM: Wang et al. 2020 (arXiv 1910.01279), "Score-Weighted Visual Explanations for Convolutional
Neural Networks"."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from cnnexp.console import progress
from cnnexp.data.opencv import cv2
from cnnexp.explain.cam import check_images, normalised
from cnnexp.explain.target import check_classes, class_logit, logit_model
from cnnexp.models.kept import once_for

BATCH_SIZE = 32  # images, or copies of an image under different masks, at a time


def heatmap(
    model: keras.Model, images: np.ndarray, class_index: int | np.ndarray, layer: str | None = None
) -> np.ndarray:
    """Heat maps without gradients, by a forward pass for every feature map of the layer that varies.

    The weight of a feature map is the probability of the class when the image is seen through that map alone,
    on black (section 3.2: "post-softmax"), as in the code that the authors published. Algorithm 1 of the
    paper takes a softmax over the feature maps instead.

    Arguments, result and errors are those of `cam.gradient_heatmap`.
    """
    network = logit_model(model, layer)
    check_images(network, images)
    images = images.astype(np.float32)
    indices = np.broadcast_to(np.asarray(class_index, np.int64), (len(images),))
    check_classes(network.outputs[1].shape[-1], indices)
    starts = range(0, len(images), BATCH_SIZE)
    activations = np.concatenate([_run(network, images[start : start + BATCH_SIZE])[0] for start in starts])
    weights = np.zeros(activations.shape[::3], np.float32)  # (B, k)
    for number, channels in progress(_jobs(activations), "explaining"):
        masks = np.stack([mask(activations[number, ..., channel], images.shape[1:3]) for channel in channels])
        logits = _run(network, images[number] * masks)[1]
        weights[number, channels] = _probability(logits, indices[number])  # eq. 6 and 10
    return normalised((weights[:, np.newaxis, np.newaxis] * activations).sum(axis=-1))  # eq. 9


def mask(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A feature map (h, w) that varies, enlarged to (H, W, 1) and brought to 0..1."""
    height, width = size
    large = cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR)[..., np.newaxis]  # eq. 7
    return (large - large.min()) / np.ptp(large)  # eq. 8


def _jobs(activations: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Image number and feature maps, a batch at a time; one that is the same everywhere masks nothing."""
    jobs = []
    for number, varies in enumerate(np.ptp(activations, axis=(1, 2)) > 0):
        channels = np.flatnonzero(varies)
        jobs += [(number, channels[i : i + BATCH_SIZE]) for i in range(0, len(channels), BATCH_SIZE)]
    return jobs


def _run(network: keras.Model, images: np.ndarray) -> tuple[np.ndarray, tf.Tensor]:
    """Feature maps and logits of at most BATCH_SIZE images; compiled for that size, to which others are filled up."""
    run = once_for(network, "outputs", lambda: tf.function(partial(network, training=False), autograph=False))
    rows = np.resize(np.arange(len(images)), BATCH_SIZE)
    activations, logits = run(tf.constant(images[rows], tf.float32))
    return tf.cast(activations, tf.float32).numpy()[: len(images)], tf.cast(logits, tf.float32)[: len(images)]


def _probability(logits: tf.Tensor, class_index: int) -> np.ndarray:
    if logits.shape[-1] == 1:
        return tf.sigmoid(class_logit(logits, class_index)).numpy()
    return class_logit(tf.nn.softmax(logits), class_index).numpy()
