"""LayerCAM: Jiang et al. 2021 (IEEE Transactions on Image Processing 30), "Exploring Hierarchical Class
Activation Maps for Localization"."""

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
    """Each pixel by its own gradient where that is positive; serves early layers. Shapes as in Grad-CAM."""
    weights = np.maximum(gradients, 0)  # eq. 6
    return (weights * activations).sum(axis=-1)  # eq. 7 and 8, inside the ReLU
