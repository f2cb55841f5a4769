"""The backbones that `conf/backbone/` offers: their files, their preprocessing, and where fine-tuning begins."""

from __future__ import annotations

import functools
import inspect
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.config.composition import load_config
from cnnexp.config.network import BackboneConfig, PretrainedConfig
from cnnexp.config.targets import partial_from_config
from cnnexp.models.backbone import Backbone
from cnnexp.models.build import Network
from cnnexp.models.efficientnet_lite import VARIANTS
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.names import APPLICATIONS

SIZE = 75  # pixels; what all of them take
IMAGES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


@functools.cache
def configured(name: str) -> BackboneConfig:
    return load_config([f"backbone={name}"]).backbone


def built(name: str) -> tuple[keras.KerasTensor, Backbone]:
    """The images, and the network on them as a run builds it but for the weights."""
    image = keras.Input((SIZE, SIZE, 3))
    return image, partial_from_config("backbone", configured(name), omit=("finetune_from",), weights=None)(image)


def outline(name: str) -> tuple[keras.KerasTensor, Backbone]:
    """The same with the layer names of a fresh process; its variables take no memory and have no values."""
    keras.utils.clear_session(free_memory=False)
    with keras.StatelessScope(initialize_variables=False):
        return built(name)


# ------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_has_its_file_which_says_where_fine_tuning_begins(name: str) -> None:
    backbone = configured(name)
    assert isinstance(backbone, PretrainedConfig)
    assert (backbone._target_, backbone.name) == ("cnnexp.models.applications.application", name)
    assert (backbone.weights, backbone.preprocessing) == ("imagenet", APPLICATIONS[name].preprocessing)
    assert backbone.finetune_from or name.startswith("nasnet")  # whose layers are numbered by process


@pytest.mark.parametrize("name", VARIANTS)
def test_every_lite_network_has_its_file_which_names_the_image_size_of_its_training(name: str) -> None:
    backbone = configured(name)
    assert (backbone.name, backbone.weights, backbone.preprocessing) == (name, "imagenet", "lite")
    file = Path(__file__).parents[1] / f"conf/backbone/{name}.yaml"
    assert f"dataset.image_size={VARIANTS[name].image_size}" in file.read_text().partition("defaults:")[0]


# ------------------------------------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("name", APPLICATIONS)
def test_what_enters_a_network_is_what_its_keras_module_makes_of_the_images(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attribute = APPLICATIONS[name].attribute
    module = sys.modules[getattr(keras.applications, attribute).__module__]

    def nothing(input_tensor: keras.KerasTensor, **_: Any) -> keras.Model:
        """In the network's place: what comes in goes out."""
        x = keras.layers.Identity()(input_tensor)
        return keras.Model(keras.utils.get_source_inputs(input_tensor), x)

    monkeypatch.setattr(keras.applications, attribute, nothing)
    image, backbone = built(name)
    found = keras.Model(image, backbone.outputs)(IMAGES)
    np.testing.assert_allclose(found, module.preprocess_input(IMAGES.astype("float32")), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, (_, mode) in APPLICATIONS.items() if mode == "none"])
def test_what_is_given_raw_images_scales_them_itself(name: str) -> None:
    """EfficientNet always does; the others unless they are told not to."""
    function = getattr(keras.applications, APPLICATIONS[name].attribute)
    own = inspect.signature(function).parameters.get("include_preprocessing")
    assert own.default is True if own else function.__module__.endswith(".efficientnet")
    assert "include_preprocessing" not in configured(name).arguments


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_v2_b0", "efficientnet_v2_s", "convnext_tiny"])
def test_how_networks_scale_that_scale_for_themselves(name: str) -> None:
    """That of `efficientnet_b0` is part of its weights, and tested with them."""
    image, backbone = outline(name)
    scaling = (keras.layers.Rescaling, keras.layers.Normalization)
    last = [layer for layer in backbone.layers if isinstance(layer, scaling)][-1]
    images = IMAGES.astype(float)
    imagenet = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    own = {"mobilenet_v3_small": images / 127.5 - 1, "efficientnet_v2_s": images / 128 - 1}
    np.testing.assert_allclose(keras.Model(image, last.output)(IMAGES), own.get(name, imagenet), atol=1e-5)


# --------------------------------------------------------------------------------------------- fine-tuning

