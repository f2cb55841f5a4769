"""Data sets laid out as well-known tools and sites give them: read at the first try, or refused with what mends it."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from odd_files import jpeg

from cnnexp.data.dataset import Dataset
from cnnexp.data.sources import folder
from cnnexp.errors import UserError


def photos(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(number))


def counts(dataset: Dataset) -> dict[str, list[int]]:
    return {split.name: [split.labels.tolist().count(n) for n in (0, 1)] for split in dataset.splits}


def read(path: Path, **options: Any) -> Dataset:
    return folder(path=str(path), on_leak="ignore", **options)


def test_imagefolder_of_torchvision(tmp_path: Path) -> None:
    """`root/train/n01440764/n01440764_10026.JPEG`, `root/val/...`, and the archive's own files beside them."""
    names = [
        f"{split}/{wnid}/{wnid}_{n}.JPEG" for split in ("train", "val") for wnid in ("n01", "n02") for n in range(4)
    ]
    photos(tmp_path, *names)
    (tmp_path / "meta.bin").write_bytes(b"\x80\x02")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01 tench\nn02 goldfish\n")
    dataset = read(tmp_path)
    assert dataset.class_names == ("n01", "n02")
    assert counts(dataset) == {"train": [3, 3], "validation": [4, 4], "test": [1, 1]}


