"""Grad-CAM: Selvaraju et al. 2017 (arXiv 1610.02391), "Visual Explanations from Deep Networks via
Gradient-based Localization"."""

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
    """One weight for each feature map: the mean of its gradient. Both (B, h, w, k) -> (B, h, w)."""
    weights = gradients.mean(axis=(1, 2), keepdims=True)  # eq. 1
    return (weights * activations).sum(axis=-1)  # eq. 2, inside the ReLU
