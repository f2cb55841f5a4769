"""What a backbone is, and what every backbone builder shares.

A builder is called as `builder(inputs, **options) -> Backbone`, with `inputs` a KerasTensor (B, H, W, C) of
raw values 0..255. A user's own function can stand in its place.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
from keras import KerasTensor

from cnnexp.errors import UserError

WEIGHT_SUFFIXES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True)
class Backbone:
    """The part of the network between preprocessing and head, in one flat graph.

    inputs:     what came out of the preprocessing, (B, H, W, C) float32.
    outputs:    the features, (B, h, w, c) float32.
    layers:     the layers between the two, under the network's own names, in the order of `Model.layers`.
    pretrained: whether weights were loaded. Batch normalization of a pretrained backbone keeps its moving
                statistics, also while it is fine-tuned (see `cnnexp.models.freeze`).
    """

    inputs: KerasTensor
    outputs: KerasTensor
    layers: tuple[keras.layers.Layer, ...]
    pretrained: bool = False


def layers_between(inputs: KerasTensor, outputs: KerasTensor) -> tuple[keras.layers.Layer, ...]:
    """The layers that lead from `inputs` to `outputs`, inputs first, in the order of `keras.Model.layers`.

    The order is topological: a layer stands after every layer it takes its input from.

    Args:
        inputs: what came out of the preprocessing. (Not deeper in a network: `get_source_inputs` follows
            every path, and residual networks have exponentially many.)
        outputs: what came out of the backbone.
    """
    source = keras.utils.get_source_inputs(inputs)
    before = {id(layer) for layer in keras.Model(source, inputs).layers}
    return tuple(layer for layer in keras.Model(source, outputs).layers if id(layer) not in before)


def load_weight_file(inputs: KerasTensor, outputs: KerasTensor, weights: str, network: str) -> None:
    """Load a local file into the layers that lead to `outputs`.

    Args:
        inputs: what came out of the preprocessing.
        outputs: what came out of the backbone.
        weights: the file: `.weights.h5` or `.keras` (Keras 3), `.h5` or `.hdf5` (Keras 2).
        network: its name, for the error messages.

    Raises:
        UserError: no such file, not a weight file, or the weights of another network.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"backbone.weights: there is no file {path}; give another, or null for random weights")
    if path.suffix not in WEIGHT_SUFFIXES:
        raise UserError(f"backbone.weights: {path} must end in one of {' '.join(WEIGHT_SUFFIXES)}")
    model = keras.Model(keras.utils.get_source_inputs(inputs), outputs)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Skipping nested container")  # for each layer
            model.load_weights(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"backbone.weights: {path} is not a weight file ({one_line(error)})") from error
    except (ValueError, KeyError) as error:
        message = f"backbone.weights: {path} is not of {network} without its top ({one_line(error)})"
        raise UserError(message) from error


def check_image_size(inputs: KerasTensor, minimum: int, network: str) -> None:
    """Raise UserError where images are smaller than `minimum` pixels on a side."""
    height, width = inputs.shape[1:3]
    if min(height, width) < minimum:
        raise UserError(
            f"dataset.image_size: {network} needs images of at least {minimum}x{minimum} pixels, not {height}x{width}"
        )


def one_line(error: Exception) -> str:
    """The beginning of an error's message without line breaks, or its type where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
