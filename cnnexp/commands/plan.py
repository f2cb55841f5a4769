"""`cnnexp plan`: the jobs that a line of `cnnexp train` would run, and what is there of them; nothing is run."""

import json
from dataclasses import asdict

from cnnexp.commands.arguments import parse, take_flag
from cnnexp.console import say, table
from cnnexp.errors import UserError
from cnnexp.runs.planning import PlannedJob, check_line, planned_jobs

HELP = """usage: cnnexp plan [-m] [OVERRIDES] [--json]

The jobs that `cnnexp train` with the same arguments would run: what sets each apart, whether it is done or where it
would go on, whether the features that it needs are in the cache, and its parameters. Nothing is run or written.

  cnnexp plan -m experiment=frozen,finetuned seed=0,1,2
  cnnexp plan sweep=progression --json
"""


def run(arguments: list[str]) -> int:
    """Compose every job, look at what is there, and show it."""
    as_json, arguments = take_flag(arguments, "--json")
    parsed = parse(arguments)
    name = parsed.config_name or "config"
    plan = check_line(parsed.overrides, bool(parsed.multirun), parsed.config_dir, name)
    if not plan.jobs:
        raise UserError("cnnexp plan: this sweeper chooses its jobs as it goes; there is no plan beforehand")
    _show(planned_jobs(plan), as_json)
    return 0


def _show(jobs: list[PlannedJob], as_json: bool) -> None:
    if as_json:
        say(json.dumps([asdict(job) for job in jobs], indent=2))
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
