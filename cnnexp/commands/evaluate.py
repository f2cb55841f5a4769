"""`cnnexp evaluate`: a tracked model on its own test images again, or on others."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnexp.commands.arguments import split_overrides, take_allowed, take_flag, take_option
from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.console import say, table, warn
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs.recorded_config import OF_HERE, check_targets, find_single, read_config, rebuild, typed_record
from cnnexp.runs.recording import open_tracker

if TYPE_CHECKING:
    import numpy as np

    from cnnexp.data.dataset import Dataset, Split
    from cnnexp.models.classifier import RecordedModel
    from cnnexp.report.predictions import Predictions
    from cnnexp.tracking.info import RunInfo

HELP = """usage: cnnexp evaluate RUN [OVERRIDES] [--split SPLIT] [--json] [--csv FILE] [--log] [--allow-target NAME]

Tests the model of a tracked run again: on its own test images, or on any data with the same class names, which may lie
in another order and be fewer. Accuracy with its 95 % interval (Wilson), loss, calibration error, confusion, and beside
them what the run recorded.

  RUN             an MLflow run id, a unique prefix of one, `latest`, or a registered model: models:/NAME@best
  OVERRIDES       the data, as dataset=folder dataset.path=FOLDER, and where the store is, as paths.root=FOLDER;
                  without any, the data set that the run recorded
  --split SPLIT   test (if not given), train, validation, or all: the three together
  --json          every figure as JSON on standard output instead
  --csv FILE      writes the answers: file, truth, predicted, and a column p_CLASS for each class
  --log           adds the figures to the run, as evaluate/DATASET/SPLIT/acc; without it nothing is recorded
  --allow-target  a function of your own that the recorded data set names, as package.module.function; repeatable