MB = 1 + 1 + 2 * 2 + 1  # expansion, depthwise, two convolutions with a bias that gate, projection
CONVNEXT = 2 * 2 + 3 * (4 * 2 + 1) + 2  # down-sampling; blocks of four pairs and a scale; the last normalization
NASNET_CELL = 1 + 5 * 2 * 2 + 1  # on the way in; five times two separable convolutions; on the older input

# network: (first layer, tensors of the backbone that are trained from there on; batch normalization is not)
# those of the design's list are in test_backbones_networks.py
LITE_CUTS = {
    "efficientnet_lite0": ("block6a_expand_conv", (4 + 1) * 3 + 1),
    "efficientnet_lite1": ("block6a_expand_conv", (5 + 1) * 3 + 1),
    "efficientnet_lite2": ("block6a_expand_conv", (5 + 1) * 3 + 1),
}
SMALL_CUTS = {
    "resnet50_v2": ("conv5_block1_preact_bn", 3 * (1 + 1 + 2) + 2),
    "mobilenet_v2": ("block_13_expand", 4 * 3 + 1),
    "mobilenet_v3_small": ("expanded_conv_8_expand", 3 * MB + 1),
    "mobilenet_v3_large": ("expanded_conv_12_expand", 3 * MB + 1),
    "efficientnet_b0": ("block6a_expand_conv", (4 + 1) * MB + 1),
    "convnext_small": ("convnext_small_downsampling_block_2", CONVNEXT),
}
LARGE_CUTS = {
    "resnet101": ("conv5_block1_1_conv", (3 * 3 + 1) * 2),
    "resnet152": ("conv5_block1_1_conv", (3 * 3 + 1) * 2),
    "resnet101_v2": ("conv5_block1_preact_bn", 3 * (1 + 1 + 2) + 2),
    "resnet152_v2": ("conv5_block1_preact_bn", 3 * (1 + 1 + 2) + 2),
    "densenet121": ("conv5_block1_0_bn", 16 * 2),
    "densenet169": ("conv5_block1_0_bn", 32 * 2),
    "densenet201": ("conv5_block1_0_bn", 32 * 2),
    "nasnet_mobile": ("adjust_conv_1_9", 4 * NASNET_CELL + 1),
    "nasnet_large": ("adjust_conv_1_13", 6 * NASNET_CELL + 1),
    **{
        f"efficientnet_b{number}": ("block6a_expand_conv", blocks * MB + 1)
        for number, blocks in enumerate((5 + 2, 5 + 2, 6 + 2, 8 + 2, 9 + 3, 11 + 3, 13 + 4), start=1)
    },
    **{
        f"efficientnet_v2_{size}": ("block6a_expand_conv", blocks * MB + 1)
        for size, blocks in {"b1": 9, "b2": 10, "b3": 12, "s": 15, "m": 18 + 5, "l": 25 + 7}.items()
    },
    **{f"convnext_{size}": (f"convnext_{size}_downsampling_block_2", CONVNEXT) for size in ("base", "large", "xlarge")},
}


def check_cut(name: str, first: str, tensors: int) -> None:
    assert configured(name).finetune_from == first
    _, backbone = outline(name)
    network = Network(keras.Model(backbone.inputs, backbone.outputs), backbone.layers, (), pretrained=True)
    apply_freeze_policy(network, "until_layer", first)
    assert len([weight for layer in backbone.layers for weight in layer.trainable_weights]) == tensors


@pytest.mark.parametrize("name", [*SMALL_CUTS, *LITE_CUTS])
def test_fine_tuning_trains_what_lies_behind_the_cut(name: str) -> None:
    check_cut(name, *{**SMALL_CUTS, **LITE_CUTS}[name])


ONE_OF_THEIR_KIND = ("densenet121", "nasnet_mobile")  # whose kind is in no other table


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ONE_OF_THEIR_KIND else pytest.mark.long) for name in LARGE_CUTS],
)
def test_fine_tuning_trains_what_lies_behind_the_cut_of_a_large_network(name: str) -> None:
    check_cut(name, *LARGE_CUTS[name])


def test_every_application_is_in_a_table_of_cuts() -> None:
    from test_backbones_networks import CASES

    assert sorted([*CASES, *SMALL_CUTS, *LARGE_CUTS]) == sorted(APPLICATIONS)
