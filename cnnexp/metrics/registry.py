"""The figures of a table of answers: each with its name, which way it is better, and what it means.

Their functions take `labels`, (N,) int, and `probabilities`, (N, K) float, and take for the answer the most probable
class, of equal ones the first; a `Table` hands them its own answers instead. All figures equal scikit-learn's, which is
not imported: see `cnnexp.metrics.statistics`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from cnnexp.errors import UserError, first_line
from cnnexp.metrics.counts import (
    Counts,
    balanced_accuracy,
    counts,
    f1,
    f1_macro,
    matthews,
    precision,
    precision_macro,
    recall,
    recall_macro,
)
from cnnexp.metrics.names import FIGURE_NAMES, rises
from cnnexp.metrics.statistics import average_precision, brier_score, calibration, roc_auc

Function = Callable[[np.ndarray, np.ndarray], float]
Values = Callable[[np.ndarray, np.ndarray], np.ndarray]
Formula = Callable[[Counts], np.ndarray]
TOP = 5
FEW_IMAGES = 25  # of a class, in the mean over the classes: fewer, and an area is no sum over images
MOST_RANKED = 50_000  # images times classes
SMALLEST = 1e-7  # of a probability in a logarithm, as Keras has it


@dataclass(frozen=True)
class Figure:
    """One way to say how good answers are.

    name:      as `f1_macro`.
    meaning:   in one line.
    function:  of (labels, probabilities); nan where it is not defined.
    least, most: the ends of its range.
    resampled: the same of each of B resamples of a table, (B,) float64; None where resamples say nothing.
    of_answers: whether it depends on the answers alone, and not on how probable they are.
    values:    of (labels, probabilities) what each image adds, (N,): the figure is their mean. Of an area it is so to
               first order, what it would change by, were there a little more of the image; None where that is not
               enough, see `_area_values`.
    formula:   of the counts by class, for a figure that is one of these.
    """

    name: str
    meaning: str
    function: Function
    resampled: "Callable[[WeightedTable], np.ndarray] | None" = None
    of_answers: bool = False
    least: float = 0.0
    most: float = 1.0
    values: Callable[[np.ndarray, np.ndarray], np.ndarray | None] | None = None
    formula: Formula | None = None

    @property
    def rises(self) -> bool:
        """Whether it is the better the higher it is."""
        return rises(self.name)


@dataclass(frozen=True)
class Table:
    """What a network answered for images.

    labels:        (N,) int, N at least 1.
    probabilities: (N, K) float, each row with the sum 1.
    predicted:     (N,) int, the answers, where these are not the most probable classes.
    positive:      of two classes, the number of that which ROC and precision-recall curves are of.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    predicted: np.ndarray | None = None
    positive: int = 1

    def for_figure(self, figure: Figure) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities for the function of a figure: of which the most probable class is the answer, where
        it asks for nothing else, and class 1 the positive one of two."""
        if figure.of_answers and self.predicted is not None:
            return self.labels, one_hot(self.predicted, self.probabilities.shape[1])
        if self.positive == 0 and self.probabilities.shape[1] == 2:
            return 1 - self.labels, self.probabilities[:, ::-1]
        return self.labels, self.probabilities


@dataclass(frozen=True)
class WeightedTable:
    """B resamples of a table of answers; what several figures are made of is computed once.

    labels:        (N,) int.
    probabilities: (N, K) float.
    weights:       (N, B) float, how often each image counts in each resample.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray

    @cached_property
    def counts(self) -> Counts:
        """By class, (B, K) each."""
        return counts(self.labels, answers(self.probabilities), self.probabilities.shape[1], self.weights)

    @cached_property
    def areas(self) -> "Areas":
        """The means over the classes that a resample has; nan where it has none."""
        total, defined = np.zeros((2, self.weights.shape[1])), np.zeros((2, self.weights.shape[1]))
        for number in _curves(self.labels, self.probabilities.shape[1]):
            found = np.stack(_resampled_areas(self.labels == number, self.probabilities[:, number], self.weights))
            is_there = np.isfinite(found)
            total[is_there] += found[is_there]
            defined += is_there
        return Areas(*np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0))


class Areas(NamedTuple):
    """Below the curves of B resamples, (B,) float64 each, 0 to 1."""

    roc_auc: np.ndarray
    average_precision: np.ndarray


def one_hot(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, K) float64 of (N,) int: 1 at the answer, 0 elsewhere."""
    return np.eye(num_classes)[predicted]


class Area(NamedTuple):
    """Of one class against the rest, 0 to 1."""

    number: int  # of the class
    roc_auc: float
    average_precision: float


def answers(probabilities: np.ndarray) -> np.ndarray:
    """(N,) int64: the most probable class of each row of (N, K), of equal ones the first."""
    return np.asarray(probabilities).argmax(axis=1)


# --------------------------------------------------------------------- figures that are a mean over the images


def hits(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) 0 or 1: whether the answer is right."""
    return (answers(probabilities) == labels).astype(np.float64)


