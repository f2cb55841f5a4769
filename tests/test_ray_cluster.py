"""A Ray cluster of two nodes on this machine, one of which dies in the middle of a sweep."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from cnnexp.tracking.mlflow import Tracker

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
]
JOBS, EPOCHS = 3, 25
LINE = ["experiment=baseline", "dataset=synthetic", "dataset.train=80", "dataset.validation=40", "dataset.test=40"]
LINE += ["dataset.image_size=64", "dataset.size=64", "trainer.steps_per_epoch=null", f"trainer.epochs={EPOCHS}"]
LINE += ["trainer.threads=1", "tracking.explain=false", f"seed=range({JOBS})"]


def ray(*arguments: str) -> None:
    line = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *arguments, "--disable-usage-stats"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def processes(temp_dir: Path) -> set[int]:
    """Those of the node with this folder, which is in their arguments, and their children, which may be renamed."""
    found, parents = set(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        if str(temp_dir) in command:
            found.add(int(folder.name))
    return found | {process for process, parent in parents.items() if parent in found}


def kill(temp_dir: Path) -> None:
    for process in processes(temp_dir):
        with suppress(ProcessLookupError):  # it has ended with its parent
            os.kill(process, signal.SIGKILL)


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Two nodes with one core each: the address, and the folder of the second node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folders = [tmp_path_factory.mktemp(name) for name in ("a", "b")]  # sockets lie in them: short names
    port = address.rpartition(":")[2]
    common = ["start", "--num-cpus=1", "--include-dashboard=false"]
    try:
        ray(*common, "--head", f"--port={port}", f"--temp-dir={folders[0]}")
        ray(*common[:2], f"--address={address}", f"--temp-dir={folders[1]}")
        yield address, folders[1]
    finally:
        for folder in folders:
            kill(folder)


def test_a_node_that_dies_costs_no_job(cluster: tuple[str, Path], tmp_path: Path) -> None:
    """Its job goes on elsewhere, in the same run, at its last finished epoch."""
    address, second = cluster
    line = [sys.executable, "-m", "cnnexp.cli", "train", "-m", *LINE]
    line += ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}"]
    runs = tmp_path / "outputs" / "runs"
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen(line, cwd=tmp_path, stdout=log, stderr=log)
    wait(lambda: len(list(runs.glob("*/*/checkpoint.npz"))) == 2, 300, "two jobs at work")
    kill(second)
    assert sweep.wait(timeout=900) == 0, (tmp_path / "log").read_text()
    tracker = Tracker(f"sqlite:///{tmp_path}/outputs/mlflow.db", "cnnexp", str(tmp_path / "outputs" / "mlartifacts"))
    (parent,) = tracker.sweeps(5)
    children = tracker.children(parent.run_id)
    assert [parent.status, *(child.status for child in children)] == ["FINISHED"] * (1 + JOBS)
    client = tracker.client()
    for child in children:  # each epoch once
        history = client.get_metric_history(child.run_id, "val/acc")
        assert sorted(metric.step for metric in history) == list(range(1, EPOCHS + 1))
    assert sum("goes on with run" in line for line in (tmp_path / "log").read_text().splitlines()) == 1
    again = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("is done already") == JOBS, again.stdout
    (folder,) = runs.iterdir()
    assert {json.loads(file.read_text())["status"] for file in folder.glob("*/result.json")} == {"FINISHED"}
