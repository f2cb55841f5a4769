"""Runs, answers and pictures made up for the tests of the report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from cnnexp.data.opencv import cv2
from cnnexp.report.compare import Comparison, Result, summarise
from cnnexp.report.mistakes import MISTAKES, write_mistakes
from cnnexp.report.predictions import Predictions, read_predictions, worst_mistakes, write_predictions

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


def answers(path: Path, right: str, ids: list[str] | None = None, groups: str | None = None) -> Path:
    """A predictions.csv with one image a letter of `right`: R was classified correctly, W was not; and a letter of
    `groups`, its group."""
    labels = np.arange(len(right)) % 2
    chosen = np.where(np.array(list(right)) == "R", labels, 1 - labels)
    probabilities: np.ndarray = np.full((len(right), 2), 0.25)
    probabilities[np.arange(len(right)), chosen] = 0.75
    write_predictions(
        path,
        ids or [f"test/{i}.jpg" for i in range(len(right))],
        labels,
        (probabilities.argmax(axis=1), probabilities),
        CLASSES,
        groups,
    )
    return path


def keep_mistakes(predictions_path: Path, grey: int = 128) -> None:
    """The mistakes.zip beside a predictions.csv, its photos all of one grey."""
    predictions = read_predictions(predictions_path)
    wrong = worst_mistakes(predictions, 256)
    names = predictions.class_names
    write_mistakes(
        predictions_path.with_name(MISTAKES),
        [predictions.ids[index] for index in wrong],
        [names[label] for label in predictions.labels[wrong]],
        [names[label] for label in predictions.predicted[wrong]],
        [np.full((64, 64, 3), grey, np.uint8)] * len(wrong),
    )


def guesses(probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
    """Predictions of (N, n) probabilities for (N,) labels; classes and images are numbered."""
    count, classes = probabilities.shape
    ids, names = (tuple(f"{word}{number}" for number in range(n)) for word, n in (("i", count), ("class ", classes)))
    return Predictions(ids, labels, probabilities.argmax(axis=1), probabilities, names)


def progression(folder: Path, seeds: int = 1, prefix: str = "", fixed: int = 1) -> Comparison:
    """The seven variants of the tutorial with figures like those measured; each step fixes `fixed` photos."""
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
        path = answers(folder / name / "predictions.csv", fixed * ("R" * (order + 1)) + fixed * ("W" * (10 - order)))
        base = result(prefix + name, accuracy, order, reference_accuracy=published, predictions_path=path)
        base = replace(base, train_seconds=seconds, trainable_parameters=trained)
        runs += [replace(base, seed=seed, test_accuracy=accuracy + 0.004 * seed) for seed in range(seeds)]
    return summarise(runs)


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None and image.min() < 128 and image.max() == 255
    return image


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [item.get_text() for item in figure.findobj(Text)]
