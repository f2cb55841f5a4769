"""`cnnexp doctor` after real accidents: killed processes, a damaged store, a damaged cache."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from cnnexp.files import unfinished
from cnnexp.process import identity
from cnnexp.runs.folder import JOURNAL, RunFolder, RunManifest
from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]

TRAINING = """
import sys, time
from pathlib import Path
from cnnexp.runs.folder import RunFolder
from cnnexp.tracking.mlflow import Tracker
root, name = sys.argv[1:]
tracker = Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", f"{root}/outputs/mlartifacts")
folder = Path(root) / "outputs" / "runs" / name
with RunFolder(folder).lock():
    run = tracker.start_run(name, {}, {"run_dir": str(folder)}, journal=folder / "unsent.jsonl")
    tracker.log_metrics({"loss": 1.0}, step=1)
    print(run, flush=True)
    time.sleep(600)
"""


def tracker(root: Path) -> Tracker:
    return Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", f"{root}/outputs/mlartifacts")


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Starts a process that is at work on a run."""
    processes = []

    def start(name: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", TRAINING, str(tmp_path), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_closed_and_a_live_one_is_not(
    cnnexp: Run, tmp_path: Path, training: Callable[[str], tuple[subprocess.Popen[str], str]]
) -> None:
    (killed, dead), (_, alive) = training("dead"), training("alive")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    code, out, err = cnnexp("doctor", "--check")
    assert code == 1 and f"run {dead}: its process died; `cnnexp doctor` closes it" in err
    assert "in training" in out and tracker(tmp_path).find_run(dead).status == "RUNNING"
    code, out, err = cnnexp("doctor")
    assert (code, err) == (0, ""), err
    found = tracker(tmp_path).find_run(dead)
    assert (found.status, found.tags["error"], found.metrics) == ("KILLED", "its process died", {"loss": 1.0})
    assert tracker(tmp_path).find_run(alive).status == "RUNNING"
    assert cnnexp("doctor", "--check")[0] == 0


