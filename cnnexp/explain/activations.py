"""What the layers make of an image: every channel of a layer side by side, as in Chollet, "Deep Learning
with Python" (1st edition), section 5.4.1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from cnnexp.console import progress
from cnnexp.data.opencv import cv2
from cnnexp.explain.cam import check_images
from cnnexp.explain.target import feature_map, feature_maps, flattened
from cnnexp.sheet import MUTED, Sheet

CHANNELS_PER_ROW = 16
NARROWEST = 30 * CHANNELS_PER_ROW  # pixels of a grid: its numbers are to be read
LABELS = 30  # pixels, for numbers of channels
WHITE = 255  # where a row has no channel left
SHOWN = (
    layers.Conv2D,  # DepthwiseConv2D and SeparableConv2D are none of its subclasses
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
)


def activation_grids(
    model: keras.Model, image: np.ndarray, layer_names: Sequence[str] | None = None, limit: int = 8
) -> dict[str, np.ndarray]:
    """All channels of some layers, as pictures.

    Args:
        model: see `cnnexp.explain.target.logit_model`.
        image: (H, W, C) uint8 or float, raw 0..255, of the size the network takes.
        layer_names: which layers, or None for the first `limit` convolutions, poolings and activations.
        limit: how many layers where none are named.

    Returns:
        Layer name -> (rows x h, 16 x w, 3) uint8 RGB, see `channel_grid`, from input to output.

    Raises:
        UserError: no such layer, a layer without feature maps, or an image of another size.
    """
    flat = flattened(model)
    check_images(flat, image[np.newaxis])
    names = list(layer_names) if layer_names is not None else shown_layers(model)[:limit]
    network = keras.Model(flat.inputs[0], [feature_map(flat, name) for name in names])
    outputs = keras.tree.flatten(network(image[np.newaxis].astype(np.float32), training=False))
    return {name: channel_grid(np.asarray(output[0])) for name, output in zip(names, outputs, strict=True)}


def shown_layers(model: keras.Model) -> list[str]:
    """The convolutions, poolings and activations that have feature maps, from input to output."""
    flat = flattened(model)
    return [name for name in feature_maps(flat) if isinstance(flat.get_layer(name), SHOWN)]


def channel_grid(features: np.ndarray) -> np.ndarray:
    """The channels of a layer, 16 a row, each brought to the same mean and contrast.

    Args:
        features: (h, w, k) float.

    Returns:
        (ceil(k / 16) x h, 16 x w, 3) uint8 RGB in the colours of viridis: 128 is the mean of a channel, 64
        its standard deviation; white where there is no channel.
    """
    height, width, count = features.shape
    features = features.astype(np.float32)
    centred = features - features.mean(axis=(0, 1))
    scaled = centred / (features.std(axis=(0, 1)) + 1e-5) * 64 + 128
    channels = np.clip(scaled, 0, 255).astype(np.uint8)
    rows = -(-count // CHANNELS_PER_ROW)
    grid = np.full((rows * height, CHANNELS_PER_ROW * width, 3), WHITE, np.uint8)
    for number in range(count):
        row, column = divmod(number, CHANNELS_PER_ROW)
        coloured = cv2.applyColorMap(channels[:, :, number], cv2.COLORMAP_VIRIDIS)
        top, left = row * height, column * width
        grid[top : top + height, left : left + width] = cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB)
    return grid


def enlarged(grid: np.ndarray, width: int) -> np.ndarray:
    """Repeat pixels, (H, W, 3) -> (n x H, n x W, 3), with the smallest n that makes the grid `width` wide."""
    factor = max(-(-width // grid.shape[1]), 1)
    return grid.repeat(factor, axis=0).repeat(factor, axis=1)


def labelled(grid: np.ndarray, layer: str) -> Sheet:
    """A grid of `channel_grid`, enlarged where it is small, with the layer and the numbers of its channels.

    That of a channel is what stands left of its row and above its column, added up.
    """
    side, shown = grid.shape[1] // CHANNELS_PER_ROW, enlarged(grid, NARROWEST)
    cell = shown.shape[1] // CHANNELS_PER_ROW
    sheet = Sheet(LABELS + shown.shape[1], 2 * LABELS + shown.shape[0])
    sheet.text(f"{layer}, {side} x {side}", LABELS, 8, 14, bold=True)
    for column in range(CHANNELS_PER_ROW):
        sheet.text(f"+{column}", LABELS + column * cell + cell // 2, LABELS + 10, 11, MUTED, middle=True)
    for row in range(grid.shape[0] // side):
        place = 2 * LABELS + row * cell + cell // 2 - 6
        sheet.text(str(row * CHANNELS_PER_ROW), LABELS // 2, place, 11, MUTED, middle=True)
    sheet.picture(shown, LABELS, 2 * LABELS, shown.shape[1], shown.shape[0])
    return sheet


def draw_activations(
    folder: Path, model: keras.Model, files: Sequence[Path], images: np.ndarray, layer: str | None
) -> list[Path]:
    """Write `activation_grids`, `labelled`, of each image into a folder of its own, and return the files.

    Args:
        folder: theirs is named after the number and the name of the image's file.
        files: N, of the images.
        images: (N, H, W, C) uint8, raw.
        layer: the only one that is drawn; None: all.
    """
    written = []
    for number, (file, image) in enumerate(zip(progress(files, "activations"), images, strict=True)):
        for name, grid in activation_grids(model, image, [layer] if layer else None).items():
            written.append(folder / f"{number}_{file.stem}" / f"{name}.png")
            labelled(grid, name).save(written[-1])
    return written
