"""`cnnexp evaluate`: a tracked model on its own test images again, or on others."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnexp.commands.arguments import JSON, RUN, CommandParser, add_allow_target, check_choice
from cnnexp.config.composition import load_config
from cnnexp.config.data import ImageFilesConfig
from cnnexp.console import say, table, warn
from cnnexp.errors import UserError
from cnnexp.formats import bare_key
from cnnexp.process import import_tensorflow
from cnnexp.runs.evaluation import (
    FOLDER,
    Evaluation,
    TestData,
    class_numbers,
    evaluate,
    load_moved_data,
    load_test_data,
    log_evaluation,
    read_map,
)
from cnnexp.runs.recorded_config import OF_HERE, check_targets, find_single, read_config, restore_config, typed_record
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.protocols import RunStore

if TYPE_CHECKING:
    from cnnexp.report.classes import ClassRow
    from cnnexp.report.predictions import Predictions
    from cnnexp.tracking.info import RunInfo

TEXT = """\
Tests the model of a tracked run again: on its own test images, or on every photo of another folder, archive or table,
whose classes have the same names, in any order, and may be fewer; --map joins other names. Every figure of `cnnexp
guide figures` with its 95 % interval, those of each class, the confusion, and beside them what the run recorded."""
OVERRIDES = (
    "the data, as dataset=folder dataset.path=FOLDER, and where the store is, as paths.root=FOLDER; without any, the "
    "data set that the run recorded"
)
SPLITS = ("test", "train", "validation", "all")
MOST_CLASSES = 20  # in a table of each with each
CHANGEABLE = ("dataset", "trainer.evaluation_batch_size", "trainer.loader_threads", *OF_HERE)


def parser() -> CommandParser:
    """The arguments of `cnnexp evaluate`."""
    examples = ["latest dataset=folder dataset.path=FOLDER --map cats=cat,dogs=dog", "latest --csv answers.csv"]
    made = CommandParser("evaluate", TEXT, {"RUN": RUN, "[OVERRIDES]": OVERRIDES}, examples)
    made.add_argument(
        "--split", help=f"{', '.join(SPLITS)}; if not given, test of the run's own images, and all of another folder"
    )
    meaning = "which class of other data is which of the model, as cats=cat,dogs=dog; repeatable"
    made.add_argument("--map", metavar="A=B", action="append", default=[], help=meaning)
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
    here = load_config([o for o in request.overrides if o.startswith(OF_HERE)], request.config_dir)
    tracker = open_tracker(here.tracking)
    info = find_single(tracker, request.names[0])
    with redirect_stdout(sys.stderr) if request.json else nullcontext():  # the progress
        data, result = _test(request, tracker, info)
    if request.csv:
        _write_csv(Path(request.csv), result.predictions)
    if request.json:
        print(json.dumps(_as_json(info, data, result), indent=2))
    else:
        _show(info, data, result)
    if request.log:
        log_evaluation(tracker, info.run_id, data.dataset.name, data.split, result.figures)
    return 0


def _test(request: Namespace, tracker: RunStore, info: "RunInfo") -> tuple[TestData, Evaluation]:
    """Load the model and the data, and let it answer."""
    values = read_config(tracker, info.run_id)
    if isinstance(values.get("backbone"), dict):
        values["backbone"]["weights"] = None  # they are in the model
    config = typed_record(info.run_id, restore_config(info.run_id, values, request.overrides, request.config_dir))
    import_tensorflow()
    from cnnexp.runs.recorded_model import load_recorded

    model = load_recorded(config, info.run_id, request.allow_target)

    def rename(names: Sequence[str]) -> dict[str, str]:
        joined = read_map(request.map, names, model.class_names)
        class_numbers(model.class_names, list(joined.values()))
        return joined

    data = _own_data(request, values, info)
    if data is None:
        if "dataset.limit" not in map(bare_key, request.overrides):
            config = replace(config, dataset=replace(config.dataset, limit=None))
        data = load_test_data(config, request.split, rename)
        if _same_place(config.dataset, values.get("dataset")):
            warn("cnnexp: the run's own folder has other photos now: those that it was trained on are tested, too")
    elif request.map:
        rename(data.dataset.class_names)
    result = evaluate(config, model, data, info)
    if data.is_own and not result.same_data:
        digests = f"{data.dataset.digest[:12]} here, {info.tags.get('data_digest', '')[:12] or 'none'} recorded"
        warn(f"cnnexp: the data is not that of the run: data digest {digests}")
    return data, result


def _same_place(dataset: Any, recorded: Any) -> bool:
    then = recorded.get("path") if isinstance(recorded, dict) else None
    now = getattr(dataset, "path", None)
    return bool(then and now) and Path(str(now)).expanduser().resolve() == Path(str(then)).expanduser().resolve()


def _own_data(request: Namespace, values: dict[str, Any], info: "RunInfo") -> TestData | None:
    """The run's own images, where the line names no others."""
    from cnnexp.runs.job import load_dataset

    chosen = any(override.startswith("dataset=") for override in request.overrides)
    is_placed = "dataset.path" in map(bare_key, request.overrides)
    overrides = [override for override in request.overrides if not override.startswith("dataset=")]
    if chosen:
        recorded = values.get("dataset")
        if not isinstance(recorded, dict) or recorded.get("_target_") != FOLDER or not is_placed:
            return None
    config = typed_record(info.run_id, restore_config(info.run_id, values, overrides, request.config_dir))
    check_targets(info.run_id, {"dataset": values.get("dataset")}, request.allow_target)
    if isinstance(config.dataset, ImageFilesConfig):  # nothing is trained, so that nothing leaks
        config = replace(config, dataset=replace(config.dataset, on_leak="ignore"))
    if is_placed:
        return load_moved_data(config, info, request.split, same=chosen)
    return TestData(load_dataset(config), request.split or "test", True)


