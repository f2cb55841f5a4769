"""The progression on the tutorial's own photos, from one line; the README's figures and its first picture.

    python tests/bench/real_progression.py --photos FOLDER [--root FOLDER] [OVERRIDES]

runs `cnnexp train sweep=progression dataset.source=FOLDER OVERRIDES`, and adds a line to progression.jsonl when a job
is finished. Given again, it goes on with the sweep where it was stopped.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the folder above holds the package `bench`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.history import commit_of
from cnnexp.runs.folder import RunFolder
from cnnexp.tracking.record import cores, processor

FILE = Path(__file__).with_name("progression.jsonl")
PICTURE = Path(__file__).resolve().parents[2] / ".github" / "pictures" / "progression.png"
LOOK_EVERY = 5  # seconds
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run the sweep to its end; returns its exit code."""
    parser = argparse.ArgumentParser(prog="real_progression", description=__doc__)
    parser.add_argument("--photos", required=True, type=Path, help="Kaggle's train/: cat.0.jpg, dog.0.jpg, ...")
    parser.add_argument("--root", default=Path("outputs"), type=Path, help="paths.root of the runs")
    parser.add_argument("overrides", nargs="*", help="as seed=0,1,2 or +paths.weights.vgg16=FILE")
    given = parser.parse_args()
    line = ["sweep=progression", f"dataset.source={given.photos}", f"paths.root={given.root}", *given.overrides]
    known = {job["run_id"] for job in read()}
    sweep = subprocess.Popen([sys.executable, "-m", "cnnexp.cli", "train", *line])
    used = spent = 0.0
    while True:
        code = sweep.poll()
        used = processor_seconds(sweep.pid) or used  # once it has ended, as last seen
        for folder in finished(given.root):
            job = described(folder)
            if job["run_id"] not in known:
                known.add(job["run_id"])
                add({**job, "cpu_s": round(used - spent, 1)})
                spent = used
        if code is not None:
            break
        time.sleep(LOOK_EVERY)
    charts = sorted(given.root.glob("runs/*_sweep/comparison.png"))
    if code == 0 and charts:
        shutil.copy(charts[-1], PICTURE)
    return code


def finished(root: Path) -> list[RunFolder]:
    """The jobs of the newest sweep below `root` that are done, in their order."""
    sweeps = sorted(root.glob("runs/*_sweep"))
    jobs = sorted(sweeps[-1].glob("[0-9]*"), key=lambda path: int(path.name)) if sweeps else []
    return [folder for folder in map(RunFolder, jobs) if folder.status == "FINISHED"]


def described(folder: RunFolder) -> dict[str, Any]:
    """What a job came to, on what, and when."""
    result, config = folder.read_result(), folder.read_config()
    commit, dirty = commit_of(FILE)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "cpu": processor(),
        "cores": cores(),
        "load": os.getloadavg()[0],
        "dtype_policy": config["trainer"]["dtype_policy"],
        "run_id": result.run_id,
        "variant": result.name,
        "seed": result.seed,
        "test_acc": result.test_accuracy,
        "interval": result.interval,
        "test_images": result.test_total,
        "val_acc": result.val_accuracy,
        "tutorial": result.reference_accuracy,
        "epochs": result.epochs,
        "trained": result.trainable_parameters,
        "seconds": result.train_seconds,
    }


def processor_seconds(pid: int) -> float | None:
    """Of a process and those of its children that have ended; None once it is gone (Linux, proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15])) / TICKS


def read() -> list[dict[str, Any]]:
    """The jobs that are kept."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []


def add(job: dict[str, Any]) -> None:
    """Keep a job."""
    with FILE.open("a") as file:
        file.write(json.dumps(job) + "\n")


if __name__ == "__main__":
    sys.exit(main())
