"""How many parameters each layer has, and the formula that gives the number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

from cnnexp.models.build import Network


@dataclass(frozen=True)
class LayerRow:
    """One line of a summary.

    output_shape: without the batch axis.
    formula:      the numbers put in, in Python's notation: "(3*3*3 + 1)*32"; "" without parameters.
    trainable:    whether any of its parameters is trained.
    """

    name: str
    type: str
    output_shape: tuple[int | None, ...]
    parameters: int
    formula: str
    trainable: bool


@dataclass(frozen=True)
class Totals:
    """Parameters in total, of the backbone, of the head, and trained; and the number of trained tensors."""

    total: int
    backbone: int
    head: int
    trainable: int
    trainable_tensors: int


def layer_rows(network: Network) -> list[LayerRow]:
    """One row for each layer of the model, input and preprocessing included, in their order."""
    return [
        LayerRow(
            name=layer.name,
            type=type(layer).__name__,
            output_shape=tuple(layer.output.shape[1:]),
            parameters=layer.count_params(),
            formula=parameter_formula(layer),
            trainable=bool(layer.trainable_weights),
        )
        for layer in network.model.layers
    ]


def totals(network: Network) -> Totals:
    """The sums, with trainable flags as they are now: call it before and after the freeze policy."""
    return Totals(
        total=network.model.count_params(),
        backbone=sum(layer.count_params() for layer in network.backbone_layers),
        head=sum(layer.count_params() for layer in network.head_layers),
        trainable=sum(math.prod(weight.shape) for weight in network.model.trainable_weights),
        trainable_tensors=len(network.model.trainable_weights),
    )


def parameter_formula(layer: layers.Layer) -> str:
    """The number of parameters as an expression in the layer's own sizes (kernel, channels, units).

    A layer made of layers (the downsampling of ConvNeXt) gets the sum of theirs. A layer of a type without a
    formula here gets the sum of its tensors' sizes, such as "1280*4 + 4".
    """
    if not layer.weights:
        return ""
    if isinstance(layer, keras.Model):
        return " + ".join(parameter_formula(inner) for inner in layer.layers if inner.weights)
    formula = FORMULAS.get(type(layer))
    return formula(layer) if formula else " + ".join(_product(*weight.shape) for weight in layer.weights)


def _convolution(layer: keras.layers.Layer) -> str:
    """Each filter sees a kernel over the input channels of its group, and has a bias."""
    return _with_bias(_product(*layer.kernel_size, _channels(layer) // layer.groups), layer, layer.filters)


def _depthwise(layer: keras.layers.Layer) -> str:
    """One kernel, and one bias, for each input channel and each multiple of it."""
    return _with_bias(_product(*layer.kernel_size), layer, _channels(layer) * layer.depth_multiplier)


def _separable(layer: keras.layers.Layer) -> str:
    """A depthwise convolution without bias, then a 1x1 convolution over what comes out."""
    between = _channels(layer) * layer.depth_multiplier
    return f"{_product(*layer.kernel_size, between)} + {_with_bias(str(between), layer, layer.filters)}"


def _dense(layer: keras.layers.Layer) -> str:
    return _with_bias(str(_channels(layer)), layer, layer.units)


def _batch_normalization(layer: keras.layers.Layer) -> str:
    """For each channel: moving mean and variance, which are never trained, scale gamma and shift beta."""
    return _product(2 + bool(layer.scale) + bool(layer.center), _channels(layer))


def _layer_normalization(layer: keras.layers.Layer) -> str:
    return _product(bool(layer.scale) + bool(layer.center), _channels(layer))


FORMULAS: dict[type, Callable[[keras.layers.Layer], str]] = {
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
    layers.Dense: _dense,
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
}


def _with_bias(inputs: str, layer: keras.layers.Layer, outputs: int) -> str:
    return f"({inputs} + 1)*{outputs}" if layer.use_bias else f"{inputs}*{outputs}"


def _channels(layer: keras.layers.Layer) -> int:
    return layer.input.shape[-1]


def _product(*sizes: int) -> str:
    return "*".join(str(int(size)) for size in sizes) or "1"
