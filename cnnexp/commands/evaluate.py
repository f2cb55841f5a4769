"""`cnnexp evaluate`: a tracked model on its own test images again, or on others."""

import json
import sys
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnexp.commands.arguments import JSON, RUN, CommandParser, add_allow_target, check_choice
from cnnexp.config.composition import bare_key, load_config
from cnnexp.console import say, table, warn
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs.evaluation import Evaluation, evaluate, log_evaluation
from cnnexp.runs.recorded_config import OF_HERE, check_targets, find_single, read_config, restore_config, typed_record
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.protocols import RunStore

if TYPE_CHECKING:
    from cnnexp.data.dataset import Dataset
    from cnnexp.report.classes import ClassRow
    from cnnexp.report.predictions import Predictions
    from cnnexp.tracking.info import RunInfo

TEXT = """\
Tests the model of a tracked run again: on its own test images, or on any data with the same class names, which may lie
in another order and be fewer. Every figure of `cnnexp guide figures` with its 95 % interval, those of each class, the
confusion, and beside them what the run recorded."""
OVERRIDES = (
    "the data, as dataset=folder dataset.path=FOLDER, and where the store is, as paths.root=FOLDER; without any, the "
    "data set that the run recorded"
)
SPLITS = ("test", "train", "validation", "all")
CHANGEABLE = ("dataset", "trainer.evaluation_batch_size", "trainer.loader_threads", *OF_HERE)


def parser() -> CommandParser:
    """The arguments of `cnnexp evaluate`."""
    examples = ["latest dataset=folder dataset.path=FOLDER --split all", "latest --csv answers.csv"]
    made = CommandParser("evaluate", TEXT, {"RUN": RUN, "[OVERRIDES]": OVERRIDES}, examples)
    made.add_argument(
        "--split", default="test", help=f"{', '.join(SPLITS)}; test if not given, all is the three together"
    )
    made.add_argument("--json", action="store_true", help=JSON)
    made.add_argument(
        "--csv", metavar="FILE", help="writes the answers: file, truth, predicted, and a column p_CLASS for each class"
    )
    made.add_argument(
        "--log",
        action="store_true",
        help="adds the figures to the run, as evaluate/DATASET/SPLIT/acc; without it nothing is recorded",
    )
    add_allow_target(made)
    return made


def run(arguments: list[str]) -> int:
    """Find, load, predict, show."""
    request = _parse(arguments)
    tracker = open_tracker(load_config([o for o in request.overrides if o.startswith(OF_HERE)]).tracking)
    info = find_single(tracker, request.names[0])
    with redirect_stdout(sys.stderr) if request.json else nullcontext():  # the progress
        dataset, result = _test(request, tracker, info)
    if request.csv:
        _write_csv(Path(request.csv), result.predictions)
    if request.json:
        print(json.dumps(_as_json(info, dataset, request.split, result), indent=2))
    else:
        _show(info, dataset, request.split, result)
    if request.log:
        log_evaluation(tracker, info.run_id, dataset.name, request.split, result.figures)
    return 0


def _test(request: Namespace, tracker: RunStore, info: "RunInfo") -> "tuple[Dataset, Evaluation]":
    """Load the data and the model, and let it answer."""
    values = read_config(tracker, info.run_id)
    if isinstance(values.get("backbone"), dict):
        values["backbone"]["weights"] = None  # they are in the model
    config = typed_record(info.run_id, restore_config(info.run_id, values, request.overrides))
    own = not any(override.startswith("dataset=") for override in request.overrides)
    import_tensorflow()
    from cnnexp.runs.job import load_dataset
    from cnnexp.runs.recorded_model import load_recorded

    if own:
        check_targets(info.run_id, {"dataset": values.get("dataset")}, request.allow_target)
    model = load_recorded(config, info.run_id)
    dataset = load_dataset(config)
    result = evaluate(config, model, dataset, info, request.split)
    if not own and not result.same_data:
        result = replace(result, recorded={})  # of other images
    if own and not result.same_data:
        digests = f"{dataset.digest[:12]} here, {info.tags.get('data_digest', '')[:12] or 'none'} recorded"
        warn(f"cnnexp: the data is not that of the run: data digest {digests}")
    return dataset, result


def _parse(arguments: list[str]) -> Namespace:
    request = parser().parse(arguments)
    if len(request.names) != 1:
        raise UserError("cnnexp evaluate: give one run, as `cnnexp evaluate latest`")
    check_choice("--split", request.split, "split", SPLITS)
    for override in request.overrides:
        key = bare_key(override)
        if not any(key == known or key.startswith(f"{known}.") for known in CHANGEABLE):
            raise UserError(f"{override}: the model is as it was trained; allowed: {', '.join(CHANGEABLE)}")
    return request


def _write_csv(path: Path, predictions: "Predictions") -> None:
    from cnnexp.report.predictions import write_predictions

    try:
        write_predictions(path, predictions.ids, predictions.labels, predictions.probabilities, predictions.class_names)
    except OSError as error:
        raise UserError(f"--csv {path}: cannot be written ({error.strerror})") from error


def _as_json(info: "RunInfo", dataset: "Dataset", split: str, result: Evaluation) -> dict[str, Any]:
    return {
        "run_id": info.run_id,
        "dataset": dataset.name,
        "split": split,
        "data_digest": dataset.digest,
        "same_data": result.same_data,
        "images": len(result.predictions.labels),
        **result.figures,
        "interval": result.interval,
        "intervals": result.intervals,
        "classes": {
            row.name: {"support": row.support, **row.values, "intervals": row.intervals} for row in result.classes
        },
        "recorded": result.recorded,
        "class_names": result.predictions.class_names,
        "confusion": result.confusion.tolist(),
    }


def _show(info: "RunInfo", dataset: "Dataset", split: str, result: Evaluation) -> None:
    say(f"{info.name}, run {info.run_id}")
    count = len(result.predictions.labels)
    say(f"{dataset.name}: {count:,} {'' if split == 'all' else split + ' '}images, data digest {dataset.digest[:12]}")
    around = result.intervals | {"acc": result.interval}
    names = {"acc": "accuracy", "ece": "calibration error"}
    rows = []
    for key, value in result.figures.items():
        interval = "{:.3f} to {:.3f}".format(*around[key]) if key in around else ""
        then = result.recorded.get(key)
        beside = ["", ""] if then is None else [f"{then:.6f}", f"{round(value - then, 9) + 0.0:+.2g}"]  # CSV: 9 digits
        rows.append([names.get(key, key), f"{value:.6f}", interval, *beside])
    table("", ["", "here", "95 % interval", "recorded", "difference"], rows)
    shares = [
        [row.name, f"{row.support:,}", *(_share(row, figure) for figure in ("recall", "precision", "f1"))]
        for row in result.classes
    ]
    table("of each class, with 95 % intervals", ["", "images", "recall", "precision", "F1"], shares)
    classes = result.predictions.class_names
    cells = [[name, *map(str, row)] for name, row in zip(classes, result.confusion, strict=True)]
    table("confusion: a row is a true class, a column an answer", ["", *classes], cells)


def _share(row: "ClassRow", figure: str) -> str:
    """`0.623 (0.45 to 0.77)`"""
    around = row.intervals[figure]
    return f"{row.values[figure]:.3f}" + (f" ({around[0]:.2f} to {around[1]:.2f})" if around else "")
