"""`cnnexp reproduce`: trains a tracked run again, from what it recorded, and compares the figures."""

import math

from cnnexp.commands.arguments import RUN, CommandParser, add_allow_target, asked
from cnnexp.config.composition import load_config
from cnnexp.errors import UserError
from cnnexp.runs.recorded_config import OF_HERE
from cnnexp.runs.recorded_line import recorded_line
from cnnexp.runs.reproduction import reproduce
from cnnexp.runs.tracker import open_tracker

TEXT = """\
Trains a finished run again, or each of a sweep, into a new run, from what the tracking store holds of it alone: the
composed config, the seed, the digest of the data, package versions, the code. Says first what is different here, and
afterwards how far every figure is from the recorded one, at the end and in every epoch. Both runs get a tag with the
other's id. What was stopped goes on when the same line is given again.
Ends with 0 if all figures agree and the data is the same, and with 1 if not. Times and speeds are not compared.
With an override such as seed=1 it is a variation, which ends with 0."""
OVERRIDES = (
    "where things are here: paths.root=FOLDER, tracking.uri=URI, dataset.path=FOLDER, dataset.source=, "
    "backbone.weights=. Others vary the run, as seed=1 or trainer.epochs=3"
)


def parser() -> CommandParser:
    """The arguments of `cnnexp reproduce`."""
    examples = ["latest", "4f1c paths.root=FOLDER --tolerance 1e-6"]
    what = f"{RUN}, runs:/RUN; its folder; the same of a sweep, for all its jobs"
    made = CommandParser("reproduce", TEXT, {"RUN": what, "[OVERRIDES]": OVERRIDES}, examples)
    made.add_argument("--print", action="store_true", help="the line of the shell that trains it; nothing is trained")
    made.add_argument(
        "--tolerance", metavar="X", default="0", help="the largest difference of a figure that passes; 0 if not given"
    )
    add_allow_target(made)
    return made


def run(arguments: list[str]) -> int:
    """Find the run, train it again, compare."""
    given = parser().parse(arguments)
    tolerance = _tolerance(given.tolerance)
    if len(given.names) != 1:
        raise UserError("cnnexp reproduce: give one run, as `cnnexp reproduce latest`")
    here = load_config([o for o in given.overrides if o.startswith(OF_HERE)], given.config_dir)
    tracker = open_tracker(here.tracking)
    if given.print:
        line = recorded_line(tracker, given.names[0], given.overrides, given.config_dir)
        print(line)  # whole, however narrow the terminal is
        return 0
    return 0 if reproduce(tracker, given.names[0], asked(given), tolerance) else 1


def _tolerance(text: str) -> float:
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance < math.inf:
        raise UserError(f"--tolerance {text}: must be a number of at least 0, as 1e-6")
    return tolerance
