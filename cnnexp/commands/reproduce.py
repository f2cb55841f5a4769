"""`cnnexp reproduce`: trains a tracked run again, from what it recorded, and compares the figures."""

import json
import math
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cnnexp.commands.arguments import split_overrides, take_allowed, take_option
from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.console import say, warn
from cnnexp.drawing import drawing_process
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs.recorded_config import (
    OF_HERE,
    check_targets,
    find_single,
    read_config,
    read_overrides,
    read_text,
    rebuild,
    typed_record,
    variations,
)
from cnnexp.runs.recording import open_tracker

if TYPE_CHECKING:
    from cnnexp.tracking.mlflow import NullTracker, RunInfo, Tracker

HELP = """usage: cnnexp reproduce RUN [OVERRIDES] [--tolerance X] [--allow-target NAME]

Trains a finished run again, into a new run, from what the tracking store holds of it alone: the composed config, the
seed, the digest of the data, package versions, git commit. Says first what is different here, and afterwards how far
every figure is from the recorded one, at the end and in every epoch. Both runs get a tag with the other's id.

  RUN             an MLflow run id, a unique prefix of one, `latest`, or a registered model: models:/NAME@best
  OVERRIDES       where things are here: paths.root=FOLDER, tracking.uri=URI, dataset.path=FOLDER, dataset.source=,
                  backbone.weights=. Others vary the run, as seed=1 or trainer.epochs=3
  --tolerance X   the largest difference of a figure that passes; 0 if not given
  --allow-target  a function of your own that the recorded config names, as package.module.function; repeatable

Ends with 0 if all figures agree and the data is the same, and with 1 if not. Times and speeds are not compared.
"""


def run(arguments: list[str]) -> int:
    """Read, check, say what differs, train, compare, link."""
    tolerance, arguments = _take_tolerance(arguments)
    allowed, arguments = take_allowed(arguments)
    names, overrides = split_overrides(arguments)
    if len(names) != 1:
        raise UserError("cnnexp reproduce: give one run, as `cnnexp reproduce latest`")
    tracker = open_tracker(load_config([o for o in overrides if o.startswith(OF_HERE)]))
    old = _find_finished(tracker, names[0])
    values = read_config(tracker, old.run_id)
    composed = rebuild(old.run_id, values, overrides)
    composed.tracking.tags = {**composed.tracking.tags, "reproduces": old.run_id}
    if composed.tracking.explain == "auto":  # what it decided then
        composed.tracking.explain = _was_explained(tracker, old)
    config = typed_record(old.run_id, composed)
    import_tensorflow()
    check_targets(old.run_id, values, allowed)
    same_data = _say_what_differs(tracker, old, values, config, overrides)
    new_id = _train(config, composed, [*read_overrides(tracker, old.run_id), *overrides])
    agrees = same_figures(tracker, old.run_id, new_id, tolerance)
    _link(tracker, old.run_id, new_id, agrees and same_data)
    if not same_data:
        warn("cnnexp: the data is not that of the run, so this is no reproduction of it")
    return 0 if agrees and same_data else 1


def _was_explained(tracker: Any, run: "RunInfo") -> bool:
    files = tracker.client().list_artifacts(run.run_id, "explain")
    return any(name.startswith("explain/") for name in (*run.metrics, *(file.path for file in files)))


def _take_tolerance(arguments: list[str]) -> tuple[float, list[str]]:
    text, rest = take_option(arguments, "--tolerance")
    try:
        tolerance = float(text or 0)
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance < math.inf:
        raise UserError(f"--tolerance {text}: must be a number of at least 0, as 1e-6")
    return tolerance, rest


def _find_finished(tracker: "Tracker | NullTracker", name: str) -> "RunInfo":
    run = find_single(tracker, name)
    if run.status != "FINISHED":
        raise UserError(f"{name}: run {run.run_id} is {run.status}; only what a finished run came to can be reproduced")
    return run


def _say_what_differs(
    tracker: Any, old: "RunInfo", values: dict[str, Any], config: Config, overrides: list[str]
) -> bool:
    """Print what is different here, and return whether the data is the same."""
    from cnnexp.report.predictions import read_predictions
    from cnnexp.runs.job import load_dataset
    from cnnexp.runs.reproduction import show_code, show_data, show_machine, show_packages
    from cnnexp.tracking.record import config_hash, redact

    say(f"run {old.run_id}: {old.name}, of {old.start_time:%Y-%m-%d %H:%M} UTC")
    if varied := variations(overrides):
        say(f"varied: {redact(' '.join(varied))}; the figures may well differ")
    if config_hash(values) != old.tags.get("config_hash"):
        warn("cnnexp: config.yaml is not the one that the run names in its tag config_hash: it was changed afterwards")
    if not config.trainer.deterministic:
        warn("cnnexp: trainer.deterministic=false: exact agreement cannot be expected; give a --tolerance")
    show_packages(old.tags, read_text(tracker, old.run_id, "requirements.txt"))
    show_code(old.tags)
    show_machine(old.tags, config.trainer.threads)
    for key in ("dataset.path", "dataset.source", "backbone.weights"):
        group, name = key.split(".")
        if value := getattr(getattr(config, group), name, None):
            say(f"{key}: {redact(value)}")
    with tempfile.TemporaryDirectory() as folder:
        tested = read_predictions(tracker.download(old.run_id, "predictions.csv", folder))
    return show_data(old.tags, old.metrics, tested, load_dataset(config))


def _train(config: Config, composed: DictConfig, overrides: list[str]) -> str:
    """Run the job in a folder of its own, and return the id of its run."""
    from cnnexp.runs.job import Job
    from cnnexp.runs.run import run_job

    folder = Path(config.paths.runs) / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    with drawing_process():
        run_job(Job.from_hydra(composed, folder, overrides))
    return str(json.loads((folder / "result.json").read_text())["run_id"])


def same_figures(tracker: Any, old_id: str, new_id: str, tolerance: float) -> bool:
    """Print the table, and return whether all figures agree."""
    from cnnexp.runs.reproduction import compare_figures, read_histories, show_figures

    old, new = (read_histories(tracker, run_id, [*tracker.find_run(run_id).metrics]) for run_id in (old_id, new_id))
    figures = compare_figures(old, new)
    show_figures(figures, tolerance)
    return not any(figure.differs(tolerance) for figure in figures)


def _link(tracker: Any, old_id: str, new_id: str, agrees: bool) -> None:
    """Tags in both runs, and a line in the note of the new one."""
    from cnnexp.tracking.notes import NOTE_TAG

    client = tracker.client()
    said = "with the same figures" if agrees else "with other figures or other data"
    tags = client.get_run(new_id).data.tags
    note = f"{tags.get(NOTE_TAG, '')}\n\nReproduces [{old_id}]({tracker.run_link(old_id)}) {said}."
    client.set_tag(new_id, NOTE_TAG, note)
    client.set_tag(new_id, "reproduction", "agrees" if agrees else "differs")
    others = client.get_run(old_id).data.tags.get("reproduced_by", "").split()
    client.set_tag(old_id, "reproduced_by", " ".join([*others, new_id]))
    say(f"run {new_id} reproduces {old_id} {said}")
