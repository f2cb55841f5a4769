"""Grids of activations, overlays and sheets: the pixels that are drawn."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from explained import PHOTOS, network

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.explain import activations
from cnnexp.explain.heatmaps import sheet_rows
from cnnexp.explain.overlay import caption, overlay, top_classes
from cnnexp.sheet import Panel, contact_sheet, write_png

pytestmark = pytest.mark.pictures

# ------------------------------------------------------------------------------------------------- activations


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


def test_a_grid_is_labelled_with_its_layer_and_the_numbers_of_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = activations.channel_grid(np.random.default_rng(0).random((12, 12, 40), np.float32))
    said: dict[str, tuple[int, int]] = {}
    real = activations.Sheet.text

    def text(sheet: activations.Sheet, line: str, left: int, top: int, *more: int, **others: object) -> None:
        said[line] = (left, top)
        real(sheet, line, left, top, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(activations.Sheet, "text", text)
    sheet = np.asarray(activations.labelled(grid, "conv1").image)
    assert said.keys() == {"conv1, 12 x 12", "0", "16", "32", *(f"+{number}" for number in range(16))}
    side = 36  # the cells are enlarged, by whole pixels, and stand right of their numbers
    left, top = activations.LABELS, 2 * activations.LABELS
    drawn = sheet[top : top + 3 * side, left : left + 16 * side]
    assert np.array_equal(drawn, activations.enlarged(grid, 16 * side)) and drawn.shape[:2] == (108, 576)
    assert said["16"][1] - said["0"][1] == side == said["+1"][0] - said["+0"][0]


def test_enlarged_repeats_pixels() -> None:
    grid = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert activations.enlarged(grid, 5).shape == (3, 6, 3)
    assert (activations.enlarged(grid, 5)[:, :3] == [0, 1, 2]).all()
    assert activations.enlarged(grid, 1).shape == grid.shape


# ----------------------------------------------------------------------------------------------------- drawing


def test_overlay_blends_the_colours_with_the_photo() -> None:
    photo = np.full((1, 2, 3), 10, np.uint8)
    photo[0, 1] = 250
    heatmap = np.array([[0.0, 1.0]])
    # JET: 0 is (0, 0, 128), 1 is (128, 0, 0)
    for plain in (photo, photo[..., :1]):  # nothing speaks for the class
        shown = overlay(plain, np.zeros((2, 2)))
        assert shown.shape == photo.shape and (shown == plain).all()
    assert overlay(photo, heatmap)[0].tolist() == [[5, 5, 69], [189, 125, 125]]
    assert overlay(photo, heatmap, weight=0.1)[0].tolist() == [[9, 9, 22], [238, 225, 225]]
    grey = overlay(photo[..., :1], heatmap)
    assert grey[0].tolist() == [[5, 5, 69], [189, 125, 125]]
    white = overlay(np.full((8, 8, 3), 255, np.uint8), np.eye(8))
    assert np.ptp(white.astype(int), axis=(0, 1)).max() > 50  # on white, too, warm can be told from cold


def test_a_sheet_says_where_nothing_speaks_for_a_class() -> None:
    photos = np.full((2, 4, 4, 1), 9, np.uint8)
    maps = {"gradcam": np.stack([overlay(photos[0], np.eye(2)), overlay(photos[1], np.zeros((2, 2)))])}
    rows = sheet_rows(photos, ["a.jpg", "b.jpg"], ["cat", "dog"], maps)
    assert [row[1].caption for row in rows] == ["gradcam\nfor cat", "gradcam\nnothing for dog"]


def test_overlay_enlarges_the_heat_map_to_the_photo() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    shown = overlay(photo, np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert shown.shape == (40, 60, 3)
    assert shown[-1, -1].tolist() == [64, 0, 0] and shown[0, 0].tolist() == [0, 0, 64]


def test_top_classes_and_caption() -> None:
    names = ("cat", "dog", "owl", "fox")
    assert top_classes(np.array([0.1, 0.6, 0.05, 0.25]), names, count=3) == [
        ("dog", 0.6),
        ("fox", 0.25),
        ("cat", 0.1),
    ]
    assert [name for name, _ in top_classes(np.arange(7) / 21, "abcdefg")] == ["g", "f", "e", "d", "c"]
    assert top_classes(np.array([0.25]), ("cat", "dog")) == [("cat", 0.75), ("dog", 0.25)]
    assert top_classes(np.array([0.5]), ("cat", "dog"), count=1) == [("cat", 0.5)]
    assert caption("a.jpg", [("cat", 0.9731), ("dog", 0.0269)]) == "a.jpg\n97.3 % cat\n2.7 % dog"
    assert caption("a.jpg", [("cat", 0.9731)], "dog") == "a.jpg\ntrue: dog\n97.3 % cat"


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


def test_a_sheet_of_many_photos_gets_wide_and_not_high(tmp_path: Path) -> None:
    """Eight photos with a heat map each, as a run explains itself with, are 3024 pixels one below the other."""
    photo = np.zeros((64, 64, 3), np.uint8)
    row = [Panel(photo + 200, "name\ntrue: cat\n97.3 % cat\n2.7 % dog\n0.0 % owl\n0.0 % fox"), Panel(photo, "gradcam")]
    for count, shape in ((1, (372, 540)), (4, (4 * 372, 540)), (8, (4 * 372, 2 * 540)), (40, (10 * 372, 4 * 540))):
        contact_sheet(tmp_path / "sheet.png", [row] * count)
        sheet = cv2.imread(str(tmp_path / "sheet.png"))
        assert sheet.shape[:2] == shape or count == 40
        assert sheet.shape[0] <= max(1600, sheet.shape[1])
        light = (np.abs(sheet.astype(int) - 200).max(axis=2) <= 2).sum()
        assert light == pytest.approx(count * 250 * 250, rel=0.03)  # each photo is there


def test_the_title_of_a_narrow_sheet_fits(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", [[Panel(np.zeros((8, 8, 3), np.uint8), "")]], "a long title of a run " * 4)
    head = cv2.imread(str(tmp_path / "sheet.png"))[:40]
    assert (head[:, -3:] == 255).all() and head.min() < 128


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
