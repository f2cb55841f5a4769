"""How good the probabilities of a run are: its figures, and as pictures the reliability diagram and the curves."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from cnnexp.console import shorten
from cnnexp.metrics.decision import with_temperature
from cnnexp.metrics.intervals import intervals
from cnnexp.metrics.registry import Area, answers, areas_by_class, figures
from cnnexp.metrics.statistics import Calibration, calibration, precision_recall_curve, roc_curve
from cnnexp.report.predictions import Predictions
from cnnexp.report.style import BLUE, LETTER, ORANGE, Margins, new_figure, save_png, style
from cnnexp.sheet import INK, MUTED, PAPER

MOST_CURVES = 10  # of more classes, those with the smallest ROC areas are drawn
COLOURS = (BLUE, ORANGE, "#23855a", "#c23b3b", "#7e57a8", "#8a5a44", "#d069a8", "#66727f", "#a3a324", "#1fa5b4")


def scores(predictions: Predictions) -> dict[str, float]:
    """Figures of the answers to the test images as metrics to record: `test/NAME`, and the ends of its 95 % interval,
    `_low` and `_high`.

    Returns:
        Of every name of `FIGURES` that is defined, see there; of `acc` the interval alone, since it is recorded
        already. Nothing at all where a probability is NaN or infinite.
    """
    metrics = {f"test/{name}": value for name, value in figures(predictions.table).items() if name != "acc"}
    for name, (low, high) in intervals(predictions.table, groups=predictions.groups).items():
        metrics |= {f"test/{name}_low": low, f"test/{name}_high": high}
    return metrics


class OperatingPoint(NamedTuple):
    """What answers give for the positive of two classes; nan where nothing is counted."""

    recall: float
    precision: float
    false_rate: float  # share of the other images that is called positive


def operating_point(labels: np.ndarray, predicted: np.ndarray, number: int) -> OperatingPoint:
    """Of the answers to two classes, (N,) int each, of which `number` is the positive one."""
    positive, called = labels == number, predicted == number
    hits = int(np.sum(positive & called))

    def share(count: int, of: int) -> float:
        return count / of if of else math.nan

    recall, precision = share(hits, int(positive.sum())), share(hits, int(called.sum()))
    return OperatingPoint(recall, precision, share(int(called.sum()) - hits, int((~positive).sum())))


def draw_roc_pr(path: str | Path, predictions: Predictions, title: str) -> bool:
    """ROC curve and precision-recall curve, side by side, with their areas.

    Of two classes the positive one is that of `predictions.decision`, whose threshold is marked. Of more, each is drawn
    against the rest; of more than ten, those with the smallest areas.

    Args:
        path: the PNG file.
        predictions: finite probabilities.
        title: the headline.

    Returns:
        Whether there is a picture: not where all images are of one class.
    """
    areas = areas_by_class(predictions.labels, predictions.probabilities, predictions.decision.positive)
    if not areas:
        return False
    several = len(predictions.class_names) > 2
    longest = max(len(_curve_label(predictions, area)) for area in areas)
    beside = LETTER * longest + 0.6 if several else 0.25
    figure = new_figure(13.4 if several else 10.4, 5.2, title, Margins(0.75, beside, 0.95))
    left, right = figure.subplots(1, 2)
    mean_roc, mean_precision = np.mean([area[1:] for area in areas], axis=0)
    kind = "mean " if several else ""
    style(left, "false positive rate", "true positive rate", f"ROC, {kind}area {mean_roc:.4f}")
    style(right, "recall", "precision", f"precision-recall, {kind}average precision {mean_precision:.4f}")
    left.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2)
    if not several:
        share = float(np.mean(predictions.labels == areas[0].number))
        right.axhline(share, color=MUTED, linestyle="--", linewidth=1.2)
        figure.supxlabel(f"positive: {shorten(predictions.class_names[areas[0].number], 40)}", color=MUTED, fontsize=10)
    weakest = sorted(areas, key=lambda area: area.roc_auc)[:MOST_CURVES]
    for colour, area in zip(COLOURS, sorted(weakest), strict=False):
        _draw_class(left, right, predictions, area, colour)
    if predictions.decision.threshold is not None:
        _mark_threshold(left, right, predictions)
    for axes in (left, right):
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_aspect("equal")
    if several:
        some = f"the {MOST_CURVES} weakest of {len(areas)} classes" if len(areas) > MOST_CURVES else "each class"
        lines, labels = left.get_legend_handles_labels()
        legend = figure.legend(lines, labels, loc="center right", frameon=False, labelcolor=INK, fontsize=10)
        legend.set_title(f"{some} against the rest:\nROC area, average precision")
        legend.set_alignment("left")
    save_png(figure, path)
    return True


def _curve_label(predictions: Predictions, area: Area) -> str:
    return f"{area.roc_auc:.4f}  {area.average_precision:.4f}  {shorten(predictions.class_names[area.number], 24)}"


def _draw_class(left: Axes, right: Axes, predictions: Predictions, area: Area, colour: str) -> None:
    positive, score = predictions.labels == area.number, predictions.probabilities[:, area.number]
    false_rate, true_rate, _ = roc_curve(positive, score)
    precision, recall, _ = precision_recall_curve(positive, score)
    label = _curve_label(predictions, area)
    width = 2.2 if len(predictions.class_names) == 2 else 1.6
    left.plot(false_rate, true_rate, color=colour, linewidth=width, label=label)
    # the sum of steps that the average precision adds up: each precision holds back to the last recall
    rises = np.diff(recall, prepend=0) > 0
    steps = np.append(0, recall[rises]), np.append(precision[rises][0], precision[rises])
    right.step(*steps, where="pre", color=colour, linewidth=width)


def _mark_threshold(left: Axes, right: Axes, predictions: Predictions) -> None:
    """Where the answers of the run stand on both curves."""
    point = operating_point(predictions.labels, predictions.predicted, predictions.decision.positive)
    label, rim = f"threshold {predictions.decision.threshold:.3g}", [withStroke(linewidth=4, foreground=PAPER)]
    for axes, place in ((left, (point.false_rate, point.recall)), (right, (point.recall, point.precision))):
        axes.plot(*place, "o", ms=9, mfc=PAPER, mec=ORANGE, mew=2.5, zorder=5, label=label, clip_on=False)
        across, side = (-10, "right") if place[0] > 0.5 else (10, "left")  # towards the middle, where there is room
        up = -14 if place[1] > 0.3 else 8
        offset: dict[str, Any] = {"textcoords": "offset points", "ha": side, "path_effects": rim, "zorder": 6}
        axes.annotate(label, place, (across, up), color=INK, fontsize=10, **offset)


def draw_reliability(path: str | Path, predictions: Predictions, title: str, bins: int = 15) -> None:
    """Reliability diagram: how often the most probable class of a given probability was right, and how many there were.

    Args:
        path: the PNG file.
        predictions: finite probabilities; where these were divided by a temperature, those of before are drawn too.
        title: the headline.
        bins: intervals of probability.
    """
    kept, heat = _reliability(predictions, predictions.probabilities, bins), predictions.decision.temperature
    figure = new_figure(6.4, 7.0, title, Margins(0.8, 0.25, 0.65))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1], gridspec_kw={"hspace": 0.08})
    words = f"expected calibration error {kept.error:.3f}"
    if heat is not None:
        before = _reliability(predictions, with_temperature(predictions.probabilities, 1 / heat), bins)
        words += f", before the temperature {before.error:.3f}"
        upper.plot(before.confidence, before.accuracy, "x", color=MUTED, ms=6, label="before the temperature", zorder=4)
    style(upper, "", "share that was right", words)
    style(lower, "probability of the most probable class", "images")
    width = 0.92 / bins
    centres = (kept.edges[:-1] + kept.edges[1:]) / 2
    filled = kept.count > 0
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    upper.bar(centres[filled], kept.accuracy[filled], width, color=BLUE, alpha=0.85, label="share that was right")
    dots = kept.confidence[filled], kept.accuracy[filled]
    upper.plot(*dots, "o", color=ORANGE, ms=5, label="mean probability of the bin")
    upper.set_ylim(0, 1.02)
    upper.legend(frameon=False, labelcolor=INK, fontsize=10, loc="upper left")
    lower.bar(centres, kept.count, width, color=MUTED, alpha=0.8)
    lower.set_xlim(0, 1)
    save_png(figure, path)


def _reliability(predictions: Predictions, probabilities: np.ndarray, bins: int) -> Calibration:
    return calibration(probabilities.max(axis=1), answers(probabilities) == predictions.labels, bins)
