"""`cnnexp plan`: the jobs that a line of `cnnexp train` would run, and what is there of them; nothing is run."""

import json
from dataclasses import asdict

from cnnexp.commands.arguments import CommandParser
from cnnexp.console import table
from cnnexp.errors import UserError
from cnnexp.runs.planning import PlannedJob, check_line, planned_jobs

TEXT = """\
The jobs that `cnnexp train` with the same arguments would run: what sets each apart, whether it is done or where it
would go on, whether the features that it needs are in the cache, and its parameters. Nothing is run or written."""


def parser() -> CommandParser:
    """The arguments of `cnnexp plan`."""
    examples = ["-m experiment=frozen,finetuned seed=0,1,2", "sweep=progression --json"]
    made = CommandParser("plan", TEXT, {"[OVERRIDES]": "those of `cnnexp train`"}, examples)
    made.add_argument("-m", "--multirun", action="store_true", help="a sweep, as for `cnnexp train`")
    made.add_argument("--config-name", "-cn", metavar="NAME", default="config", help="as for `cnnexp train`")
    made.add_argument("--json", action="store_true", help="one JSON list on standard output instead")
    return made


def run(arguments: list[str]) -> int:
    """Compose every job, look at what is there, and show it."""
    given = parser().parse(arguments)
    plan = check_line(given.words, given.multirun, given.config_dir, given.config_name)
    if not plan.jobs:
        raise UserError("cnnexp plan: this sweeper chooses its jobs as it goes; there is no plan beforehand")
    _show(planned_jobs(plan), given.json)
    return 0


def _show(jobs: list[PlannedJob], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(job) for job in jobs], indent=2))
        return
    rows = [
        [
            str(job.number),
            " ".join(job.overrides),
            job.state,
            job.features,
            f"{job.trainable_parameters:,}",
            f"{job.total_parameters:,}",
        ]
        for job in jobs
    ]
    table("", ["job", "overrides", "state", "features", "trained", "parameters"], rows, left=4)
