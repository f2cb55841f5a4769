"""A CSV file of images: every row counts, and every mistake is one line that names its row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data.fetch.tables import read_table
from cnnexp.data.opencv import cv2
from cnnexp.data.sources import folder
from cnnexp.errors import UserError

FRACTIONS: dict[str, Any] = {"validation_fraction": 0.25, "test_fraction": 0.25, "split_seed": 0}
NAMES = [f"{number}.png" for number in range(12)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, name in enumerate(NAMES):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((8, 8, 3), 20 * number, np.uint8))
    return tmp_path


def table(root: Path, *lines: str) -> Path:
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root / "list.csv"


def test_rows_become_images(images: Path) -> None:
    rows = [f"images/{name},{'plum' if number % 3 else 'an apple'}" for number, name in enumerate(NAMES)]
    dataset = folder(path=str(table(images, "path,label", *rows)), **FRACTIONS)
    assert dataset.class_names == ("an apple", "plum")
    found = {
        name: label
        for split in (dataset.train, dataset.validation, dataset.test)
        for name, label in zip(split.ids, split.labels.tolist(), strict=True)
    }
    assert found == {f"images/{name}": int(number % 3 > 0) for number, name in enumerate(NAMES)}
    assert [len(split.ids) for split in (dataset.train, dataset.validation, dataset.test)] == [6, 3, 3]
    assert dataset.train.paths is not None and all(Path(path).is_file() for path in dataset.train.paths)


def test_a_split_column_decides(images: Path) -> None:
    splits = ["train"] * 6 + ["val", "VALID", "validation", "Test", "test", "test"]
    rows = [f'"images/{name}",{"ab"[n % 2]},x,{splits[n]}' for n, name in enumerate(NAMES)]
    rows[11] = rows[11].replace("images/", f"{images}/images/")  # absolute
    names, parts = read_table(table(images, "Path,label,width,split", *rows))
    assert names == ("a", "b")
    assert {split: part.ids for split, part in parts.items()} == {
        "train": tuple(f"images/{name}" for name in NAMES[:6]),
        "validation": tuple(f"images/{name}" for name in NAMES[6:9]),
        "test": (*(f"images/{name}" for name in NAMES[9:11]), f"{images}/images/11.png"),
    }
    assert parts["validation"].labels.tolist() == [0, 1, 0] and parts["test"].labels.dtype == np.int64


def test_a_split_that_the_column_leaves_out_is_taken_from_train(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"images/{name},{'ab'[n % 2]},{'test' if n > 7 else 'train'}" for n, name in enumerate(NAMES)]
    dataset = folder(path=str(table(images, "path,label,split", *rows)), **FRACTIONS)
    assert len(dataset.test.ids) == 4 and len(dataset.validation.ids) == 2 and len(dataset.train.ids) == 6
    assert "has no validation folder" in capsys.readouterr().err


GOOD = ["images/0.png,a,train", "images/1.png,b,train"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["file,label", "images/0.png,a"],
            r"has no column 'path'; its first line must be path,label or",
        ),
        (["path,class", "images/0.png,a"], "has no column 'label'"),
        ([], "has no column 'path'"),
        (["path,label,split", *GOOD, "images/2.png,,train"], "line 4: has no label"),
        (["path,label,split", *GOOD, ",a,train"], "line 4: has no path"),
        (["path,label,split", *GOOD, "images/99.png,a,train"], r"line 4: there is no file .*images/99\.png"),
        (
            ["path,label,split", *GOOD, "images/2.png,a,other"],
            "line 4: split 'other' is none of train, training",
        ),
        (["path,label,split", *GOOD, "images/2.png,a"], "line 4: split '' is none of"),
        (["path,label,split", *GOOD, "images/0.png,b,test"], r"line 4: images/0\.png is in line 2 already"),
        (["path,label,split", *GOOD, "./images/0.png,b,test"], r"line 4: \./images/0\.png is in line 2 already"),
        (["path,label", "images/0.png,a", "images/1.png,a"], "has 1 labels; give images of two classes"),
        (["path,label,split", *GOOD, "images/2.png,a,test"], "has no test image of class 'b'"),
        (["path,label", '"images/0.png,a'], "is no CSV file in UTF-8"),
    ],
)
def test_mistakes_are_named(images: Path, lines: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        folder(path=str(table(images, *lines)), **FRACTIONS)
    assert str(refused.value).startswith(f"dataset.path={images}/list.csv") and "\n" not in str(refused.value)


def test_another_encoding_is_named(images: Path) -> None:
    (images / "list.csv").write_bytes("path,label\nimages/0.png,früh\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"list\.csv: is no CSV file in UTF-8"):
        read_table(images / "list.csv")
    (images / "list.csv").write_bytes("path,label\nimages/0.png,früh\nimages/1.png,spät\n".encode("utf-8-sig"))
    assert read_table(images / "list.csv")[0] == ("früh", "spät")
