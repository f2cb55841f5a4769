"""What is explained: the score of a class before the last activation, as a function of one layer's output.

A sigmoid or softmax flattens the gradient of a sure answer and mixes the classes, so the methods start from
the logit: y^c in Selvaraju et al. 2017, "the score for class c (before the softmax)".
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers, ops

from cnnexp.errors import UserError, nearest
from cnnexp.models.kept import once_for
from cnnexp.models.keras_graph import calls, origin, run_through

IMAGE_AXES = 4  # (B, h, w, channels)
COARSE, FINE = 3, 7  # cells a side: of so few, and of enough
NOT_DEFAULT = (layers.MaxPooling2D, layers.AveragePooling2D, layers.Dropout, layers.SpatialDropout2D)


def logit_model(model: keras.Model, layer: str | None = None) -> keras.Model:
    """Image -> (output of a layer, logits), sharing all weights with `model`.

    Args:
        model: a Functional or Sequential network with one input and one output, (B, n) probabilities. It
            may hold other such networks as layers.
        layer: a name, also of a layer of a network inside. Of a layer that is called several times, the
            last call counts. None: see `default_layer`.

    Returns:
        (B, H, W, C) raw images -> [(B, h, w, k), (B, n)], n = 1 for a single sigmoid unit.

    Raises:
        UserError: no such layer, a layer without feature maps, or a network whose logits cannot be found.
    """

    def build() -> keras.Model:
        flat = flattened(model)
        features = feature_map(flat, default_layer(flat) if layer is None else layer)
        return keras.Model(flat.inputs[0], [features, _logits(flat)], name="logits")

    return once_for(model, ("logits", layer), build)


def check_classes(units: int, class_index: np.ndarray) -> None:
    """Raise UserError where a network of so many outputs has no class of a number in `class_index` (B,)."""
    classes = max(units, 2)
    wrong = class_index[(class_index < 0) | (class_index >= classes)]
    if wrong.size:
        raise UserError(f"class {wrong[0]}: the network has {classes} classes, counted from 0 to {classes - 1}")


def class_logit(logits: tf.Tensor, class_index: Any) -> tf.Tensor:
    """The score of each image's class.

    A single sigmoid unit gives the score z of class 1; that of class 0 is -z: 1 - sigmoid(z) = sigmoid(-z).

    Args:
        logits: (B, n), or (B, 1) for two classes.
        class_index: (B,) class numbers, or one for all images; see `check_classes`.

    Returns:
        (B,) in the type of `logits`.
    """
    indices = tf.broadcast_to(tf.cast(class_index, tf.int64), tf.shape(logits)[:1])
    if logits.shape[1] == 1:
        return logits[:, 0] * tf.cast(2 * indices - 1, logits.dtype)
    return tf.gather(logits, indices, axis=1, batch_dims=1)


# ------------------------------------------------------------------------------------------------- layers


def default_layer(model: keras.Model) -> str:
    """The layer nearest to the output that has feature maps, poolings and dropout left out.

    That is the last convolution of VGG16 (`block5_conv3`) and the last activation of ResNet50
    (`conv5_block3_out`).

    Raises:
        UserError: the network has no feature maps.
    """
    flat = flattened(model)
    poolings = {layer.name for layer in flat.layers if isinstance(layer, NOT_DEFAULT)}
    names = [name for name in feature_maps(flat) if name not in poolings]
    if not names:
        raise UserError(f"{model.name}: no layer has feature maps (B, h, w, channels), so nothing can be explained")
    return names[-1]


def coarseness(model: keras.Model, layer: str | None = None) -> str:
    """A line where the maps of a layer have so few cells that they hardly say where; "" where they have more.

    Args:
        model: as in `default_layer`.
        layer: one that has feature maps; None: the default one.
    """
    flat = flattened(model)
    cells = {name: tensor.shape[1:3] for name, tensor in feature_maps(flat).items()}
    layer = default_layer(flat) if layer is None else layer
    down, right = cells[layer]
    if not down or not right or max(down, right) > COARSE:
        return ""
    finer = [
        f"; --method layercam --layer {name} has {h} x {w}"
        for name, (h, w) in cells.items()
        if h and w and min(h, w) >= FINE
    ]
    return (
        f"the maps of layer {layer} have {down} x {right} cells, which hardly say where"
        f"{finer[-1] if finer else ''}; a network trained with a larger dataset.image_size has more"
    )


def feature_maps(flat: keras.Model) -> dict[str, KerasTensor]:
    """The outputs (B, h, w, k) of the layers of a flat network, by name, from input to output.

    Those of a single pixel (h = w = 1, as in a squeeze-and-excitation block) are left out.
    """
    found: dict[str, KerasTensor] = {}
    for node in calls(keras.Function(flat.inputs, flat.outputs)):
        layer, output = node.operation, node.output_tensors[0]
        if not isinstance(layer, keras.Layer) or isinstance(layer, layers.InputLayer):
            continue
        if len(output.shape) == IMAGE_AXES and tuple(output.shape[1:3]) != (1, 1):
            found.pop(layer.name, None)  # the last call counts, also for the order
            found[layer.name] = output
    return found


def feature_map(flat: keras.Model, layer: str) -> KerasTensor:
    """The output (B, h, w, k) of one layer of a flat network.

    Raises:
        UserError: no such layer, or one without feature maps.
    """
    maps = feature_maps(flat)
    if layer in maps:
        return maps[layer]
    near = ", ".join(nearest(layer, list(maps))[:5])
    if layer not in [known.name for known in flat.layers]:
        raise UserError(f"layer {layer!r}: {flat.name} has no such layer; nearest with feature maps: {near}")
    shape = tuple(flat.get_layer(layer).output.shape[1:])
    raise UserError(
        f"layer {layer!r}: its output {shape} is no map (h, w, channels) of several pixels; nearest with "
        f"feature maps: {near}"
    )


# ------------------------------------------------------------------------------------------------- graphs


def flattened(model: keras.Model) -> keras.Model:
    """`model` itself, or, where networks are layers of it, a network that calls their layers one by one.

    Weights are shared. Without this, no gradient reaches a layer inside: its tensors belong to a graph from
    which no path leads to the outer output.

    Raises:
        UserError: not one input and one output; a subclassed network, which has no graph; or networks
            inside that use one layer name twice.
    """
    if not _has_graph(model) or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(f"{model.name}: only Functional or Sequential networks with one input and output are explained")
    if not any(_has_graph(layer) for layer in model.layers):
        return model
    image = model.inputs[0]
    inputs = keras.Input(batch_shape=image.shape, dtype=image.dtype, name=image.name)
    outputs = _call_each_layer(model, inputs)
    try:
        return keras.Model(inputs, outputs, name=model.name)
    except ValueError as error:  # Keras wants unique names
        raise UserError(f"{model.name}: the networks inside cannot be joined ({error})") from error


def _call_each_layer(model: keras.Model, inputs: Any) -> Any:
    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if not _has_graph(operation):
            return operation(*args, **kwargs)
        return _call_each_layer(operation, args[0] if args else kwargs["inputs"])

    graph = keras.Function(model.inputs, model.outputs if len(model.outputs) > 1 else model.outputs[0])
    return run_through(graph, inputs, lambda operation: partial(call, operation))


def _has_graph(operation: Any) -> bool:
    """Whether it is a Functional network, or a Sequential one whose input shape is known."""
    if isinstance(operation, keras.Sequential):
        return operation.built and bool(operation.inputs)
    return isinstance(operation, keras.Function)


def _logits(flat: keras.Model) -> KerasTensor:
    """What goes into the last activation."""
    last, (inputs, *_) = origin(flat.outputs[0])
    if isinstance(last, layers.Dense):
        logits = ops.matmul(inputs, last.kernel)
        return logits if last.bias is None else ops.add(logits, last.bias)
    if isinstance(last, layers.Activation | layers.Softmax) and len(inputs.shape) == 2:
        return inputs
    raise UserError(
        f"{flat.name}: ends in {last.name} ({type(last).__name__}); its scores are found only where it ends "
        "in Dense, Activation or Softmax with an output (B, classes)"
    )
