"""The files of a run, from two short trainings: what lies there, and that the figures are those of the answers."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from made_runs import picture

from cnnexp.errors import UserError
from cnnexp.explain.heatmaps import overlaid
from cnnexp.metrics.names import FIGURE_NAMES
from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.mistakes import read_mistakes
from cnnexp.report.predictions import read_predictions
from cnnexp.runs import artifacts
from cnnexp.runs.folder import RunFolder

pytestmark = [pytest.mark.pictures, pytest.mark.trains]

Run = Callable[..., tuple[int, str, str]]
OPTIONAL = {"errors.png", "roc_pr.png", "explain/heatmaps.png"}


@pytest.fixture
def written(cnnexp: Run, drawn_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs a training and returns the arguments of `artifacts.write` and what it returned."""

    def run(*overrides: str) -> list[Any]:
        calls: list[Any] = []
        write = artifacts.write

        def spy(*arguments: Any) -> dict[str, float]:
            calls.extend([list(arguments), write(*arguments)])
            metrics: dict[str, float] = calls[1]
            return metrics

        monkeypatch.setattr(artifacts, "write", spy)
        code, _, err = cnnexp(
            "train",
            "debug=smoke",
            "dataset.image_size=48",
            "tracking=none",
            "tracking.explain=true",
            f"paths.data={drawn_root}",
            *overrides,
        )
        monkeypatch.setattr(artifacts, "write", write)
        assert code == 0, err
        return calls

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, pictures that do not depend on the answers, or are tested elsewhere, are empty files."""

    def touch(path: Path, *_: Any) -> None:
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def start() -> None:
        for name in ("artifacts.figures.draw_curves", "artifacts.figures.draw_confusion", "artifacts.contact_sheet"):
            monkeypatch.setattr(f"cnnexp.runs.{name}", touch)
        monkeypatch.setattr(artifacts, "requirements_text", lambda: "")

    return start


def again(arguments: list[Any], folder: Path, probabilities: np.ndarray) -> dict[str, float]:
    """`artifacts.write` once more, as if the network had answered with these probabilities (N, 1)."""
    job, parts, fit, explain, draw = arguments[:5]
    fit = replace(fit, probabilities=probabilities.astype(np.float32))
    return artifacts.write(replace(job, folder=RunFolder(folder)), parts, fit, explain, draw)


def names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts
    }


def test_two_classes(
    written: Callable[..., list[Any]], quick: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, metrics = written("experiment=baseline", "dataset=synthetic")
    folder, dataset = arguments[0].folder.path, arguments[1].dataset
    with open(folder / "predictions.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    truth = np.array([line["truth"] == "dog" for line in lines])
    dog = np.array([float(line["p_dog"]) for line in lines])
    assert metrics["test/roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, dog))
    assert metrics["test/average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(truth, dog))
    assert metrics["test/brier"] == pytest.approx(sklearn.metrics.brier_score_loss(truth, dog), abs=1e-6)
    assert 0 <= metrics["test/ece"] <= 1
    for name in ("reliability.png", "roc_pr.png", "confusion.png", "curves.png", "classes.png"):
        picture(folder / name)

    labels = dataset.test.labels[:, np.newaxis]
    quick()
    _three_wrong(arguments, tmp_path / "three", monkeypatch)
    # all right: nothing to show of mistakes, but the file for the comparison is there
    metrics = again(arguments, tmp_path / "right", 0.2 + 0.6 * labels)
    expected = {"test/ece": 0.2, "test/brier": 0.04, "test/roc_auc": 1, "test/average_precision": 1, "test/mcc": 1}
    expected |= {
        "test/f1_macro": 1,
        "x/class/cat/recall": 1,
        "x/class/dog/support": int(labels.sum()),
        "test/acc_high": 1,
    }
    expected |= {"test/acc_low": wilson_interval(len(labels), len(labels))[0]}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert "test/f1_macro_low" not in metrics, "of what is all right resamples do not tell"
    assert names(tmp_path / "right") == set(artifacts.FILES) - {"errors.png"}
    assert read_mistakes(tmp_path / "right" / "mistakes.zip", dataset.test.ids) == {}
    # nothing that a picture could show
    assert again(arguments, tmp_path / "nan", np.full(labels.shape, np.nan)) == {}
    assert not {"reliability.png", "roc_pr.png", "classes.png"} & names(tmp_path / "nan")


def _three_wrong(arguments: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three mistakes are drawn with their heat maps, and kept as thumbnails, the most confident first."""
    drawn: list[Any] = []
    draw = artifacts.draw_errors
    monkeypatch.setattr(artifacts, "draw_errors", lambda *values: (drawn.append(values), draw(*values)))
    dataset = arguments[1].dataset
    probabilities = 0.1 + 0.8 * dataset.test.labels
    for index, share in ((1, 0.6), (4, 0.9), (6, 0.7)):
        probabilities[index] = share if dataset.test.labels[index] == 0 else 1 - share
    again(arguments, folder, probabilities[:, np.newaxis])
    assert names(folder) == set(artifacts.FILES)
    ids = [dataset.test.ids[index] for index in (4, 6, 1)]
    assert list(read_mistakes(folder / "mistakes.zip", dataset.test.ids)) == ids
    (_, wrong, images, _, overlays) = drawn[0]
    assert list(wrong.ids) == ids and wrong.confidence == pytest.approx([0.9, 0.7, 0.6])
    assert all(truth != predicted for truth, predicted in zip(wrong.labels, wrong.predicted, strict=True))
    assert overlays.shape == (3, *images[0].shape) and overlays.dtype == np.uint8
    model = arguments[1].network.model
    np.testing.assert_array_equal(overlays, overlaid(model, np.stack(images), wrong.predicted))
    assert not np.array_equal(overlays, overlaid(model, np.stack(images), wrong.labels)), "of the other class"


