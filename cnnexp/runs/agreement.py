"""Whether two runs came to the same figures, at their ends and in every epoch."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnexp.console import say, table

IGNORED = re.compile(r"(^|/)time[/_]|^images_per_s$|^(memory|system|evaluate)/")  # not what a run computes
EXPLAINED = 1e-5  # largest difference of figures of heat maps
Histories = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Figure:
    """One metric of two runs; `difference` is the largest over its steps, infinite where one run has no such step."""

    name: str
    old: float | None  # last value
    new: float | None
    difference: float
    steps: int

    def differs(self, tolerance: float) -> bool:
        """Whether it is further off than `tolerance`; what describes heat maps may be so by their rounding, whatever
        version of cnnexp drew them."""
        return self.difference > (max(tolerance, EXPLAINED) if self.name.startswith("explain/") else tolerance)


def read_histories(tracker: Any, run_id: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point of the metrics that say what a run computed, in the order of the steps."""
    client = tracker.client()
    found = {}
    for name in names:
        if not IGNORED.search(name):
            last = {point.step: point.value for point in client.get_metric_history(run_id, name)}
            found[name] = sorted(last.items())
    return found


def compare_figures(old: Histories, new: Histories) -> list[Figure]:
    """Every metric that the old run has; what only the new one has, a newer version of cnnexp added."""
    figures = []
    for name, before in old.items():
        first, second = dict(before), dict(new.get(name, ()))
        differences = [_difference(first.get(step), second.get(step)) for step in first.keys() | second.keys()]
        last = [values[max(values)] if values else None for values in (first, second)]
        figures.append(Figure(name, last[0], last[1], max(differences, default=0.0), len(first)))
    return figures


def _difference(old: float | None, new: float | None) -> float:
    if old is None or new is None or math.isnan(old) != math.isnan(new):
        return math.inf
    return 0.0 if math.isnan(old) or old == new else abs(new - old)


def show_figures(figures: Sequence[Figure], tolerance: float) -> None:
    """Print a row for each metric; of a curve its last values and the largest difference over the epochs."""
    rows = []
    for figure in sorted(figures, key=lambda figure: (figure.steps > 1, figure.name)):
        epochs = f" (in {figure.steps} epochs)" if figure.steps > 1 else ""
        mark = "differs" if figure.differs(tolerance) else ""
        rows.append([figure.name + epochs, *map(_text, (figure.old, figure.new)), f"{figure.difference:.3g}", mark])
    table("", ["metric", "old", "new", "difference", ""], rows)
    wrong = sum(figure.differs(tolerance) for figure in figures)
    largest = max((figure.difference for figure in figures), default=0.0)
    within = "exactly" if tolerance == 0 else f"within {tolerance:g}"
    said = f"{wrong} of {len(figures)} differ" if wrong else f"all {len(figures)} agree {within}"
    say(f"figures: {said}; largest difference {largest:.3g}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"
