"""What the best of many is worth: it was chosen for its figure, which is therefore a little too good."""

from collections.abc import Iterator, Sequence

import numpy as np

from cnnexp.metrics.intervals import RESAMPLES, resamples
from cnnexp.metrics.paired import image_values
from cnnexp.metrics.registry import FIGURES, Figure, WeightedTable

LEAST_RESAMPLES = 100  # of points that take long
MOST_COUNTED = 400_000_000  # images times points, seeds, classes and resamples


def corrected_for_choice(
    name: str, labels: np.ndarray, points: Sequence[Sequence[np.ndarray]], groups: np.ndarray | None = None
) -> float | None:
    """The figure of the best of several points on images that had no part in choosing it.

    In each resample of the images the best point is chosen anew, and its figure taken of the images that are not in it;
    the mean is what a choice of this kind is worth (Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the
    out-of-sample predictions for efficient and accurate cross-validation", Machine Learning 107). What a figure loses
    merely because the images left out are fewer is given back. (A resample's optimism over all images, as Efron has it,
    takes away only seven tenths of that of equal points, for all images have chosen already.)

    Args:
        name: of `FIGURES`.
        labels: (N,) int.
        points: of each point the probabilities of each of its seeds, (N, K) float.
        groups: (N,), which images belong together; None: each stands for itself.

    Returns:
        None for a figure of which resamples do not tell, and where one is not defined.
    """
    figure = FIGURES[name]
    tables = [table for point in points for table in point]
    if figure.resampled is None or not points or not all(np.isfinite(table).all() for table in tables):
        return None
    whole = np.array([np.mean([figure.function(labels, table) for table in point]) for point in points])
    if not np.isfinite(whole).all():
        return None
    inside, outside = (
        np.concatenate(parts, axis=1) for parts in zip(*_both(figure, labels, points, groups), strict=True)
    )
    defined = np.isfinite(inside).all(axis=0) & np.isfinite(outside).all(axis=0)
    if defined.sum() < LEAST_RESAMPLES / 2:
        return None
    inside, outside = inside[:, defined], outside[:, defined]
    chosen = inside.argmax(axis=0) if figure.rises else inside.argmin(axis=0)
    lost = whole - outside.mean(axis=1)
    found = float(np.mean(outside[chosen, np.arange(len(chosen))] + lost[chosen]))
    best = float(whole.max() if figure.rises else whole.min())
    return min(found, best) if figure.rises else max(found, best)


def _both(
    figure: Figure, labels: np.ndarray, points: Sequence[Sequence[np.ndarray]], groups: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each block of resamples the points' figures of what is in them, and of what is left out, (P, B) each."""
    cost = len(labels) * sum(len(point) for point in points) * points[0][0].shape[1]
    wanted = max(LEAST_RESAMPLES, min(RESAMPLES, MOST_COUNTED // cost))
    found = [image_values(figure, labels, point) for point in points]
    known = [values for values in found if values is not None]
    means = np.array(known) if len(known) == len(found) else None
    if means is not None:
        wanted = RESAMPLES

    def of(weights: np.ndarray) -> np.ndarray:
        if means is not None:
            return np.asarray(means @ weights / weights.sum(axis=0, dtype=np.float64))
        assert figure.resampled is not None
        return np.array(
            [
                np.mean([figure.resampled(WeightedTable(labels, table, weights)) for table in point], axis=0)
                for point in points
            ]
        )

    for block in resamples(len(labels), groups):
        weights = block[:, (block == 0).any(axis=0)][:, :wanted]  # of which something is left out
        yield of(weights), of((weights == 0).astype(weights.dtype))
        wanted -= weights.shape[1]
        if wanted <= 0:
            return
