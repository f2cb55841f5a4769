"""Predictions files, comparison, figures, chart and page: figures worked out by hand, pictures read back."""

import csv
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cnnexp.errors import UserError
from cnnexp.files import write_whole
from cnnexp.report import figures
from cnnexp.report.chart import draw_progression, progression_figure, wrap
from cnnexp.report.compare import Comparison, Result, summarise, table_rows, to_json, write_csv
from cnnexp.report.page import MOST_PICTURES, pictured, write_page
from cnnexp.report.predictions import read_predictions, worst_mistakes, write_predictions
from cnnexp.report.statistics import mcnemar_exact, wilson_interval
from cnnexp.report.wording import big, duration, p_text, percent, points

CLASSES = ("cats", "dogs")


def result(name: str, accuracy: float | None, order: int = 0, **others: Any) -> Result:
    values: dict[str, Any] = {
        "run_id": f"{name}-{others.get('seed', 0)}",
        "name": name,
        "seed": 0,
        "status": "FINISHED",
        "test_accuracy": accuracy,
        "test_total": 1000,
        "val_accuracy": None,
        "train_seconds": None,
        "epochs": None,
        "total_parameters": None,
        "trainable_parameters": None,
        "reference_accuracy": None,
        "predictions_path": None,
        "order": order,
    }
    return Result(**{**values, **others})


def answers(path: Path, right: str, ids: list[str] | None = None) -> Path:
    """A predictions.csv with one image a letter of `right`: R was classified correctly, W was not."""
    labels = np.arange(len(right)) % 2
    chosen = np.where(np.array(list(right)) == "R", labels, 1 - labels)
    probabilities: np.ndarray = np.full((len(right), 2), 0.25)
    probabilities[np.arange(len(right)), chosen] = 0.75
    write_predictions(path, ids or [f"test/{i}.jpg" for i in range(len(right))], labels, probabilities, CLASSES)
    return path


# ------------------------------------------------------------------------------------------------ predictions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_come_back_bit_for_bit(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    probabilities: np.ndarray = rng.dirichlet([0.1, 0.1, 0.1], 200).astype(dtype)
    labels = rng.integers(0, 3, 200)
    ids = [f'a "b", {i}\u00e4.jpg' for i in range(200)]
    write_predictions(tmp_path / "new" / "p.csv", ids, labels, probabilities, ["x", "p_y", "z z"])
    back = read_predictions(tmp_path / "new" / "p.csv")
    assert back.ids == tuple(ids) and back.class_names == ("x", "p_y", "z z")
    assert (back.labels == labels).all() and (back.predicted == probabilities.argmax(axis=1)).all()
    assert (back.probabilities.astype(dtype) == probabilities).all()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["p.csv"]


def test_predictions_columns(tmp_path: Path) -> None:
    table = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    write_predictions(tmp_path / "p.csv", ["a.jpg", "b.jpg"], np.array([0, 0]), table, CLASSES)
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
    write_predictions(tmp_path / "p.csv", list("abcd"), np.array([0, 0, 0, 0]), table, CLASSES)
    wrong = read_predictions(tmp_path / "p.csv")
    assert worst_mistakes(wrong).tolist() == [2, 3, 0]
    assert worst_mistakes(wrong, limit=2).tolist() == [2, 3]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a.txt", b"old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a.txt", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.txt", b"old")]


# ------------------------------------------------------------------------------------------------- comparison


