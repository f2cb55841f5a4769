"""A data set whose names are formulas, control sequences and no UTF-8, through a whole run and what comes after it."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from odd_files import jpeg

from cnnexp.report.predictions import read_predictions

pytestmark = [pytest.mark.trains, pytest.mark.pictures]

Run = Callable[..., tuple[int, str, str]]
CLASSES = ["=1+1", "a\x1b[31mRED", "caf\udce9"]


def photos(folder: Path) -> None:
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for count in range(8):
            (folder / name / f"=HYPERLINK(1){count}\udce9\n.jpg").write_bytes(jpeg(10 * number + count))


def no_formulas(file: Path) -> bool:
    with open(file, newline="", errors="surrogateescape") as text:
        cells = [cell for row in csv.reader(text) for cell in row]
    return "'=1+1" in cells and not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.usefixtures("no_training")
def test_a_run_on_odd_names(cnnexp: Run, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    line = ["debug=smoke", "dataset=folder", "dataset.path=photos", "dataset.image_size=48", "backbone=mnist_cnn"]
    code, out, err = cnnexp("prepare", "folder", line[2], "paths.root=out")
    assert code == 0 and "\x1b" not in out + err, err
    assert r"a\x1b[31mRED" in out and r"caf\xe9" in out
    assert no_formulas(next((tmp_path / "out/data/manifests").glob("*.csv")))
    code, out, err = cnnexp("train", *line, "tracking.explain=true", "paths.root=out")
    assert code == 0 and "Traceback" not in out + err and "\x1b" not in out + err, err
    (folder,) = (path for path in (tmp_path / "out/runs").iterdir())
    assert {file.name for file in folder.glob("*.png")} >= {"errors.png"}
    assert no_formulas(folder / "predictions.csv")
    found = read_predictions(folder / "predictions.csv")
    assert found.class_names == tuple(CLASSES)
    assert all(os.path.exists(tmp_path / "photos" / name) for name in found.ids)
    for command in (
        ["predict", "latest", "photos"],
        ["evaluate", "latest"],
        ["compare", "latest"],
        ["explain", "latest"],
    ):
        code, out, err = cnnexp(*command, "paths.root=out")
        assert code == 0 and "Traceback" not in out + err and "\x1b" not in out + err, (command, err)
    page = next((tmp_path / "out/compare").rglob("comparison.html")).read_text()
    assert "\x1b" not in page
