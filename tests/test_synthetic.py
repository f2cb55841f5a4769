"""The drawn cats and dogs: repeatable, recognisable by the evidence alone, written whole or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnexp.config.data import SyntheticConfig
from cnnexp.data.drawing import synthetic
from cnnexp.data.drawing.canvas import SUPERSAMPLING, mark
from cnnexp.data.drawing.synthetic import compose, draw, draw_dataset, is_drawn
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError

ARGUMENTS = {"train": 4, "validation": 2, "test": 2, "size": 64, "seed": 0}


def picture(kind: int, seed: int, size: int = 180) -> tuple[np.ndarray, np.ndarray]:
    return draw(kind, np.random.default_rng(seed), size)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """400 pictures (N, 90, 90, 3), their masks (N, 90, 90) and kinds (N,), each of its own scene."""
    kinds = np.arange(400) % 2
    drawn = [picture(int(kind), seed, 90) for seed, kind in enumerate(kinds)]
    return np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn]), kinds


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "synthetic"
    draw_dataset(folder, SyntheticConfig(**ARGUMENTS))
    return folder


def accuracy(features: np.ndarray, kinds: np.ndarray) -> float:
    """Of a logistic regression that has not seen what it is asked about (5 folds)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float((cross_val_predict(model, features, kinds, cv=5) == kinds).mean())


# --------------------------------------------------------------------------------------------- one picture


@pytest.mark.parametrize("size", [64, 180])
def test_a_picture_is_rgb_bytes_with_a_mask_of_0_and_255(size: int) -> None:
    image, mask = picture(0, 1, size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert mask.shape == (size, size) and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}


