"""Preprocessing + backbone + head -> one flat keras.Model that takes raw images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
from keras import KerasTensor

from cnnexp.errors import UserError
from cnnexp.models.backbone import Backbone


@dataclass
class Network:
    """A model and its parts.

    model:           takes (B, H, W, C) raw 0..255 as its input `image`; not compiled.
    backbone_layers: in the order of `model.layers`, which is topological; without preprocessing.
    head_layers:     what follows the backbone.
    pretrained:      whether the backbone's weights were loaded (see `Backbone`).
    """

    model: keras.Model
    backbone_layers: tuple[keras.layers.Layer, ...]
    head_layers: tuple[keras.layers.Layer, ...]
    pretrained: bool = False


def build_model(
    input_shape: tuple[int, int, int],
    num_classes: int,
    backbone: Callable[[KerasTensor], Backbone],
    head: Callable[[KerasTensor, int], KerasTensor],
    name: str,
) -> Network:
    """Join a backbone and a head; `layers_with` around it says in which precision they compute.

    Keras numbers the layers that an application leaves without a name (`conv2d_7` of Inception) through
    the whole process: `keras.utils.clear_session()` before building gives a second network the names of the
    first. Call it before `keras.utils.set_random_seed`, because it forgets the seed.

    Args:
        input_shape: (H, W, C) of the images, which are RGB or grey, 0..255.
        num_classes: of the data set.
        backbone: a builder with its options filled in.
        head: a head with its options filled in.
        name: of the model.

    Raises:
        UserError: from the builder; or the builder did not return a Backbone.
    """
    image = keras.Input(input_shape, dtype="float32", name="image")
    body = backbone(image)
    if not isinstance(body, Backbone):
        raise UserError(
            f"backbone._target_: the builder returned {type(body).__name__}, not cnnexp.models.backbone.Backbone"
        )
    outputs = head(body.outputs, num_classes)
    model = keras.Model(image, outputs, name=name)
    backbone_ids = {id(layer) for layer in body.layers}
    before_head = {id(layer) for layer in keras.Model(image, body.outputs).layers}
    return Network(
        model=model,
        backbone_layers=tuple(layer for layer in model.layers if id(layer) in backbone_ids),
        head_layers=tuple(layer for layer in model.layers if id(layer) not in before_head),
        pretrained=body.pretrained,
    )


@contextmanager
def layers_with(dtype_policy: str | None) -> Iterator[None]:
    """The layers that are made meanwhile have this policy, as "mixed_bfloat16"; None: Keras' present one.

    Preprocessing and the last layer keep full precision, because a raw image does not fit into 8 bits of mantissa,
    nor a small loss.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def flip_averaged(model: keras.Model) -> keras.Model:
    """A model whose output is the mean of `model`'s for an image and for its mirror image.

    Args:
        model: takes (B, H, W, C).

    Returns:
        A model with the same input and output; `model`'s graph is a layer of it, under its own name.
    """
    network = keras.Model(model.inputs[0], model.outputs[0], name=model.name)  # not compiled: to be saved as it is
    image = keras.Input(model.input_shape[1:], dtype="float32", name="image")
    both = keras.layers.Average(name="mean")([network(image), network(keras.ops.flip(image, axis=2))])
    return keras.Model(image, both, name=f"{model.name}_flip_averaged")


def calibrated(model: keras.Model, temperature: float) -> keras.Model:
    """A model whose probabilities are `model`'s with their logits divided by a temperature.

    Args:
        model: takes (B, H, W, C), gives (B, 1) of class 1 or (B, K).
        temperature: more than 0; see `cnnexp.metrics.decision.with_temperature`, which does the same.

    Returns:
        A model with the same input and output; `model`'s graph is a layer of it, under its own name.
    """
    network = keras.Model(model.inputs[0], model.outputs[0], name=model.name)  # not compiled: to be saved as it is
    image = keras.Input(model.input_shape[1:], dtype="float32", name="image")
    clipped = keras.ops.clip(network(image), keras.config.epsilon(), 1 - keras.config.epsilon())
    if model.output_shape[-1] == 1:
        logits = (keras.ops.log(clipped) - keras.ops.log(1 - clipped)) / temperature
        outputs = keras.layers.Activation("sigmoid", name="calibrated")(logits)
    else:
        outputs = keras.layers.Softmax(name="calibrated")(keras.ops.log(clipped) / temperature)
    return keras.Model(image, outputs, name=f"{model.name}_calibrated")


def trained_network(model: keras.Model) -> keras.Model:
    """The network inside of what `flip_averaged` and `calibrated` gave; any other model as it is."""
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(inside) == 1 and model.name in (f"{inside[0].name}_flip_averaged", f"{inside[0].name}_calibrated"):
        return trained_network(inside[0])
    return model
