"""`cnnexp plan`: the jobs that a line of `cnnexp train` would run, and what is there of them; nothing is run."""

import json
from dataclasses import asdict

from cnnexp.commands.arguments import CommandParser
from cnnexp.console import say, table
from cnnexp.errors import UserError
from cnnexp.runs.planning import PlannedJob, check_line, planned_jobs

TEXT = """\
The jobs that `cnnexp train` with the same arguments would run: what sets each apart, whether it is done or where it
would go on, whether the features that it needs are in the cache, and its parameters; below, where that is not as in a
plain run, what it is trained by (loss, sampling), and what its epoch and answers are chosen by. Nothing is run or
written."""


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
    for words, of_job in (
        ("trained by", [job.trained_by for job in jobs]),
        ("chosen by", [job.chosen_by for job in jobs]),
    ):
        for line in _apart(words, of_job):
            say(line)


def _apart(words: str, of_job: list[list[str]]) -> list[str]:
    """A line for each choice that some jobs share; none for a plain one. Where all share it, none is named."""
    numbers: dict[str, list[str]] = {}
    for number, overrides in enumerate(of_job):
        numbers.setdefault(" ".join(overrides), []).append(str(number))
    return [
        f"{words} {text}" if len(numbers) == 1 else f"job {', '.join(found)}: {words} {text}"
        for text, found in numbers.items()
        if text
    ]
