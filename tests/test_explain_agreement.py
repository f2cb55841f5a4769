"""The maps before resizing, against tf-keras-vis, and Grad-CAM++ against the definition that its paper starts from."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from explained import PHOTOS, network

from cnnexp.explain import cam, gradcam_plusplus
from cnnexp.explain.methods import METHODS
from cnnexp.explain.target import logit_model

LAYER = "conv2"  # (4, 4, 8)
CLASS = 2
THEIRS = {
    "gradcam": ("gradcam", "Gradcam"),
    "gradcam_plusplus": ("gradcam_plus_plus", "GradcamPlusPlus"),
    "layercam": ("layercam", "Layercam"),
    "scorecam": ("scorecam", "Scorecam"),
}


def tf_keras_vis(name: str, model: keras.Model) -> np.ndarray:
    """Its maps (5, 4, 4) of the photos for the logit of the class, neither enlarged nor scaled."""
    pytest.importorskip("tf_keras_vis")
    scores = importlib.import_module("tf_keras_vis.utils.scores")
    linear = importlib.import_module("tf_keras_vis.utils.model_modifiers").ReplaceToLinear
    module, kind = THEIRS[name]
    method = getattr(importlib.import_module(f"tf_keras_vis.{module}"), kind)
    maps = method(model, model_modifier=linear(), clone=True)(
        scores.CategoricalScore([CLASS] * len(PHOTOS)),
        PHOTOS.astype(np.float32),
        penultimate_layer=LAYER,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )
    return np.asarray(maps)


def correlations(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Of the maps that are not empty; both sides must be empty for the same photos."""
    assert ours.any(axis=(1, 2)).tolist() == theirs.any(axis=(1, 2)).tolist()
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(ours, theirs, strict=True) if a.any()]
    assert len(pairs) >= 3
    return [float(np.corrcoef(a, b)[0, 1]) for a, b in pairs]


@pytest.mark.parametrize(
    ("name", "head", "least"),
    [
        ("gradcam", "gap", 0.99999),
        ("gradcam", "flat", 0.99999),
        ("layercam", "gap", 0.99999),
        ("layercam", "flat", 0.99999),
        ("scorecam", "gap", 0.99),  # masks are enlarged in another way
        ("scorecam", "flat", 0.99),
        ("gradcam_plusplus", "gap", 0.99),  # for a dense head see below
    ],
)
def test_agrees_with_tf_keras_vis(name: str, head: str, least: float) -> None:
    model = network(head)
    assert min(correlations(METHODS[name](model, PHOTOS, CLASS, LAYER), tf_keras_vis(name, model))) >= least


# ---------------------------------------------------------------------------------------------- Grad-CAM++


def normalised_alphas(activations: np.ndarray, gradients: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Grad-CAM++ as its authors published it in code, and as tf-keras-vis has it: alpha divided by its sum.

    No equation of the paper does that. Where the gradient of a feature map is the same at each pixel, as before global
    average pooling, alpha is too, and the division only takes the factor 1 / (2 + sum x gradient) from each map's
    weight. Where it is not, alpha has a pole at the negative gradient -2 / sum, and pixels that eq. 5 leaves out
    decide by what the others are divided, even whether the weight is negative.
    """
    first = np.exp(score)[:, None, None, None] * gradients
    second, third = first * gradients, first * gradients**2
    divisor = 2 * second + activations.sum(axis=(1, 2), keepdims=True) * third
    alphas = np.divide(second, divisor, out=np.zeros_like(second), where=second != 0)
    sums = alphas.sum(axis=(1, 2), keepdims=True)
    alphas = np.divide(alphas, sums, out=np.zeros_like(alphas), where=sums != 0)
    weights = (alphas * np.maximum(first, 0)).sum(axis=(1, 2), keepdims=True)
    return np.maximum((weights * activations).sum(axis=-1), 0)


@pytest.mark.parametrize("head", ["gap", "flat"])
def test_grad_cam_plusplus_of_tf_keras_vis_is_ours_but_for_a_normalisation(head: str) -> None:
    model = network(head)
    theirs = tf_keras_vis("gradcam_plusplus", model)
    found = logit_model(model, LAYER)
    tensors = cam.activations_and_gradients(found, tf.constant(PHOTOS, tf.float32), tf.constant(CLASS))
    activations, gradients = (tensor.numpy() for tensor in tensors)
    score = found(PHOTOS)[1].numpy()[:, CLASS]
    assert min(correlations(normalised_alphas(activations, gradients, score), theirs)) >= 0.99999


def derivatives(head: keras.Model, activations: np.ndarray) -> list[np.ndarray]:
    """The first three derivatives of Y = exp(score) (eq. 12) by each activation alone, (h, w, k) each.

    Activation number n has a copy of the network's head for itself, the n-th, in which it is raised by the n-th of
    `steps`; so nothing about the head is assumed.
    """
    steps = tf.zeros(activations.size)
    with tf.GradientTape() as third, tf.GradientTape() as second, tf.GradientTape() as first:
        for tape in (third, second, first):
            tape.watch(steps)
        raised = activations[np.newaxis] + tf.reshape(tf.linalg.diag(steps), (-1, *activations.shape))
        y = tf.exp(head(raised)[:, CLASS])
        dy = first.gradient(y, steps)
        d2y = second.gradient(dy, steps)
        d3y = third.gradient(d2y, steps)
    return [derivative.numpy().reshape(activations.shape) for derivative in (dy, d2y, d3y)]


@pytest.mark.parametrize("kind", ["gap", "flat"])
def test_grad_cam_plusplus_follows_the_definition_of_its_weights(kind: str) -> None:
    """Eq. 10 with derivatives from automatic differentiation, for which eq. 19 is a closed form, then eq. 5."""
    model = network(kind)
    found = logit_model(model, LAYER)
    head = keras.Model(*found.outputs)
    for photo, ours in zip(PHOTOS, gradcam_plusplus.heatmap(model, PHOTOS, CLASS, LAYER), strict=True):
        activations = found(photo[np.newaxis])[0].numpy()[0]
        dy, d2y, d3y = derivatives(head, activations)
        divisor = 2 * d2y + activations.sum(axis=(0, 1)) * d3y
        alphas = np.divide(d2y, divisor, out=np.zeros_like(d2y), where=d2y != 0)  # eq. 10
        weights = (alphas * np.maximum(dy, 0)).sum(axis=(0, 1))  # eq. 5
        by_definition = np.maximum(activations @ weights, 0)
        assert by_definition.any()
        np.testing.assert_allclose(ours, by_definition / by_definition.max(), atol=1e-4)
