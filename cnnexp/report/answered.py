"""The answers of all seeds of a variant to the same images, so that variants can be measured side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnexp.data.balance import is_unbalanced
from cnnexp.errors import UserError
from cnnexp.metrics.paired import Measured, measure
from cnnexp.metrics.registry import FIGURES, Table
from cnnexp.report.predictions import Predictions, read_predictions


@dataclass(frozen=True)
class Answers:
    """What the runs of a variant answered, each with another seed; the images in the order of their names.

    ids, labels, class_names: as in `Predictions`, the same for all seeds.
    tables: of each seed the probabilities, (N, K), lowest seed first.
    predicted: of each seed the answers, (N,), in the same order.
    lowest: those of the lowest seed as they were recorded.
    digest: of the data set; "" where it is not known.
    positive: of two classes, the number of that which areas below curves are of.
    groups: (N,) str, which images belong together; None: each stands for itself.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    tables: tuple[np.ndarray, ...]
    predicted: tuple[np.ndarray, ...]
    lowest: Predictions
    digest: str = ""
    positive: int = 1
    groups: np.ndarray | None = None
    _measured: dict[str, Measured | None] = field(default_factory=dict, compare=False)

    def measure(self, name: str) -> Measured | None:
        """A figure; None where it is not defined, and for one of the user's own, whose function is not known here."""
        if not self.ids or name not in FIGURES:
            return None
        if name not in self._measured:
            self._measured[name] = measure(name, self.labels_for(name), self.tables_for(name), self.groups)
        return self._measured[name]

    def tables_for(self, name: str) -> tuple[np.ndarray, ...]:
        """Of each seed the probabilities for a figure, see `Table.for_figure`."""
        return tuple(table for _, table in self._for_figure(name))

    def labels_for(self, name: str) -> np.ndarray:
        """The true classes, (N,), for a figure."""
        return self._for_figure(name)[0][0]

    def _for_figure(self, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            Table(self.labels, table, predicted, self.positive).for_figure(FIGURES[name])
            for table, predicted in zip(self.tables, self.predicted, strict=True)
        ]

    def same_images(self, other: "Answers") -> bool:
        """Whether both are to the same images, by their names and classes, of the same data set and positive class."""
        if self.positive != other.positive:
            return False
        if self.digest and other.digest and self.digest != other.digest:
            return False
        return (self.class_names, self.ids) == (other.class_names, other.ids) and bool(
            np.array_equal(self.labels, other.labels)
        )

    def same_groups(self, other: "Answers") -> bool:
        """Whether the same of them belong together, the images being the same."""
        if self.groups is None or other.groups is None:
            return self.groups is other.groups
        return bool(np.array_equal(self.groups, other.groups))

    @property
    def unbalanced(self) -> bool:
        """Whether a class has three times the images of another."""
        return is_unbalanced(self.labels, len(self.class_names))


def read_answers(
    name: str, paths: Sequence[Path | None], digest: str = "", positive: str | None = None
) -> Answers | str:
    """The answers of a variant, or in words why there are none to compare.

    Args:
        name: of the variant.
        paths: of each seed the predictions, lowest seed first.
        digest: of the data set.
        positive: the name of the positive class of two; None: the second.
    """
    if not paths:
        return f"no run of {name} has finished"
    found: list[Answers] = []
    for path in paths:
        if path is None or not path.is_file():
            return f"{name} has no {path.name if path else 'predictions.csv'}" + " of each seed" * (len(paths) > 1)
        try:
            read = read_predictions(path)
        except UserError as error:
            return str(error)
        order = np.array(sorted(range(len(read.ids)), key=read.ids.__getitem__), np.int64)
        by_name = read.take(order)
        table = (by_name.probabilities,), (by_name.predicted,)
        found.append(Answers(by_name.ids, by_name.labels, read.class_names, *table, read, groups=by_name.groups))
    if not all(found[0].same_images(other) for other in found[1:]):
        return f"the seeds of {name} have different images"
    if not all(found[0].same_groups(other) for other in found[1:]):
        return f"the seeds of {name} have different groups of images"
    first = found[0]
    tables, predicted = (tuple(part) for part in zip(*((o.tables[0], o.predicted[0]) for o in found), strict=True))
    number = first.class_names.index(positive) if positive in first.class_names else 1
    return Answers(
        first.ids, first.labels, first.class_names, tables, predicted, first.lowest, digest, number, first.groups
    )


def any_unbalanced(answers: Iterable[Answers | str]) -> bool:
    """Whether the images of some variant are so."""
    return any(found.unbalanced for found in answers if isinstance(found, Answers))
