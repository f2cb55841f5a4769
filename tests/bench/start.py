"""How long the command line takes to answer, beside a Python that does nothing, and to the first step of a training.

The training is a small one on drawn pictures, in a folder where they and the store are there already, as from the
second run on.
"""

import subprocess
import sys
import tempfile
from functools import cache

from bench.table import Row, compare

ANSWERS = {  # what is asked, and the exit code of the answer
    "start/help": (["--help"], 0),
    "start/summary_help": (["summary", "--help"], 0),
    "start/bad_key": (["train", "trainer.epoch=1"], 2),  # it is trainer.epochs
}


SMALL = ["train", "experiment=demo/baseline", "dataset=synthetic", "debug=smoke"]
UNTIL_FIRST_STEP = """
import os
from cnnexp.cli import main
from cnnexp.training.callbacks import EpochReport
EpochReport.on_epoch_begin = lambda *arguments: os._exit(0)
main({arguments})
"""


def rows(repetitions: int) -> list[Row]:
    """A row for each of `ANSWERS`, and one for the first step."""
    answers = [
        compare(
            name,
            "python -c pass",
            repetitions,
            ours=lambda asked=asked, code=code: run(["-m", "cnnexp.cli", *asked], code),  # type: ignore[misc]
            peer=lambda: run(["-c", "pass"], 0),
        )
        for name, (asked, code) in ANSWERS.items()
    ]
    return [*answers, first_step(repetitions)]


@cache  # a row of two groups
def first_step(repetitions: int) -> Row:
    """From the command to the first step; what the peer imports is a part of it."""
    with tempfile.TemporaryDirectory() as root:
        until_first_step = UNTIL_FIRST_STEP.format(arguments=[*SMALL, f"paths.root={root}"])
        return compare(
            "start/first_step",
            "python -c 'import tensorflow'",
            repetitions,
            ours=lambda: run(["-c", until_first_step], 0),
            peer=lambda: run(["-c", "import tensorflow"], 0),
        )


def run(arguments: list[str], expected: int) -> None:
    """Run this Python from an empty folder; it must end with the `expected` exit code."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([sys.executable, *arguments], cwd=empty, capture_output=True, text=True)
    assert done.returncode == expected, (arguments, done.returncode, done.stdout, done.stderr)
