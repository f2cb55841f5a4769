"""Where the cells of a feature map lie in the image.

A map of a network without padding covers the middle of the image only: stretched over the whole of it, as is often
done, a heat map points beside what the network saw. The arithmetic is that of Araujo et al. 2019, "Computing Receptive
Fields of Convolutional Neural Networks" (Distill, doi 10.23915/distill.00021), section "Receptive field regions".
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from cnnexp.explain.target import default_layer, feature_map, flattened
from cnnexp.models.kept import once_for
from cnnexp.models.keras_graph import origin

POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)

Pair = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """The centre of what cell (i, j) sees is at `first + stride * (i, j)`.

    Both are (y, x) in pixels of the image, which reaches from 0 to its height and width: the centre of its first
    pixel is at 0.5.
    """

    first: Pair
    stride: Pair

    def pixel(self, cell: tuple[int, int]) -> tuple[int, int]:
        """The pixel (y, x) at the centre of a cell."""
        y, x = (int(first + stride * index) for first, stride, index in zip(self.first, self.stride, cell, strict=True))
        return y, x


def even_grid(cells: tuple[int, int], size: tuple[int, int]) -> Grid:
    """The grid of (h, w) cells spread evenly over an image of (H, W) pixels."""
    strides = [pixels / count for pixels, count in zip(size, cells, strict=True)]
    return Grid((strides[0] / 2, strides[1] / 2), (strides[0], strides[1]))


def cell_grid(model: keras.Model, layer: str | None = None) -> Grid:
    """Where the feature maps of a layer lie in the image that `model` takes.

    Args:
        model, layer: see `cnnexp.explain.target.logit_model`.

    Raises:
        UserError: no such layer, or one without feature maps.
    """
    return once_for(model, ("grid", layer), lambda: _cell_grid(model, layer))


def _cell_grid(model: keras.Model, layer: str | None) -> Grid:
    flat = flattened(model)
    tensor = feature_map(flat, default_layer(flat) if layer is None else layer)
    first, stride = np.zeros(2), np.ones(2)  # of the cells, as indices into `tensor`
    while True:
        operation, inputs = origin(tensor)
        if not inputs:
            break
        same = [given for given in inputs if given.shape[1:3] == tensor.shape[1:3]]
        source = (same or inputs)[0]
        step, shift = _step(operation, np.array(source.shape[1:3]), np.array(tensor.shape[1:3]))
        first, stride, tensor = step * first + shift, step * stride, source
    return Grid((float(first[0] + 0.5), float(first[1] + 0.5)), (float(stride[0]), float(stride[1])))


def _step(operation: Any, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What turns an index into the output of an operation into one into its input: `step * index + shift`."""
    if isinstance(operation, CONVOLUTIONS):
        return _window(operation, np.array(operation.kernel_size), np.array(operation.dilation_rate), before, after)
    if isinstance(operation, POOLINGS):
        return _window(operation, np.array(operation.pool_size), np.ones(2), before, after)
    if isinstance(operation, layers.ZeroPadding2D):
        return np.ones(2), -np.array([side[0] for side in operation.padding], float)
    if isinstance(operation, layers.Cropping2D):
        return np.ones(2), np.array([side[0] for side in operation.cropping], float)
    step = before / after  # the same size, or resized
    return step, (step - 1) / 2


def _window(
    operation: Any, size: np.ndarray, dilation: np.ndarray, before: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_step` of a sliding window; with `same` padding the smaller half of it stands before the image."""
    strides = np.array(operation.strides, float)
    reach = (size - 1) * dilation
    padding = np.maximum((after - 1) * strides + reach + 1 - before, 0) // 2 if operation.padding == "same" else 0
    return strides, reach / 2 - padding
