"""The pictures of a run, and the chart of a comparison: what stands in them, and that nothing overlaps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import guesses, picture, progression, result, texts
from matplotlib.figure import Figure
from matplotlib.text import Text

from cnnexp import sheet
from cnnexp.metrics.decision import Decision, with_temperature
from cnnexp.report import figures, scoring, style
from cnnexp.report.chart import draw_progression, progression_figure, wrap
from cnnexp.report.compare import Wanted, summarise
from cnnexp.report.predictions import Predictions
from cnnexp.sheet import Sheet

pytestmark = pytest.mark.pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved while the test runs."""
    seen: list[Any] = []
    save = style.save_png

    def keep(figure: Figure, path: str | Path) -> None:
        seen.append(figure)
        save(figure, path)

    for module in (figures, scoring):
        monkeypatch.setattr(module, "save_png", keep)
    return seen


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


def test_curves_show_where_a_phase_begins_and_their_legend_covers_nothing(tmp_path: Path, drawn: list[Any]) -> None:
    history = {"train/acc": [0.5, 0.6, 0.9], "val/acc": [0.5, 0.6, 0.8], "val/loss": [0.7, 0.6, 0.5]}
    figures.draw_curves(tmp_path / "c.png", history, "phases", [("head", 2), ("finetune", 1)])
    for axes in drawn[0].axes:
        (begin,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert list(begin.get_xdata()) == [2.5, 2.5]
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [(" head", 0.5), (" finetune", 2.5)]
        assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
    figures.draw_curves(tmp_path / "c.png", history, "one", [("training", 3)])
    assert not drawn[1].axes[0].texts


def test_long_names_of_classes_fit_their_places_among_mistakes(tmp_path: Path, sheets: list[Any]) -> None:
    names = tuple(f"Chrysanthemum morifolium WWW {number} mmmmmmmmmm" for number in range(136))
    probabilities = np.full((24, 136), 0.001)
    probabilities[:, 7] = 0.865
    ids = tuple(f"test/{names[3]}/{number:08d}.jpg" for number in range(24))
    images = [np.zeros((20, 20, 3), np.uint8)] * 24
    labels = np.full(24, 3)
    answers = Predictions(ids, labels, labels + 4, probabilities, names)
    figures.draw_errors(tmp_path / "e.png", answers, images, "a very long name of a run " * 8)
    size, room = sheet.font, 170 + 30
    title, *lines = sheets[0].lines
    assert size(13, bold=True).getlength(title) <= 6 * room
    for line in lines:
        wide = size(10, bold=True) if line.endswith(" 86.5 %") else size(8)
        assert wide.getlength(line) < room, line
    assert sum(line.endswith(" 86.5 %") for line in lines) == 24


def test_a_line_is_fitted_by_smaller_letters_and_then_by_its_ends() -> None:
    assert sheet.fitted("short", 15, 200) == ("short", 15)
    line, size = sheet.fitted("W" * 15, 15, 200)
    assert line == "W" * 15 and 10 <= size < 15
    line, size = sheet.fitted("a" * 50 + "z" * 50, 15, 200, end=" 9 %")
    assert size == 10 and line.startswith("aa") and line.endswith("zz 9 %") and "…" in line
    assert 190 < sheet.font(10).getlength(line) <= 200


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


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sheets that are drawn while the test runs, each with its `pictures` and `lines`."""
    seen: list[Any] = []

    class Recorded(Sheet):
        def __init__(self, *size: int) -> None:
            super().__init__(*size)
            self.pictures: list[np.ndarray] = []
            self.lines: list[str] = []
            seen.append(self)

        def picture(self, picture: np.ndarray, *place: int, **style: Any) -> None:
            self.pictures.append(picture)
            super().picture(picture, *place, **style)

        def text(self, text: str, *place: Any, **style: Any) -> None:
            self.lines.append(text)
            super().text(text, *place, **style)

    monkeypatch.setattr(figures, "Sheet", Recorded)
    return seen


def wrong(ids: list[str], shares: list[float]) -> Predictions:
    """Cats that were taken for dogs, as surely as `shares` say."""
    answered = np.ones(len(ids), np.int64)
    probabilities = np.reshape([[1 - share, share] for share in shares], (-1, 2))
    return Predictions(tuple(ids), 0 * answered, answered, probabilities, ("cats", "dogs"))


def test_errors(tmp_path: Path, sheets: list[Any]) -> None:
    images = [np.full((20, 30, 3), number, np.uint8) for number in range(30)]
    probabilities = [0.5 + 0.01 * number for number in range(30)]
    ids = [f"test/{number}.jpg" for number in range(30)]
    figures.draw_errors(tmp_path / "e.png", wrong(ids, probabilities), images, "mistakes")
    image = picture(tmp_path / "e.png")
    assert len(sheets[0].pictures) == 24
    assert sheets[0].pictures[0][0, 0].tolist() == [29, 29, 29]  # the most confident first
    assert sheets[0].lines[:4] == ["mistakes", "dogs 79.0 %", "truth: cats", "test/29.jpg"]
    assert image[52 + 22 + 50, 30 + 85].tolist() == [29, 29, 29]  # where the first one stands
    figures.draw_errors(tmp_path / "none.png", wrong([], []), [], "none")
    assert sheets[1].lines == ["none", "no mistakes"]
    figures.draw_errors(tmp_path / "grey.png", wrong(["test/0"], [0.9]), [np.zeros((28, 28, 1), np.uint8)], "")
    assert picture(tmp_path / "grey.png")[52 + 22 + 85, 30 + 85].tolist() == [0, 0, 0]


def test_errors_stand_beside_their_heat_maps(tmp_path: Path, sheets: list[Any]) -> None:
    images = [np.full((20, 30, channels), 7, np.uint8) for channels in (1, 3)]
    overlays = np.stack([np.full((20, 30, 3), number, np.uint8) for number in (100, 200)])
    figures.draw_errors(tmp_path / "e.png", wrong(["a", "b"], [0.6, 0.9]), images, "mistakes", overlays)
    shown = sheets[0].pictures
    assert [array.shape for array in shown] == [(20, 60, 3)] * 2
    assert [(array[0, 0].tolist(), array[0, 59].tolist()) for array in shown] == [
        ([7] * 3, [200] * 3),
        ([7] * 3, [100] * 3),
    ]


def test_reliability(tmp_path: Path, drawn: list[Any]) -> None:
    probability, correct = np.array([0.3, 0.5, 0.8, 0.9, 1.0, 0.7]), np.array([1, 0, 1, 1, 0, 1], bool)
    shares = np.stack([1 - probability, probability], axis=1)
    shares[probability < 0.5] = [0.3, 0.3]  # of no class more than this, as where there are more classes
    answers = guesses(shares, np.where(correct, shares.argmax(axis=1), 1 - shares.argmax(axis=1)))
    scoring.draw_reliability(tmp_path / "r.png", answers, "reliability", bins=2)
    picture(tmp_path / "r.png")
    assert [bar.get_height() for bar in drawn[0].axes[0].patches] == pytest.approx([0.5, 0.75])
    assert "expected calibration error 0.100" in texts(drawn[0])


def test_the_threshold_is_marked_on_the_curves_of_the_positive_class(tmp_path: Path, drawn: list[Any]) -> None:
    score = np.array([0.9, 0.8, 0.7, 0.1])
    answers = guesses(np.stack([score, 1 - score], axis=1), np.array([0, 1, 0, 1]))
    decision = Decision("max_f1", 0, 0.75)
    answers = replace(answers, predicted=decision.classes(answers.probabilities), decision=decision)
    assert scoring.draw_roc_pr(tmp_path / "p.png", answers, "roc")
    assert {"ROC, area 0.7500", "positive: class 0", "threshold 0.75"} <= set(texts(drawn[0]))
    points = [line.get_xydata().tolist() for axes in drawn[0].axes for line in axes.lines if line.get_marker() == "o"]
    assert points == [[[0.5, 0.5]], [[0.5, 0.5]]]  # one of two is found, one of two answers is right, one of two called


def test_the_curve_of_before_the_temperature(tmp_path: Path, drawn: list[Any]) -> None:
    shares = np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.2, 0.8]])
    cooled = with_temperature(shares, 0.5)  # 16 / 17
    answers = replace(guesses(cooled, np.array([0, 0, 1, 1])), decision=Decision("argmax", temperature=0.5))
    scoring.draw_reliability(tmp_path / "r.png", answers, "reliability")
    assert "expected calibration error 0.191, before the temperature 0.050" in texts(
        drawn[0]
    )  # 16/17 and 0.8, 3/4 right


def test_roc_of_two_classes(tmp_path: Path, drawn: list[Any]) -> None:
    score = np.array([0.9, 0.8, 0.7, 0.1])
    answers = guesses(np.stack([1 - score, score], axis=1), np.array([1, 0, 1, 0]))
    assert scoring.draw_roc_pr(tmp_path / "p.png", answers, "roc")
    picture(tmp_path / "p.png")
    # of the four pairs three are in order; 1/2 is found at precision 1, the rest at 2/3
    assert {"ROC, area 0.7500", "precision-recall, average precision 0.8333", "positive: class 1"} <= set(
        texts(drawn[0])
    )
    roc, precision = drawn[0].axes
    assert roc.lines[1].get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert precision.lines[1].get_xydata().tolist() == [[0, 1], [0.5, 1], [1, 2 / 3]]
    one_class = guesses(np.full((3, 2), 0.5), np.zeros(3, np.int64))
    assert not scoring.draw_roc_pr(tmp_path / "no.png", one_class, "one class")
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize(("classes", "curves"), [(3, 2), (10, 9), (40, 10)])
def test_roc_of_more_classes(tmp_path: Path, drawn: list[Any], classes: int, curves: int) -> None:
    """Each class that occurs against the rest, ten at most: the weakest. Class 0 does not occur, class 2 is weak."""
    rng = np.random.default_rng(0)
    labels = 1 + np.arange(40 * classes) % (classes - 1)
    scores = rng.uniform(size=(len(labels), classes)) + 3.0 * np.eye(classes)[labels]
    scores[:, 2] = rng.uniform(size=len(labels))
    answers = guesses(scores / scores.sum(axis=1, keepdims=True), labels)
    assert scoring.draw_roc_pr(tmp_path / "p.png", answers, "roc")
    assert picture(tmp_path / "p.png").shape[1] == 1340
    labelled = [line.get_label() for line in drawn[0].axes[0].lines[1:]]
    assert len(labelled) == curves
    area = {area.number: area for area in scoring.areas_by_class(answers.labels, answers.probabilities)}
    assert 0 not in area
    assert f"{area[2].roc_auc:.4f}  {area[2].average_precision:.4f}  class 2" in labelled
    mean = np.mean([one.roc_auc for one in area.values()])
    assert f"ROC, mean area {mean:.4f}" in texts(drawn[0])


# --------------------------------------------------------------------------------------------------- chart


LONG = "optimizer.learning_rate=0.0001,head.units=512,"


@pytest.mark.parametrize(
    ("seeds", "prefix", "wanted"),
    [
        (1, "", None),
        (3, "", None),
        (3, LONG, None),
        (3, "", Wanted("f1_macro")),
        (3, LONG, Wanted("log_loss", LONG + "frozen")),
    ],
)
def test_chart_has_no_overlapping_words(tmp_path: Path, seeds: int, prefix: str, wanted: Wanted | None) -> None:
    comparison = progression(tmp_path, seeds, prefix)
    if wanted:
        comparison = summarise(comparison.runs, wanted)
    figure = progression_figure(comparison, "Dogs vs cats, 2000 training photos")
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
    assert {"74.4 ± 0.3", "73.3", "98.8 ± 0.3", "+8.1", "3 h 20 min", "9.2 M", "1.3 k"} <= set(shown)
    step = comparison.rows[1].step
    assert step and step.p_value == 0.5 and "p = 1.00" in shown and "p = 0.50" not in shown  # Holm's, of six tests
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
