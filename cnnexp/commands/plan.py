"""`cnnexp plan`: the jobs that a line of `cnnexp train` would run, and what is there of them; nothing is run."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from cnnexp.commands.arguments import take_flag
from cnnexp.console import progress, say, table
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs.planning import Builder, PlannedJob, _compose, _hash, _job, _single

if TYPE_CHECKING:
    pass

HELP = """usage: cnnexp plan [-m] [OVERRIDES] [--json]

The jobs that `cnnexp train` with the same arguments would run: what sets each apart, whether it is done or where it
would go on, whether the features that it needs are in the cache, and its parameters. Nothing is run or written.

  cnnexp plan -m experiment=frozen,finetuned seed=0,1,2
  cnnexp plan sweep=progression --json
"""


def run(arguments: list[str]) -> int:
    """Compose every job, look at what is there, and show it."""
    as_json, arguments = take_flag(arguments, "--json")
    from cnnexp.commands.arguments import parse
    from cnnexp.runs.planning import check_line, unfinished_folder

    parsed = parse(arguments)
    name = parsed.config_name or "config"
    plan = check_line(parsed.overrides, bool(parsed.multirun), parsed.config_dir, name)
    if not plan.jobs:
        raise UserError("cnnexp plan: this sweeper chooses its jobs as it goes; there is no plan beforehand")
    folder = unfinished_folder(plan, parsed.overrides) if plan.multirun else None
    composed = _compose(plan, parsed.config_dir, name)
    import_tensorflow()
    builder, jobs = Builder(), []
    seen: dict[str, int] = {}
    for number, (overrides, node) in enumerate(progress(list(zip(plan.jobs, composed, strict=True)), "planning")):
        own = [override for override in overrides if not all(override in other for other in plan.jobs)]
        first = seen.setdefault(_hash(node), number)
        twin = f"as job {first}" if first != number else None
        place = (folder / str(number) if folder else None) if plan.multirun else _single(node)
        jobs.append(_job(number, own or overrides, node, place, builder, twin))
    _show(jobs, as_json)
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