def test_ten_classes_of_a_network_without_maps(
    written: Callable[..., list[Any]], quick: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> np.ndarray:
        raise UserError("no maps")

    monkeypatch.setattr("cnnexp.runs.artifacts.overlaid", none)
    arguments, metrics = written("experiment=mnist", "dataset=digits")
    folder, dataset = arguments[0].folder.path, arguments[1].dataset
    assert names(folder) >= set(artifacts.FILES) - {"explain/heatmaps.png"}
    named = {name for name in metrics if name.startswith("test/") and not name.endswith(("_low", "_high"))}
    assert named == {f"test/{name}" for name in FIGURE_NAMES[1:]}
    assert {f"x/class/{digit}/{name}" for digit in range(10) for name in ("recall", "support")} <= set(metrics)
    _figures_are_those_of_the_answers(folder, metrics)
    assert 0 <= metrics["test/brier"] <= 2
    # the test images of one class alone
    quick()
    fit = arguments[2]
    sevens = replace(dataset, test=replace(dataset.test, labels=np.full_like(dataset.test.labels, 7)))
    arguments[1] = replace(arguments[1], dataset=sevens)
    metrics = again(arguments, tmp_path / "sevens", fit.probabilities)
    assert {"test/ece", "test/brier", "test/f1_macro"} <= set(metrics)
    assert not {"test/roc_auc", "test/average_precision"} & set(metrics)
    assert "roc_pr.png" not in names(tmp_path / "sevens")


def _figures_are_those_of_the_answers(folder: Path, metrics: dict[str, float]) -> None:
    """By scikit-learn, from the files of the run."""
    answers = read_predictions(folder / "predictions.csv")
    truth, predicted = answers.labels, answers.predicted
    assert metrics["test/f1_macro"] == pytest.approx(
        sklearn.metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    )
    assert metrics["test/brier_low"] < metrics["test/brier"] < metrics["test/brier_high"]
    parts = sklearn.metrics.precision_recall_fscore_support(truth, predicted, labels=range(10), zero_division=0)
    with open(folder / "classes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["class"] for line in lines] == list(answers.class_names)
    for name, values in zip(("precision", "recall", "f1", "support"), parts, strict=True):
        assert [float(line[name]) for line in lines] == pytest.approx(list(values))
    for number, line in enumerate(lines):
        of_class = answers.correct[truth == number]
        low, high = wilson_interval(int(of_class.sum()), len(of_class))
        assert (float(line["recall_low"]), float(line["recall_high"])) == pytest.approx((low, high))
