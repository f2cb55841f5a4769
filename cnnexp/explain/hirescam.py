"""HiResCAM: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks" (arXiv 2011.08891)."""

from __future__ import annotations

import keras
import numpy as np

from cnnexp.explain.cam import gradient_heatmap


def heatmap(
    model: keras.Model, images: np.ndarray, class_index: int | np.ndarray, layer: str | None = None
) -> np.ndarray:
    """Heat maps (B, h, w) float32 in 0..1; see `cnnexp.explain.cam.gradient_heatmap` for arguments and errors."""
    return gradient_heatmap(model, images, class_index, layer, combine)


def combine(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Each pixel by its own gradient: where one dense layer follows, its share of the score. Shapes as in Grad-CAM."""
    return (gradients * activations).sum(axis=-1)  # the definition of HiResCAM: sum over f of dy^c/dA^f x A^f
