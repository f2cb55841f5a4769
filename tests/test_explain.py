"""Heat maps against numbers worked out by hand, and against CAM."""

from __future__ import annotations

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from explained import BIAS, IMAGE, PHOTOS, hand_network, network

from cnnexp.explain import cam, gradcam, gradcam_plusplus, hirescam, layercam, scorecam
from cnnexp.explain.methods import METHODS
from cnnexp.explain.names import METHOD_NAMES
from cnnexp.explain.target import logit_model

GRADIENT_METHODS = (gradcam, gradcam_plusplus, hirescam, layercam)

# ------------------------------------------------------------------------------------------ worked out by hand


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


# ----------------------------------------------------------------------------------------- relations that hold


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
    maps, gradients = (t.numpy() for t in cam.activations_and_gradients(found, tf.constant(IMAGE), tf.constant(1)))
    score = float(found(IMAGE)[1][0, 0])
    assert hirescam.combine(maps, gradients).sum() + BIAS == pytest.approx(score)
    assert gradcam.combine(maps, gradients).sum() + BIAS != pytest.approx(score)


def test_gradients_of_the_two_classes_of_a_sigmoid_are_each_other_negated() -> None:
    found = logit_model(network("flat", 1, "sigmoid"))
    photos = tf.constant(PHOTOS, tf.float32)
    first, second = (cam.activations_and_gradients(found, photos, tf.constant(c))[1].numpy() for c in (0, 1))
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
