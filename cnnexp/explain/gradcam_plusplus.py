"""Grad-CAM++: Chattopadhay et al. 2018 (arXiv 1710.11063), "Improved Visual Explanations for Deep
Convolutional Networks"."""

from __future__ import annotations

import keras
import numpy as np

from cnnexp.explain.cam import gradient_heatmap


def heatmap(
    model: keras.Model, images: np.ndarray, class_index: int | np.ndarray, layer: str | None = None
) -> np.ndarray:
    """Heat maps (B, h, w) float32 in 0..1; arguments and errors are those of `cam.gradient_heatmap`."""
    return gradient_heatmap(model, images, class_index, layer, combine)


def combine(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """One weight for each feature map: a weighted sum of its positive gradients. Shapes as in Grad-CAM.

    The score is taken through exp (eq. 12), whose factor exp(S^c) > 0 drops out when the map is normalised.
    """
    sums = activations.sum(axis=(1, 2), keepdims=True)
    divisor = 2 * gradients**2 + sums * gradients**3
    alphas = np.divide(gradients**2, divisor, out=np.zeros_like(gradients), where=divisor != 0)  # eq. 19
    weights = (alphas * np.maximum(gradients, 0)).sum(axis=(1, 2), keepdims=True)  # eq. 5
    return (weights * activations).sum(axis=-1)  # eq. 20, inside the ReLU
