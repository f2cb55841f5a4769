"""`cnnexp reproduce`: trains a tracked run again, from what it recorded, and compares the figures."""

import math

from cnnexp.commands.arguments import split_overrides, take_allowed, take_option
from cnnexp.config.composition import load_config
from cnnexp.errors import UserError
from cnnexp.runs.recorded_config import OF_HERE
from cnnexp.runs.reproduction import reproduce
from cnnexp.runs.tracker import open_tracker

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
    """Find the run, train it again, compare."""
    tolerance, arguments = _take_tolerance(arguments)
    allowed, arguments = take_allowed(arguments)
    names, overrides = split_overrides(arguments)
    if len(names) != 1:
        raise UserError("cnnexp reproduce: give one run, as `cnnexp reproduce latest`")
    tracker = open_tracker(load_config([o for o in overrides if o.startswith(OF_HERE)]).tracking)
    return 0 if reproduce(tracker, names[0], overrides, tolerance, allowed) else 1


def _take_tolerance(arguments: list[str]) -> tuple[float, list[str]]:
    text, rest = take_option(arguments, "--tolerance")
    try:
        tolerance = float(text or 0)
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance < math.inf:
        raise UserError(f"--tolerance {text}: must be a number of at least 0, as 1e-6")
    return tolerance, rest
