"""`cnnexp predict`: class probabilities of images."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from cnnexp.commands.arguments import IMAGE, RUN, CommandParser, add_allow_target
from cnnexp.config.composition import load_config
from cnnexp.console import progress, say, table
from cnnexp.errors import UserError
from cnnexp.formats import csv_text
from cnnexp.process import import_tensorflow

TEXT = """\
Class probabilities from the model of a tracked run. What cannot be read is named on standard error and skipped.
Ends with 0 if every image was read, with 1 if some were skipped, and with 2 if none could be read."""

BATCH = 64


def parser() -> CommandParser:
    """The arguments of `cnnexp predict`."""
    words = {"RUN": RUN, "IMAGE...": IMAGE, "[OVERRIDES]": "as paths.root=FOLDER, where the runs lie elsewhere"}
    made = CommandParser("predict", TEXT, words, ["latest photo.jpg", "models:/NAME@best 'photos/*.jpg' --csv"])
    made.add_argument("--json", action="store_true", help="one JSON list: file, predicted, probabilities by class")
    made.add_argument("--csv", action="store_true", help="file, predicted, and a column p_CLASS for each class")
    add_allow_target(made)
    return made


def run(arguments: list[str]) -> int:
    """Load, read, predict, print."""
    given = parser().parse(arguments)
    names = given.names
    if len(names) < 2 or (given.json and given.csv):
        raise UserError("cnnexp predict: give a run and images, as `cnnexp predict latest photo.jpg`; --json or --csv")
    config = load_config(given.overrides, given.config_dir)
    import_tensorflow()
    from cnnexp.runs.recorded_model import find_images, load_recorded

    files = find_images(names[1:])
    recorded = load_recorded(config, names[0], given.allow_target)
    rows = list(_predictions(recorded, files, quiet=given.json or given.csv))
    if not rows:
        raise UserError("cnnexp predict: none of the images could be read")
    if given.json:
        print(json.dumps(rows, indent=2))
    elif given.csv:
        cells: list[list[object]] = [["file", "predicted", *(f"p_{name}" for name in recorded.class_names)]]
        cells += [[row["file"], row["predicted"], *row["probabilities"].values()] for row in rows]
        sys.stdout.write(csv_text(cells, end="\n"))
    else:
        shown = [[row["file"], row["predicted"], f"{row['probabilities'][row['predicted']]:.4f}"] for row in rows]
        if said := recorded.decision.in_words(recorded.class_names):
            say(f"answers: {said}")
        table(f"{recorded.name} {recorded.run_id[:8]}", ["file", "predicted", "probability"], shown, left=2)
    return 0 if len(rows) == len(files) else 1


def _predictions(recorded: Any, files: list[Any], quiet: bool) -> Iterator[dict[str, Any]]:
    from cnnexp.models.classifier import class_probabilities
    from cnnexp.runs.recorded_model import read_batch

    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    recorded.model.jit_compile = False
    for batch in batches if quiet else progress(batches, "predicting"):
        read, images = read_batch(batch, recorded)
        if not read:
            continue
        probabilities = class_probabilities(recorded.model.predict_on_batch(images))
        for file, answer, values in zip(read, recorded.decision.classes(probabilities), probabilities, strict=True):
            by_name = {name: float(value) for name, value in zip(recorded.class_names, values, strict=True)}
            yield {"file": str(file), "predicted": recorded.class_names[answer], "probabilities": by_name}