def test_a_picture_is_a_function_of_kind_and_generator() -> None:
    image, mask = picture(0, 3)
    again, mask_again = picture(0, 3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    assert (image != picture(0, 4)[0]).mean() > 0.5
    assert (image != picture(1, 3)[0]).any()


@pytest.mark.parametrize("decoy_count", [0, 5])
def test_cat_and_dog_of_one_generator_state_differ_only_where_the_evidence_is(decoy_count: int) -> None:
    for seed in range(40):
        cat, cat_mask = draw(0, np.random.default_rng(seed), decoy_count=decoy_count)
        dog, dog_mask = draw(1, np.random.default_rng(seed), decoy_count=decoy_count)
        near = cv2.dilate(cat_mask | dog_mask, np.ones((17, 17), np.uint8)) > 0  # rim, blur and mask threshold
        assert (cat[near] != dog[near]).any()
        np.testing.assert_array_equal(cat[~near], dog[~near])


def test_masks_are_small_and_never_empty(pictures: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, masks, kinds = pictures
    share = (masks > 0).mean(axis=(1, 2))
    assert share.min() > 0.004 and share.max() < 0.2
    cats, dogs = share[kinds == 0].mean(), share[kinds == 1].mean()
    assert 0.02 < cats < dogs < 0.08  # hanging ears and a long muzzle are larger, but not by much


def test_at_least_a_third_of_the_evidence_is_seen() -> None:
    shares = []
    for seed in range(150):
        kind, rng = seed % 2, np.random.default_rng(seed)
        whole = np.zeros((SUPERSAMPLING * 180,) * 2, np.uint8)
        mark(whole, compose(rng).animal(kind))
        shares.append((picture(kind, seed)[1] > 0).sum() / (cv2.countNonZero(whole) / SUPERSAMPLING**2))
    assert min(shares) > 1 / 3
    assert min(shares) < 0.75 and np.median(shares) > 0.85  # some is hidden in some pictures, little in most


# ------------------------------------------------------------------------------------------- no short cuts


def test_colour_brightness_and_texture_do_not_tell_the_classes_apart(
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    images, _, kinds = pictures
    colour = np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)
    assert accuracy(colour, kinds) < 0.58  # 0.5 and three deviations of 400 coin throws
    border = np.concatenate([images[:, :8].mean(axis=(1, 2)), images[:, -8:].mean(axis=(1, 2))], axis=1)
    assert accuracy(border, kinds) < 0.58
    # What these two see of the evidence itself (whiskers are fine lines, a dog's head is broader) is little.
    thumbnails = np.stack([cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA) for image in images])
    assert accuracy(thumbnails.reshape(len(images), -1), kinds) < 0.62
    texture = np.abs(np.diff(images.astype(float), axis=1)).mean(axis=(1, 2))
    assert accuracy(texture, kinds) < 0.62


def test_the_outline_of_the_evidence_tells_them_apart(
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, masks, kinds = pictures
    moments = [cv2.HuMoments(cv2.moments(mask)).ravel() for mask in masks]
    features = [[*np.log(np.abs(hu[:3]) + 1e-12), (mask > 0).mean()] for hu, mask in zip(moments, masks, strict=True)]
    assert accuracy(np.array(features), kinds) > 0.75


# -------------------------------------------------------------------------------------------- the data set


def test_the_layout_of_a_data_set(written: Path) -> None:
    counts = {"train": 2, "validation": 1, "test": 1}
    names = [f"{split}/{name}/{name}.{i}" for split in counts for name in ("cat", "dog") for i in range(counts[split])]
    expected = {f"{name}.jpg" for name in names} | {f"masks/{name}.png" for name in names} | {"dataset.json"}
    assert set(tree(written)) == expected
    assert json.loads((written / "dataset.json").read_text()) == {
        "drawn_by": "cnnexp.data.synthetic",
        "version": synthetic.VERSION,
        "classes": ["cat", "dog"],
        **ARGUMENTS,
    }


def test_the_files_hold_the_drawn_pictures(written: Path) -> None:
    image, mask = draw(1, np.random.default_rng([0, 0, 1, 1]), 64)  # seed 0, train, dog, number 1
    read = cv2.cvtColor(cv2.imread(str(written / "train/dog/dog.1.jpg")), cv2.COLOR_BGR2RGB)
    assert np.abs(read.astype(int) - image).mean() < 8  # JPEG
    np.testing.assert_array_equal(cv2.imread(str(written / "masks/train/dog/dog.1.png"), cv2.IMREAD_GRAYSCALE), mask)


def test_pictures_do_not_depend_on_how_many_there_are(written: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "larger", SyntheticConfig(**{**ARGUMENTS, "train": 6, "test": 4}))
    small, larger = tree(written), tree(tmp_path / "larger")
    del small["dataset.json"]
    assert small == {name: larger[name] for name in small}
    assert len({content for name, content in larger.items() if name.endswith(".jpg")}) == 12


def test_another_seed_draws_other_pictures(written: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "other", SyntheticConfig(**{**ARGUMENTS, "seed": 1}))
    ours, other = tree(written), tree(tmp_path / "other")
    assert ours.keys() == other.keys()
    assert not any(ours[name] == other[name] for name in ours)


def test_is_drawn_knows_every_parameter(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_drawn(written, SyntheticConfig(**ARGUMENTS))
    for name, value in ARGUMENTS.items():
        assert not is_drawn(written, SyntheticConfig(**{**ARGUMENTS, name: value + 2}))
    assert not is_drawn(tmp_path, SyntheticConfig(**ARGUMENTS))
    (tmp_path / "dataset.json").write_text("{")
    assert not is_drawn(tmp_path, SyntheticConfig(**ARGUMENTS))
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    assert not is_drawn(written, SyntheticConfig(**ARGUMENTS))


# ----------------------------------------------------------------------------------------- whole or nothing


def failing_at(call: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    calls = iter(range(1, 1000))

    def fail(kind: int, rng: np.random.Generator, *more: int) -> tuple[np.ndarray, np.ndarray]:
        if next(calls) == call:
            raise OSError("disk full")
        return draw(kind, rng, *more)

    return fail


def test_a_failure_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "draw", failing_at(5))
    with pytest.raises(OSError, match="disk full"):
        draw_dataset(tmp_path / "drawn", SyntheticConfig(**ARGUMENTS))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_midway_stops_the_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    fail = failing_at(3)
    monkeypatch.setattr(synthetic, "draw", lambda *arguments: drawn.append(1) or fail(*arguments))
    with pytest.raises(OSError, match="disk full"):
        draw_dataset(tmp_path / "drawn", SyntheticConfig(**{**ARGUMENTS, "train": 400}))
    assert len(drawn) < 100


def test_a_failure_midway_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_dataset(tmp_path / "drawn", SyntheticConfig(**ARGUMENTS))
    before = tree(tmp_path)
    monkeypatch.setattr(synthetic, "draw", failing_at(5))
    with pytest.raises(OSError, match="disk full"):
        draw_dataset(tmp_path / "drawn", SyntheticConfig(**{**ARGUMENTS, "seed": 1}))
    assert tree(tmp_path) == before


def test_the_folder_appears_with_everything_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, seen = os.rename, []

    def watched(source: Path, target: Path) -> None:
        seen.append((Path(target).exists(), len(tree(Path(source)))))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    draw_dataset(tmp_path / "deep" / "drawn", SyntheticConfig(**ARGUMENTS))
    assert seen == [(False, 17)]  # 8 pictures, 8 masks, dataset.json
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["drawn"]


def test_another_data_set_drawn_by_us_is_replaced(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "drawn", SyntheticConfig(**{**ARGUMENTS, "train": 6}))
    draw_dataset(tmp_path / "drawn", SyntheticConfig(**ARGUMENTS))
    assert is_drawn(tmp_path / "drawn", SyntheticConfig(**ARGUMENTS))
    assert not (tmp_path / "drawn/train/cat/cat.2.jpg").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"dear to someone")
    with pytest.raises(UserError, match=r"dataset\.path=.*photos: holds other files"):
        draw_dataset(tmp_path / "photos", SyntheticConfig(**ARGUMENTS))
    assert tree(tmp_path) == {"photos/holiday.jpg": b"dear to someone"}


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("validation", 0), ("test", -2)])
def test_counts_that_cannot_be_halved_are_refused(tmp_path: Path, split: str, count: int) -> None:
    with pytest.raises(UserError, match=rf"dataset\.{split}={count}: must be even"):
        draw_dataset(tmp_path / "drawn", SyntheticConfig(**{**ARGUMENTS, split: count}))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- decoys