def top_hits(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) 0 or 1: whether the truth is among the five most probable classes; nan where there are no more than five."""
    if probabilities.shape[1] <= TOP:
        return np.full(len(labels), np.nan)
    own = probabilities[np.arange(len(labels)), labels][:, np.newaxis]
    before = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    return (((probabilities > own) | (before & (probabilities == own))).sum(axis=1) < TOP).astype(np.float64)


def surprise(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,): minus the logarithm of the probability of the truth."""
    own = np.asarray(probabilities, np.float64)[np.arange(len(labels)), labels]
    return -np.log(np.clip(own, SMALLEST, 1 - SMALLEST))


def squared_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,): what `brier_score` is the mean of."""
    happened = np.arange(probabilities.shape[1]) == labels[:, np.newaxis]
    errors = np.sum((probabilities - happened) ** 2, axis=1)
    return errors / 2 if probabilities.shape[1] == 2 else errors


def _mean(values: Values, labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(np.mean(values(labels, probabilities)))


def _means(values: Values, table: WeightedTable) -> np.ndarray:
    return (values(table.labels, table.probabilities) @ table.weights) / table.weights.sum(axis=0, dtype=np.float64)


# ----------------------------------------------------------------------------- figures of the counts by class


def _of_counts(formula: Formula, labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(formula(counts(labels, answers(probabilities), probabilities.shape[1])))


def _of_weighted(formula: Formula, table: WeightedTable) -> np.ndarray:
    return formula(table.counts)


# ------------------------------------------------------------------------------------ areas below the curves


def areas_by_class(labels: np.ndarray, probabilities: np.ndarray, positive: int = 1) -> list[Area]:
    """For each class that some but not all images have; of two classes only for the positive one."""
    found = []
    for curve in _curves(labels, probabilities.shape[1]):
        number = positive if probabilities.shape[1] == 2 else curve
        is_it, score = labels == number, probabilities[:, number]
        found.append(Area(number, roc_auc(is_it, score), average_precision(is_it, score)))
    return found


def _curves(labels: np.ndarray, num_classes: int) -> list[int]:
    """The classes that have a curve."""
    present = np.bincount(labels, minlength=num_classes)
    return [k for k in range(1 if num_classes == 2 else 0, num_classes) if 0 < present[k] < len(labels)]


def _area(function: Function, labels: np.ndarray, probabilities: np.ndarray) -> float:
    found = [function(labels == k, probabilities[:, k]) for k in _curves(labels, probabilities.shape[1])]
    return float(np.mean(found)) if found else float("nan")


def _curve(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positive and the negative images, (S, B) each, in stretches of falling scores.

    A score that positive images have is a stretch of its own, with all that have it; what lies between two of these is
    one stretch, of negative images alone.
    """
    order = np.argsort(-score, kind="stable")
    positive, score = positive[order], score[order]
    value = np.cumsum(np.append(True, np.diff(score) != 0)) - 1  # of the score, its number
    held = np.isin(value, value[positive])
    starts = np.flatnonzero(np.append(True, (held[1:] != held[:-1]) | (held[1:] & (value[1:] != value[:-1]))))
    both = np.add.reduceat(weights[order], starts, axis=0)
    of_positive = np.searchsorted(starts, np.flatnonzero(positive), side="right") - 1
    first = np.flatnonzero(np.append(True, np.diff(of_positive) > 0))
    positives = np.zeros_like(both)
    positives[of_positive[first]] = np.add.reduceat(weights[order[positive]], first, axis=0)
    return positives, both - positives


def _resampled_areas(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> Areas:
    """`roc_auc` and `average_precision` of each resample; nan where it has no positive image, the former also where it
    has no negative one."""
    positives, negatives = _curve(positive, score, weights)
    found, answered_wrong = np.cumsum(positives, axis=0), np.cumsum(negatives, axis=0)
    total = found[-1].astype(np.float64)
    pairs = total * answered_wrong[-1]
    won = np.einsum("sb,sb->b", negatives, found - positives / 2, dtype=np.float64)
    precisions = found / np.maximum(found + answered_wrong, 1)
    summed = np.einsum("sb,sb->b", positives, precisions, dtype=np.float64)
    return Areas(
        np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0),
        np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0),
    )


