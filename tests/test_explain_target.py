"""What is explained: the logit of a class, one layer's output, in flat networks and in networks inside networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from explained import IMAGE, PHOTOS, hand_network, network
from keras import layers, ops

from cnnexp.errors import UserError
from cnnexp.explain import activations, gradcam, scorecam
from cnnexp.explain.methods import METHODS
from cnnexp.explain.target import check_classes, class_logit, coarseness, default_layer, logit_model


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)


def test_class_logit() -> None:
    logits = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert class_logit(logits, np.array([2, 0])).numpy().tolist() == [3, 4]
    assert class_logit(logits, 1).numpy().tolist() == [2, 5]
    single = tf.constant([[1.5], [-2.0]])
    assert class_logit(single, 1).numpy().tolist() == [1.5, -2]
    assert class_logit(single, np.array([0, 0])).numpy().tolist() == [-1.5, 2]


@pytest.mark.parametrize(("units", "wrong", "classes"), [(1, 2, 2), (3, 3, 3), (3, -1, 3)])
def test_refuses_a_class_that_is_not_there(units: int, wrong: int, classes: int) -> None:
    with pytest.raises(UserError, match=rf"class {wrong}: the network has {classes} classes"):
        check_classes(units, np.array([0, wrong]))


def ending(kind: str) -> tuple[keras.Model, Callable[[Any], Any]]:
    """A network that ends in some way, and the function from its logits to its output."""
    image = keras.Input((4, 4, 1))
    x = layers.Flatten()(layers.Conv2D(2, 3, name="conv")(image))
    if kind == "sigmoid":
        return keras.Model(image, layers.Dense(1, "sigmoid", bias_initializer="ones")(x)), ops.sigmoid
    if kind == "no bias":
        return keras.Model(image, layers.Dense(3, "softmax", use_bias=False)(x)), ops.softmax
    if kind == "activation layer":
        return keras.Model(image, layers.Activation("sigmoid")(layers.Dense(1)(x))), ops.sigmoid
    if kind == "softmax layer":
        return keras.Model(image, layers.Softmax()(layers.Dense(3)(x))), ops.softmax
    if kind == "linear":
        return keras.Model(image, layers.Dense(3)(x)), lambda logits: logits
    tail = keras.Sequential([keras.Input((8,)), layers.Dense(3, "softmax")])
    return keras.Model(image, tail(x)), ops.softmax


@pytest.mark.parametrize("kind", ["sigmoid", "no bias", "activation layer", "softmax layer", "linear", "inside"])
def test_logits_are_what_goes_into_the_last_activation(kind: str) -> None:
    model, activation = ending(kind)
    images = np.random.default_rng(1).normal(size=(3, 4, 4, 1)).astype(np.float32)
    maps, logits = logit_model(model)(images)
    assert maps.shape == (3, 2, 2, 2)
    np.testing.assert_allclose(activation(logits), model(images), atol=1e-6)


def test_logits_follow_the_weights_of_the_network() -> None:
    model = hand_network()
    found = logit_model(model)
    model.get_layer("predictions").set_weights([np.ones((8, 1)), np.zeros(1)])
    assert float(found(IMAGE)[1][0, 0]) == 20  # the sum of x and 5 - x over four pixels


def test_the_default_layer_is_the_last_that_is_not_a_pooling_or_dropout() -> None:
    assert default_layer(network("flat")) == "conv2"
    vgg16 = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert default_layer(vgg16) == "block5_conv3"
    # a network that ends in a convolution of one pixel, a Reshape and an activation layer
    mobilenet = keras.applications.MobileNet((64, 64, 3), alpha=0.25, weights=None, classes=4)
    assert default_layer(mobilenet) == "conv_pw_13_relu"
    maps = gradcam.heatmap(mobilenet, np.full((1, 64, 64, 3), 99, np.uint8), 3)
    assert maps.shape == (1, 2, 2)
    image = keras.Input((4, 4, 1))
    x = layers.Dropout(0.5)(layers.ReLU(name="last")(layers.Conv2D(2, 3)(image)))
    assert default_layer(keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))) == "last"


def test_maps_of_few_cells_are_named_with_a_finer_layer() -> None:
    image = keras.Input((28, 28, 3))
    fine = layers.Conv2D(2, 3, strides=2, padding="same", name="fine")(image)
    coarse = layers.Conv2D(2, 3, strides=5, padding="same", name="coarse")(fine)
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(coarse)))
    said = coarseness(model)
    assert said.startswith("the maps of layer coarse have 3 x 3 cells, which hardly say where; ")
    assert "; --method layercam --layer fine has 14 x 14; " in said and coarseness(model, "fine") == ""
    small = keras.Input((6, 6, 3))
    model = keras.Model(small, layers.Dense(1)(layers.Flatten()(layers.Conv2D(2, 3, strides=3, name="only")(small))))
    assert "--layer" not in coarseness(model) and "layer only have 2 x 2 cells" in coarseness(model)


def test_unusable_layers_are_refused_with_the_nearest_names() -> None:
    model = network("flat")
    with pytest.raises(UserError, match=r"layer 'conv3': .* has no such layer; nearest.*: conv[12], conv[12]"):
        gradcam.heatmap(model, PHOTOS, 0, "conv3")
    with pytest.raises(
        UserError,
        match=r"layer 'hidden': its output \(16,\) is no map .*; nearest with feature maps: .*conv1",
    ):
        gradcam.heatmap(model, PHOTOS, 0, "hidden")


class Subclassed(keras.Model):
    def call(self, inputs: Any) -> Any:
        return inputs


def test_unusable_networks_are_refused() -> None:
    image, other = keras.Input((4, 4, 1)), keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    with pytest.raises(UserError, match="no layer has feature maps"):
        logit_model(keras.Model(image, layers.Dense(2)(flat)))
    with pytest.raises(UserError, match="one input and output"):
        logit_model(keras.Model([image, other], layers.Dense(2)(layers.Flatten()(layers.Add()([image, other])))))
    with pytest.raises(UserError, match="Functional or Sequential"):
        logit_model(Subclassed())
    with pytest.raises(UserError, match=r"ends in .*GlobalAveragePooling2D"):
        logit_model(keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1)(image))))


@pytest.mark.parametrize("shape", [(12, 12, 3), (1, 13, 12, 3), (1, 12, 12, 1), (0, 12, 12, 3)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    for method in (gradcam, scorecam):
        with pytest.raises(UserError, match=r"the network takes \(images, 12, 12, 3\)"):
            method.heatmap(network(), np.zeros(shape, np.uint8), 0)


# --------------------------------------------------------------------------------------------- networks inside


def nested_and_flat(kind: str) -> tuple[keras.Model, keras.Model]:
    """The same layers with and without networks inside: normalization, dropout, a branch, an operation."""
    first = [layers.Conv2D(6, 3, name="inner1"), layers.BatchNormalization(name="inner2")]
    left, right = layers.Conv2D(4, 1, name="left"), layers.Conv2D(4, 1, name="right")
    last = [layers.Dropout(0.5), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")]

    def body(x: keras.KerasTensor) -> keras.KerasTensor:
        for layer in first:
            x = layer(x)
        return layers.Add(name="sum")([left(x), ops.relu(right(x))])

    def head(x: keras.KerasTensor) -> keras.KerasTensor:
        for layer in last:
            x = layer(x)
        return x

    image = keras.Input((12, 12, 3))
    flat = keras.Model(image, head(body(ops.flip(image, axis=-1))))
    inner_image = keras.Input((12, 12, 3))
    inner = keras.Model(inner_image, body(inner_image), name="backbone")
    if kind == "sequential":
        return keras.Sequential([keras.Input((12, 12, 3)), layers.Lambda(reverse), inner, *last]), flat
    if kind == "twice":
        middle_image = keras.Input((12, 12, 3))
        inner = keras.Model(middle_image, inner(middle_image))
    outer = keras.Input((12, 12, 3))
    return keras.Model(outer, head(inner(ops.flip(outer, axis=-1), training=False))), flat


def reverse(x: Any) -> Any:
    return ops.flip(x, axis=-1)


@pytest.mark.parametrize("kind", ["functional", "sequential", "twice"])
def test_a_network_inside_gives_the_maps_of_the_flat_network(kind: str) -> None:
    nested, flat = nested_and_flat(kind)
    count = len(nested.variables)
    np.testing.assert_allclose(nested(PHOTOS), flat(PHOTOS), atol=1e-6)
    for layer in ("inner1", "inner2", "sum", None):
        for name, method in METHODS.items():
            expected = method(flat, PHOTOS[:2], 1, layer)
            np.testing.assert_allclose(method(nested, PHOTOS[:2], 1, layer), expected, atol=1e-5, err_msg=name)
    assert default_layer(nested) == "sum" and len(nested.variables) == count
    with pytest.raises(UserError, match="nearest with feature maps: inner"):
        logit_model(nested, "inner3")
    assert list(activations.activation_grids(nested, PHOTOS[0])) == [
        "inner1",
        "right",
        "left",
    ]  # right is farther


def test_networks_inside_with_the_same_layer_names_are_refused() -> None:
    def part() -> keras.Model:
        return keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 1, name="conv")])

    image = keras.Input((4, 4, 1))
    x = layers.Flatten()(layers.Add()([part()(image), part()(image)]))
    with pytest.raises(UserError, match="cannot be joined"):
        logit_model(keras.Model(image, layers.Dense(2)(x)))


def test_of_a_layer_called_twice_the_last_call_counts() -> None:
    image = keras.Input((2, 2, 1))
    double = layers.Conv2D(1, 1, name="double", kernel_initializer=keras.initializers.Constant(2))
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(double(double(image)))))
    assert logit_model(model, "double")(IMAGE)[0].numpy().ravel().tolist() == [4, 8, 12, 16]
