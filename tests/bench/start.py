"""How long the command line takes to answer without training, beside a Python that does nothing."""

import subprocess
import sys
import tempfile

from bench.table import Row, compare

ANSWERS = {  # what is asked, and the exit code of the answer
    "start/help": (["--help"], 0),
    "start/summary_help": (["summary", "--help"], 0),
    "start/bad_key": (["train", "trainer.epoch=1"], 2),  # it is trainer.epochs
}


def rows(repetitions: int) -> list[Row]:
    """A row for each of `ANSWERS`."""
    return [
        compare(
            name,
            "python -c pass",
            repetitions,
            ours=lambda asked=asked, code=code: run(["-m", "cnnexp.cli", *asked], code),  # type: ignore[misc]
            peer=lambda: run(["-c", "pass"], 0),
        )
        for name, (asked, code) in ANSWERS.items()
    ]


def run(arguments: list[str], expected: int) -> None:
    """Run this Python from an empty folder; it must end with the `expected` exit code."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([sys.executable, *arguments], cwd=empty, capture_output=True, text=True)
    assert done.returncode == expected, (arguments, done.returncode, done.stdout, done.stderr)
