"""What a full store costs: `compare` and the start of `train` beside 10,000 runs, and beside 10.

A sweep of two small runs is trained for real; the others are copies of them, with everything they recorded, in sweeps
of eight as theirs is one. Of each copied run a folder with what a finished run leaves for later commands is there, too.
Left out, by `debug=smoke`, are heat maps and the figures that come from them.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from uuid import uuid4

from bench.table import Row, take_turns
from cnnexp.console import progress
from cnnexp.tracking.reader import PARENT_TAG

FEW, MANY, JOBS_OF_A_SWEEP = 10, 10_000, 8
RUN_TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
SMALL = ["experiment=demo/baseline", "dataset=synthetic", "debug=smoke"]
LEFT_FOR_LATER = ("run.json", "result.json", "config.yaml", "overrides.yaml")


def rows(repetitions: int, many: int = MANY) -> list[Row]:
    """A row for `compare` of a sweep, one for the time from the command to the open run of `train`."""
    peer = f"the same beside {FEW} runs"
    with tempfile.TemporaryDirectory(prefix="cnnexp-store-") as folder:
        few, full = Path(folder, "few"), Path(folder, "full")
        run(few, ["train", "-m", *SMALL, "seed=0,1"])
        shutil.copytree(few, full)
        for root, wanted in ((few, FEW), (full, many)):
            fill(root / "outputs", wanted)
        sweep = sweep_of(few)
        ask = ["compare", "--sweep", sweep, "--json"]
        compare_s = take_turns("compare", repetitions, timed(full, ask), timed(few, ask))
        train_s = take_turns("the start of train", repetitions, opened(full), opened(few))
        return [Row(f"store/compare_{many}", peer, *compare_s), Row(f"store/train_{many}", peer, *train_s)]


def run(root: Path, arguments: list[str]) -> None:
    """Run a command that must succeed from a folder, which is made where it is missing."""
    root.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "cnnexp.cli", *arguments]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)


def timed(root: Path, arguments: list[str]) -> Callable[[], float]:
    """A function that runs a command and returns its seconds."""

    def seconds() -> float:
        began = time.perf_counter()
        run(root, arguments)
        return time.perf_counter() - began

    return seconds


def opened(root: Path) -> Callable[[], float]:
    """A function that starts a training, returns the seconds until its run is open, and stops it."""
    seeds = count(100)

    def seconds() -> float:
        before = set((root / "outputs" / "runs").iterdir())
        line = [sys.executable, "-m", "cnnexp.cli", "train", *SMALL, f"seed={next(seeds)}"]
        began = time.perf_counter()
        with subprocess.Popen(line, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            while not any(is_open(folder) for folder in set((root / "outputs" / "runs").iterdir()) - before):
                assert process.poll() is None, line
                time.sleep(0.005)
            passed = time.perf_counter() - began
            os.killpg(process.pid, signal.SIGKILL)
        return passed

    return seconds


def is_open(folder: Path) -> bool:
    """Whether the run of this folder has its id already."""
    from cnnexp.runs.folder import RunFolder

    state = RunFolder(folder).manifest
    return state is not None and state.run_id != ""


# ------------------------------------------------------------------------------------------------ copies


def sweep_of(root: Path) -> str:
    """The run id of the one sweep that was trained."""
    with closing(sqlite3.connect(root / "outputs" / "mlflow.db")) as store:
        line = "SELECT run_uuid FROM tags WHERE key = ? AND value = ? ORDER BY rowid LIMIT 1"
        return str(store.execute(line, PARENT_TAG).fetchone()[0])


def fill(outputs: Path, wanted: int) -> None:
    """Copy the trained sweep, eight jobs at a time, until the store has `wanted` runs."""
    parent = sweep_of(outputs.parent)
    with closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        line = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?"
        children = [found for (found,) in store.execute(line, [parent])]
        (job,) = {path.parent for path in (outputs / "runs").glob("*/0/run.json")}
        runs = 1 + len(children)
        for _ in progress(range(-(-(wanted - runs) // (1 + JOBS_OF_A_SWEEP))), f"{wanted} runs"):
            copied, jobs = uuid4().hex, min(JOBS_OF_A_SWEEP, wanted - runs - 1)
            copy_run(store, parent, copied)
            folder = outputs / "runs" / f"2020-01-01_00-00-00-{runs:06}_sweep"
            for number in range(jobs):
                copy_run(store, children[number % len(children)], uuid4().hex, copied)
                (folder / str(number)).mkdir(parents=True)
                for name in LEFT_FOR_LATER:
                    shutil.copy(job / name, folder / str(number) / name)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(job.parent / "sweep.json", folder / "sweep.json")
            runs += 1 + jobs
        store.commit()


def copy_run(store: sqlite3.Connection, original: str, copied: str, parent: str | None = None) -> None:
    """A run with all that belongs to it under another id, a day older; with `parent`, in that sweep."""
    for table in RUN_TABLES:
        names = [name for _, name, *_ in store.execute(f"PRAGMA table_info({table})")]
        values = ", ".join("?" if name == "run_uuid" else name for name in names)
        store.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run_uuid = ?", (copied, original))
    store.execute("UPDATE runs SET start_time = start_time - 86400000 WHERE run_uuid = ?", [copied])
    if parent:
        line = "UPDATE tags SET value = ? WHERE run_uuid = ? AND key IN ('mlflow.parentRunId', 'sweep_id')"
        store.execute(line, [parent, copied])
