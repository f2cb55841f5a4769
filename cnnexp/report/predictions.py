"""`predictions.csv`: what a run answered for each test image; `predictions_val.csv`: for each validation image."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnnexp.errors import UserError
from cnnexp.files import write_atomic
from cnnexp.formats import csv_bytes, read_csv
from cnnexp.metrics.decision import ARGMAX, Decision
from cnnexp.metrics.registry import Table

COLUMNS = ["file", "truth", "predicted"]  # then GROUP, if there are groups, and the probability of each class
GROUP = "group"
PREFIX = "p_"  # before the name of a class
PREDICTIONS = "predictions.csv"
VAL_PREDICTIONS = "predictions_val.csv"  # the same of the validation images


@dataclass(frozen=True)
class Predictions:
    """One run's answers on one split."""

    ids: tuple[str, ...]  # N, a short stable name per image
    labels: np.ndarray  # (N,) int64, true classes
    predicted: np.ndarray  # (N,) int64, answers: the most probable classes, unless `decision` has a rule
    probabilities: np.ndarray  # (N, n) float64, 0 to 1
    class_names: tuple[str, ...]  # n
    decision: Decision = ARGMAX  # how the answers came about; the file does not say it
    groups: np.ndarray | None = None  # (N,) str, which images belong together; None: each stands for itself

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool"""
        return self.labels == self.predicted

    @property
    def group_count(self) -> int | None:
        """How many groups the images come in; None where there are none."""
        return None if self.groups is None else len(np.unique(self.groups))

    @property
    def table(self) -> Table:
        """For the figures."""
        return Table(self.labels, self.probabilities, self.predicted, self.decision.positive)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) float64, the probability given to the predicted class"""
        return self.probabilities[np.arange(len(self.ids)), self.predicted]

    def take(self, indices: np.ndarray) -> "Predictions":
        """Those of some images, (K,) int, in this order."""
        ids = tuple(self.ids[index] for index in indices)
        return replace(
            self,
            ids=ids,
            labels=self.labels[indices],
            predicted=self.predicted[indices],
            probabilities=self.probabilities[indices],
            groups=None if self.groups is None else self.groups[indices],
        )


def write_predictions(  # noqa: PLR0913 - the columns of a table
    path: str | Path,
    ids: Sequence[str],
    labels: np.ndarray,
    answers: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
    groups: Sequence[str] | None = None,
) -> None:
    """Write one line an image: file, truth, predicted (class names), its group, then the probability of each class.

    Args:
        path: the CSV file.
        ids: N names, in the order of `labels`.
        labels: (N,) int, true classes.
        answers: predicted, (N,) int classes, and probabilities, (N, n) float32 or float64, 0 to 1; these are read back
            bit for bit (9 or 17 significant digits).
        class_names: n names.
        groups: N names of groups; None: there are none, and no such column.
    """
    predicted, probabilities = answers
    assert len(ids) == len(labels) == len(probabilities) and probabilities.shape[1] == len(class_names)
    digits = 9 if probabilities.dtype == np.float32 else 17
    rows = [[*COLUMNS, *([] if groups is None else [GROUP]), *(PREFIX + name for name in class_names)]]
    of_group = [[]] * len(ids) if groups is None else [[group] for group in groups]
    for image, label, answer, group, row in zip(ids, labels, predicted, of_group, probabilities, strict=True):
        figures = [f"{value:.{digits}g}" for value in row.tolist()]
        rows.append([image, class_names[label], class_names[answer], *group, *figures])
    write_atomic(path, csv_bytes(rows))


def read_predictions(path: str | Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        UserError: there is no such file, or it is not such a file.
    """
    try:
        header, *rows = read_csv(path) or [[]]
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected the predictions.csv of a run") from error
    place = len(COLUMNS)
    first = place + (header[place : place + 1] == [GROUP])  # of the probabilities
    class_names = tuple(name.removeprefix(PREFIX) for name in header[first:])
    if header[: len(COLUMNS)] != COLUMNS or not class_names:
        given = ",".join(header)[:80]
        raise UserError(f"{path}: the first line is {given!r}; expected {','.join(COLUMNS)},{PREFIX}CLASS,...")
    number = {name: index for index, name in enumerate(class_names)}
    try:
        labels = np.array([number[row[1]] for row in rows], np.int64)
        predicted = np.array([number[row[2]] for row in rows], np.int64)
        values = np.array([row[first:] for row in rows], np.float64)
        groups = np.array([row[place] for row in rows]) if first > place else None
        probabilities = values.reshape(len(rows), len(class_names))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: a line does not fit its columns ({error}); `cnnexp evaluate` writes it anew"
        ) from error
    ids = tuple(row[0] for row in rows)
    return Predictions(ids, labels, predicted, probabilities, class_names, groups=groups)


def worst_mistakes(predictions: Predictions, limit: int = 24) -> np.ndarray:
    """Indices of at most `limit` wrong answers, (K,) int64, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:limit]
