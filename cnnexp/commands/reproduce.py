"""`cnnexp reproduce`: trains a tracked run again, from what it recorded, and compares the figures."""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cnnexp.commands.arguments import split_overrides, take_allowed, take_option
from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.console import warn
from cnnexp.drawing import drawing_process
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs.recorded_config import (
    OF_HERE,
    check_targets,
    find_single,
    read_config,
    read_overrides,
    rebuild,
    typed_record,
)
from cnnexp.runs.recording import open_tracker
from cnnexp.runs.reproduction import _link, _say_what_differs, same_figures

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


def _train(config: Config, composed: DictConfig, overrides: list[str]) -> str:
    """Run the job in a folder of its own, and return the id of its run."""
    from cnnexp.runs.job import Job
    from cnnexp.runs.run import run_job

    folder = Path(config.paths.runs) / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    with drawing_process():
        run_job(Job.from_hydra(composed, folder, overrides))
    return str(json.loads((folder / "result.json").read_text())["run_id"])
