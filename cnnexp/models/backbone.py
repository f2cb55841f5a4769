"""What a backbone is, and what every backbone builder shares.

A builder is called as `builder(inputs, **options) -> Backbone`, with `inputs` a KerasTensor (B, H, W, C) of raw values
0..255. A user's own function can stand in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
from keras import KerasTensor

from cnnexp.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """The part of the network between preprocessing and head, in one flat graph.

    inputs:     what came out of the preprocessing, (B, H, W, C) float32.
    outputs:    the features, (B, h, w, c) float32.
    layers:     the layers between the two, under the names of the network, in the order of `keras.Model.layers`.
    pretrained: whether weights were loaded. Batch normalization of a pretrained backbone keeps its moving statistics,
                also while it is fine-tuned (see `cnnexp.models.freeze`).
    """

    inputs: KerasTensor
    outputs: KerasTensor
    layers: tuple[keras.layers.Layer, ...]
    pretrained: bool = False


def layers_between(inputs: KerasTensor, outputs: KerasTensor) -> tuple[keras.layers.Layer, ...]:
    """The layers that lead from `inputs` to `outputs`, inputs first, in the order of `keras.Model.layers`.

    The order is topological: a layer stands after every layer it takes its input from.

    Args:
        inputs: what came out of the preprocessing. (Not deeper in a network: `get_source_inputs` goes along every path,
            of which residual networks have exponentially many.)
        outputs: what came out of the backbone.
    """
    source = keras.utils.get_source_inputs(inputs)
    before = {id(layer) for layer in keras.Model(source, inputs).layers}
    return tuple(layer for layer in keras.Model(source, outputs).layers if id(layer) not in before)


def load_weight_file(inputs: KerasTensor, outputs: KerasTensor, weights: str, network: str) -> None:
    """Load a local file into the layers that lead to `outputs`: `.weights.h5` or `.keras` (Keras 3), `.h5` (Keras 2).

    Raises:
        UserError: no such file, not a weight file, or the weights of another network.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"backbone.weights: there is no file {path}; give an existing file, or null for random weights")
    try:
        keras.Model(keras.utils.get_source_inputs(inputs), outputs).load_weights(path)
    except OSError as error:
        raise UserError(f"backbone.weights: {path} is not an HDF5 weight file ({first_line(error)})") from error
    except (ValueError, KeyError) as error:
        raise UserError(
            f"backbone.weights: {path} does not hold the weights of {network} without its top ({first_line(error)})"
        ) from error


def check_image_size(inputs: KerasTensor, minimum: int, network: str) -> None:
    """Raise UserError where images are smaller than `minimum` pixels on a side."""
    height, width = inputs.shape[1:3]
    if min(height, width) < minimum:
        raise UserError(
            f"dataset.image_size: {network} needs images of at least {minimum}x{minimum} pixels, not {height}x{width}"
        )


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