def _parse(arguments: list[str]) -> Namespace:
    request = parser().parse(arguments)
    if len(request.names) != 1:
        raise UserError("cnnexp evaluate: give one run, as `cnnexp evaluate latest`")
    if request.split is not None:
        check_choice("--split", request.split, "split", SPLITS)
    for override in request.overrides:
        key = bare_key(override)
        if not any(key == known or key.startswith(f"{known}.") for known in CHANGEABLE):
            raise UserError(f"{override}: the model is as it was trained; allowed: {', '.join(CHANGEABLE)}")
    return request


def _write_csv(path: Path, predictions: "Predictions") -> None:
    from cnnexp.report.predictions import write_predictions

    answers, groups = (predictions.predicted, predictions.probabilities), predictions.groups
    names = None if groups is None else groups.tolist()
    try:
        write_predictions(path, predictions.ids, predictions.labels, answers, predictions.class_names, names)
    except OSError as error:
        raise UserError(f"--csv {path}: cannot be written ({error.strerror})") from error


def _as_json(info: "RunInfo", data: TestData, result: Evaluation) -> dict[str, Any]:
    return {
        "run_id": info.run_id,
        "dataset": data.dataset.name,
        "split": data.split,
        "data_digest": data.dataset.digest,
        "same_data": result.same_data,
        "images": len(result.predictions.labels),
        "groups": result.predictions.group_count,
        **result.figures,
        "interval": result.interval,
        "intervals": result.intervals,
        "classes": {
            row.name: {"support": row.support, **row.values, "intervals": row.intervals} for row in result.classes
        },
        "recorded": result.recorded,
        "class_names": result.predictions.class_names,
        "decision": result.predictions.decision.described(result.predictions.class_names),
        "confusion": result.confusion.tolist(),
    }


def _show(info: "RunInfo", data: TestData, result: Evaluation) -> None:
    say(f"{info.name}, run {info.run_id}")
    dataset, count = data.dataset, len(result.predictions.labels)
    parts = [f"{len(part.labels):,} {part.name}" for part in dataset.splits if len(part.labels)]
    of = f" ({', '.join(parts)}; --split takes one of them)" if data.split == "all" and len(parts) > 1 else ""
    groups = f" of {found:,} groups" if (found := result.predictions.group_count) else ""
    kind = "" if data.split == "all" else f"{data.split} "
    say(f"{dataset.name}: {count:,} {kind}images{of}{groups}, data digest {dataset.digest[:12]}")
    around = result.intervals | ({"acc": result.interval} if result.interval else {})
    if "log_loss" in around:  # which `loss` is
        around["loss"] = around["log_loss"]
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
    if said := result.predictions.decision.in_words(result.predictions.class_names):
        say(f"answers: {said}")
    table("of each class, with 95 % intervals", ["", "images", "recall", "precision", "F1"], shares)
    _show_confusion(result)
    absent = [row.name for row in result.every_class if not row.support]
    if absent:
        named = f"{', '.join(absent[:4])}{', ...' if len(absent) > 4 else ''}"
        say(
            f"no images of {len(absent)} of {len(result.every_class)} classes ({named}): the precisions, recall_macro, "
            "F1 and mcc say little; recall, balanced_acc and accuracy are of the classes that have images"
        )


def _show_confusion(result: Evaluation) -> None:
    """The classes that have images by those that were answered, or of many the pairs that are confused most."""
    classes, confusion = result.predictions.class_names, result.confusion
    rows = [k for k in range(len(classes)) if confusion[k].any()]
    columns = [k for k in range(len(classes)) if confusion[k].any() or confusion[:, k].any()]
    if len(columns) <= MOST_CLASSES:
        cells = [[classes[row], *(str(confusion[row, column]) for column in columns)] for row in rows]
        table("confusion: a row is a true class, a column an answer", ["", *(classes[k] for k in columns)], cells)
        return
    wrong = [(int(confusion[row, column]), row, column) for row in rows for column in columns if row != column]
    most = sorted((found for found in wrong if found[0]), key=lambda found: (-found[0], found[1:]))
    pairs = [[classes[row], classes[column], str(count)] for count, row, column in most[:MOST_CLASSES]]
    title = f"the {len(pairs)} most frequent of {len(most):,} confusions (all: --json)"
    table(title, ["true class", "answer", "images"], pairs, left=2)


def _share(row: "ClassRow", figure: str) -> str:
    """`0.623 (0.45 to 0.77)`"""
    around = row.intervals[figure]
    return f"{row.values[figure]:.3f}" + (f" ({around[0]:.2f} to {around[1]:.2f})" if around else "")
