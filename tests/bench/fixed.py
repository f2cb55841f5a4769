"""What a run costs beside its training, in whole processes of the command line with all that a run records.

A job's seconds are the difference of a long and a short sweep over the difference of their jobs, so that what comes
once a sweep cancels, its start above all; its peer is the training alone, as those jobs recorded it. Their features are
there already. The processor's seconds are those of the process and of the children that it waited for. The peer of the
memory after the last job is that after an earlier one of the same sweep: above 1 it would have shrunk.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import start
from bench.table import Row, take_turns
from cnnexp.config.composition import load_config
from cnnexp.console import progress, say
from cnnexp.errors import UserError

TRAIN = ["-m", "cnnexp.cli", "train"]
LINE = ["experiment=demo/frozen", "dataset=synthetic", "trainer.epochs=2"]
EXPLAIN = ("true", "false", "auto")
SHORT, LONG, HEADS = 2, 8, 100  # jobs of a sweep
QUICK_SHORT, QUICK_LONG, QUICK_HEADS = 1, 2, 3
SETTLED = 6  # after so many jobs of a sweep memory is first looked at
UNITS, DROPOUT, MIDDLING = (64, 128, 256, 512), (0.0, 0.5), ["head.units=256", "head.dropout=0.0"]
LAST_EPOCH = "SELECT MAX(timestamp) FROM metrics WHERE key = 'val/acc'"
TRAINING = "SELECT value FROM latest_metrics WHERE key IN ('x/time/train_s', 'time/train_s') AND run_uuid = ?"


@dataclass(frozen=True)
class Spent:
    """Seconds of a process, by the clock and of processors; when it ended; its memory, in MiB, after each job."""

    wall: float
    cpu: float
    ended: float
    resident: list[float]


@dataclass(frozen=True)
class Sweep:
    """A sweep of some jobs, and the seconds that their training alone took, as they recorded them."""

    jobs: int
    spent: Spent
    training: float


@dataclass(frozen=True)
class Job:
    """Seconds of a job: by the clock, of processors, of its training alone."""

    wall: float
    cpu: float
    training: float


def rows(photos: Callable[[], Path], repetitions: int, long: bool = False) -> list[Row]:
    """See the names; `photos` are drawn when the heads want them, `long` asks for the sweep of 100 jobs."""
    quick = repetitions < 3
    found = []
    with tempfile.TemporaryDirectory(prefix="cnnexp-fixed-") as folder:
        root = Path(folder)
        line = [*LINE, f"paths.root={root}", *(["dataset.limit=16"] if quick else [])]
        run([*TRAIN, *line, "tracking.explain=false"])  # makes pictures, features and store
        for explain in EXPLAIN:
            given = [*line, f"tracking.explain={explain}"]
            if is_valid(given):
                found += job_rows(f"fixed/job_explain_{explain}", root, given, 1 if quick else 2, quick)
            else:
                say(f"tracking.explain={explain} is no value of this version: no row fixed/job_explain_{explain}")
        if long:
            found += long_rows(root, [*line, "tracking.explain=false"], QUICK_HEADS if quick else HEADS)
        else:
            say(f"fixed/{HEADS}_heads is left out: --long measures it")
    found.append(heads_row(photos(), quick))
    return [*found, replace(start.first_step(repetitions), name="fixed/start"), end_row(repetitions)]


def is_valid(line: list[str]) -> bool:
    """Whether this version takes the line."""
    try:
        load_config(line)
    except UserError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ jobs of a sweep


def job_rows(name: str, root: Path, line: list[str], repetitions: int, quick: bool) -> list[Row]:
    """Of one job by the clock and of processors, and the memory of the long sweep."""
    jobs = (QUICK_SHORT, QUICK_LONG) if quick else (SHORT, LONG)
    pairs = [
        (sweep(root, line, jobs[0]), sweep(root, line, jobs[1]))
        for _ in progress(range(repetitions), f"measuring {name}")
    ]
    each = [a_job(short, longer) for short, longer in pairs]
    training, peer = [job.training for job in each], "the training alone"
    return [
        Row(name, peer, [job.wall for job in each], training, note=shares(each)),
        Row(f"{name}_cpu", f"{peer}, by the clock", [job.cpu for job in each], training, measure="cpu s"),
        *memory_rows(f"{name}_memory", [longer for _, longer in pairs]),
    ]


def a_job(short: Sweep, longer: Sweep) -> Job:
    """What each job costs that one sweep has more than the other."""
    more = longer.jobs - short.jobs
    wall, cpu = longer.spent.wall - short.spent.wall, longer.spent.cpu - short.spent.cpu
    return Job(wall / more, cpu / more, (longer.training - short.training) / more)


def shares(jobs: list[Job]) -> str:
    """How much of a job's time its training is; the sweeps' difference may be all noise where the machine is busy."""
    share = median(job.training / job.wall for job in jobs)
    if not 0 < share < 1:
        return "no shares: by this difference a job takes less than its training, so it is noise"
    return f"training {share:.0%}, rest {1 - share:.0%}"


def memory_rows(name: str, sweeps: list[Sweep]) -> list[Row]:
    """The memory after the last job beside that after an earlier one; no row on a system without /proc."""
    if any(len(one.spent.resident) < one.jobs for one in sweeps):
        say(f"{name} is left out: this system does not tell the memory of another process")
        return []
    jobs = sweeps[0].jobs
    early = min(SETTLED, jobs - 1)
    last = [one.spent.resident[-1] for one in sweeps]
    first = [one.spent.resident[early - 1] for one in sweeps]
    growth = median((after - before) / (jobs - early) for after, before in zip(last, first, strict=True))
    note = f"{growth:+.1f} MiB a job from job {early} to job {jobs}"
    return [Row(name, f"the same after job {early} of {jobs}", last, first, measure="MiB", note=note)]


def long_rows(root: Path, line: list[str], jobs: int) -> list[Row]:
    """A whole sweep of many jobs, with its start and its end, beside the training of them all."""
    name = f"fixed/{jobs}_heads"
    one = sweep(root, line, jobs)
    note = f"{one.spent.cpu:.0f} s of processors; " + shares([Job(one.spent.wall, one.spent.cpu, one.training)])
    row = Row(name, "the training alone", [one.spent.wall], [one.training], note=f"without heat maps; {note}")
    return [row, *memory_rows(f"{name}_memory", [one])]


def sweep(root: Path, line: list[str], jobs: int) -> Sweep:
    """As many jobs as asked for, each with a learning rate of its own."""
    rates = ",".join(f"{number}e-5" for number in range(1, jobs + 1))
    with tempfile.TemporaryDirectory(dir=root) as runs:
        given = ["-m", *line, f"paths.runs={runs}", f"optimizer.learning_rate={rates}"]
        spent = run([*TRAIN, *given], Path(runs))
        results = [json.loads(file.read_text()) for file in Path(runs).glob("*_sweep/*/result.json")]
    assert len(results) == jobs, results
    with closing(sqlite3.connect(root / "mlflow.db")) as store:
        seconds = [store.execute(TRAINING, [result["run_id"]]).fetchone()[0] for result in results]
    return Sweep(jobs, spent, sum(seconds))


# ---------------------------------------------------------------------------------------------- heads, and the end


def heads_row(photos: Path, quick: bool) -> Row:
    """8 heads on VGG16 at 150 pixels with random weights for 10 epochs each, from an empty cache."""
    line = ["experiment=frozen", "backbone.weights=null", "dataset=folder", f"dataset.path={photos}"]
    line += ["trainer.epochs=2", "dataset.image_size=64", "dataset.limit=20"] if quick else ["trainer.epochs=10"]
    grid = [f"{key}={','.join(map(str, values))}" for key, values in (("units", UNITS), ("dropout", DROPOUT))]
    heads = len(UNITS) * len(DROPOUT)

    def whole(arguments: list[str]) -> Spent:
        with tempfile.TemporaryDirectory() as root:
            return run([*TRAIN, *arguments, f"paths.root={root}"])

    ours, one = take_turns(
        "8 heads", 1, lambda: whole(["-m", *line, *(f"head.{swept}" for swept in grid)]), lambda: whole(line + MIDDLING)
    )
    return Row(
        f"fixed/{heads}_heads",
        f"{heads} separate runs, each with its own empty paths.root (1 measured, times {heads})",
        [spent.wall for spent in ours],
        [spent.wall * heads for spent in one],
        note=f"{ours[0].cpu:.0f} s of processors, the peer's {one[0].cpu * heads:.0f} s",
    )


def end_row(repetitions: int) -> Row:
    """From the figures of the last epoch until a small training, heat maps included, has ended as a process."""
    with tempfile.TemporaryDirectory() as root:
        line = ["-m", "cnnexp.cli", *start.SMALL, "tracking.explain=true", f"paths.root={root}"]

        def ours() -> float:
            ended = run(line).ended
            with closing(sqlite3.connect(Path(root, "mlflow.db"))) as store:
                return ended - store.execute(LAST_EPOCH).fetchone()[0] / 1000

        ours()  # makes pictures and store
        seconds = take_turns("the end", repetitions, ours, lambda: run(["-c", "pass"]).wall)
    return Row("fixed/end", "python -c pass", *seconds)


# ------------------------------------------------------------------------------------------------------ a process


def run(arguments: list[str], runs: Path | None = None) -> Spent:
    """Run this Python from an empty folder, where it must succeed; its memory is looked at for a sweep in `runs`."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        line = [sys.executable, *arguments]
        with subprocess.Popen(line, cwd=empty, stdout=said, stderr=subprocess.STDOUT) as process:
            resident: list[float] = []
            while not (waited := os.wait4(process.pid, os.WNOHANG if runs else 0))[0]:
                if runs and any(runs.glob(f"*_sweep/{len(resident)}/result.json")):
                    resident += resident_mib(process.pid)
                time.sleep(0.02)
            wall, ended = time.perf_counter() - began, time.time()
            _, status, usage = waited
            process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert process.returncode == 0, (arguments, process.returncode, said.read().decode(errors="replace"))
    return Spent(wall, usage.ru_utime + usage.ru_stime, ended, resident)


def resident_mib(process: int) -> list[float]:
    """The resident memory of a process; nothing where the system does not tell it, or the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return []
    return [int(kib) / 1024 for kib in re.findall(r"VmRSS:\s+(\d+) kB", status)]
