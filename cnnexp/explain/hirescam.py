"""HiResCAM: Draelos and Carin 2020 (arXiv 2011.08891), "Use HiResCAM instead of Grad-CAM for faithful
explanations of convolutional neural networks"."""

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
    """Each pixel by its own gradient: its share of the score if one dense layer follows. Shapes: Grad-CAM."""
    return (gradients * activations).sum(axis=-1)  # the definition: sum over k of dy^c/dA^k * A^k