def test_a_journal_is_sent(cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is away while a figure is recorded, and the process ends before it is back."""
    store, folder = tracker(tmp_path), tmp_path / "outputs" / "runs" / "1"
    folder.mkdir(parents=True)
    run = store.start_run("r", {}, {"run_dir": str(folder)}, journal=folder / JOURNAL)
    client = store.client()

    def away(*arguments: object, **named: object) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(client), "log_batch", away)
        store.log_metrics({"loss": 0.25}, step=3)
    assert (folder / JOURNAL).is_file()
    code, _, err = cnnexp("doctor", "--check")
    assert code == 1 and "not sent yet" in err and (folder / JOURNAL).is_file()
    code, out, err = cnnexp("doctor")
    assert code == 0 and "1 writes sent" in out, err
    assert tracker(tmp_path).find_run(run).metrics == {"loss": 0.25} and not (folder / JOURNAL).exists()


def test_a_damaged_store_is_named(cnnexp: Run, tmp_path: Path) -> None:
    tracker(tmp_path).prepare()
    file = tmp_path / "outputs" / "mlflow.db"
    content = bytearray(file.read_bytes())
    content[4096 * 2 : 4096 * 12] = os.urandom(4096 * 10)
    file.write_bytes(bytes(content))
    code, out, err = cnnexp("doctor")
    assert code == 1 and f"{file}: is damaged (" in err and "put a copy" in err and len(err.splitlines()) == 1
    assert "Traceback" not in out


SOCKETS = """
import os, sys
from multiprocessing import util
from cnnexp.files import name_sockets
name_sockets()
open(os.path.join(util.get_temp_dir(), "listener-1"), "w").close()
os.kill(os.getpid(), int(sys.argv[1])) if sys.argv[1] != "0" else print(os.listdir())
"""


def test_the_sockets_of_a_killed_command(cnnexp: Run, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """Python's own name for their folder, pymp-*, would not tell whose it is, nor whether that process lives."""
    place = Path(tempfile.mkdtemp(prefix="t-"))  # the folders of pytest have names too long for a socket
    request.addfinalizer(lambda: shutil.rmtree(place))
    (place / ".sockets.cnnexp-of-a-user").mkdir(parents=True)

    def end(number: int) -> str:
        line = [sys.executable, "-c", SOCKETS, str(number)]
        done = subprocess.run(line, env=os.environ | {"TMPDIR": str(place)}, cwd=place, capture_output=True, text=True)
        assert done.returncode == -number, done.stderr
        return done.stdout

    assert ".sockets.cnnexp-" in end(0).replace(".sockets.cnnexp-of-a-user", "")
    assert [path.name for path in place.iterdir()] == [".sockets.cnnexp-of-a-user"]  # it ended, and took its own away
    end(signal.SIGKILL)
    (left,) = (path for path in place.iterdir() if path.name != ".sockets.cnnexp-of-a-user")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    code, out, _ = cnnexp("doctor", "--check")
    assert code == 1 and left.is_dir()
    code, out, _ = cnnexp("doctor")
    assert code == 0 and "leftover" in out and "removed" in out
    assert [path.name for path in place.iterdir()] == [".sockets.cnnexp-of-a-user"]


def test_features_and_leftovers(cnnexp: Run, tmp_path: Path) -> None:
    features = tmp_path / "outputs" / "cache" / "features"
    for key in ("whole", "short", "busy"):
        (features / key).mkdir(parents=True)
        (features / key / "0.npy").write_bytes(b"1234")
        (features / key / "meta.json").write_text(json.dumps({"bytes": [4 if key == "whole" else 5]}))
    (features / "half.tmp").mkdir()
    data, runs = tmp_path / "outputs" / "data", tmp_path / "outputs" / "runs"
    alive = unfinished(runs / "1" / "result.json")
    dead = alive.name.replace(identity(), "999999999-1")
    for folder in (data / "synthetic", runs / "1"):
        folder.mkdir(parents=True)
        (folder / dead).mkdir()
    alive.touch()
    own = [runs / "1" / ".notes.123", data / "synthetic" / ".hidden.ab_c12xy"]  # of the user
    for file in own:
        file.touch()
    lock = FileLock(features / "busy.lock")
    lock.acquire()
    before = sorted(tmp_path.rglob("*"))
    code, _, err = cnnexp("doctor", "--check", "tracking=none")
    assert code == 1 and len(err.splitlines()) == 4 and sorted(tmp_path.rglob("*")) == before
    code, out, err = cnnexp("doctor", "tracking=none")
    assert (code, err) == (0, "") and out.count("removed") == 4
    lock.release()
    assert {path.name for path in features.iterdir() if path.is_dir()} == {"whole", "busy"}
    assert sorted([*(data / "synthetic").iterdir(), *(runs / "1").iterdir()]) == sorted([alive, *own])


def test_what_can_go_on_is_named(cnnexp: Run, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "runs" / "1"
    RunFolder(folder).write_manifest(RunManifest("id", "hash", "digest"))
    code, out, _ = cnnexp("doctor", "tracking=none")
    assert code == 0 and "trainer.resume=true" in out
    (folder / "result.json").write_text(json.dumps({"status": "FINISHED"}))
    assert "trainer.resume=true" not in cnnexp("doctor", "tracking=none")[1]


def test_a_new_place_is_well(cnnexp: Run, tmp_path: Path) -> None:
    code, out, err = cnnexp("doctor")
    assert (code, err) == (0, "") and "not there yet" in out and not list(tmp_path.iterdir())
    code, _, err = cnnexp("doctor", "latest")
    assert code == 2 and "takes only --check and overrides" in err


def test_a_finished_run_without_a_whole_model_is_named(cnnexp: Run, tmp_path: Path) -> None:
    store = tracker(tmp_path)
    run = store.start_run("r", {}, {})
    experiment = store.client().get_run(run).info.experiment_id
    store.client().create_logged_model(experiment, name="model", source_run_id=run)
    store.end_run("FINISHED")
    code, _, err = cnnexp("doctor", "--check")
    assert code == 1 and f"run {run}: FINISHED, and its model is not whole; `cnnexp reproduce {run}` makes it" in err
