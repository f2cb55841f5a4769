"""The report of each class: its rows, its file, the weakest one, its picture."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import guesses

from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.classes import class_rows, draw_classes, weakest, weakest_line, write_classes
from cnnexp.report.predictions import Predictions
from cnnexp.runs.artifacts import class_metrics


def answers() -> Predictions:
    """Of 8 images of class 0 all are found, of 4 of class 1 one; class 2 has no image and one answer."""
    labels = np.array([0] * 8 + [1] * 4)
    return guesses(np.eye(3)[[0] * 8 + [1, 0, 0, 2]] * 0.8 + 0.2 / 3, labels)


def test_rows_and_file_by_hand(tmp_path: Path) -> None:
    rows = class_rows(answers())
    assert [row.support for row in rows] == [8, 4, 0]
    assert [row.values["recall"] for row in rows] == [1, 0.25, 0]
    assert [row.values["precision"] for row in rows] == [0.8, 1, 0]
    assert [row.values["f1"] for row in rows] == pytest.approx([16 / 18, 2 / 5, 0])
    assert rows[2].intervals == {"precision": wilson_interval(0, 1), "recall": None, "f1": None}
    low, high = wilson_interval(1, 4)
    assert weakest(rows) is rows[1], "a class without images is not weak"
    assert weakest_line(rows) == (
        f"weakest class: class 1, of 4 images 25 % are found ({100 * low:.0f} to {100 * high:.0f} %)"
    )
    write_classes(tmp_path / "classes.csv", rows)
    with open(tmp_path / "classes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[1]["class"] == "class 1" and float(lines[1]["recall_low"]) == low
    assert lines[2]["recall"] == "0.0" and lines[2]["recall_low"] == ""


def test_a_class_of_groups_that_are_all_found_has_no_interval() -> None:
    rows = class_rows(replace(guesses(np.eye(2)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])), groups=np.array(list("aabb"))))
    assert rows[0].intervals["recall"] is None
    assert weakest_line(rows) == "weakest class: class 0, of 2 images 100 % are found"


def test_metrics_of_classes_with_odd_names_stay_apart() -> None:
    made = answers()
    odd = Predictions(made.ids, made.labels, made.predicted, made.probabilities, ("a?", "a!", "b"))
    found = class_metrics(class_rows(odd))
    assert len(found) == 12 and found["x/class/a_/recall"] == 1 and found["x/class/b/support"] == 0


@pytest.mark.pictures
def test_the_picture_has_the_weakest_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("cnnexp.report.classes.save_png", lambda figure, path: drawn.append(figure))
    labels = np.arange(50).repeat(3)
    answer = labels.copy()
    answer[9] = 4  # of class 3
    draw_classes(tmp_path / "classes.png", class_rows(guesses(np.eye(50)[answer], labels)), "a title")
    (figure,) = drawn
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert len(names) == 40 and names[:2] == ["class 3  3", "class 4  3"]
    assert left.get_title(loc="left") == "recall of each class, the 40 weakest of 50"
    dots = left.lines[-1].get_xdata(), right.lines[-1].get_xdata()
    assert dots[0][:2] == pytest.approx([2 / 3, 1]) and dots[1][:2] == pytest.approx([1, 3 / 4])
    assert list(left.lines[0].get_xdata()) == pytest.approx(list(wilson_interval(2, 3)))
