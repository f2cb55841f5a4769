"""The networks of the design's list, built from `conf/backbone/`: that they compute what those of `keras.applications`
compute, and what their cut for fine-tuning leaves to train, against numbers counted by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.config.targets import partial_from_config
from cnnexp.models.build import Network, build_model
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.heads import pooled
from cnnexp.models.names import APPLICATIONS
from cnnexp.training.features import cut_model

RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """A network at its smallest image size, in pixels, and its cut for fine-tuning.

    trained: tensors of the backbone that are trained behind the cut; batch normalization is frozen.
    stored:  the (h, w, c) of each array that the feature cache keeps of an image. What lies behind the cut but depends
             on no trained layer is fixed, too: a pool, a border, an activation.
    """

    size: int
    first: str
    trained: int
    stored: list[tuple[int, int, int]]


V2_BLOCK = 3 + 2 * 2  # expansion, depthwise, projection without a bias; two convolutions with one that gate
CONVNEXT_BLOCK = 2 + 2 + 2 + 2 + 1  # depthwise, normalization, two dense layers, the scale of the layer
RESIDUAL_C = 1 + 3 + 2  # a branch of one and one of three convolutions; one with a bias joins them

CASES = {
    "vgg16": Case(32, "block5_conv1", 3 * 2, [(2, 2, 512)]),
    "vgg19": Case(32, "block5_conv1", 4 * 2, [(2, 2, 512)]),
    "resnet50": Case(32, "conv5_block1_1_conv", (3 * 3 + 1) * 2, [(2, 2, 1024)]),
    "inception_v3": Case(75, "mixed7", (2 + 4) + 2 * (1 + 3 + 4 + 1), [(3, 3, 768), (1, 1, 768)]),
    "inception_resnet_v2": Case(75, "block17_20_ac", (2 + 2 + 3) + 10 * RESIDUAL_C + 1, [(3, 3, 1088), (1, 1, 1088)]),
    "xception": Case(71, "block13_sepconv1_act", 1 + 4 * 2, [(5, 5, 728)] * 2),
    "mobilenet": Case(32, "conv_dw_12", 2 * 2, [(3, 3, 512)]),
    "efficientnet_v2_b0": Case(32, "block6a_expand_conv", 8 * V2_BLOCK + 1, [(2, 2, 112)]),
    "convnext_tiny": Case(32, "convnext_tiny_downsampling_block_2", 4 + 3 * CONVNEXT_BLOCK + 2, [(2, 2, 384)]),
}


class Built(NamedTuple):
    name: str
    config: Config
    network: Network


SMALL = ("vgg16", "resnet50", "mobilenet")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in SMALL else pytest.mark.long) for name in CASES]
)
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    """The network of `backbone=NAME` with random weights, under the layer names of a fresh process."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    size, config = CASES[request.param].size, load_config([f"backbone={request.param}"])
    builder = partial_from_config("backbone", config.backbone, omit=("finetune_from",), weights=None)
    network = build_model((size, size, 3), 2, builder, pooled, request.param)
    for weight in network.model.weights:
        if len(weight.shape) == 1:  # kernels keep what Keras has drawn
            about_zero = weight.name in ("beta", "bias", "moving_mean")
            drawn = RNG.normal(0, 0.1, weight.shape) if about_zero else RNG.uniform(0.5, 1.5, weight.shape)
            weight.assign(drawn)
    network.pretrained = True  # as with the weights that the file names: without dropout, too
    for layer in network.backbone_layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    yield Built(request.param, config, network)
    keras.utils.clear_session(free_memory=False)


def reference(name: str, size: int) -> keras.Model:
    """The network of keras.applications itself, with random weights, under the layer names of a fresh process."""
    keras.utils.clear_session(free_memory=False)
    function = getattr(keras.applications, APPLICATIONS[name].attribute)
    return function(weights=None, include_top=False, input_shape=(size, size, 3))


def test_computes_what_keras_computes(built: Built) -> None:
    """The same layers in the same order under the same names, and the same features of images prepared its way."""
    case, model = CASES[built.name], built.network.model
    keras_model = reference(built.name, case.size)
    body = keras_model.layers[1:]
    assert [layer.name for layer in built.network.backbone_layers] == [layer.name for layer in body]
    for ours, theirs in zip(built.network.backbone_layers, body, strict=True):
        theirs.set_weights(ours.get_weights())
    images = RNG.integers(0, 256, (1, case.size, case.size, 3), np.uint8)
    module = sys.modules[getattr(keras.applications, APPLICATIONS[built.name].attribute).__module__]
    expected = keras_model(module.preprocess_input(images.astype("float32"))).numpy()
    features = keras.Model(model.input, model.get_layer("head_pool").input)(images).numpy()
    assert features.shape == expected.shape
    assert np.abs(expected).max() > 0.05 and expected.std() > 0.01  # says something
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


def test_fine_tuning_trains_what_lies_behind_the_cut(built: Built) -> None:
    case, network = CASES[built.name], built.network
    assert built.config.backbone.finetune_from == case.first
    apply_freeze_policy(network, "until_layer", case.first)
    trained = [weight for layer in network.backbone_layers for weight in layer.trainable_weights]
    assert len(trained) == case.trained
    cut = cut_model(network.model)
    assert cut is not None
    assert [output.shape[1:] for output in cut.frozen.outputs] == case.stored
    assert not cut.frozen.trainable_weights


def test_the_graph_is_flat_and_of_keras_own_layers(built: Built) -> None:
    """Stem and down-sampling of ConvNeXt are pairs of layers, which Keras itself keeps in a Sequential each."""
    nested = [layer.name for layer in built.network.model.layers if isinstance(layer, keras.Model)]
    pairs = ["stem", *(f"downsampling_block_{number}" for number in range(3))]
    assert nested == [f"convnext_tiny_{pair}" for pair in pairs if built.name == "convnext_tiny"]
    for layer in {type(layer): layer for layer in built.network.model.layers}.values():
        loaded: Any = keras.layers.deserialize(keras.layers.serialize(layer))  # without being told of any class
        assert type(loaded) is type(layer) and type(layer).__module__.startswith("keras.")
