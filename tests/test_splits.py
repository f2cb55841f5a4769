import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data.folders import labelled_images
from cnnexp.data.splits import (
    array_digests,
    combined_digest,
    divide,
    file_digests,
    limit_evenly,
)
from cnnexp.errors import UserError


def fill(root: Path, *names: str) -> Path:
    """Files whose content is their name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def labels_of(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


# ------------------------------------------------------------------------------------------------- folders


def test_class_folders_are_read_in_order(tmp_path: Path) -> None:
    fill(tmp_path, "dog/2.jpg", "cat/b.png", "dog/10.jpg", "cat/a.webp", "bird/x.tif")
    names, parts, _ = labelled_images(tmp_path)
    assert names == ("bird", "cat", "dog")
    assert list(parts) == ["train"]
    assert parts["train"].ids == ("bird/x.tif", "cat/a.webp", "cat/b.png", "dog/10.jpg", "dog/2.jpg")
    assert parts["train"].labels.tolist() == [0, 1, 1, 2, 2] and parts["train"].labels.dtype == np.int64


def test_only_visible_images_count_at_any_depth(tmp_path: Path) -> None:
    fill(tmp_path, "cat/deep/er/1.JPEG", "cat/2.gif", "cat/notes.txt", "cat/.3.jpg", "cat/.git/4.jpg")
    fill(tmp_path, "dog/1.bmp", "labels.csv", "7.jpg", ".hidden/1.jpg", "__MACOSX/cat/1.jpg")
    names, parts, _ = labelled_images(tmp_path)
    assert names == ("cat", "dog")
    assert parts["train"].ids == ("cat/2.gif", "cat/deep/er/1.JPEG", "dog/1.bmp")


def test_a_link_to_a_class_folder_is_followed_and_a_loop_below_is_not(tmp_path: Path) -> None:
    fill(tmp_path / "data", "cat/1.jpg")
    fill(tmp_path / "elsewhere", "1.jpg")
    (tmp_path / "data/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/cat/again").symlink_to(tmp_path / "data")
    assert labelled_images(tmp_path / "data")[1]["train"].ids == ("cat/1.jpg", "dog/1.jpg")


def test_a_broken_link_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "cat/2.jpg").symlink_to(tmp_path / "nowhere.jpg")
    ids = labelled_images(tmp_path)[1]["train"].ids
    assert ids == ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    with pytest.raises(UserError, match=r"cat/2\.jpg: cannot be read: No such file"):
        file_digests([str(tmp_path / name) for name in ids], "checking")


@pytest.mark.parametrize("validation", ["validation", "val", "valid", "Val"])
def test_split_folders(tmp_path: Path, validation: str) -> None:
    fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/4.jpg", "test/b/5.jpg", "masks/a/1.png")
    fill(tmp_path, f"{validation}/b/6.jpg", f"{validation}/a/3.jpg")
    names, parts, _ = labelled_images(tmp_path)
    assert names == ("a", "b")
    assert {split: images.ids for split, images in parts.items()} == {
        "train": ("train/a/1.jpg", "train/b/2.jpg"),
        "validation": (f"{validation}/a/3.jpg", f"{validation}/b/6.jpg"),
        "test": ("test/a/4.jpg", "test/b/5.jpg"),
    }


def test_train_may_be_a_class_among_others(tmp_path: Path) -> None:
    fill(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    names, parts, _ = labelled_images(tmp_path)
    assert names == ("bus", "car", "train") and list(parts) == ["train"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg"], "has no class folders; give a folder with one subfolder a class"),
        (["cat/1.jpg"], "has one class only, 'cat'"),
        (["cat/1.jpg", "dog/1.txt"], "class folder 'dog' has no images"),
        (["train/a/1.jpg", "train/b/1.jpg"], "train: are no classes"),
        (["train/1.jpg", "test1/1.jpg"], "test1, train: are no classes"),
        (["val/a/1.jpg", "test/a/1.jpg"], "test, val: are no classes"),
        (["test/a/1.jpg", "test/b/1.jpg"], "test: are no classes, and there is no train/; to train, give"),
        (["Testing/a/1.jpg", "Testing/b/1.jpg"], "photos: cnnexp evaluate RUN dataset=folder dataset.path="),
        (["test/1.jpg"], "has one class only, 'test'"),
        (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "has both val/ and valid/; keep one"),
        (["one/a/1.jpg", "one/b/1.jpg", "two/a/1.jpg", "two/b/1.jpg"], "one, two each hold the folders a, b"),
        (["a/train/1.jpg", "a/test/1.jpg", "b/train/1.jpg", "b/test/1.jpg"], "a, b each hold the folders test, train"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg", "test/a/x"],
            "test: class folder 'a' has no images",
        ),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/c/1.jpg"],
            "class 'c' has a folder in val/, but none in train/",
        ),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "test/a/1.jpg", "test/b/1.jpg"],
            "class 'c' has a folder in train/, but none in test/",
        ),
    ],
)
def test_layouts_that_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        labelled_images(fill(tmp_path, *names))
    assert str(refused.value).startswith(f"dataset.path={tmp_path}")
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("training_set", "Valid_data", "test_set"),
        ("Training", "", "Testing"),
        ("seg_train/seg_train", "", "seg_test/seg_test"),
        ("TrainImages", "dev-images", "TestImages"),
        ("flowers_TRAIN", "flowers_val", "flowers_TEST"),
    ],
)
def test_split_folders_by_other_names(tmp_path: Path, train: str, validation: str, test: str) -> None:
    folders = {"train": train, "validation": validation, "test": test}
    names = [f"{folder}/{kind}/1.jpg" for folder in folders.values() if folder for kind in "ab"]
    class_names, parts, _ = labelled_images(fill(tmp_path, *names, "seg_pred/9.jpg"))
    assert class_names == ("a", "b")
    assert {split: part.ids for split, part in parts.items()} == {
        split: (f"{folder}/a/1.jpg", f"{folder}/b/1.jpg") for split, folder in folders.items() if folder
    }


def test_classes_that_are_called_like_splits_stay_classes(tmp_path: Path) -> None:
    fill(tmp_path, "train_station/1.jpg", "test_tube/1.jpg", "bus/1.jpg")
    assert labelled_images(tmp_path)[0] == ("bus", "test_tube", "train_station")


@pytest.mark.parametrize("test", ["test", "test/test", "test/unknown"])
def test_an_unlabelled_test_folder_is_left_aside(tmp_path: Path, test: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{test}/1.jpg")
    names, parts, _ = labelled_images(tmp_path)
    assert names == ("a", "b") and list(parts) == ["train"] and len(parts["train"].ids) == 2
    assert "test/ has no class folders, as train/ has, and is left aside" in capsys.readouterr().err


def test_folders_of_systems_are_no_classes_and_hold_no_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(
        tmp_path, "a/1.jpg", "b/1.jpg", "@eaDir/1.jpg", "lost+found/1.jpg", "#recycle/1.jpg", ".ipynb_checkpoints/1.jpg"
    )
    fill(tmp_path, "a/@eaDir/SYNOPHOTO_THUMB_M.jpg", "a/Thumbs.db", "a/__MACOSX/1.jpg", ".ipynb_checkpoints/1.jpg")
    names, parts, left = labelled_images(tmp_path)
    assert names == ("a", "b") and parts["train"].ids == ("a/1.jpg", "b/1.jpg") and len(left) == 2
    assert "1 @eaDir/ in a" in capsys.readouterr().err


def test_what_is_no_image_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    fill(tmp_path, "a/1.jfif", "a/2.jpe", "a/3.avif", "b/1.pgm", "a/1.HEIC", "a/2.HEIC", "b/1.mov", "b/README")
    (tmp_path / "b/photo").write_bytes(b"\xff\xd8\xff\xe0 begins as a JPEG")
    _, parts, left = labelled_images(tmp_path)
    assert parts["train"].ids == ("a/1.jfif", "a/2.jpe", "a/3.avif", "b/1.pgm", "b/photo")
    assert left.kinds == {(".HEIC", "a"): 2, (".mov", "b"): 1, ("without an ending", "b"): 1}
    said = capsys.readouterr().err
    assert "2 .HEIC in a, 1 .mov in b, 1 without an ending in b; `pip install 'cnnexp[heif]'`" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "dog").chmod(0)
    with pytest.raises(UserError, match=r"dog cannot be read \(Permission denied\)"):
        labelled_images(tmp_path)


# --------------------------------------------------------------------------------------- division and limit


@pytest.mark.parametrize(
    ("counts", "size", "shares"),
    [
        ((8, 4), 3, [2, 1]),
        ((5, 3, 2), 5, [3, 1, 1]),  # 2.5, 1.5, 1: of two equal remainders the first class gets one more
        ((5, 4, 3), 4, [2, 1, 1]),  # 1.67, 1.33, 1
        ((97, 3), 10, [10, 1]),  # 9.7, 0.3: at least one each
        ((5923, 6742), 5000, [2338, 2662]),  # 2338.33, 2661.67
    ],
)
def test_divide_keeps_the_proportions(counts: tuple[int, ...], size: int, shares: list[int]) -> None:
    labels = labels_of(*counts)
    parts = divide(labels, {"validation": size}, 0, [str(n) for n in range(len(counts))])
    assert np.bincount(labels[parts["validation"]]).tolist() == shares
    assert sorted([*parts["train"], *parts["validation"]]) == list(range(sum(counts)))
    assert all((np.diff(part) > 0).all() for part in parts.values())


def test_divide_depends_on_the_seed_and_on_nothing_else() -> None:
    labels = labels_of(30, 20)
    sizes = {"test": 10, "validation": 5}
    first, same, other = (divide(labels, sizes, seed, "ab") for seed in (0, 0, 1))
    assert all((first[split] == same[split]).all() for split in first)
    assert first["test"].tolist() != other["test"].tolist()
    larger = divide(labels, {"test": 10, "validation": 15}, 0, "ab")
    assert larger["test"].tolist() == first["test"].tolist()
    assert set(first["validation"]) < set(larger["validation"])


def test_divide_leaves_every_class_one_image_to_train_on() -> None:
    parts = divide(labels_of(30, 3), {"test": 5, "validation": 5}, 0, ["cat", "dog"])
    assert {split: len(part) for split, part in parts.items()} == {"train": 21, "test": 6, "validation": 6}
    with pytest.raises(UserError, match="class 'dog' has 2 images: 1 for test and 1 for validation leave none"):
        divide(labels_of(30, 2), {"test": 5, "validation": 5}, 0, ["cat", "dog"])


@pytest.mark.parametrize(
    ("counts", "limit", "left"),
    [
        ((10, 10), 6, [3, 3]),
        ((10, 10), 7, [4, 3]),
        ((1, 10, 10), 8, [1, 4, 3]),
        ((2, 3), 5, [2, 3]),
        ((2, 3), 99, [2, 3]),
        ((2, 3), None, [2, 3]),
        ((5, 5, 5), 2, [1, 1, 0]),
    ],
)
def test_limit_takes_evenly(counts: tuple[int, ...], limit: int | None, left: list[int]) -> None:
    labels = labels_of(*counts)
    chosen = limit_evenly(labels, limit)
    assert np.bincount(labels[chosen], minlength=len(counts)).tolist() == left
    assert (np.diff(chosen) > 0).all()


def test_a_smaller_limit_is_part_of_a_larger_and_not_just_the_first() -> None:
    labels = labels_of(50, 50)
    six, ten = set(limit_evenly(labels, 6)), set(limit_evenly(labels, 10))
    assert six < ten and six != {0, 1, 2, 50, 51, 52}


# ------------------------------------------------------------------------------------------------- digests


def test_digest_by_an_independent_implementation(tmp_path: Path) -> None:
    fill(tmp_path, "a/ä.jpg", "b/2.jpg")
    contents = file_digests([str(tmp_path / "a/ä.jpg"), str(tmp_path / "b/2.jpg")], "checking")
    text = b""
    for name, label in (("a/ä.jpg", 0), ("b/2.jpg", 258)):
        text += hashlib.sha256(name.encode()).digest() + bytes([0, 0, 0, 0, 0, 0, label // 256, label % 256])
        text += hashlib.sha256(name.encode()).digest()  # the content is the name
    assert combined_digest(["a/ä.jpg", "b/2.jpg"], [0, 258], contents) == hashlib.sha256(text).hexdigest()


def test_digest_tells_names_labels_contents_and_order_apart() -> None:
    whole = combined_digest(["a", "b"], [0, 1], [b"x", b"y"])
    others = [
        combined_digest(["a", "c"], [0, 1], [b"x", b"y"]),
        combined_digest(["a", "b"], [0, 2], [b"x", b"y"]),
        combined_digest(["a", "b"], [0, 1], [b"x", b"z"]),
        combined_digest(["b", "a"], [1, 0], [b"y", b"x"]),
    ]
    assert len({whole, *others}) == 5


def test_array_digests_know_the_shape() -> None:
    wide, high = np.zeros((1, 2, 8, 1), np.uint8), np.zeros((1, 8, 2, 1), np.uint8)
    assert array_digests(wide) != array_digests(high)
    assert array_digests(wide) == [hashlib.sha256(b"(2, 8, 1)" + bytes(16)).digest()]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("b/1.jpg", "a/1.jpg", "notes/README"), {"test": (("a/1.jpg", "a"), ("b/1.jpg", "b"))}),
        (("test/a/1.jpg",), {"test": (("test/a/1.jpg", "a"),)}),
        (("Test/seg_test/a/1.jpg", "Test/seg_test/b/1.jpg"), {"test": (("Test/seg_test/a/1.jpg", "a"), ("b", "b"))}),
        (("a/1.jpg", "a/2.jpg"), {"test": (("a/1.jpg", "a"), ("a/2.jpg", "a"))}),
        (("train/a/1.jpg", "val/b/1.jpg"), {"train": (("train/a/1.jpg", "a"),), "validation": (("val/b/1.jpg", "b"),)}),
        (("1.jpg", "2.jpg"), {"test": (("1.jpg", "photos"), ("2.jpg", "photos"))}),
    ],
)
def test_images_to_test_need_no_second_class_and_no_training_images(
    tmp_path: Path, names: tuple[str, ...], expected: dict[str, Any]
) -> None:
    class_names, parts, _ = labelled_images(fill(tmp_path / "photos", *names), trains=False)
    assert list(parts) == list(expected)
    for split, images in expected.items():
        assert [class_names[label] for label in parts[split].labels] == [label for _, label in images]
        assert parts[split].ids[0] == images[0][0]


def test_a_folder_without_images_is_no_test(tmp_path: Path) -> None:
    fill(tmp_path, "test/a/README")
    with pytest.raises(UserError, match="has no images to test in class folders"):
        labelled_images(tmp_path, trains=False)


def test_class_names_have_one_form_of_unicode(tmp_path: Path) -> None:
    fill(tmp_path, "train/cafe\u0301/1.jpg", "train/tea/1.jpg", "test/caf\u00e9/1.jpg", "test/tea/1.jpg")
    names, parts, _ = labelled_images(tmp_path)
    assert names == ("caf\u00e9", "tea")
    assert parts["train"].ids[0] == "train/cafe\u0301/1.jpg" and (tmp_path / parts["train"].ids[0]).is_file()
    fill(tmp_path, "train/caf\u00e9/2.jpg")
    with pytest.raises(UserError, match=r"two class folders 'caf\u00e9', which differ only in how Unicode"):
        labelled_images(tmp_path)
