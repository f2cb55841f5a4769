"""What a run records of its heat maps: they find red squares that a hand-made detector looks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from explained import network, randomisation_check
from keras import layers

from cnnexp.data.dataset import Dataset, Split
from cnnexp.data.loading import ImageLoader
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.explain import gradcam, localisation
from cnnexp.explain.localisation import localisation_metrics, multiply_adds, spread
from cnnexp.explain.names import METHOD_NAMES
from cnnexp.explain.placement import Grid

SIDE, SQUARE = 12, 4  # pixels


@pytest.fixture
def squares(tmp_path: Path) -> Dataset:
    """Twenty grey pictures with a square, green (class 0) or red (class 1); the square is the evidence."""
    rng = np.random.default_rng(0)
    pictures = np.full((20, SIDE, SIDE, 3), 60, np.uint8)
    labels = np.repeat([0, 1], 10)
    for number, label in enumerate(labels):
        top, left = rng.integers(0, SIDE - SQUARE + 1, 2)
        place = slice(top, top + SQUARE), slice(left, left + SQUARE)
        pictures[number][place] = (255, 0, 0) if label else (0, 255, 0)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[place] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "masks" / f"{number}.png"), mask)
    split = Split("test", labels, None, pictures, tuple(f"{number}.jpg" for number in range(20)), "")
    return Dataset("squares", ("green", "red"), 3, split, split, split, "", str(tmp_path / "masks"))


def detector() -> keras.Model:
    """Its two feature maps are how green and how red a pixel is; the logit is the difference of their means."""
    image = keras.Input((SIDE, SIDE, 3))
    maps = layers.Conv2D(2, 1, activation="relu", name="maps")(image)
    model = keras.Model(image, layers.Dense(1, "sigmoid", name="out")(layers.GlobalAveragePooling2D()(maps)))
    model.get_layer("maps").set_weights([np.array([[[[-1.0, 1.0], [1.0, -1.0], [0, 0]]]]), np.zeros(2)])
    model.get_layer("out").set_weights([np.array([[-1.0], [1.0]]), np.zeros(1)])
    return model


def images(dataset: Dataset) -> ImageLoader:
    return ImageLoader(dataset.test, SIDE, 3, threads=1)


def test_a_perfect_detector_is_measured_as_perfect(squares: Dataset) -> None:
    found = localisation_metrics(detector(), squares, images(squares))
    for method in METHOD_NAMES:
        assert found[f"explain/pointing_game/{method}"] == 1, method
        assert found[f"explain/energy_inside/{method}"] == pytest.approx(1), method
    assert found["explain/chance"] == pytest.approx(SQUARE**2 / SIDE**2)
    assert len(found) == 2 * len(METHOD_NAMES) + 3


def test_the_randomised_twin_is_measured_too(squares: Dataset) -> None:
    model = detector()
    found = localisation_metrics(model, squares, images(squares))
    expected = randomisation_check(gradcam.heatmap, model, squares.test.arrays, squares.test.labels)
    assert found["explain/randomised_similarity/gradcam"] == pytest.approx(expected.mean())
    assert -1 <= expected.mean() < 0.99
    assert 0 <= found["explain/pointing_game_randomised/gradcam"] < 1


def test_true_classes_are_explained_and_not_the_predicted_ones(squares: Dataset) -> None:
    """A detector with its two classes exchanged is wrong everywhere, and nothing speaks for the right class."""
    model = detector()
    model.get_layer("out").set_weights([np.array([[1.0], [-1.0]]), np.zeros(1)])
    found = localisation_metrics(model, squares, images(squares))
    assert found["explain/pointing_game/gradcam"] == found["explain/energy_inside/gradcam"] == 0


@pytest.mark.parametrize(("limit", "count", "score_cam"), [(64, 20, 16), (10, 10, 10), (6, 6, None)])
def test_how_many_pictures(
    squares: Dataset, monkeypatch: pytest.MonkeyPatch, limit: int, count: int, score_cam: int | None
) -> None:
    seen = []
    real = localisation.localisation

    def counted(heatmaps: np.ndarray, masks: np.ndarray, grid: Grid) -> localisation.Localisation:
        assert len(heatmaps) == len(masks)
        seen.append(len(masks))
        return real(heatmaps, masks, grid)

    monkeypatch.setattr(localisation, "localisation", counted)
    found = localisation_metrics(detector(), squares, images(squares), limit)
    assert seen == [count] * 4 + [score_cam] * (score_cam is not None) + [count]
    assert ("explain/pointing_game/scorecam" in found) == (score_cam is not None)


def test_a_costly_network_gets_fewer_pictures_and_no_score_cam(
    squares: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = multiply_adds(detector())
    monkeypatch.setattr(localisation, "BUDGET", 18 * cost)
    monkeypatch.setattr(localisation, "SCORE_CAM_BUDGET", 7 * 2 * cost)  # two feature maps
    taken = []
    test = images(squares)

    class Counted:
        def __len__(self) -> int:
            return len(test)

        def take_few(self, indices: np.ndarray) -> np.ndarray:
            taken.append(len(indices))
            return test.take(indices)

    found = localisation_metrics(detector(), squares, Counted())
    assert taken == [18] and "explain/pointing_game/scorecam" not in found
    monkeypatch.setattr(localisation, "BUDGET", cost)  # sixteen all the same
    monkeypatch.setattr(localisation, "SCORE_CAM_BUDGET", 8 * 2 * cost)
    assert "explain/pointing_game/scorecam" in localisation_metrics(detector(), squares, Counted())
    assert taken == [18, 16]


def test_nothing_is_measured_without_masks_or_without_maps(squares: Dataset) -> None:
    assert localisation_metrics(detector(), dataclasses.replace(squares, masks=None), images(squares)) == {}
    image = keras.Input((SIDE, SIDE, 3))
    without = keras.Model(image, layers.Dense(1, "sigmoid")(layers.Flatten()(image)))
    assert localisation_metrics(without, squares, images(squares)) == {}


def test_a_missing_mask_is_said(squares: Dataset) -> None:
    (Path(squares.masks or "") / "0.png").unlink()
    with pytest.raises(UserError, match=r"there is no mask of 0\.jpg"):
        localisation_metrics(detector(), squares, images(squares))


def test_multiply_adds() -> None:
    # conv1 3x3x3x6 at 10x10, conv2 2x2x6x8 at 4x4, then Dense 8x3, or Flatten, Dense 32x16 and 16x3
    assert multiply_adds(network("gap")) == 162 * 100 + 192 * 16 + 24
    assert multiply_adds(network("flat")) == 162 * 100 + 192 * 16 + 32 * 16 + 16 * 3


def test_spread() -> None:
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert spread(3, 5).tolist() == [0, 1, 2]
