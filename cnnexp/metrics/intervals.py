"""How sure a figure is: 95 % intervals from resampled images, or from resampled groups of them.

Images drawn with replacement (Efron 1979, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7) give a
figure's standard error. The interval is that of Student's t around the figure on a scale without ends (the logit for
what lies between two ends, the logarithm for a loss), so that it stays inside them and leans away from the nearer one.
`tests/test_intervals.py` has the simulation that chose it: near 1, where figures of interest lie, percentiles of the
resamples, corrected for bias too, hold the true figure too seldom (in 87 and 91 of 100 for a ROC area of 0.98 with 40
positive images of 200; this one in 93).
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from cnnexp.metrics.counts import counts
from cnnexp.metrics.names import FIGURE_NAMES
from cnnexp.metrics.registry import FIGURES, OF_CLASS, Figure, Table, WeightedTable, class_figures, hits
from cnnexp.metrics.statistics import wilson_interval

RESAMPLES = 1000
MOST_CELLS = 8_000_000  # of weights in memory at a time
SEED = 95
ROUNDING = 1e-9  # a figure that varies by no more does not vary
Interval = tuple[float, float]


def resamples(count: int, groups: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """How often each image is in each of 1000 resamples, always the same ones: some at a time, (count, B) float32.

    Args:
        count: images.
        groups: (count,), of each image the group that it belongs to: whole groups are drawn.
    """
    rng = np.random.default_rng(SEED)
    names, members = (None, None) if groups is None else np.unique(groups, return_inverse=True)
    drawn = count if names is None else len(names)
    at_once = max(1, min(RESAMPLES, MOST_CELLS // count))
    for first in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - first)
        cells = rng.integers(drawn, size=(rows, drawn)) + drawn * np.arange(rows)[:, np.newaxis]
        weights = (
            np.bincount(cells.ravel(), minlength=rows * drawn).reshape(rows, drawn).T.astype(np.float32, order="C")
        )
        yield weights if members is None else weights[members]


def intervals(
    table: Table, names: Iterable[str] = FIGURE_NAMES, groups: np.ndarray | None = None
) -> dict[str, Interval]:
    """95 % intervals of figures of a table of answers; of plain accuracy Wilson's.

    Args:
        table: of the answers.
        names: of `FIGURES`.
        groups: (N,), which images belong together, as those of one patient; None: each stands for itself.

    Returns:
        low, high by name. A figure has none where resamples do not tell: the calibration error, which resampling
        raises; one at its end, as a ROC area of 1, of which all resamples are 1 too; one that is not defined.
    """
    if not np.isfinite(table.probabilities).all():
        return {}
    found = {}
    chosen = [FIGURES[name] for name in names if groups is not None or name != "acc"]
    spread, labels = _spread(chosen, table, groups), table.labels
    drawn = len(labels) if groups is None else len(np.unique(groups))
    for figure in chosen:
        value = figure.function(*table.for_figure(figure))
        around = interval(value, spread.get(figure.name, math.nan), drawn, (figure.least, figure.most))
        if around:
            found[figure.name] = around
    if groups is None and "acc" in names:
        found["acc"] = wilson_interval(int(hits(*table.for_figure(FIGURES["acc"])).sum()), len(labels))
    return found


def _spread(figures: list[Figure], table: Table, groups: np.ndarray | None) -> dict[str, float]:
    """The standard deviation of each figure over the resamples in which it is defined."""
    values: dict[str, list[np.ndarray]] = {}
    given = {figure.of_answers: table.for_figure(figure) for figure in figures}
    for weights in resamples(len(table.labels), groups):
        tables = {of_answers: WeightedTable(*parts, weights) for of_answers, parts in given.items()}
        for figure in figures:
            if figure.resampled is not None:
                values.setdefault(figure.name, []).append(figure.resampled(tables[figure.of_answers]))
    return {name: deviation(np.concatenate(parts)) for name, parts in values.items()}


def deviation(values: np.ndarray) -> float:
    """The standard deviation of a figure over the resamples (B,); nan where it is not defined in half of them."""
    defined = values[np.isfinite(values)]
    return float(np.std(defined)) if len(defined) > RESAMPLES / 2 else math.nan


def half_width(error: float, drawn: int) -> float:
    """By how far a 95 % interval of Student's t reaches to each side; `error` and `drawn`, at least 2, as below."""
    from scipy.special import stdtrit  # not needed by who only names a figure

    # Hesterberg 2015, arXiv 1411.5279: the standard error of resamples is too small by (n - 1) / n
    return float(stdtrit(drawn - 1, 0.975)) * error * math.sqrt(drawn / (drawn - 1))


def interval(value: float, error: float, drawn: int, ends: tuple[float, float]) -> Interval | None:
    """The 95 % interval of a figure.

    Args:
        value: the figure.
        error: its standard deviation over the resamples.
        drawn: how many images or groups a resample draws.
        ends: the least and the most that the figure can be; the latter may be infinite.

    Returns:
        low, high within `ends`; None where the figure is at an end, or did not vary.
    """
    least, most = ends
    if drawn < 2 or not (least < value < most and error > ROUNDING):
        return None
    half = half_width(error, drawn)
    if math.isinf(most):
        factor = math.exp(half / (value - least))
        return least + (value - least) / factor, least + (value - least) * factor
    share = (value - least) / (most - least)
    middle, reach = math.log(share / (1 - share)), half / (most - least) / (share * (1 - share))
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - reach, middle + reach))
    return least + (most - least) * low, least + (most - least) * high


def class_intervals(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int, groups: np.ndarray | None = None
) -> dict[str, list[Interval | None]]:
    """95 % intervals of `precision`, `recall` and `f1` of each class, K each; None where there is none.

    Precision and recall are shares of images: theirs is Wilson's, unless the images come in groups.
    """
    values = class_figures(labels, predicted, num_classes)
    own = counts(labels, predicted, num_classes)
    given = [counts(labels, predicted, num_classes, weights) for weights in resamples(len(labels), groups)]
    errors = {  # the standard deviation of each class's figures over the resamples, (K,) each
        name: np.std(np.concatenate([formula(block) for block in given]), axis=0) for name, formula in OF_CLASS.items()
    }
    drawn = len(labels) if groups is None else len(np.unique(groups))
    found: dict[str, list[Interval | None]] = {}
    for name, of in (("precision", own.answered), ("recall", own.actual), ("f1", None)):
        if of is not None and groups is None:
            found[name] = [wilson_interval(*pair) if pair[1] else None for pair in zip(own.right, of, strict=True)]
        else:
            found[name] = [
                interval(value, error, drawn, (0.0, 1.0))
                for value, error in zip(values[name], errors[name], strict=True)
            ]
    return found
