"""A CSV file of images: every row counts, and every mistake is one line that names its row."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data.check.preflight import PreflightError
from cnnexp.data.fetch.tables import TableRules, read_table
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
    assert "has no validation images; 2 of its 8 training images are set aside" in capsys.readouterr().err


NONE = "none of its 6 files can be used, as x/.*No such file or directory; names in it start from"
GOOD = ["images/0.png,a,train", "images/1.png,b,train"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["where,label", "images/0.png,a"], r"has no column 'path'.*its first line has where, label; .*path_column=N"),
        (["path,kind", "images/0.png,a"], r"has no column 'label'.*first line has .*kind.*; .*label_column=NAME"),
        (["path,path,label", "images/0.png,a,b"], "has no column 'path', or twice"),
        ([",path,kind", "0,images/0.png,a", "1,images/1.png,b"], "has no column 'label'"),
        (
            ["images/0.png,a", "images/1.png,b"],
            r"its first line is an image already \(images/0\.png, a\); write path,l",
        ),
        ([], "has no column 'path'"),
        (
            ["path,label,split", *GOOD, "images/2.png,,train"],
            "line 4: has no label; fill it in, or dataset.on_bad=skip",
        ),
        (["path,label,split", *GOOD, ",a,train"], "line 4: has no path"),
        (
            ["path,label", "images/0.png,a", "images/1.png", ",b", "images/2.png,"],
            "3 of 4 rows have no label or no path: lines 3, 4, 5; fill them in",
        ),
        (["path,label", *(f"x/7{number}.png,{'ab'[number % 2]}" for number in range(6))], NONE),
        (["path,label,split", *GOOD, "images/2.png,a,other"], "line 4: split 'other' is none of train, validation, t"),
        (["path,label,split", *GOOD, "images/2.png,a"], "line 4: split '' is none of"),
        (["path,label,split", *GOOD, "images/0.png,b,test"], r"line 4: images/0\.png is in line 2 already"),
        (["path,label,split", *GOOD, "./images/0.png,b,test"], r"line 4: \./images/0\.png is in line 2 already"),
        (["path,label", "images/0.png,a", "images/1.png,a"], "has 1 label; give images of two classes"),
        (["path,label,split", *GOOD, "images/2.png,a,test"], "has no test image of class 'b'"),
        (["path,label", '"images/0.png,a'], "is no CSV file in UTF-8"),
        (
            ["image,choice", "images/0.png,a", "images/1.png,b", 'images/2.png,"{""choices"": [""a"", ""b""]}"'],
            r"line 4: has several labels \(a, b\), where an image has one; give it one label, or dataset.on_bad=skip",
        ),
        (
            ["image,choice", "images/0.png,a", "images/1.png,b", 'images/2.png,"[""a"", ""b""]"', "images/3.png,"],
            "2 of 4 rows have no label or several labels: lines 4, 5; give them one label, or",
        ),
        (
            ["filename, big, red", *(f"images/{n}.png, {n % 2}, {1 - n % 2}" for n in range(3)), "images/3.png, 1, 1"],
            r"line 5: has several labels \(big, red\)",
        ),
        (
            ["filename, big, red", *(f"images/{n}.png, {n % 2}, {1 - n % 2}" for n in range(3)), "images/3.png,0,0"],
            "line 5: has no l",
        ),
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


PAIRS = [(f"images/{name}", "ab"[number % 2]) for number, name in enumerate(NAMES)]


def found_in(file: Path, **rules: Any) -> dict[str, str]:
    names, parts = read_table(file, TableRules(**rules))
    return {path: names[label] for part in parts.values() for path, label in zip(part.ids, part.labels, strict=True)}


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("path;label", "{path};{label}", "separated by semicolons; path from path, label from label"),
        ("path\tlabel", "{path}\t{label}", "separated by tabs"),
        ("sep=|\npath|label", "{path}|{label}", "separated by bars"),
        ('"path","label"', '"{path}","{label}"', ""),
        ("File Name,Class", "{path},{label}", "path from file name, label from class"),
        ("a,b,image_id", "{a},{b},{path}", "path from image_id, label from the columns a, b"),
        ("path,label", ".\\images\\{name},{label}", ""),
        ("id,breed", "{stem},{label}", "path from id, label from breed, images in images/ with .png"),
        (",file_name,tags", "{a},{path},{label}", "path from file_name, label from tags"),  # pandas' unnamed index
        ("External ID,Label", "{name},{label}", "path from external id, label from label, images in images/"),
        ("image_url,label", "http://localhost:8080/data/%69mages/{name},{label}", "images in ./"),
        ("path,label", "C:\\Users\\me\\photos\\images\\{name},{label}", "images in ./"),
    ],
)
def test_tables_as_others_write_them(
    images: Path, capsys: pytest.CaptureFixture[str], header: str, row: str, said: str
) -> None:
    lines = []
    for path, label in PAIRS:
        name = path.partition("/")[2]
        words = {"path": path, "label": label, "name": name, "stem": name[:-4]}
        lines.append(row.format(**words, a=int(label == "a"), b=int(label == "b")))
    file = table(images, header, *lines)
    found = found_in(file)
    assert {os.path.normpath(path): label for path, label in found.items()} == dict(PAIRS)
    assert all((images / path).is_file() for path in found)
    err = capsys.readouterr().err
    assert said in err and bool(err) == bool(said)


def test_utf_16_and_another_form_of_unicode(images: Path) -> None:
    os.rename(images / "images/0.png", images / "images/caf\u00e9.png")
    rows = ["path\tlabel", "images/cafe\u0301.png\tpre\u0301", "images/1.png\tb"]
    (images / "list.tsv").write_bytes("\r\n".join(rows).encode("utf-16"))
    assert found_in(images / "list.tsv") == {"images/caf\u00e9.png": "pr\u00e9", "images/1.png": "b"}


def test_images_of_train_csv_lie_in_the_folder_of_training_images(images: Path) -> None:
    for split in ("test_images", "train_images"):
        (images / split).mkdir()
        for name in NAMES[:2]:
            (images / split / name).write_bytes((images / "images" / name).read_bytes())
    (images / "images").rename(images / "elsewhere")
    (images / "train.csv").write_text("id,label\n0,a\n1,b\n")
    (images / "elsewhere/1.png").unlink()
    assert found_in(images / "train.csv") == {"train_images/0.png": "a", "train_images/1.png": "b"}


def test_columns_by_name(images: Path) -> None:
    file = table(images, "path,label,Where,what", *(f"x,y,{path},{label}" for path, label in PAIRS))
    assert found_in(file, path_column="where", label_column="what") == dict(PAIRS)
    dataset = folder(path=str(file), path_column="where", label_column="what", **FRACTIONS)
    assert dataset.class_names == ("a", "b")
    with pytest.raises(
        UserError, match=r"^dataset.label_column=kind: .*no such column.*its first line has path, label, where, what"
    ):
        read_table(file, TableRules(label_column="kind"))
    with pytest.raises(UserError, match=r"^dataset.label_column=kind: .*is no table"):
        folder(path=str(images), label_column="kind", **FRACTIONS)


def test_what_is_missing_is_named_and_left_out_by_skip(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{path},{label}" for path, label in PAIRS] + ["images/98.png,a", "images/99.png,b", "images/0.png,"]
    file = table(images, "path,label", *rows)
    with pytest.raises(UserError, match="line 16: has no label"):
        folder(path=str(file), **FRACTIONS)
    table(images, "path,label", *rows[:-1])
    with pytest.raises(PreflightError, match=r"list\.csv: 2 of 14 files cannot be used; dataset.on_bad=skip leaves"):
        folder(path=str(file), **FRACTIONS)
    err = capsys.readouterr().err
    assert "98.png: cannot be read as an image: No such file" in err and "99.png" in err
    table(images, "path,label", *rows)
    dataset = folder(path=str(file), on_bad="skip", **FRACTIONS)
    assert sum(len(split.ids) for split in dataset.splits) == 12
    err = capsys.readouterr().err
    assert "line 16: has no label; left out" in err and "left out: " in err and "99.png" in err


def test_two_tables_in_one_folder_have_a_manifest_each(images: Path, tmp_path: Path) -> None:
    for name, pairs in (("one.csv", PAIRS[:8]), ("two.csv", PAIRS[4:])):
        (images / name).write_text("\n".join(["path,label", *(f"{path},{label}" for path, label in pairs)]))
        folder(path=str(images / name), manifests=str(tmp_path / "kept"), **FRACTIONS)
    written = sorted((tmp_path / "kept").glob("*.csv"))
    assert [file.name.partition(".csv-")[0] for file in written] == ["one", "two"]
    assert [file.read_text().count("images/") for file in written] == [8, 8]


def test_a_table_to_test_on_needs_one_class_and_no_training_images(images: Path) -> None:
    file = table(images, "path,label,split", "images/0.png,a,test", "images/1.png,a,test")
    names, parts = read_table(file, TableRules(trains=False))
    assert names == ("a",) and list(parts) == ["test"] and len(parts["test"].ids) == 2
    names, parts = read_table(table(images, "path,label", "images/0.png,b"), TableRules(trains=False))
    assert names == ("b",) and parts["test"].ids == ("images/0.png",)
    with pytest.raises(UserError, match="has no train image"):
        read_table(table(images, "path,label,split", "images/0.png,a,test", "images/1.png,b,test"))


def test_a_folder_with_a_table_beside_its_photos_says_so(images: Path) -> None:
    table(images, "path,label", *(f"{path},{label}" for path, label in PAIRS))
    with pytest.raises(
        UserError, match=r"one class only, 'images'.*if list\.csv names the classes: dataset.path=.*csv"
    ):
        folder(path=str(images), **FRACTIONS)
