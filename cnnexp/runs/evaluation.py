"""A tracked model tested again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cnnexp.config import Config
from cnnexp.config.data import FolderConfig
from cnnexp.console import say
from cnnexp.data.folders import clean_name
from cnnexp.data.splits import SPLITS
from cnnexp.errors import UserError, nearest
from cnnexp.metrics.names import FIGURE_NAMES, image_count
from cnnexp.tracking.protocols import RunStore

if TYPE_CHECKING:
    import numpy as np

    from cnnexp.data.dataset import Dataset, Split
    from cnnexp.models.classifier import LoadedModel
    from cnnexp.report.classes import ClassRow
    from cnnexp.report.predictions import Predictions
    from cnnexp.tracking.info import RunInfo


FOLDER = "cnnexp.data.sources.folder"  # the target of dataset=folder
RECORDED = {name: f"test/{name}" for name in ("acc", "loss", *FIGURE_NAMES)}


@dataclass(frozen=True)
class Evaluation:
    """What came out: the figures of `predictions`, `acc`, `loss` and all others that are defined; `recorded` holds the
    run's own, if they are of the same split; `same_data` says whether the images are those of the run, to the last
    byte."""

    predictions: "Predictions"
    figures: dict[str, float]
    recorded: dict[str, float]
    same_data: bool

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the accuracy, 95 %: Wilson's, or over groups; None where these do not tell."""
        from cnnexp.metrics.statistics import wilson_interval

        if self.predictions.groups is not None:
            return self.intervals.get("acc")
        return wilson_interval(int(self.predictions.correct.sum()), len(self.predictions.labels))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 %, of every figure that has one."""
        from cnnexp.metrics.intervals import intervals

        return intervals(self.predictions.table, groups=self.predictions.groups)

    @cached_property
    def every_class(self) -> "list[ClassRow]":
        """The figures of each class of the model."""
        from cnnexp.report.classes import class_rows

        return class_rows(self.predictions)

    @property
    def classes(self) -> "list[ClassRow]":
        """The figures of each class that has images or answers."""
        return [row for row in self.every_class if row.support or row.values["precision"]]

    @property
    def confusion(self) -> "np.ndarray":
        """(classes, classes) int, row = true class, column = answer."""
        from cnnexp.metrics.statistics import confusion_matrix

        predictions = self.predictions
        return confusion_matrix(predictions.labels, predictions.predicted, len(predictions.class_names))


@dataclass(frozen=True)
class TestData:
    """Whose images are tested: `is_own` says whether they are the run's, and `split` which of them: train, validation,
    test, or all."""

    dataset: "Dataset"
    split: str
    is_own: bool


def class_numbers(model_names: Sequence[str], data_names: Sequence[str]) -> list[int]:
    """For each class of the data, the number that the model has for the class of this name.

    Raises:
        UserError: the model has no class of this name.
    """
    model_names = [clean_name(name) for name in model_names]  # a run of before may have them in another form
    unknown = [name for name in data_names if name not in model_names]
    if unknown:
        pairs = ",".join(f"{name}={nearest(name, model_names)[0]}" for name in unknown[:8])
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            f"dataset: has the class {unknown[0]!r}{more}, which the model does not know; it knows "
            f"{', '.join(model_names)}; --map {pairs} says which is which"
        )
    return [model_names.index(name) for name in data_names]


def read_map(given: Sequence[str], data_names: Sequence[str], model_names: Sequence[str]) -> dict[str, str]:
    """The model's class for each class of the data, from `--map A=B,C=D`; a class that is not named keeps its name.

    A name that holds a comma or an equals sign has a `--map` of its own.

    Raises:
        UserError: it is no list of pairs, or names a class that is not there.
    """
    joined = {name: name for name in data_names}
    for text in given:
        for pair in [text] if _halves(text, data_names, model_names) else text.split(","):
            halves = _halves(pair, data_names, model_names)
            if not halves:
                one, equals, other = pair.partition("=")
                if not equals:
                    raise UserError(f"--map {text}: {pair!r} is no pair; write CLASS_OF_THE_DATA=CLASS_OF_THE_MODEL")
                whose, name, allowed = ("data", one, data_names) if one not in joined else ("model", other, model_names)
                named = ", ".join(nearest(name, list(allowed))[:8])
                raise UserError(f"--map {pair}: the {whose} has no class {name!r}; it has {named}")
            joined[halves[0]] = halves[1]
    return joined


def _halves(pair: str, data_names: Sequence[str], model_names: Sequence[str]) -> tuple[str, str] | None:
    places = [place for place, letter in enumerate(pair) if letter == "="]
    both = [(pair[:place], pair[place + 1 :]) for place in places]
    return next(((one, other) for one, other in both if one in data_names and other in model_names), None)


def load_test_data(config: Config, split: str | None, rename: Callable[[Sequence[str]], Mapping[str, str]]) -> TestData:
    """Other images than the run's. Those of a folder, archive or table are all tested and none of them is divided; of
    another kind of data set, its test images.

    Args:
        config: names the data set.
        split: train, validation, test or all, where only these are wanted.
        rename: gives the model's class for each class of the data, or refuses them; it is asked before a file is read.

    Raises:
        UserError: of `rename`; as `load_dataset`; there are no images of this split.
    """
    from cnnexp.data.sources import images_to_test, list_images
    from cnnexp.runs.job import load_dataset

    if isinstance(config.dataset, FolderConfig) and config.dataset._target_ == FOLDER:
        listing = list_images(config.dataset, trains=False)
        names = rename(listing.class_names)
        dataset, split = images_to_test(config.dataset, listing), split or "all"
    else:
        dataset, split = load_dataset(config), split or "test"
        names = rename(dataset.class_names)
    counts = {part.name: len(part.labels) for part in dataset.splits if len(part.labels)}
    if split != "all" and split not in counts:
        has = " and ".join(f"{count:,} {name}" for name, count in counts.items())
        raise UserError(f"--split {split}: the data has no {split} images, it has {has}; leave --split out to test all")
    return TestData(replace(dataset, class_names=tuple(names[name] for name in dataset.class_names)), split, False)


def load_moved_data(config: Config, info: "RunInfo", split: str | None, same: bool) -> TestData | None:
    """The images of the run, which lie elsewhere now, divided as they were; None where others lie there.

    Args:
        config: as the run recorded it, with another place.
        info: the run.
        split: train, validation, test or all; None: test.
        same: they are the run's only to the last byte; otherwise it is enough that there are as many.
    """
    from cnnexp.data.sources import list_images
    from cnnexp.runs.job import load_dataset

    if not isinstance(config.dataset, FolderConfig):
        return None if same else TestData(load_dataset(config), split or "test", True)
    then = sum(info.metrics.get(image_count(name), 0) for name in SPLITS)
    listing = list_images(config.dataset, trains=False)
    as_many = sum(len(part.ids) for part in listing.parts.values()) == then
    if not as_many and config.dataset.limit is None and config.dataset.on_bad == "error":
        return None
    try:
        dataset = load_dataset(config)
    except UserError:  # too few to be divided, say
        return None
    is_own = dataset.digest == info.tags.get("data_digest") or (as_many and not same)
    return TestData(dataset, split or "test", True) if is_own else None


def evaluate(config: Config, model: "LoadedModel", data: TestData, info: "RunInfo") -> Evaluation:
    """Let the model of a run answer for images.

    Args:
        config: how images are read, and in what batches.
        model: of the run.
        data: its classes must be among those of the model.
        info: the run.

    Raises:
        UserError: a class that the model does not know.
    """
    import numpy as np

    from cnnexp.metrics.registry import figures
    from cnnexp.models.classifier import class_probabilities
    from cnnexp.report.predictions import Predictions
    from cnnexp.training.recipe import loss_and_accuracy

    dataset = data.dataset
    numbers = np.array(class_numbers(model.class_names, dataset.class_names))
    splits = [part for part in dataset.splits if data.split in (part.name, "all") and len(part.labels)]
    outputs = np.concatenate([_outputs(config, model, part) for part in splits])
    labels = numbers[np.concatenate([part.labels for part in splits])]
    loss, _ = loss_and_accuracy(outputs, labels)
    probabilities, decision = class_probabilities(outputs), model.decision
    ids = tuple(image for part in splits for image in part.ids)
    groups = [name for part in splits for name in part.groups or ()]
    predictions = Predictions(
        ids,
        labels,
        decision.classes(probabilities),
        probabilities,
        model.class_names,
        decision,
        np.array(groups) if groups else None,
    )
    others = {name: value for name, value in figures(predictions.table).items() if name not in ("acc", "log_loss")}
    accuracy = float(predictions.correct.mean())
    same_data = dataset.digest == info.tags.get("data_digest")
    known = RECORDED if data.split == "test" and (data.is_own or same_data) else {}
    recorded = {key: info.metrics[name] for key, name in known.items() if name in info.metrics}
    return Evaluation(predictions, {"acc": accuracy, "loss": loss, **others}, recorded, same_data)


def _outputs(config: Config, model: "LoadedModel", split: "Split") -> "np.ndarray":
    """(N, 1 or classes) float32"""
    from cnnexp.runs.build import split_images
    from cnnexp.training.inputs import predict

    images = split_images(config, split, model.image_size, model.channels)
    model.model.jit_compile = False
    return predict(model.model, images, config.trainer.evaluation_batch_size, f"testing on {split.name} images")


def log_evaluation(tracker: RunStore, run_id: str, dataset: str, split: str, figures: dict[str, float]) -> None:
    """Add figures to a finished run, as evaluate/DATASET/SPLIT/NAME."""
    tracker.add_metrics(run_id, {f"evaluate/{dataset}/{split}/{key}": value for key, value in figures.items()})
    say(f"recorded in run {run_id} as evaluate/{dataset}/{split}/...")
