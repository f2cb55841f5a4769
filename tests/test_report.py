"""What a run leaves of its answers: predictions.csv, mistakes.zip; and figures in words."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_runs import CLASSES

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.files import write_atomic
from cnnexp.report.mistakes import read_mistakes, thumbnail, write_mistakes
from cnnexp.report.predictions import read_predictions, worst_mistakes, write_predictions
from cnnexp.report.wording import big, duration, p_text, percent, points


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_come_back_bit_for_bit(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    probabilities: np.ndarray = rng.dirichlet([0.1, 0.1, 0.1], 200).astype(dtype)
    labels = rng.integers(0, 3, 200)
    ids = [f'a "b", {i}\u00e4.jpg' for i in range(200)]
    write_predictions(
        tmp_path / "new" / "p.csv", ids, labels, (probabilities.argmax(axis=1), probabilities), ["x", "p_y", "z z"]
    )
    back = read_predictions(tmp_path / "new" / "p.csv")
    assert back.ids == tuple(ids) and back.class_names == ("x", "p_y", "z z")
    assert (back.labels == labels).all() and (back.predicted == probabilities.argmax(axis=1)).all()
    assert (back.probabilities.astype(dtype) == probabilities).all()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["p.csv"]


def test_predictions_columns(tmp_path: Path) -> None:
    table = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    write_predictions(tmp_path / "p.csv", ["a.jpg", "b.jpg"], np.array([0, 0]), (table.argmax(axis=1), table), CLASSES)
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "file,truth,predicted,p_cats,p_dogs",
        "a.jpg,cats,cats,0.899999976,0.100000001",
        "b.jpg,cats,dogs,0.200000003,0.800000012",
    ]
    back = read_predictions(tmp_path / "p.csv")
    assert back.correct.tolist() == [True, False]
    assert back.confidence == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("file,truth,p_a\n", "first line is 'file,truth,p_a'"),
        ("file,truth,predicted,p_a\nx,a,a\n", "a line does not fit"),
        ("file,truth,predicted,p_a\nx,a,b,1\n", "a line does not fit"),
        ("file,truth,predicted,p_a\nx,a,a,high\n", "a line does not fit"),
    ],
)
def test_predictions_refuse_other_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "missing.csv")


def test_worst_mistakes(tmp_path: Path) -> None:
    table = np.array([[0.4, 0.6], [0.9, 0.1], [0.05, 0.95], [0.3, 0.7]])
    write_predictions(tmp_path / "p.csv", list("abcd"), np.array([0, 0, 0, 0]), (table.argmax(axis=1), table), CLASSES)
    wrong = read_predictions(tmp_path / "p.csv")
    assert worst_mistakes(wrong).tolist() == [2, 3, 0]
    assert worst_mistakes(wrong, limit=2).tolist() == [2, 3]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a.txt", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "a.txt", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.txt", b"old")]


def decoded(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("shape", "small"),
    [((150, 150, 3), (96, 96, 3)), ((400, 200, 3), (96, 48, 3)), ((96, 60, 1), (96, 60)), ((2, 900, 3), (1, 96, 3))],
)
def test_a_thumbnail_is_a_small_jpeg_of_the_same_colours(shape: tuple[int, ...], small: tuple[int, ...]) -> None:
    colour = np.array([200, 120, 40], np.uint8)[: shape[2]]
    picture = thumbnail(np.broadcast_to(colour, shape).copy())
    assert picture[:2] == b"\xff\xd8" and len(picture) < 10_000
    image = decoded(picture)
    assert image.shape == small
    assert np.abs(image.reshape(-1, shape[2])[:, ::-1].astype(int) - colour).max() <= 3


def test_a_tiny_image_keeps_its_pixels() -> None:
    digit = np.random.default_rng(0).integers(0, 256, (28, 28, 1)).astype(np.uint8)
    image = decoded(thumbnail(digit))
    assert image.shape == (84, 84)
    assert (image[1::3, 1::3] == digit[..., 0]).all()


def test_mistakes_come_back(tmp_path: Path) -> None:
    ids = ["test/a, b.jpg", "c\u2028d\udcff.png", "digits/17"]
    images = [np.full((50 + 10 * number, 60, 3), 40 * number, np.uint8) for number in range(3)]
    for name in ("m.zip", "again.zip"):
        write_mistakes(tmp_path / name, ids, ["cat"] * 3, ["dog", 'a "b"', "cow"], images)
    assert (tmp_path / "m.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    found = read_mistakes(tmp_path / "m.zip", {*ids[:2], "another"})
    assert list(found) == ids[:2]
    assert found[ids[1]] == (thumbnail(images[1]), "cat", 'a "b"')
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        assert archive.namelist() == ["000.jpeg", "001.jpeg", "002.jpeg", "index.csv"]
    write_mistakes(tmp_path / "none.zip", [], [], [], [])
    assert read_mistakes(tmp_path / "none.zip", ids) == {}


def test_mistakes_refuse_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.jpg", bytes(1_000_000))
        archive.writestr("index.csv", "picture,file,truth,predicted\n0.jpg,a,b,c\n")
    for name, message in (("text", "not a zip"), ("other", "index.csv"), ("missing", "No such"), ("bomb", "thumbnail")):
        with pytest.raises(UserError, match=message):
            read_mistakes(tmp_path / f"{name}.zip", ["a"])


def test_wording() -> None:
    assert percent(0.9593, 1) == "95.9" and percent(0.9593, 2, 0.002) == "95.93 ± 0.20" and percent(None, 1) == "-"
    assert points(0.079, 1) == "+7.9" and points(-0.0123, 1) == "\N{MINUS SIGN}1.2" and points(None, 1) == "-"
    assert [p_text(p) for p in (None, 0.0, 0.0312, 0.5, 1.0)] == ["-", "<0.001", "0.031", "0.50", "1.00"]
    seconds = (None, 0.04, 9.94, 9.96, 59.6, 200, 3599.6, 7500)
    assert [duration(value) for value in seconds] == (
        ["-", "0.0 s", "9.9 s", "10 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "2 h 05 min"]
    )
    counts = (None, 0, 999, 999.7, 65_812, 999_960, 16_812_353)
    assert [big(value) for value in counts] == ["-", "0", "999", "1.0 k", "65.8 k", "1.0 M", "16.8 M"]