def test_a_step_by_hand(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRRWWWWWWW")
    newer = answers(tmp_path / "newer.csv", "WRRRRRRRWW")
    rows = summarise(
        [
            result("older", 0.3, order=0, test_total=10, predictions_path=older),
            result(
                "newer",
                0.7,
                1,
                test_total=10,
                predictions_path=newer,
                train_seconds=80.0,
                trainable_parameters=400,
            ),
        ]
    ).rows
    step = rows[1].step
    assert rows[0].step is None and step is not None
    assert step.previous == "older" and step.gain == pytest.approx(0.4)
    assert step.fixed == tuple(f"test/{i}.jpg" for i in (3, 4, 5, 6, 7)) and step.broken == ("test/0.jpg",)
    assert step.p_value == 2 * (1 + 6) / 64
    assert step.seconds_per_point == pytest.approx(2.0) and step.parameters_per_point == pytest.approx(10.0)
    assert rows[1].interval == wilson_interval(7, 10)


def test_images_are_matched_by_name(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRWW", ["a", "b", "c", "d"])
    newer = answers(tmp_path / "newer.csv", "WWRR", ["c", "d", "a", "b"])  # the same answers in another order
    step = (
        summarise([result("older", 0.5, 0, predictions_path=older), result("newer", 0.5, 1, predictions_path=newer)])
        .rows[1]
        .step
    )
    assert step is not None and (step.fixed, step.broken, step.p_value) == ((), (), 1.0)
    assert step.seconds_per_point is None  # nothing gained, so a point has no price


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRWW")
    for name, newer in {
        "names": answers(tmp_path / "names.csv", "RRRR", ["a", "b", "c", "d"]),
        "fewer": answers(tmp_path / "fewer.csv", "RRR"),
    }.items():
        step = (
            summarise(
                [
                    result("older", 0.5, 0, predictions_path=older),
                    result(name, 1.0, 1, predictions_path=newer),
                ]
            )
            .rows[1]
            .step
        )
        assert step is not None and step.gain is None and step.p_value is None
        assert step.note == "not the same test images as older"


def test_without_predictions_there_is_a_gain_but_no_p(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_text("nonsense")
    good = answers(tmp_path / "good.csv", "RRWW")
    for path, note in ((None, "has no predictions.csv"), (tmp_path / "broken.csv", "the first line is")):
        step = (
            summarise(
                [
                    result("older", 0.5, 0, predictions_path=good),
                    result("newer", 0.75, 1, predictions_path=path),
                ]
            )
            .rows[1]
            .step
        )
        assert step is not None and step.gain == 0.25 and step.p_value is None and note in step.note


def test_seeds_are_merged(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRRRWW")
    low, high = answers(tmp_path / "low.csv", "RRRRRW"), answers(tmp_path / "high.csv", "WWWWWW")
    runs = [
        result("new", 0.961, 3, seed=2, predictions_path=high, val_accuracy=0.9, train_seconds=30.0),
        result("old", 0.90, 1, predictions_path=older),
        result("new", 0.959, 2, seed=1, predictions_path=low, val_accuracy=0.8, train_seconds=10.0),
        result("new", None, 4, seed=0, status="FAILED"),
    ]
    rows = summarise(runs).rows
    assert [row.name for row in rows] == ["old", "new"]
    new = rows[1]
    assert new.test_accuracy == pytest.approx(0.96) and new.test_spread == pytest.approx(0.002 / 2**0.5)
    assert new.seeds == (1, 2) and new.run_ids == ("new-0", "new-1", "new-2")
    assert new.interval == pytest.approx(wilson_interval(960, 1000))  # of one test set, not of two
    assert new.val_accuracy == pytest.approx(0.85) and new.train_seconds == 20.0
    assert new.step is not None and new.step.fixed == ("test/4.jpg",)  # seed 1, the lowest that finished


def test_a_failed_variant_is_shown_and_stepped_over() -> None:
    runs = [
        result("first", 0.7, 0),
        result("second", 0.9, 1, status="KILLED", reference_accuracy=0.8),
        result("third", 0.75, 2),
        result("fourth", float("nan"), 3),
    ]
    comparison = summarise(runs)
    second, third, fourth = comparison.rows[1:]
    assert second.test_accuracy is None and second.step is None and second.reference_accuracy == 0.8
    assert third.step is not None and third.step.previous == "first"
    assert fourth.test_accuracy is None
    assert table_rows(comparison)[1][1][1] == "killed"


def test_table_csv_and_json(tmp_path: Path) -> None:
    older, newer = answers(tmp_path / "older.csv", "RRWW"), answers(tmp_path / "newer.csv", "RRRW")
    comparison = summarise(
        [
            result("old", 0.812, 0, reference_accuracy=0.8, predictions_path=older),
            result(
                "new",
                0.96,
                1,
                seed=0,
                predictions_path=newer,
                train_seconds=296.0,
                trainable_parameters=2_097_665,
            ),
            result("new", 0.964, 2, seed=1),
        ]
    )
    columns, rows = table_rows(comparison)
    old, new = (dict(zip(columns, row, strict=True)) for row in rows)
    assert old["test %"] == "81.2" and old["95 % interval"] == "78.7 - 83.5" and old["published %"] == "80.0"
    assert old["gain"] == old["p"] == old["fixed/broken"] == old["time"] == "-"
    assert new["runs"] == "2" and new["test %"] == "96.2 ± 0.3"
    assert new["gain"] == "+15.0" and new["p"] == "1.00" and new["fixed/broken"] == "1/0"
    assert new["time"] == "4 min 56 s" and new["time/point"] == "20 s"
    assert new["trainable"] == "2.1 M" and new["trainable/point"] == "139.8 k"

    write_csv(tmp_path / "c.csv", comparison)
    with open(tmp_path / "c.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[1]["gain"]) == pytest.approx(0.15) and lines[1]["seeds"] == "0 1"
    assert lines[0]["gain"] == "" and lines[1]["fixed"] == "1" and lines[1]["previous"] == "old"
    assert float(lines[0]["interval_low"]) == wilson_interval(812, 1000)[0]
    assert json.loads(to_json(comparison))["rows"][1]["step"]["fixed"] == ["test/2.jpg"]


def test_decimals_follow_the_number_of_test_images() -> None:
    assert summarise([result("a", 0.9, test_total=1000)]).decimals == 1
    assert table_rows(summarise([result("a", 0.9919, test_total=10000)]))[1][0][3] == "99.19"


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


# --------------------------------------------------------------------------------------------------- pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved while the test runs."""
    seen: list[Any] = []
    save = figures.save_png

    def keep(figure: Figure, path: str | Path) -> None:
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "save_png", keep)
    return seen


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None and image.min() < 128 and image.max() == 255
    return image


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [item.get_text() for item in figure.findobj(Text)]


def test_curves(tmp_path: Path, drawn: list[Any]) -> None:
    history = {
        "train/acc": [0.5, 0.8, 0.9],
        "val/acc": [0.5, 0.75, 0.7],
        "train/loss": [0.7, 0.5, 0.4],
        "val/loss": [0.7, float("nan"), 0.6],
        "lr": [1.0, 1.0, 1.0],
    }
    figures.draw_curves(tmp_path / "c.png", history, "the $title$ of_it")
    picture(tmp_path / "c.png")
    accuracy, loss = drawn[0].axes
    assert [line.get_xydata().tolist() for line in accuracy.lines[:2]] == [
        [[1, 0.5], [2, 0.8], [3, 0.9]],
        [[1, 0.5], [2, 0.75], [3, 0.7]],
    ]
    assert accuracy.lines[2].get_label() == "best 0.7500, epoch 2"
    assert loss.lines[2].get_label() == "best 0.6000, epoch 3"
    assert "the $title$ of_it" in texts(drawn[0])
    figures.draw_curves(tmp_path / "nothing.png", {"train/acc": [0.5]}, "one epoch, nothing validated")
    assert len(drawn[1].axes[0].lines) == 1 and not drawn[1].axes[1].lines


@pytest.mark.parametrize(("count", "ticks", "numbers"), [(2, 2, 4), (12, 12, 144), (30, 30, 0), (31, 0, 0)])
def test_confusion(tmp_path: Path, drawn: list[Any], count: int, ticks: int, numbers: int) -> None:
    matrix = 5 * np.eye(count, dtype=np.int64)
    matrix[1, 0] = 15
    names = [f"class_{number}" for number in range(count)]
    figures.draw_confusion(tmp_path / "c.png", matrix, names, "confusion")
    assert max(picture(tmp_path / "c.png").shape) <= 1400
    axes = drawn[0].axes[0]
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == ticks
    assert len(axes.texts) == numbers
    assert axes.get_images()[0].get_array()[1, :2].tolist() == [0.75, 0.25]
    if numbers:
        expected = "15\n75.0 %" if count == 2 else "15"
        assert axes.texts[count].get_text() == expected
    else:
        assert "15  class_1 → class_0" in texts(drawn[0])


def test_confusion_of_a_thousand_classes_shows_the_largest_of_each_block(tmp_path: Path, drawn: list[Any]) -> None:
    matrix = np.eye(1000, dtype=np.int64)
    matrix[993, 13] = 3  # block 7: rows 987 to 993 and columns 7 to 13
    figures.draw_confusion(tmp_path / "c.png", matrix, [str(number) for number in range(1000)], "many")
    cells = drawn[0].axes[0].get_images()[0].get_array()
    assert cells.shape == (143, 143)
    assert cells[141, 1] == 0.75 and cells[141, 2] == 0 and (np.diag(cells) > 0).all()


def test_errors(tmp_path: Path, drawn: list[Any]) -> None:
    images = [np.full((20, 30, 3), number, np.uint8) for number in range(30)]
    probabilities = [0.5 + 0.01 * number for number in range(30)]
    ids = [f"test/{number}.jpg" for number in range(30)]
    figures.draw_errors(tmp_path / "e.png", images, ["cats"] * 30, ["dogs"] * 30, probabilities, ids, "mistakes")
    picture(tmp_path / "e.png")
    shown = [axes for axes in drawn[0].axes if axes.images]
    assert len(shown) == 24
    assert shown[0].images[0].get_array()[0, 0].tolist() == [29, 29, 29]  # the most confident first
    assert shown[0].get_title() == "dogs 79.0 %"
    assert shown[0].texts[0].get_text() == "truth: cats\ntest/29.jpg"
    figures.draw_errors(tmp_path / "none.png", [], [], [], [], [], "none")
    assert "no mistakes" in texts(drawn[1])
    figures.draw_errors(tmp_path / "grey.png", [np.zeros((28, 28, 1), np.uint8)], ["3"], ["8"], [0.9], ["test/0"], "")
    assert drawn[2].axes[0].images[0].get_cmap().name == "gray"


def test_reliability_and_roc(tmp_path: Path, drawn: list[Any]) -> None:
    probability, correct = np.array([0.3, 0.5, 0.8, 0.9, 1.0, 0.7]), np.array([1, 0, 1, 1, 0, 1], bool)
    figures.draw_reliability(tmp_path / "r.png", probability, correct, "reliability", bins=2)
    picture(tmp_path / "r.png")
    assert [bar.get_height() for bar in drawn[0].axes[0].patches] == pytest.approx([0.5, 0.75])
    assert "expected calibration error 0.100" in texts(drawn[0])
    figures.draw_roc_pr(tmp_path / "p.png", np.array([1, 0, 1, 0], bool), np.array([0.9, 0.8, 0.7, 0.1]), "roc")
    picture(tmp_path / "p.png")
    assert "ROC, area 0.7500" in texts(drawn[1])
    assert "precision-recall, average precision 0.8333" in texts(drawn[1])
    with pytest.raises(ValueError, match="positive and negative"):
        figures.draw_roc_pr(tmp_path / "p.png", np.ones(3, bool), np.arange(3), "one class")


# ------------------------------------------------------------------------------------------ chart and page


def progression(folder: Path, seeds: int = 1, prefix: str = "") -> Comparison:
    """The seven variants of the tutorial with figures like those measured, and one photo fixed a step."""
    figures_of = {
        "baseline": (0.742, 0.733, 3200.0, 3_453_121),
        "augmented": (0.823, 0.812, 9800.0, 3_453_121),
        "frozen": (0.959, 0.893, 400.0, 2_097_665),
        "frozen_augmented": (0.962, 0.905, 5300.0, 2_097_665),
        "finetuned": (0.971, 0.972, 4100.0, 9_177_089),
        "finetuned_augmented": (0.974, None, 12000.0, 9_177_089),
        "best": (0.986, None, 900.0, 1281),
    }
    runs = []
    for order, (name, (accuracy, published, seconds, trained)) in enumerate(figures_of.items()):
        path = answers(folder / f"{name}.csv", "R" * (order + 1) + "W" * (10 - order))
        base = result(prefix + name, accuracy, order, reference_accuracy=published, predictions_path=path)
        base = replace(base, train_seconds=seconds, trainable_parameters=trained)
        runs += [replace(base, seed=seed, test_accuracy=accuracy + 0.004 * seed) for seed in range(seeds)]
    return summarise(runs)


@pytest.mark.parametrize(("seeds", "prefix"), [(1, ""), (3, ""), (3, "optimizer.learning_rate=0.0001,head.units=512,")])
def test_chart_has_no_overlapping_words(tmp_path: Path, seeds: int, prefix: str) -> None:
    figure = progression_figure(progression(tmp_path, seeds, prefix), "Dogs vs cats, 2000 training photos")
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    assert (width, height) == (1600, 900)
    words = [item for item in figure.findobj(Text) if item.get_visible() and item.get_text().strip()]
    boxes = [(item.get_text(), item.get_window_extent()) for item in words]
    assert len(boxes) > 40
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    for number, (text, box) in enumerate(boxes):
        for other, beside in boxes[:number]:
            apart = box.x1 <= beside.x0 or beside.x1 <= box.x0 or box.y1 <= beside.y0 or beside.y1 <= box.y0
            assert apart, (text, other)


def test_chart_shows_the_figures(tmp_path: Path) -> None:
    comparison = progression(tmp_path, seeds=2)
    shown = texts(progression_figure(comparison, "A long title, " * 10))
    assert {"74.4 ± 0.3", "73.3", "98.8 ± 0.3", "+8.1", "p = 1.00", "3 h 20 min", "9.2 M", "1.3 k"} <= set(shown)
    assert {"single seeds", "published", "test accuracy on 1,000 images"} <= set(shown)
    plain = texts(progression_figure(summarise([result("alone", 0.9)]), "one"))
    assert "90.0" in plain and not {"single seeds", "published"} & set(plain)
    failed = summarise([result("alone", None, status="FAILED"), result("other", None, 1, status="FAILED")])
    assert "failed" in texts(progression_figure(failed, "none"))
    draw_progression(tmp_path / "chart.png", comparison, "title")
    assert picture(tmp_path / "chart.png").shape == (900, 1600, 3)


def test_chart_grows_with_the_variants() -> None:
    many = summarise([result(f"v{number}", 0.5 + number / 100, number) for number in range(20)])
    assert progression_figure(many, "many").get_figheight() > 16


def test_wrap() -> None:
    assert wrap("frozen_augmented") == "frozen_augmented"
    assert wrap("optimizer.learning_rate=0.0001,baseline") == "optimizer.learning_rate=\n0.0001,baseline"
    for name in ("x" * 200, "a_" * 100, "seventeen_letters" * 6):
        lines = wrap(name).split("\n")
        assert len(lines) <= 3 and max(map(len, lines)) <= 24
        assert wrap(name).endswith(name[-10:])


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what a browser would load."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert tag != "img" or dict(attrs)["alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_stands_alone(tmp_path: Path) -> None:
    hostile = "<img src=http://example.org/x>&\"'"
    older = answers(tmp_path / "older.csv", "RWWW", ["a", hostile, "<b>", "d"])
    newer = answers(tmp_path / "newer.csv", "WRRW", ["a", hostile, "<b>", "d"])
    comparison = summarise(
        [
            result("old", 0.25, 0, test_total=4, predictions_path=older),
            result(f"new {hostile}", 0.5, 1, test_total=4, predictions_path=newer),
            result("without", 0.75, 2, test_total=4),
        ]
    )
    assert pictured(comparison) == [hostile, "<b>", "a"]
    draw_progression(tmp_path / "chart.png", comparison, "title")
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    write_page(tmp_path / "page.html", comparison, tmp_path / "chart.png", f"T {hostile}", {hostile: jpeg, "a": jpeg})
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open and html.startswith("<!DOCTYPE html>")
    kinds = [source.split(",")[0] for source in page.sources]
    assert kinds == ["data:image/png;base64", "data:image/jpeg;base64", "data:image/jpeg;base64"]
    assert not {"script", "link", "b", "iframe"} & set(page.tags) and "url(" not in html and "@import" not in html
    words = " ".join(page.words)
    assert {f"T {hostile}", f"2 fixed by new {hostile}", f"1 broken by new {hostile}", "<b>"} <= set(page.words)
    assert "Wilson" in words and "McNemar" in words and "+25.0 points" in words
    assert "without has no predictions.csv" in words
    for texts_of_row in table_rows(comparison)[1]:
        assert set(texts_of_row) <= set(page.words)


def test_page_limits_pictures_but_names_all(tmp_path: Path) -> None:
    older, newer = answers(tmp_path / "older.csv", "W" * 30), answers(tmp_path / "newer.csv", "R" * 30)
    comparison = summarise(
        [result("old", 0.0, 0, predictions_path=older), result("new", 1.0, 1, predictions_path=newer)]
    )
    ids = pictured(comparison)
    assert len(ids) == MOST_PICTURES == 24
    draw_progression(tmp_path / "chart.png", comparison, "title")
    write_page(tmp_path / "page.html", comparison, tmp_path / "chart.png", "t", dict.fromkeys(ids, b"\x89PNG"))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.sources) == 1 + 24 and "6 more" in page.words
    assert {f"test/{number}.jpg" for number in range(30)} <= set(page.words)
    step = comparison.rows[1].step
    assert step is not None and step.p_value == mcnemar_exact(0, 30)
    write_page(tmp_path / "page.html", comparison, tmp_path / "chart.png", "t")
    assert "30 names" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_published_figures_have_a_column_only_where_there_is_one() -> None:
    plain, published = (
        Result("r", "a", 0, "FINISHED", 0.5, 10, 0.5, 1.0, 1, 10, 10, reference, None, 0) for reference in (None, 0.9)
    )
    columns, (row,) = table_rows(summarise([plain]))
    assert "published %" not in columns
    assert len(row) == len(columns)
    columns, (row,) = table_rows(summarise([published]))
    assert row[columns.index("published %")] == "90.0"