def test_a_kaggle_set_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train.csv` with ids without an ending, `train_images/`, a test set without labels and its sample submission."""
    photos(tmp_path, *(f"{split}_images/{n}.jpg" for split in ("test", "train") for n in range(12)))
    rows = [f"{n},{n % 2}" for n in range(12)]
    (tmp_path / "train.csv").write_text("\n".join(["image_id,label", *rows]))
    (tmp_path / "sample_submission.csv").write_text("image_id,label\n0,4\n")
    with pytest.raises(UserError, match=r"are no classes; .*dataset\.path=.*train\.csv"):
        read(tmp_path)
    dataset = read(tmp_path / "train.csv")
    assert dataset.class_names == ("0", "1") and sum(counts(dataset)["train"]) == 6
    assert all(name.startswith("train_images/") for split in dataset.splits for name in split.ids)
    assert "path from image_id, label from label, images in train_images/ with .jpg" in capsys.readouterr().err


def test_a_kaggle_archive_with_its_folder_twice(tmp_path: Path) -> None:
    """As "Intel Image Classification" has it: seg_train/seg_train/CLASS, and photos to predict beside them."""
    names = [
        f"seg_{split}/seg_{split}/{kind}/{n}.jpg" for split in ("train", "test") for kind in "ab" for n in range(4)
    ]
    photos(tmp_path, *names, "seg_pred/seg_pred/1.jpg")
    assert counts(read(tmp_path)) == {"train": [3, 3], "validation": [1, 1], "test": [4, 4]}


def test_a_layout_in_an_archive_is_refused_with_the_archives_name(tmp_path: Path) -> None:
    """Splits within the classes; the line names the unpacked folder, which the user has not made."""
    names = [f"{kind}/{part}/{n}.jpg" for kind in "ab" for part in ("left", "right") for n in range(4)]
    photos(tmp_path / "set", *names)
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "set")
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(UserError) as refused:
        read(Path(archive), downloads=str(tmp_path / "downloads"))
    named = re.search(r"^dataset\.path=(\S+?):? .*; (\S+) is what was unpacked of (\S+)$", str(refused.value))
    assert named and named[1] == named[2] and Path(named[1]).is_dir() and named[3] == archive


def test_exports_of_roboflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder structure, and the multi-class CSV, which has a table for each split, a column for each class."""
    names = [
        f"{split}/{kind}/{n}_jpg.rf.0a1b.jpg" for split in ("train", "valid", "test") for kind in "ab" for n in "12"
    ]
    photos(tmp_path / "folders", *names)
    (tmp_path / "folders/README.roboflow.txt").write_text("exported")
    assert counts(read(tmp_path / "folders")) == {"train": [2, 2], "validation": [2, 2], "test": [2, 2]}
    for split in ("train", "valid", "test"):
        photos(tmp_path / "table" / split, *(f"{n}.jpg" for n in range(8)))
        rows = [f"{n}.jpg, {n % 2}, {1 - n % 2}, {split}{n // 2}" for n in range(8)]
        (tmp_path / "table" / split / "_classes.csv").write_text("\n".join(["filename, ripe, unripe, tree", *rows]))
    dataset = read(tmp_path / "table")
    assert dataset.class_names == ("ripe", "unripe")
    assert counts(dataset) == {"train": [4, 4], "validation": [4, 4], "test": [4, 4]}
    assert dataset.train.ids[:2] == ("train/0.jpg", "train/1.jpg") and dataset.train.labels.tolist()[:2] == [1, 0]
    assert "train from train/_classes.csv, validation from valid/_classes.csv" in capsys.readouterr().err
    grouped = read(tmp_path / "table", group="tree")
    assert grouped.test.groups is not None and grouped.test.groups[:3] == ("test0", "test0", "test1")
    dataset = read(tmp_path / "table/train/_classes.csv")
    assert dataset.class_names == ("ripe", "unripe") and counts(dataset) == {
        "train": [2, 2],
        "validation": [1, 1],
        "test": [1, 1],
    }


def test_tables_called_after_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train.csv`, `val.csv` and the `test.csv` of a competition, which has no labels, beside one folder of images."""
    photos(tmp_path, *(f"images/{n}.jpg" for n in range(20)))
    ids = {"train": range(12), "val": range(12, 16), "test": range(16, 20)}
    for split, numbers in ids.items():
        rows = [f"{n},{'cat' if n % 2 else 'dog'}" if split != "test" else str(n) for n in numbers]
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,label" if split != "test" else "id", *rows]))
    dataset = read(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert counts(dataset) == {"train": [4, 5], "validation": [2, 2], "test": [2, 1]}
    assert set(dataset.validation.ids) == {f"images/{n}.jpg" for n in ids["val"]}
    assert "has no test images; 3 of its 12 training images are set aside" in capsys.readouterr().err
    (tmp_path / "val.csv").write_text("id,label\n3,cat\n12,dog\n")
    with pytest.raises(UserError, match=r"val\.csv: images/3\.jpg is in train\.csv, too; keep one of them"):
        read(tmp_path)
    (tmp_path / "val.csv").write_text("id,label\n13,cat\n")
    with pytest.raises(UserError, match=r"val\.csv: has no validation image of class 'dog'; add one"):
        read(tmp_path)
    (tmp_path / "val.csv").unlink()
    with pytest.raises(UserError, match=r"one class only, 'images'.*dataset\.path=.*/train\.csv"):
        read(tmp_path)


def test_a_table_beside_flat_split_folders_is_named(tmp_path: Path) -> None:
    """`labels.csv` beside `train/ID.jpg` and `test/ID.jpg`, as in a competition with one table."""
    photos(tmp_path, "train/1.jpg", "train/2.jpg", "test/3.jpg")
    (tmp_path / "labels.csv").write_text("id,breed\n1,pug\n2,boxer\n")
    with pytest.raises(UserError, match=r"train: has no class folders; .*dataset\.path=\S*/labels\.csv"):
        read(tmp_path)


def test_class_folders_below_one_of_several_folders_are_named(tmp_path: Path) -> None:
    """`images/CLASS/` alone, as of Caltech 101, and beside `meta/`, as of Food-101 and CUB-200."""
    photos(tmp_path, *(f"images/{kind}/{n}.jpg" for kind in ("apple_pie", "waffles") for n in "123"))
    said = (
        rf"; if the classes are the folders in images/ \(apple_pie, waffles, \.\.\.\): dataset\.path={tmp_path}/images$"
    )
    with pytest.raises(UserError, match="has one class only, 'images'.*" + said):
        read(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/classes.txt").write_text("apple_pie\nwaffles\n")
    with pytest.raises(UserError, match="class folder 'meta' has no images.*" + said):
        read(tmp_path)
    assert read(tmp_path / "images").class_names == ("apple_pie", "waffles")


def test_what_beside_the_class_folders_is_not_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path, *(f"{kind}/{n}.jpg" for kind in ("a", "b") for n in range(4)))
    read(tmp_path)
    assert "beside them" not in capsys.readouterr().err
    (tmp_path / "train.csv").write_text("id,label\n1,a\n")
    (tmp_path / "all.csv").write_text("id,label\n1,a\n")
    read(tmp_path)
    said = capsys.readouterr().err
    assert "beside them, not read: train.csv, all.csv; if train.csv names the images" in said
    assert f"dataset.path={tmp_path}/train.csv" in said


def test_sets_in_one_folder_become_classes_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(
        tmp_path, *(f"{kind}/{n}.jpg" for kind in ("signs/0", "signs/1", "trash/glass", "trash/metal") for n in "12")
    )
    dataset = read(tmp_path)
    assert dataset.class_names == ("signs", "trash")
    said = capsys.readouterr().err
    assert "with all photos in folders of theirs (signs/0, signs/1, ...)" in said and f"path={tmp_path}/signs" in said


def test_the_table_of_label_studio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are those of its server, the class is the `choice`, and a task that was skipped has none."""
    photos(tmp_path / "images", *(f"0a1b2c3d-{n}.jpg" for n in range(9)))
    head = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at"
    kinds = ["cat", "dog"] * 4 + [""]
    rows = [f'{n},1,{kind},2024,{n},/data/upload/3/0a1b2c3d-{n}.jpg,1.5,"x, y"' for n, kind in enumerate(kinds)]
    (tmp_path / "project-3.csv").write_text("\n".join([head, *rows]))
    with pytest.raises(UserError, match=r"line 10: has no label; fill it in, or dataset\.on_bad=skip leaves it out"):
        read(tmp_path / "project-3.csv")
    dataset = read(tmp_path / "project-3.csv", on_bad="skip")
    assert dataset.class_names == ("cat", "dog") and counts(dataset)["train"] == [2, 2]
    assert "path from image, label from choice, images in images/" in capsys.readouterr().err