def _area_values(function: Values, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray | None:
    """None where a class has so few images that the first order is too rough, unless all else would take too long."""
    classes = _curves(labels, probabilities.shape[1])
    rarer = [min(count, len(labels) - count) for count in (int((labels == k).sum()) for k in classes)]
    if not classes or (np.mean(rarer) < FEW_IMAGES and len(labels) * len(classes) <= MOST_RANKED):
        return None
    return np.asarray(np.mean([function(labels == k, probabilities[:, k]) for k in classes], axis=0))


def roc_auc_values(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N,), the mean of which is `roc_auc`: its change with the weight of each image (DeLong 1988, "Comparing the areas
    under two or more correlated receiver operating characteristic curves", Biometrics 44)."""
    sorted_scores = {side: np.sort(score[positive == side]) for side in (False, True)}

    def below(side: bool, at: np.ndarray) -> np.ndarray:
        """The share of one side's scores that is below; what is equal counts half."""
        found = sorted_scores[side]
        return (np.searchsorted(found, at, "left") + np.searchsorted(found, at, "right")) / (2 * len(found))

    won = np.where(positive, below(False, score), 1 - below(True, score))
    area = won[positive].mean()
    own = np.where(positive, positive.sum(), (~positive).sum())
    return np.asarray(area + len(score) * (won - area) / own)


def average_precision_values(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N,), the mean of which is `average_precision`: its change with the weight of each image."""
    thresholds, place = np.unique(-score, return_inverse=True)  # falling scores
    at = np.bincount(place, positive, len(thresholds))
    found, answered = np.cumsum(at), np.cumsum(np.bincount(place, minlength=len(thresholds)))
    share = found / answered
    total = found[-1]
    area = float(at @ share) / total
    # an image counts in the precision at its own score and at all lower ones
    gained, lost = (np.cumsum((at * part)[::-1])[::-1] for part in ((1 - share) / answered, share / answered))
    change = np.where(positive, share[place] + gained[place] - area, -lost[place]) / total
    return np.asarray(area + len(score) * change)


# -------------------------------------------------------------------------------------------- the registry


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Of the answers, see `calibration`."""
    return calibration(probabilities.max(axis=1), answers(probabilities) == labels).error


def _of_images(name: str, meaning: str, values: Values) -> Figure:
    return Figure(name, meaning, partial(_mean, values), partial(_means, values), values=values)


def _of_classes(name: str, meaning: str, formula: Formula) -> Figure:
    return Figure(
        name,
        meaning,
        partial(_of_counts, formula),
        partial(_of_weighted, formula),
        of_answers=True,
        formula=formula,
    )


def _of_curves(name: str, meaning: str, function: Function, values: Values) -> Figure:
    return Figure(
        name,
        meaning,
        partial(_area, function),
        lambda table: getattr(table.areas, name),
        values=partial(_area_values, values),
    )


FIGURES = {
    figure.name: figure
    for figure in (
        replace(_of_images("acc", "share of images answered right", hits), of_answers=True),
        _of_classes(
            "balanced_acc", "mean over the classes of the share of its images that is found", balanced_accuracy
        ),
        _of_classes("precision_macro", "mean over the classes of the share of answers that is right", precision_macro),
        _of_classes(
            "recall_macro", "as balanced_acc; a class without images that is answered counts as 0", recall_macro
        ),
        _of_classes("f1_macro", "mean over the classes of F1, the harmonic mean of precision and recall", f1_macro),
        replace(
            _of_classes("mcc", "Matthews' correlation of truth and answer, -1 to 1; 0 is chance", matthews), least=-1.0
        ),
        _of_curves(
            "roc_auc",
            "area under the ROC curve; of more than two classes the mean of each against the rest",
            roc_auc,
            roc_auc_values,
        ),
        _of_curves(
            "average_precision",
            "area under the precision-recall curve; the mean, as roc_auc",
            average_precision,
            average_precision_values,
        ),
        replace(
            _of_images("log_loss", "cross-entropy: minus the mean logarithm of the probability of the truth", surprise),
            most=math.inf,
        ),
        replace(
            _of_images("brier", "mean squared error of the probabilities", squared_errors),
            function=brier_score,
            most=2.0,
        ),
        Figure(
            "ece",
            "expected calibration error: how far probabilities are from the share that is right",
            expected_calibration_error,
        ),
        _of_images("top5_acc", "share of images whose class is among the five most probable", top_hits),
    )
}
assert tuple(FIGURES) == FIGURE_NAMES, "cnnexp.metrics.names lists them without NumPy"


_own: dict[str, Figure] = {}  # of the run that is at work


def use_own(functions: Mapping[str, Function]) -> None:
    """From here on figures of the user's own are computed, too: these, by name, and no longer those of a run before."""
    _own.clear()
    _own.update({name: Figure(name, "", partial(_own_value, name, function)) for name, function in functions.items()})


def _own_value(name: str, function: Function, labels: np.ndarray, probabilities: np.ndarray) -> float:
    try:
        return float(function(labels, probabilities))
    except Exception as error:  # of the user's own code
        raise UserError(f"trainer.figures.{name}: {type(error).__name__}: {first_line(error)}") from error


def figures(table: Table, names: Iterable[str] | None = None) -> dict[str, float]:
    """The figures of a table of answers that are defined for it: no area where all images are of one class.

    Args:
        table: of the answers.
        names: of `FIGURES`, or of the user's own; None: all of both.

    Returns:
        By name; nothing at all where a probability is NaN or infinite.

    Raises:
        UserError: a function of the user's own failed.
    """
    if not np.isfinite(table.probabilities).all():
        return {}
    known = FIGURES | _own
    found = {name: known[name].function(*table.for_figure(known[name])) for name in (known if names is None else names)}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def class_figures(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Of each class (K,) float64: `precision`, `recall`, `f1`, 0 to 1, and `support`, its number of images."""
    given = counts(labels, predicted, num_classes)
    return {name: formula(given) for name, formula in OF_CLASS.items()} | {"support": given.actual}


OF_CLASS: dict[str, Formula] = {"precision": precision, "recall": recall, "f1": f1}
