"""How good heat maps are: pointing game, energy, and the check with random weights."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from explained import PHOTOS, network, randomisation_check
from keras import layers, ops

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.explain import layercam
from cnnexp.explain.measure import (
    chance_level,
    energy_inside,
    localisation,
    pointing_game,
    randomised,
    read_masks,
    spearman,
)


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