"""

SPLITS = ("test", "train", "validation", "all")
RECORDED = {"acc": "test/acc", "loss": "test/loss", "ece": "test/ece"}
CHANGEABLE = ("dataset", "trainer.evaluation_batch_size", "trainer.loader_threads", *OF_HERE)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    run: str
    overrides: list[str]
    split: str
    as_json: bool
    csv: str | None
    log: bool
    allowed: list[str]


@dataclass(frozen=True)
class Evaluation:
    """What came out: the figures `acc`, `loss`, `ece` of `predictions`; `recorded` holds the run's own, if they are
    of the same split of the same data set, to the last byte if `same_data`."""

    predictions: "Predictions"
    figures: dict[str, float]
    recorded: dict[str, float]
    same_data: bool


def run(arguments: list[str]) -> int:
    """Find, load, predict, show."""
    request = _parse(arguments)
    tracker = open_tracker(load_config([o for o in request.overrides if o.startswith(OF_HERE)]))
    info = find_single(tracker, request.run)
    with redirect_stdout(sys.stderr) if request.as_json else nullcontext():  # the progress
        dataset, result = _test(request, tracker, info)
    if request.csv:
        _write_csv(Path(request.csv), result.predictions)
    if request.as_json:
        print(json.dumps(_as_json(info, dataset, request.split, result), indent=2))
    else:
        _show(info, dataset, request.split, result)
    if request.log:
        _log(tracker, info.run_id, dataset.name, request.split, result.figures)
    return 0


def _test(request: Request, tracker: Any, info: "RunInfo") -> "tuple[Dataset, Evaluation]":
    """Load the data and the model, and let it answer."""
    values = read_config(tracker, info.run_id)
    if isinstance(values.get("backbone"), dict):
        values["backbone"]["weights"] = None  # they are in the model
    config = typed_record(info.run_id, rebuild(info.run_id, values, request.overrides))
    own = not any(override.startswith("dataset=") for override in request.overrides)
    import_tensorflow()
    from cnnexp.runs.job import load_dataset
    from cnnexp.runs.recorded_model import load_recorded

    if own:
        check_targets(info.run_id, {"dataset": values.get("dataset")}, request.allowed)
    model = load_recorded(config, info.run_id)
    dataset = load_dataset(config)
    result = _evaluate(config, model, dataset, info, request, own)
    if own and not result.same_data:
        digests = f"{dataset.digest[:12]} here, {info.tags.get('data_digest', '')[:12] or 'none'} recorded"
        warn(f"cnnexp: the data is not that of the run: data digest {digests}")
    return dataset, result


def _parse(arguments: list[str]) -> Request:
    split, arguments = take_option(arguments, "--split")
    csv, arguments = take_option(arguments, "--csv")
    as_json, arguments = take_flag(arguments, "--json")
    log, arguments = take_flag(arguments, "--log")
    allowed, arguments = take_allowed(arguments)
    names, overrides = split_overrides(arguments)
    if len(names) != 1:
        raise UserError("cnnexp evaluate: give one run, as `cnnexp evaluate latest`")
    split = split or "test"
    if split not in SPLITS:
        raise UserError(f"--split {split}: no such split; allowed: {', '.join(SPLITS)}")
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if not any(key == known or key.startswith(f"{known}.") for known in CHANGEABLE):
            raise UserError(f"{override}: the model is as it was trained; allowed: {', '.join(CHANGEABLE)}")
    return Request(names[0], overrides, split, as_json, csv, log, allowed)


def class_numbers(model_names: Sequence[str], data_names: Sequence[str]) -> list[int]:
    """For each class of the data, the number that the model has for the class of this name.

    Raises:
        UserError: the model has no class of this name.
    """
    unknown = [name for name in data_names if name not in model_names]
    if unknown:
        raise UserError(
            f"dataset: has the class {unknown[0]!r}, which the model does not know; it knows {', '.join(model_names)}"
        )
    return [list(model_names).index(name) for name in data_names]


def _evaluate(
    config: Config, model: "RecordedModel", dataset: "Dataset", info: "RunInfo", request: Request, own: bool
) -> Evaluation:
    import numpy as np

    from cnnexp.models.classifier import class_probabilities
    from cnnexp.report.predictions import Predictions
    from cnnexp.report.statistics import calibration
    from cnnexp.training.recipe import loss_and_accuracy

    numbers = np.array(class_numbers(model.class_names, dataset.class_names))
    known: dict[str, Split] = {split.name: split for split in (dataset.train, dataset.validation, dataset.test)}
    splits = list(known.values()) if request.split == "all" else [known[request.split]]
    outputs = np.concatenate([_outputs(config, model, split) for split in splits])
    labels = numbers[np.concatenate([split.labels for split in splits])]
    loss, accuracy = loss_and_accuracy(outputs, labels)
    probabilities = class_probabilities(outputs)
    predicted = (outputs[:, 0] > 0.5).astype(np.int64) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    ids = tuple(image for split in splits for image in split.ids)
    predictions = Predictions(ids, labels, predicted, probabilities, model.class_names)
    error = calibration(predictions.confidence, predictions.correct).error
    same_data = dataset.digest == info.tags.get("data_digest")
    comparable = request.split == "test" and (own or same_data)
    recorded = {key: info.metrics[name] for key, name in RECORDED.items() if comparable and name in info.metrics}
    return Evaluation(predictions, {"acc": accuracy, "loss": loss, "ece": error}, recorded, same_data)


def _outputs(config: Config, model: "RecordedModel", split: "Split") -> "np.ndarray":
    """(N, 1 or classes) float32"""
    from cnnexp.runs.build import split_images
    from cnnexp.training.inputs import predict

    images = split_images(config, split, model.image_size, model.channels)
    model.model.jit_compile = False
    return predict(model.model, images, config.trainer.evaluation_batch_size, f"testing on {split.name} images")


def _write_csv(path: Path, predictions: "Predictions") -> None:
    from cnnexp.report.predictions import write_predictions

    try:
        write_predictions(path, predictions.ids, predictions.labels, predictions.probabilities, predictions.class_names)
    except OSError as error:
        raise UserError(f"--csv {path}: cannot be written ({error.strerror})") from error


def _interval(predictions: "Predictions") -> tuple[float, float]:
    from cnnexp.report.statistics import wilson_interval

    return wilson_interval(int(predictions.correct.sum()), len(predictions.labels))


def _confusion(predictions: "Predictions") -> "np.ndarray":
    from cnnexp.report.statistics import confusion_matrix

    return confusion_matrix(predictions.labels, predictions.predicted, len(predictions.class_names))


def _as_json(info: "RunInfo", dataset: "Dataset", split: str, result: Evaluation) -> dict[str, Any]:
    return {
        "run_id": info.run_id,
        "dataset": dataset.name,
        "split": split,
        "data_digest": dataset.digest,
        "same_data": result.same_data,
        "images": len(result.predictions.labels),
        **result.figures,
        "interval": _interval(result.predictions),
        "recorded": result.recorded,
        "class_names": result.predictions.class_names,
        "confusion": _confusion(result.predictions).tolist(),
    }


def _show(info: "RunInfo", dataset: "Dataset", split: str, result: Evaluation) -> None:
    say(f"{info.name}, run {info.run_id}")
    count = len(result.predictions.labels)
    say(f"{dataset.name}: {count:,} {'' if split == 'all' else split + ' '}images, data digest {dataset.digest[:12]}")
    low, high = _interval(result.predictions)
    names = {"acc": "accuracy", "loss": "loss", "ece": "calibration error"}
    rows = []
    for key, value in result.figures.items():
        interval = f"{low:.3f} to {high:.3f}" if key == "acc" else ""
        then = result.recorded.get(key)
        beside = ["", ""] if then is None else [f"{then:.6f}", f"{round(value - then, 9) + 0.0:+.2g}"]  # CSV: 9 digits
        rows.append([names[key], f"{value:.6f}", interval, *beside])
    table("", ["", "here", "95 % interval", "recorded", "difference"], rows)
    classes = result.predictions.class_names
    cells = [[name, *map(str, row)] for name, row in zip(classes, _confusion(result.predictions), strict=True)]
    table("confusion: a row is a true class, a column an answer", ["", *classes], cells)


def _log(tracker: Any, run_id: str, dataset: str, split: str, figures: dict[str, float]) -> None:
    from cnnexp.tracking.record import storable_name

    for key, value in figures.items():
        tracker.client().log_metric(run_id, storable_name(f"evaluate/{dataset}/{split}/{key}"), value)
    say(f"recorded in run {run_id} as evaluate/{dataset}/{split}/...")
