"""The most memory that a training of `baseline` takes: ours beside the tutorial's script, each in its own process."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.table import Row, take_turns

LINE = ["-m", "cnnexp.cli", "train", "experiment=baseline", "dataset=folder", "trainer.epochs=1"]
SCRIPT = """
from pathlib import Path
from bench.progression import SCHEDULES, script
script(SCHEDULES["baseline"], Path({folder!r}))
"""

MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""  # in a process between, since a process begins with the peak of the one that starts it


def rows(photos: Path, repetitions: int) -> list[Row]:
    """An epoch of ours with all that a run records, some steps of the script, on the same photos."""
    ours = [*LINE, f"dataset.path={photos}", f"trainer.steps_per_epoch={2 if repetitions < 3 else 20}"]
    peer = ["-c", SCRIPT.format(folder=str(photos))]
    figures = take_turns("memory", min(repetitions, 2), partial(peak_gib, ours), partial(peak_gib, peer))
    return [Row("memory/baseline", "the tutorial's script", *figures, measure="GiB")]


def peak_gib(arguments: list[str]) -> float:
    """Run this Python in an empty folder, where it must succeed; the most resident memory it had."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as empty:
        line = [sys.executable, "-c", MEASURED, sys.executable, *arguments]
        done = subprocess.run(line, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB on Linux
