"""Heat maps against numbers worked out by hand, against CAM, and against tf-keras-vis."""

from __future__ import annotations

import importlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.explain import activations, cam, gradcam, gradcam_plusplus, hirescam, layercam, scorecam
from cnnexp.explain.measure import (
    chance_level,
    energy_inside,
    localisation,
    pointing_game,
    randomisation_check,
    randomised,
    read_masks,
    spearman,
)
from cnnexp.explain.methods import METHODS
from cnnexp.explain.names import METHOD_NAMES
from cnnexp.explain.overlay import Panel, caption, contact_sheet, overlay, top_classes, write_png
from cnnexp.explain.target import class_logit, default_layer, logit_model

GRADIENT_METHODS = (gradcam, gradcam_plusplus, hirescam, layercam)
PHOTOS = np.random.default_rng(0).integers(0, 60, (5, 12, 12, 3), np.uint8)
for number in range(5):  # something bright on something dark
    PHOTOS[number, number + 1 : number + 6, 7 - number : 11 - number, number % 3 :] += 190


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)


def network(head: str = "gap", units: int = 3, activation: str | None = "softmax", channels: int = 3) -> keras.Model:
    """`conv1`, `pool1`, `conv2`; global average pooling, or `pool2`, Flatten and `hidden`; `predictions`."""
    image = keras.Input((12, 12, channels), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(6, 3, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(8, 2, activation="relu", name="conv2")(x)
    if head == "gap":
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.MaxPooling2D(2, name="pool2")(x)
        x = layers.Flatten()(x)
        x = layers.Dense(16, activation="relu", name="hidden")(x)
    model = keras.Model(image, layers.Dense(units, activation, name="predictions")(x))
    kernel = np.sin(np.arange(x.shape[-1] * units) ** 2.0).reshape(-1, units)  # positive and negative for each class
    model.get_layer("predictions").set_weights([kernel, np.zeros(units)])
    return model


# ------------------------------------------------------------------------------- a network worked out by hand

IMAGE = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 2, 2, 1)
BIAS = 3.0


def hand_network() -> keras.Model:
    """Feature maps x and 5 - x, and a logit with the gradients [[2, 0], [0, 2]] and [[-1, -1], [1, -1]]."""
    image = keras.Input((2, 2, 1))
    x = layers.Conv2D(2, 1, name="maps")(image)
    model = keras.Model(image, layers.Dense(1, "sigmoid", name="predictions")(layers.Flatten()(x)))
    model.get_layer("maps").set_weights([np.array([[[[1.0, -1.0]]]]), np.array([0.0, 5.0])])
    gradients = np.stack([[[2, 0], [0, 2]], [[-1, -1], [1, -1]]], axis=-1)
    model.get_layer("predictions").set_weights([gradients.reshape(8, 1), np.array([BIAS])])
    return model


@pytest.mark.parametrize(
    ("method", "class_index", "expected"),
    [
        # weights 1 and -1/2: 1.5 x - 2.5 = -1, 0.5, 2, 3.5
        ("gradcam", 1, [0, 1 / 7, 4 / 7, 1]),
        ("gradcam", 0, [1, 0, 0, 0]),
        # 2 x 1 - 4, -3, 2, 2 x 4 - 1
        ("hirescam", 1, [0, 0, 2 / 7, 1]),
        ("hirescam", 0, [2 / 3, 1, 0, 0]),
        # only positive gradients: 2 x 1, 0, 2, 2 x 4
        ("layercam", 1, [1 / 4, 0, 1 / 4, 1]),
        # alpha = g^2 / (2 g^2 + 10 g^3): 1/22 where g = 2, 1/12 where g = 1; weights 2/11 and 1/12
        ("gradcam_plusplus", 1, [68 / 107, 81 / 107, 94 / 107, 1]),
    ],
)
def test_maps_worked_out_by_hand(method: str, class_index: int, expected: list[float]) -> None:
    heatmap = METHODS[method](hand_network(), IMAGE, class_index)
    assert heatmap.shape == (1, 2, 2) and heatmap.dtype == np.float32
    np.testing.assert_allclose(heatmap.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("class_index", [0, 1])
def test_score_cam_worked_out_by_hand(class_index: int) -> None:
    # seen through x: 0, 2/3, 2, 4, logit 8 - 22/3 + 3 = 11/3
    # seen through 5 - x: 1, 4/3, 1, 0, logit 2 - 26/3 + 3 = -11/3
    sign = 1 if class_index else -1
    first, second = (1 / (1 + math.exp(-sign * logit)) for logit in (11 / 3, -11 / 3))
    x = np.array([1, 2, 3, 4])
    expected = first * x + second * (5 - x)
    heatmap = scorecam.heatmap(hand_network(), IMAGE, class_index)
    np.testing.assert_allclose(heatmap.ravel(), expected / expected.max(), atol=1e-6)


def test_score_cam_mask_is_enlarged_and_brought_to_0_to_1() -> None:
    channel = np.array([[-2, 2]], np.float32)
    assert scorecam.mask(channel, (1, 4)).ravel().tolist() == [
        0,
        0.25,
        0.75,
        1,
    ]  # pixel centres at 1/8, 3/8, ...


def test_score_cam_leaves_out_feature_maps_that_mask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hand_network()
    model.get_layer("maps").set_weights([np.array([[[[1.0, 0.0]]]]), np.array([0.0, 5.0])])  # x and 5
    heatmap = scorecam.heatmap(model, IMAGE, 1)
    np.testing.assert_allclose(heatmap.ravel(), [0.25, 0.5, 0.75, 1], atol=1e-6)
    monkeypatch.setattr(scorecam, "BATCH_SIZE", 1)
    assert np.array_equal(heatmap, scorecam.heatmap(model, IMAGE, 1))


def test_a_map_without_positive_evidence_is_empty() -> None:
    model = hand_network()
    model.get_layer("predictions").set_weights([-np.ones((8, 1)), np.zeros(1)])
    for module in GRADIENT_METHODS:
        assert not module.heatmap(model, IMAGE, 1).any()


# ------------------------------------------------------------------------------------- relations that hold


@pytest.mark.parametrize("class_index", [0, 1, 2])
def test_grad_cam_and_hirescam_are_cam_before_global_average_pooling(class_index: int) -> None:
    """Zhou et al. 2016, eq. 2: the class's weights of the dense layer, over the last convolution."""
    model = network("gap")
    maps = keras.Model(model.inputs, model.get_layer("conv2").output).predict(PHOTOS, verbose=0)
    weights = model.get_layer("predictions").kernel.numpy()[:, class_index]
    by_hand = np.maximum(np.einsum("bhwk,k->bhw", maps, weights), 0)
    peak = by_hand.max(axis=(1, 2), keepdims=True)
    assert (peak > 0).any()
    by_hand = by_hand / np.where(peak > 0, peak, 1)
    for method in (gradcam, hirescam):
        np.testing.assert_allclose(method.heatmap(model, PHOTOS, class_index), by_hand, atol=1e-5)


def test_hirescam_adds_up_to_the_score_where_grad_cam_does_not() -> None:
    model = hand_network()
    found = logit_model(model)
    maps, gradients = cam.activations_and_gradients(found, IMAGE, np.array([1]))
    score = float(found(IMAGE)[1][0, 0])
    assert hirescam.combine(maps, gradients).sum() + BIAS == pytest.approx(score)
    assert gradcam.combine(maps, gradients).sum() + BIAS != pytest.approx(score)


def test_gradients_of_the_two_classes_of_a_sigmoid_are_each_other_negated() -> None:
    found = logit_model(network("flat", 1, "sigmoid"))
    first = cam.activations_and_gradients(found, PHOTOS, np.zeros(5, int))[1]
    second = cam.activations_and_gradients(found, PHOTOS, np.ones(5, int))[1]
    assert first.any() and np.array_equal(first, -second)


def test_a_sure_answer_is_explained_as_well_as_an_unsure_one() -> None:
    """Through the sigmoid its gradient would be 0 in float32."""
    model = network("gap", 1, "sigmoid")
    kernel, _ = model.get_layer("predictions").get_weights()
    unsure = gradcam.heatmap(model, PHOTOS, 1)
    model.get_layer("predictions").set_weights([kernel, np.full(1, 200.0)])
    assert model.predict(PHOTOS, verbose=0).min() == 1.0
    assert unsure.any() and np.array_equal(gradcam.heatmap(model, PHOTOS, 1), unsure)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_the_answer_of_a_method(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its range; image, class and layer each change it, batches and the type of the pixels do not."""
    model = network("flat")
    classes = np.array([0, 1, 2, 0, 1])
    maps = METHODS[name](model, PHOTOS, classes, "conv2")
    assert maps.shape == (5, 4, 4) and maps.dtype == np.float32 and maps.min() >= 0
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0} and maps.any(axis=(1, 2)).sum() >= 3
    assert not np.array_equal(maps, METHODS[name](model, PHOTOS[::-1], classes, "conv2"))
    assert not np.array_equal(maps, METHODS[name](model, PHOTOS, 1, "conv2"))
    assert METHODS[name](model, PHOTOS, classes, "conv1").shape == (5, 10, 10)
    monkeypatch.setattr(cam, "BATCH_SIZE", 2)
    monkeypatch.setattr(scorecam, "BATCH_SIZE", 3)
    alone = METHODS[name](model, PHOTOS[4:].astype(np.float64), 1)
    np.testing.assert_allclose(METHODS[name](model, PHOTOS, classes)[4:], alone, atol=1e-5)
    np.testing.assert_allclose(maps[4:], alone, atol=1e-5)


def test_grey_images() -> None:
    model = network("flat", 1, "sigmoid", channels=1)
    grey = PHOTOS[..., :1]
    for name, method in METHODS.items():
        heatmap = method(model, grey, 1)
        assert heatmap.shape == (5, 4, 4) and heatmap.any(), name


def test_names_are_those_of_the_methods_and_need_no_tensorflow() -> None:
    assert tuple(METHODS) == METHOD_NAMES
    code = "import sys, cnnexp.explain.names; sys.exit('tensorflow' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------------- the target


def test_class_logit() -> None:
    logits = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert class_logit(logits, np.array([2, 0])).numpy().tolist() == [3, 4]
    assert class_logit(logits, 1).numpy().tolist() == [2, 5]
    single = tf.constant([[1.5], [-2.0]])
    assert class_logit(single, 1).numpy().tolist() == [1.5, -2]
    assert class_logit(single, np.array([0, 0])).numpy().tolist() == [-1.5, 2]


@pytest.mark.parametrize(("units", "wrong", "classes"), [(1, 2, 2), (3, 3, 3), (3, -1, 3)])
def test_class_logit_refuses_a_class_that_is_not_there(units: int, wrong: int, classes: int) -> None:
    with pytest.raises(UserError, match=rf"class {wrong}: the network has {classes} classes"):
        class_logit(tf.zeros((2, units)), wrong)


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


# ------------------------------------------------------------------------------------------ networks inside


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


# ---------------------------------------------------------------------------------- another implementation


@pytest.mark.parametrize("head", ["gap", "flat"])
@pytest.mark.parametrize("name", ["gradcam", "gradcam_plusplus", "layercam", "scorecam"])
def test_agrees_with_tf_keras_vis(name: str, head: str) -> None:
    """Before resizing."""
    if (name, head) == ("gradcam_plusplus", "flat"):
        pytest.skip("it divides alpha by its sum, also over negative gradients where it has a pole; eq. 5 does not")
    pytest.importorskip("tf_keras_vis")
    scores = importlib.import_module("tf_keras_vis.utils.scores")
    linear = importlib.import_module("tf_keras_vis.utils.model_modifiers").ReplaceToLinear
    module, kind = {
        "gradcam": ("gradcam", "Gradcam"),
        "gradcam_plusplus": ("gradcam_plus_plus", "GradcamPlusPlus"),
        "layercam": ("layercam", "Layercam"),
        "scorecam": ("scorecam", "Scorecam"),
    }[name]
    method = getattr(importlib.import_module(f"tf_keras_vis.{module}"), kind)
    model = network(head)
    ours = METHODS[name](model, PHOTOS, 2, "conv2")
    theirs = method(model, model_modifier=linear(), clone=True)(
        scores.CategoricalScore([2] * len(PHOTOS)),
        PHOTOS.astype(np.float32),
        penultimate_layer="conv2",
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )
    compared = 0
    for a, b in zip(ours, np.asarray(theirs), strict=True):
        assert bool(a.any()) == bool(b.any())
        if a.any():
            compared += 1
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] >= 0.99
    assert compared >= 3


# -------------------------------------------------------------------------------------------- activations


def test_a_grid_has_sixteen_channels_a_row_around_a_mean_of_128() -> None:
    features = np.zeros((1, 2, 17), np.float32)
    features[0, :, 1] = [-5, -3]  # mean -4, standard deviation 1: 64 and 192
    features[0, :, 16] = [-1000, 1000]
    grid = activations.channel_grid(features)
    assert grid.shape == (2, 32, 3) and grid.dtype == np.uint8
    viridis = matplotlib.colormaps["viridis"]

    def colour(value: int) -> list[float]:
        return [255 * part for part in viridis(value)[:3]]

    np.testing.assert_allclose(grid[0, 0], colour(128), atol=2)  # a channel that is 0 everywhere
    np.testing.assert_allclose(grid[0, 2:4], [colour(64), colour(192)], atol=3)
    np.testing.assert_allclose(grid[1, :2], [colour(64), colour(192)], atol=3)
    assert (grid[1, 2:] == 255).all()


def test_a_grid_clips_what_lies_far_from_the_mean() -> None:
    features = np.zeros((10, 10, 1), np.float32)
    features[0, 0] = 1  # nearly ten standard deviations above the mean
    brightest = 255 * np.array(matplotlib.colormaps["viridis"](255)[:3])
    np.testing.assert_allclose(activations.channel_grid(features)[0, 0], brightest, atol=2)


def test_activation_grids_choose_layers() -> None:
    model = network("flat")
    grids = activations.activation_grids(model, PHOTOS[0])
    assert list(grids) == ["conv1", "pool1", "conv2", "pool2"]
    assert [grid.shape for grid in grids.values()] == [(10, 160, 3), (5, 80, 3), (4, 64, 3), (2, 32, 3)]
    assert list(activations.activation_grids(model, PHOTOS[0], limit=2)) == ["conv1", "pool1"]
    named = activations.activation_grids(model, PHOTOS[0], ["conv2"])
    assert list(named) == ["conv2"]
    output = keras.Model(model.inputs, model.get_layer("conv2").output).predict(PHOTOS[:1], verbose=0)[0]
    assert np.array_equal(named["conv2"], activations.channel_grid(output))
    with pytest.raises(UserError, match="layer 'conv9'"):
        activations.activation_grids(model, PHOTOS[0], ["conv9"])
    with pytest.raises(UserError, match="the network takes"):
        activations.activation_grids(model, PHOTOS[0, :5])


def test_enlarged_repeats_pixels() -> None:
    grid = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert activations.enlarged(grid, 5).shape == (3, 6, 3)
    assert (activations.enlarged(grid, 5)[:, :3] == [0, 1, 2]).all()
    assert activations.enlarged(grid, 1).shape == grid.shape


# ------------------------------------------------------------------------------------------------- drawing


def test_overlay_adds_the_colours_to_the_photo() -> None:
    photo = np.full((1, 2, 3), 10, np.uint8)
    photo[0, 1] = 250
    heatmap = np.array([[0.0, 1.0]])
    # JET: 0 is (0, 0, 128), 1 is (128, 0, 0); times 0.4: 51.2
    assert overlay(photo, heatmap)[0].tolist() == [[10, 10, 61], [255, 250, 250]]
    assert overlay(photo, heatmap, weight=0.1)[0].tolist() == [[10, 10, 23], [255, 250, 250]]
    grey = overlay(photo[..., :1], heatmap)
    assert grey[0].tolist() == [[10, 10, 61], [255, 250, 250]]


def test_overlay_enlarges_the_heat_map_to_the_photo() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    shown = overlay(photo, np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert shown.shape == (40, 60, 3)
    assert shown[-1, -1].tolist() == [51, 0, 0] and shown[0, 0].tolist() == [0, 0, 51]


def test_top_classes_and_caption() -> None:
    names = ("cat", "dog", "owl", "fox")
    assert top_classes(np.array([0.1, 0.6, 0.05, 0.25]), names) == [("dog", 0.6), ("fox", 0.25), ("cat", 0.1)]
    assert top_classes(np.array([0.25]), ("cat", "dog")) == [("cat", 0.75), ("dog", 0.25)]
    assert top_classes(np.array([0.5]), ("cat", "dog"), count=1) == [("cat", 0.5)]
    assert caption("a.jpg", [("cat", 0.9731), ("dog", 0.0269)]) == "a.jpg\n97.3 % cat\n2.7 % dog"


def test_contact_sheet_shows_each_panel(tmp_path: Path) -> None:
    def plain(*colour: int) -> np.ndarray:
        return np.full((30, 40, len(colour)), colour, np.uint8)

    rows = [
        [Panel(plain(255, 0, 0), "кошка $x_1$\n猫 97 %"), Panel(plain(0, 0, 255), "a" * 200)],
        [Panel(plain(77), "grey")],
    ]
    file = tmp_path / "explain" / "sheet.png"
    contact_sheet(file, rows)
    assert os.listdir(file.parent) == ["sheet.png"]
    sheet = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    # pictures are 250 pixels wide and, in the shape of the images, 187.5 high; margins of 10, lines of 17
    assert sheet.shape[:2] == (2 * 187.5 + 3 * 17 + 4 * 10, 2 * 270)
    for colour in ((255, 0, 0), (0, 0, 255), (77, 77, 77)):
        found = (np.abs(sheet.astype(int) - colour).max(axis=2) <= 2).sum()
        assert found == pytest.approx(250 * 187.5, rel=0.03)
    assert sheet[2 * 17 + 10 + 3, 13].tolist() == [255, 0, 0] and sheet[2 * 17 + 13, 283].tolist() == [
        0,
        0,
        255,
    ]
    assert (sheet[:, 270:][300:] == 255).all()  # the second row has one panel only
    contact_sheet(file, rows, "a title")
    assert cv2.imread(str(file)).shape[0] == sheet.shape[0] + 50


def test_write_png_is_exact_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "photo.png"
    write_png(file, PHOTOS[0])
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB), PHOTOS[0])

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_png(file, PHOTOS[1])
    assert os.listdir(file.parent) == ["photo.png"]
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB), PHOTOS[0])


# ----------------------------------------------------------------------------------------------- measures


def test_pointing_game_energy_and_chance() -> None:
    masks = np.zeros((3, 2, 4), bool)
    masks[0, 1, 3] = masks[1, 0, :2] = masks[2] = True
    heatmaps = np.zeros((3, 2, 4), np.float32)
    heatmaps[0] = [[0.5, 0, 0, 0.25], [0, 0, 0.25, 1]]  # hottest at the evidence; 1 of 2 inside
    heatmaps[1] = [
        [0.5, 0, 1, 0],
        [0, 0, 0, 0.5],
    ]  # hottest beside it; 0.5 of 2 inside; the third map is empty
    assert pointing_game(heatmaps, masks).tolist() == [True, False, False]
    assert energy_inside(heatmaps, masks).tolist() == [0.5, 0.25, 0]
    assert chance_level(masks).tolist() == [1 / 8, 1 / 4, 1]
    found = localisation(heatmaps, masks)
    assert (found.pointing, found.energy, found.images) == (pytest.approx(1 / 3), 0.25, 3)
    assert found.chance == pytest.approx(11 / 24)


def test_heat_maps_are_enlarged_to_the_masks() -> None:
    masks = np.zeros((1, 20, 40), bool)
    masks[0, 10:, 20:] = True
    assert pointing_game(np.array([[[0, 0], [0, 1.0]]]), masks).tolist() == [True]
    assert pointing_game(np.array([[[1.0, 0], [0, 0]]]), masks).tolist() == [False]
    assert energy_inside(np.ones((1, 3, 3)), masks)[0] == pytest.approx(chance_level(masks)[0])


def test_read_masks(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, 2:] = 255
    (tmp_path / "test" / "cat").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "test" / "cat" / "cat.0.png"), mask)
    found = read_masks(tmp_path, ["test/cat/cat.0.jpg"], 4)
    assert found.dtype == bool and found[0].tolist() == [[False, True, True, True]] * 2 + [[False] * 4] * 2
    assert read_masks(tmp_path, ["test/cat/cat.0.jpg"], 2)[0].tolist() == [[True, True], [False, False]]
    with pytest.raises(UserError, match=r"cat\.1\.png: there is no mask of test/cat/cat\.1\.jpg"):
        read_masks(tmp_path, ["test/cat/cat.1.jpg"], 4)


def test_spearman_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 6, (2, 5, 7))  # many ties
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)
    a = rng.uniform(size=9)
    assert spearman(a, np.exp(a)) == pytest.approx(1) and spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, np.zeros(9)) == 0


def with_all_kinds() -> keras.Model:
    """Normalization, dropout, an operation that is no layer, a network inside; weights unlike fresh ones."""
    image = keras.Input((8, 8, 3))
    inside = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(5, 3, name="conv"), layers.BatchNormalization()])
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(inside(ops.flip(image, axis=-1))))
    model = keras.Model(image, layers.Dense(2, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 7))
    return model


def test_randomised_initialises_every_weight_anew() -> None:
    model = with_all_kinds()
    # the global random state is left alone
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = (randomised(model, seed) for seed in (0, 0, 1))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
    assert all((weight.numpy() == 7).all() for weight in model.weights)
    assert [weight.shape for weight in first.weights] == [weight.shape for weight in model.weights]
    for a, b, c in zip(first.weights, again.weights, other.weights, strict=True):
        assert np.array_equal(a, b) and not (a.numpy() == 7).any()
        assert np.array_equal(a, c) == (a.name != "kernel")  # the rest starts at 0 or 1
    kernels = [weight.numpy() for weight in first.weights if weight.name == "kernel"]
    assert np.abs(kernels[0]).max() <= math.sqrt(6 / (27 + 45))  # Glorot's limit, fan 3 x 9 in and 5 x 9 out
    assert len({weight.shape for weight in kernels}) == 2


def test_the_randomisation_check_tells_an_edge_detector_from_a_heat_map() -> None:
    model = network("gap")

    def edges(_: keras.Model, images: np.ndarray, *__: Any) -> np.ndarray:
        return images[..., 0] / 255

    def depends(model: keras.Model, images: np.ndarray, *_: Any) -> np.ndarray:
        sign = 1 if np.array_equal(model.get_weights()[0], kernel) else -1
        return images[..., 0] * (sign / 255)

    kernel = model.get_weights()[0]
    assert randomisation_check(edges, model, PHOTOS, 0) == pytest.approx(np.ones(5))
    assert randomisation_check(depends, model, PHOTOS, 0) == pytest.approx(-np.ones(5))
    found = randomisation_check(layercam.heatmap, model, PHOTOS, 1, "conv1", seed=0)
    assert found.shape == (5,) and (np.abs(found) < 0.999).all()
    assert not np.array_equal(found, randomisation_check(layercam.heatmap, model, PHOTOS, 1, "conv1", seed=1))
    assert not np.array_equal(found, randomisation_check(layercam.heatmap, model, PHOTOS, 2, "conv1", seed=0))
    assert not np.array_equal(found, randomisation_check(layercam.heatmap, model, PHOTOS, 1, "conv2", seed=0))
