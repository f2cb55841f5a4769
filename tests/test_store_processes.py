"""Many processes on one store, and what a run says of the signal that ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cnnexp.tracking.mlflow import Tracker

pytestmark = pytest.mark.trains

PROCESSES, METRICS = 8, 200

WRITER = """
import os, sys
import mlflow.store.tracking.sqlalchemy_store  # once, before the processes part
from cnnexp.tracking.mlflow import Tracker
root, processes, metrics = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
children = []
for number in range(processes):
    child = os.fork()
    if child == 0:
        tracker = Tracker(f"sqlite:///{root}/mlflow.db", "many", f"{root}/artifacts")
        tracker.start_run(str(number), {}, {})
        for step in range(metrics):
            tracker.log_metrics({"figure": number * metrics + step}, step)
        tracker.end_run("FINISHED")
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""

SIGNALLED = """
import os, signal, sys
from cnnexp.cli import main
from cnnexp.runs import run as job
number = int(sys.argv[1])
if number == signal.SIGINT:  # whoever started the tests in the background had it ignored
    signal.signal(number, signal.default_int_handler)
def fit(*arguments, **options):
    os.kill(os.getpid(), number)
job.fit = fit
sys.exit(main(["train", "debug=smoke", "dataset=synthetic"]))
"""


@pytest.mark.long
def test_processes_that_share_a_new_store_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(PROCESSES), str(METRICS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "many", f"{tmp_path}/artifacts")
    runs = tracker.find_runs(status="FINISHED")
    assert len(runs) == PROCESSES
    values = [figure.value for run in runs for figure in tracker.client().get_metric_history(run.run_id, "figure")]
    assert sorted(values) == list(range(PROCESSES * METRICS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "said"),
    [pytest.param(signal.SIGTERM, "interrupted: SIGTERM", marks=pytest.mark.long), (signal.SIGINT, "interrupted")],
)
def test_a_run_says_which_signal_ended_it(tmp_path: Path, number: signal.Signals, said: str) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ})
    assert done.returncode == 130 and done.stderr.strip().splitlines()[-1] == "cnnexp: interrupted"
    tracker = Tracker(f"sqlite:///{tmp_path}/outputs/mlflow.db", "cnnexp", f"{tmp_path}/outputs/mlartifacts")
    (run,) = tracker.find_runs()
    assert (run.status, run.tags["error"]) == ("KILLED", said)