def test_decoys_are_added_and_nothing_else_changes(tmp_path: Path) -> None:
    for seed in range(20):
        plain, mask = picture(seed % 2, seed)
        crowded, seen = draw(seed % 2, np.random.default_rng(seed), decoy_count=3)
        assert 0.01 < (plain != crowded).any(axis=2).mean() < 0.5  # three of a radius up to a tenth, and their blur
        assert (seen > mask).sum() == 0  # nothing more is evidence
        assert (seen > 0).sum() >= 0.8 * (mask > 0).sum()
    draw_dataset(tmp_path / "drawn", SyntheticConfig(**ARGUMENTS, decoys=3))
    assert is_drawn(tmp_path / "drawn", SyntheticConfig(**ARGUMENTS, decoys=3)) and not is_drawn(
        tmp_path / "drawn", SyntheticConfig(**ARGUMENTS)
    )


def test_decoys_stand_out_more_than_the_evidence() -> None:
    """The point with the strongest contrast around it is evidence without them, and with them far less often."""

    def found(decoy_count: int) -> float:
        hits = 0
        for seed in range(60):
            image, mask = draw(seed % 2, np.random.default_rng(seed), 90, decoy_count)
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
            spread = cv2.blur(grey**2, (9, 9)) - cv2.blur(grey, (9, 9)) ** 2
            hits += mask[np.unravel_index(spread.argmax(), spread.shape)] > 0
        return hits / 60

    assert found(0) > 0.2 and found(8) < 0.1
