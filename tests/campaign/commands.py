"""Commands that the campaign kills after random times: sweeps by each launcher, a search, and what trains nothing.

Each is compared with one that was never killed. Besides, no process may be left, and after `cnnexp doctor` no file.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL = [
    "debug=smoke", "dataset=synthetic", "dataset.image_size=48", "trainer.epochs=3", "tracking.explain=false",
    "backbone.filters=[8,8]",
]  # fmt: skip
GRID = ["-m", *SMALL, "tracking.log_model=false", "seed=0,1,2"]
MOST = 4  # kills of one line
WITHIN_S = 15.0  # no process of a killed command is left after so long


@dataclass(frozen=True)
class Kind:
    """A line, what is done before it, and what is compared.

    victim: which process of the line is killed, by a part of its command line; "" is the command itself.
    """

    line: list[str]
    outcome: Callable[[Path], Any]
    before: list[list[str]] = field(default_factory=list)
    victim: str = ""


def figures(root: Path) -> dict[str, Any]:
    """Every figure of every run, each with its steps, seconds left out, by the values in which the runs differ."""
    from cnnexp.tracking.mlflow import Tracker

    tracker = Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", str(root / "outputs" / "mlartifacts"))
    found: dict[str, Any] = {}
    for run in tracker.find_runs():
        key = " ".join([run.params.get("seed", ""), run.params.get("optimizer.learning_rate", ""), run.status])
        while key in found:
            key += " again"
        if run.tags.get("sweep") == "parent":  # its figures count the jobs while they come
            found["sweep"] = {name: value for name, value in run.metrics.items() if "time" not in name}
            continue
        histories = {name: tracker.client().get_metric_history(run.run_id, name) for name in sorted(run.metrics)}
        found[key] = {
            name: sorted((point.step, point.value) for point in points)
            for name, points in histories.items()
            if "time" not in name and name != "images_per_s" and not name.startswith(("memory", "system"))
        }
    return found


def files(root: Path) -> dict[str, str]:
    """The digest of every file of the data set, by its name."""
    place = root / "outputs" / "data" / "synthetic"
    kept = [file for file in sorted(place.rglob("*")) if file.is_file() and file.suffix != ".lock"]
    return {str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}


def pictures(root: Path) -> list[str]:
    """The names of the pictures and pages; a half picture would raise."""
    from PIL import Image

    found = sorted(path for path in root.glob("outputs/runs/**/*") if path.suffix in (".png", ".html", ".csv"))
    for file in found:
        if file.suffix == ".png":
            Image.open(file).load()
    return [file.name for file in found]


def run_pictures(root: Path) -> Any:
    """Figures and pictures."""
    return figures(root), pictures(root)


KINDS = {
    "sweep": Kind(["train", *GRID], figures),
    "fresh": Kind(["train", *GRID, "sweep.fresh_process=true"], figures),
    "joblib": Kind(["train", *GRID, "hydra/launcher=joblib"], figures),
    "submitit": Kind(["train", *GRID, "hydra/launcher=submitit_local"], figures),
    "search": Kind(
        ["train", "-m", *SMALL, "tracking.log_model=false", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3",
         "hydra.sweeper.sampler.seed=0", "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))"], figures
    ),
    "reproduce": Kind(
        ["reproduce", "latest"], figures, before=[["train", *SMALL, "tracking.log_model=false"]]
    ),
    "prepare": Kind(["prepare", "synthetic", "dataset.train=600", "dataset.image_size=48"], files),
    "compare": Kind(["compare"], pictures, before=[["train", *GRID]]),
    "drawing": Kind(
        ["train", *SMALL, "tracking.log_model=false"], run_pictures, victim="cnnexp.drawing"
    ),
}  # fmt: skip


def killed_command(kind: Kind, folder: Path, number: int, rng: random.Random) -> tuple[int, list[str]]:
    """Give a line with kills until it ends by itself; returns how many there were, and what does not hold."""
    unbroken, root = folder / "unbroken", folder / str(number)
    duration = _unbroken(kind, unbroken)
    _before(kind, root)
    kills, wrong = 0, []
    for _ in range(20):
        process = _start(kind.line, root)
        if kills < MOST:
            killed = _kill(process, kind.victim, rng.uniform(0, duration))
            kills += killed
            if killed and not kind.victim and (left := _left(process.pid)):
                wrong.append(f"still there after {WITHIN_S:.0f} s: {left}")
                os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            break
        if process.returncode != -signal.SIGKILL:
            wrong.append(f"exit code {process.returncode}: {(root / 'err').read_text()[-400:]}")
            break
    doctor = _start(["doctor"], root)
    if doctor.wait() != 0:
        wrong.append(f"doctor: {(root / 'err').read_text()[-400:]}")
    if found := [str(path) for path in root.rglob("*.cnnexp-*")]:
        wrong.append(f"left: {found}")
    return kills, [*wrong, *differences(kind.outcome(root), kind.outcome(unbroken))]


def differences(came: Any, expected: Any) -> list[str]:
    """In words; empty where there is none."""
    if isinstance(came, dict) and isinstance(expected, dict):
        names = sorted(set(came) | set(expected))
        return [f"{name}: {found}" for name in names for found in differences(came.get(name), expected.get(name))]
    return [] if came == expected else [f"{repr(came)[:200]} instead of {repr(expected)[:200]}"]


def _unbroken(kind: Kind, root: Path) -> float:
    """How long the line takes, in seconds."""
    note = root / "seconds.json"
    if not note.exists():
        _before(kind, root)
        began = time.monotonic()
        if _start(kind.line, root).wait() != 0:
            raise RuntimeError((root / "err").read_text())
        note.write_text(json.dumps(time.monotonic() - began))
    return float(json.loads(note.read_text()))


def _before(kind: Kind, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for line in kind.before:
        if _start(line, root).wait() != 0:
            raise RuntimeError((root / "err").read_text())


def _start(line: list[str], root: Path) -> "subprocess.Popen[bytes]":
    with (root / "out").open("ab") as out, (root / "err").open("wb") as err:
        command = [sys.executable, "-m", "cnnexp.cli", *line]
        return subprocess.Popen(command, cwd=root, stdout=out, stderr=err, start_new_session=True)


def _kill(process: "subprocess.Popen[bytes]", victim: str, after_s: float) -> bool:
    """Whether there was something to kill when the time came."""
    until = time.monotonic() + after_s
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    if process.poll() is not None:
        return False
    if not victim:
        process.kill()
        return True
    found = [number for number, line in _session(process.pid).items() if victim in line]
    for number in found:
        os.kill(number, signal.SIGKILL)
    return bool(found)


def _left(session: int) -> dict[int, str]:
    """What is still there of a session whose leader was killed, when it had time to end."""
    until = time.monotonic() + WITHIN_S
    while (left := {n: line for n, line in _session(session).items() if n != session}) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _session(session: int) -> dict[int, str]:
    """The processes of a session, also those of sessions of its own that descend from it, with their command lines."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [row.split(None, 3) for row in listed.splitlines()]
    return {int(row[0]): row[3][:80] for row in rows if len(row) == 4 and int(row[1]) == session and row[2][0] != "Z"}
