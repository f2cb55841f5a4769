"""The answers of all seeds of a variant to the same images, so that variants can be measured side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cnnexp.data.balance import is_unbalanced
from cnnexp.errors import UserError
from cnnexp.metrics.paired import Measured, measure
from cnnexp.metrics.registry import FIGURES, one_hot
from cnnexp.report.predictions import Predictions, read_predictions


@dataclass(frozen=True)
class Answers:
    """What the runs of a variant answered, each with another seed; the images in the order of their names.

    ids, labels, class_names: as in `Predictions`, the same for all seeds.
    tables: of each seed the probabilities, (N, K), lowest seed first.
    predicted: of each seed the answers, (N,), in the same order.
    lowest: those of the lowest seed as they were recorded.
    digest: of the data set; "" where it is not known.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    tables: tuple[np.ndarray, ...]
    predicted: tuple[np.ndarray, ...]
    lowest: Predictions
    digest: str = ""
    _measured: dict[str, Measured | None] = field(default_factory=dict, compare=False)

    def measure(self, name: str) -> Measured | None:
        """A figure of `FIGURES`; None where it is not defined."""
        if name not in self._measured:
            self._measured[name] = measure(name, self.labels, self.tables_for(name)) if len(self.ids) else None
        return self._measured[name]

    def tables_for(self, name: str) -> tuple[np.ndarray, ...]:
        """The probabilities, or of a figure that asks for the answers alone these, as probabilities of 0 and 1."""
        if not FIGURES[name].of_answers:
            return self.tables
        return tuple(one_hot(predicted, len(self.class_names)) for predicted in self.predicted)

    def same_images(self, other: "Answers") -> bool:
        """Whether both are to the same images, by their names and classes, of the same data set."""
        if self.digest and other.digest and self.digest != other.digest:
            return False
        return (self.class_names, self.ids) == (other.class_names, other.ids) and bool(
            np.array_equal(self.labels, other.labels)
        )

    @property
    def unbalanced(self) -> bool:
        """Whether a class has three times the images of another."""
        return is_unbalanced(self.labels, len(self.class_names))


def read_answers(name: str, paths: Sequence[Path | None], digest: str = "") -> Answers | str:
    """The answers of a variant, or in words why there are none to compare.

    Args:
        name: of the variant.
        paths: of each seed the predictions, lowest seed first.
        digest: of the data set.
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
        found.append(Answers(by_name.ids, by_name.labels, read.class_names, *table, read))
    if not all(found[0].same_images(other) for other in found[1:]):
        return f"the seeds of {name} have different images"
    first = found[0]
    tables, predicted = (tuple(part) for part in zip(*((o.tables[0], o.predicted[0]) for o in found), strict=True))
    return Answers(first.ids, first.labels, first.class_names, tables, predicted, first.lowest, digest)


def any_unbalanced(answers: Iterable[Answers | str]) -> bool:
    """Whether the images of some variant are so."""
    return any(found.unbalanced for found in answers if isinstance(found, Answers))
