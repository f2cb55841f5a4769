"""Losses, targets, mixup, layer-wise rates and averaged weights, against numbers worked out by hand."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnexp.data.randomness import Purpose, stream
from cnnexp.models.backbone import Backbone
from cnnexp.models.build import Network, flip_averaged
from cnnexp.models.freeze import layer_factors
from cnnexp.training.losses import cross_entropy
from cnnexp.training.optimizers import FUSED_FROM, OptimizerPlan, averaged_weights
from cnnexp.training.recipe import accuracy, mixed, targets


def test_targets_of_two_and_of_more_classes() -> None:
    labels = np.array([0, 1, 1], np.int64)
    two, more, one_hot = targets(labels, 2), targets(labels, 3), targets(labels, 3, one_hot=True)
    assert (two.tolist(), two.dtype) == ([[0.0], [1.0], [1.0]], np.float32)
    assert (more.tolist(), more.dtype) == ([0, 1, 1], np.int32)
    assert (one_hot.tolist(), one_hot.dtype) == ([[1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)


def test_smoothed_loss_by_hand() -> None:
    # two classes, s = 0.2: the target 1 becomes 0.9
    found = float(cross_entropy(2, True, 0.2)(np.array([[1.0]], np.float32), np.array([[0.8]], np.float32)))
    assert found == pytest.approx(-(0.9 * np.log(0.8) + 0.1 * np.log(0.2)), rel=1e-5)
    # four classes, s = 0.2: 0.85 for the truth, 0.05 for each other one
    given = np.array([[0.4, 0.3, 0.2, 0.1]], np.float32)
    found = float(cross_entropy(4, True, 0.2)(np.array([[0.0, 1, 0, 0]], np.float32), given))
    assert found == pytest.approx(-(0.85 * np.log(0.3) + 0.05 * np.log(0.4 * 0.2 * 0.1)), rel=1e-5)


def test_without_smoothing_class_numbers_and_one_hot_are_the_same() -> None:
    given = np.random.default_rng(0).dirichlet(np.ones(3), 5).astype(np.float32)
    labels = np.array([0, 1, 2, 2, 0])
    plain = float(cross_entropy(3, False, 0.0)(targets(labels, 3), given))
    assert float(cross_entropy(3, True, 0.0)(targets(labels, 3, True), given)) == pytest.approx(plain, rel=1e-6)


def test_accuracy_of_mixed_targets_is_that_of_the_larger_part() -> None:
    two = accuracy(2, True)
    two.update_state(np.array([[0.7], [0.3], [1.0]], np.float32), np.array([[0.6], [0.6], [0.4]], np.float32))
    assert float(two.result()) == pytest.approx(1 / 3)
    three = accuracy(3, True)
    three.update_state(np.array([[0.1, 0.6, 0.3]], np.float32), np.array([[0.3, 0.4, 0.3]], np.float32))
    assert float(three.result()) == 1.0


def test_mixup_is_a_mean_of_two_images_and_of_their_targets() -> None:
    x = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 60
    y = np.eye(4, dtype=np.float32)
    mixed_x, mixed_y = mixed(x, y, 0.4, stream(Purpose.MIXUP, 0, 1, 2))
    assert mixed_x.dtype == np.float32
    rng = np.random.default_rng((0, 1, 2, 2))
    share, other = rng.beta(0.4, 0.4), rng.permutation(4)
    np.testing.assert_allclose(mixed_x.ravel(), 60 * (share * np.arange(4) + (1 - share) * other), rtol=1e-5)
    np.testing.assert_allclose(mixed_y.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed_y @ (60 * np.arange(4)), mixed_x.ravel(), rtol=1e-5)  # the same mixture
    for alpha, *place in ((0.4, 1, 1, 2), (0.4, 0, 2, 2), (0.4, 0, 1, 3), (0.8, 0, 1, 2)):
        changed, _ = mixed(x, y, alpha, stream(Purpose.MIXUP, *place))
        assert (changed != mixed_x).any(), (alpha, place)


def test_large_alpha_mixes_half_and_half() -> None:
    x = np.zeros((2, 1, 1, 1), np.uint8)
    x[1] = 200
    values = [
        mixed(x, np.eye(2, dtype=np.float32), 1e4, stream(Purpose.MIXUP, 0, 0, step))[0].ravel() for step in range(20)
    ]
    ends = [value for value in np.concatenate(values) if 0 < value < 200]
    assert ends and np.allclose(ends, 100, atol=5)


# ---------------------------------------------------------------------------------------------- optimizers


def chain() -> Network:
    """Three convolutions as backbone, a dense layer as head."""
    image = keras.Input((4, 4, 1), name="image")
    x = image
    layers = []
    for number in range(3):
        layers.append(keras.layers.Conv2D(1, 1, name=f"conv{number}"))
        x = layers[-1](x)
    head = keras.layers.Dense(1, name="head")
    model = keras.Model(image, head(keras.layers.Flatten()(x)))
    return Network(model, Backbone(image, x, tuple(layers)).layers, (head,))


def test_rates_fall_with_the_distance_from_the_head() -> None:
    factors = layer_factors(chain(), 0.5)
    assert factors == {f"conv{n}/{w}": 0.5 ** (3 - n) for n in range(3) for w in ("kernel", "bias")}
    assert layer_factors(chain(), 1.0) == {}


@pytest.mark.parametrize("decay", [None, 0.1])
def test_each_variable_moves_with_its_own_rate(decay: float | None) -> None:
    near, far = keras.Variable(np.ones(2), name="near"), keras.Variable(np.ones(2), name="far")
    plan = OptimizerPlan(keras.optimizers.SGD, 0.1, weight_decay=decay, layer_factors={far.path: 0.25})
    optimizer = plan.build(epochs=1, steps_per_epoch=1)
    optimizer.apply([np.full(2, 2.0, np.float32), np.full(2, 2.0, np.float32)], [near, far])
    shrunk = decay or 0.0  # w -> w - rate * decay * w - rate * gradient
    np.testing.assert_allclose(near, 1 - 0.1 * (shrunk + 2), rtol=1e-6)
    np.testing.assert_allclose(far, 1 - 0.025 * (shrunk + 2), rtol=1e-6)


@pytest.mark.parametrize("kind", [keras.optimizers.RMSprop, keras.optimizers.Adam, keras.optimizers.AdamW])
def test_factors_of_one_change_nothing(kind: type) -> None:
    values = []
    for factors in ({}, {"elsewhere": 0.5}):
        variable = keras.Variable(np.array([1.0, -2.0]), name="w")
        optimizer = OptimizerPlan(kind, 0.1, weight_decay=0.3, layer_factors=factors).build(1, 1)
        for gradient in ([0.5, 1.0], [0.1, -1.0]):
            optimizer.apply([np.array(gradient, np.float32)], [variable])
        values.append(variable.numpy())
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)
    assert (np.abs(values[0] - [1.0, -2.0]) > 0.02).all()


OPTIMIZERS = {
    "rmsprop": partial(keras.optimizers.RMSprop, momentum=0.5),
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("factors", [{}, {"w": 0.5}])
def test_fused_updates_are_those_of_keras(name: str, factors: dict[str, float]) -> None:
    """A variable that is large enough, and the same values in pieces that are not."""
    values = np.random.default_rng(0).normal(size=(2, FUSED_FROM // 2)).astype(np.float32)
    plan = OptimizerPlan(OPTIMIZERS[name], 0.01, "cosine", weight_decay=0.1, ema_momentum=0.9, layer_factors=factors)

    def trained(pieces: list[np.ndarray]) -> tuple[np.ndarray, bool]:
        """The values after four steps, and whether XLA compiled anything."""
        variables = [keras.Variable(piece, name="w") for piece in pieces]
        optimizer = plan.build(epochs=1, steps_per_epoch=4)
        optimizer.build(variables)
        step = tf.function(lambda gradients: optimizer.apply(gradients, variables))
        for number in range(4):
            gradients = np.random.default_rng(number).normal(size=values.shape).astype(np.float32)
            step([tf.constant(part) for part in gradients.reshape(len(pieces), *pieces[0].shape)])
        graph = step.get_concrete_function([tf.TensorSpec(piece.shape) for piece in pieces]).graph
        compiled = any("_XlaMustCompile" in operation.node_def.attr for operation in graph.get_operations())
        return np.stack(variables).reshape(values.shape), compiled

    (fused, compiled), (plain, not_compiled) = trained([values]), trained([*values])
    assert compiled and not not_compiled
    np.testing.assert_allclose(fused, plain, rtol=1e-5, atol=1e-7)
    assert np.abs(fused - values).max() > 0.005


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    variable = keras.Variable(np.array([2.0]))
    optimizer = OptimizerPlan(keras.optimizers.Adam, 0.1, weight_decay=0.5).build(1, 1)
    optimizer.apply([np.zeros(1, np.float32)], [variable])
    assert variable.numpy()[0] == pytest.approx(2 - 0.1 * 0.5 * 2)


def test_averaged_weights_by_hand() -> None:
    variable = keras.Variable(np.array([0.0]))
    optimizer = OptimizerPlan(keras.optimizers.SGD, 1.0, ema_momentum=0.75).build(1, 1)
    for gradient in (-4.0, -4.0, -8.0):  # 4, 8, 16
        optimizer.apply([np.array([gradient], np.float32)], [variable])
    with averaged_weights(optimizer, [variable]):  # starts at 4; then 4 + 8/4 - 4/4 = 5, and 5 + 16/4 - 5/4
        assert variable.numpy()[0] == pytest.approx(0.75 * 5 + 0.25 * 16)
    assert variable.numpy()[0] == 16


def test_flip_averaging_is_the_mean_of_two_views() -> None:
    model = chain().model
    images = np.random.default_rng(0).uniform(0, 255, (3, 4, 4, 1)).astype(np.float32)
    expected = (model(images).numpy() + model(images[:, :, ::-1]).numpy()) / 2
    both = flip_averaged(model)
    np.testing.assert_allclose(both(images), expected, rtol=1e-5)
    np.testing.assert_allclose(both(images[:, :, ::-1]), expected, rtol=1e-5)
    assert np.abs(model(images).numpy() - expected).max() > 1e-3
