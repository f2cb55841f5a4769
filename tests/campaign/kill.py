"""Kills commands with -9 at random moments, gives the line again, and compares with what was never killed.

    python tests/campaign/kill.py --kills 20 [--kinds train sweep ...] [--seed 0] [--folder FOLDER]

`train`, the most thorough, is killed at named moments of a run. Two phases, augmentation, mixup, dropout, moving
averages, a cosine schedule, early stopping, focal loss, balanced sampling and a threshold are all in it. What has to
agree to the last bit: every metric of every epoch (each recorded once; seconds excepted), and the weights of the
recorded model. And the pictures are all there, and whole. The other kinds, see `commands.py` beside this file,
are killed after random times.

With --folder the campaign goes on where it was stopped: what was done stands in `FOLDER/KIND.jsonl`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

PHASES = """
top:
  epochs: 3
  freeze_policy: {mode: until_layer, first_trainable_layer: block3_conv}
all:
  freeze_policy: {mode: none}
"""
LINE = [
    "experiment=augmented", "dataset=synthetic", "phases=two", "dataset.train=64", "dataset.validation=32",
    "dataset.test=32", "dataset.size=48", "dataset.image_size=48", "trainer.batch_size=16",
    "trainer.steps_per_epoch=null", "trainer.epochs=4", "trainer.early_stopping.patience=3",
    "optimizer.ema_momentum=0.9", "optimizer.learning_rate=1e-3", "optimizer.schedule.name=cosine",
    "augmentation.mixup=0.2", "tracking.explain=false", "loss=focal", "loss.class_weight=balanced",
    "trainer.balanced_sampling=true", "trainer.monitor=val/f1_macro", "trainer.keep_best=true", "decision=max_f1",
    "decision.calibration=temperature",
]  # fmt: skip
MOST = 5  # kills of one run
ONCE = ("fit", "files", "model", "in_model", "whole_model", "end", "result")  # happen once in each process


def train(root: Path, kill: str | None = None) -> int:
    """Run the line in a process of its own, in `root`; returns its exit code, -9 where it was killed.

    Args:
        root: folder of the outputs.
        kill: None; `after:SECONDS`, counted from the first step; or `FUNCTION:N`, before its Nth call (see `MOMENTS`).
    """
    (root / "conf" / "phases").mkdir(parents=True, exist_ok=True)
    (root / "conf" / "phases" / "two.yaml").write_text(PHASES)
    done = in_process(root, ["--config-dir=conf", *LINE, "trainer.resume=true"], kill)
    if done.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(done.stderr)
    return done.returncode


def in_process(root: Path, line: list[str], kill: str | None = None) -> subprocess.CompletedProcess[str]:
    """`cnnexp train LINE` in a process of its own, in the folder `root`; see `train`."""
    command = [sys.executable, __file__, "--child", kill or "", *line]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def child(kill: str, line: list[str]) -> int:
    """What runs in the process: the command, with a kill prepared."""
    from cnnexp.cli import main
    from cnnexp.process import import_tensorflow

    import_tensorflow()
    _leave_pictures_blank()
    if kill:
        name, _, when = kill.partition(":")
        if name == "after":
            _before("fit", 1, lambda: threading.Timer(float(when), _die).start())
        else:
            _before(name, int(when), _die)
    return main(["train", *line])


def _leave_pictures_blank() -> None:
    """Nothing of the pictures is compared."""
    import pytest

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from stand_ins import Pictures

    pictures = Pictures()
    pictures.drawn = False
    pictures.stand_in(pytest.MonkeyPatch())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(moment: str, call: int, action: object) -> None:
    """Do something when a function is called for the `call`th time."""
    from importlib import import_module

    module, name = MOMENTS[moment]
    place = import_module(module)
    *path, last = name.split(".")
    for part in path:
        place = getattr(place, part)
    real = getattr(place, last)
    calls = 0

    def counted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            action()  # type: ignore[operator]
        return real(*arguments, **options)

    setattr(place, last, counted)


MOMENTS = {
    "fit": ("cnnexp.runs.run", "fit"),
    "log_metrics": ("cnnexp.tracking.mlflow", "Tracker.log_metrics"),
    "checkpoint": ("cnnexp.training.phases", "write_checkpoint"),
    "in_checkpoint": ("cnnexp.files", "os.fsync"),
    "validation": ("cnnexp.training.phases", "predict"),
    "files": ("cnnexp.runs.run", "_record_files"),
    "model": ("cnnexp.tracking.mlflow", "Tracker.log_model"),
    "in_model": ("mlflow.store.artifact.local_artifact_repo", "LocalArtifactRepository.log_artifacts"),
    "whole_model": ("mlflow", "MlflowClient.finalize_logged_model"),
    "end": ("cnnexp.tracking.mlflow", "Tracker.end_run"),
    "picture": ("cnnexp.drawing", "DrawingProcess.submit"),
    "result": ("cnnexp.runs.folder", "RunFolder.write_result"),
}


def recorded(root: Path) -> tuple[dict[str, list[tuple[int, float]]], list[bytes]]:
    """Every figure of the one finished run with its steps, seconds left out, and the weights of its model."""
    import keras

    from cnnexp.tracking.mlflow import Tracker

    tracker = Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", str(root / "outputs" / "mlartifacts"))
    (run,) = tracker.find_runs()
    assert run.status == "FINISHED", run.status
    figures = {
        name: [(figure.step, figure.value) for figure in tracker.client().get_metric_history(run.run_id, name)]
        for name in run.metrics
        if "time" not in name and name != "images_per_s"
    }
    with tempfile.TemporaryDirectory() as folder:
        tracker.download(run.run_id, "model", folder)
        model = keras.saving.load_model(Path(folder) / "model" / "data" / "model.keras", compile=False)
        return figures, [keras.ops.convert_to_numpy(weight).tobytes() for weight in model.weights]


def is_finished(root: Path) -> bool:
    """Whether the run in `root` is done; a kill may come too late."""
    from cnnexp.runs.folder import RunFolder

    return any(RunFolder(file.parent).status == "FINISHED" for file in root.glob("outputs/runs/*/result.json"))


def compare(broken: Path, unbroken: Path) -> list[str]:
    """What differs, in words; empty where nothing does."""
    (figures, weights), (expected, expected_weights) = recorded(broken), recorded(unbroken)
    names = sorted(set(figures) | set(expected))
    differences = [
        f"{name}: {sorted(figures.get(name, []))} instead of {sorted(expected.get(name, []))}"
        for name in names
        if sorted(figures.get(name, [])) != sorted(expected.get(name, []))
    ]
    if pictures(broken) != pictures(unbroken):
        differences.append(f"pictures: {sorted(pictures(broken))} instead of {sorted(pictures(unbroken))}")
    return differences + (["weights"] if weights != expected_weights else [])


def pictures(root: Path) -> set[str]:
    """The names of those of the finished run; a half one would raise."""
    from PIL import Image

    (folder,) = (file.parent for file in root.glob("outputs/runs/*/result.json"))
    files = [file for file in folder.rglob("*.png") if file.stat().st_size]  # stand-ins are empty
    for file in files:
        Image.open(file).load()
    return {file.name for file in files}


def killed_train(folder: Path, number: int, rng: random.Random) -> tuple[int, list[str]]:
    """Train with kills; returns how many there were, and what differs."""
    unbroken, root, kills = folder / "unbroken", folder / str(number), 0
    if not is_finished(unbroken):
        train(unbroken)
    while not is_finished(root):
        named = rng.choice([None, *MOMENTS])
        call = 1 if named in ONCE else rng.randint(1, 3)
        kill = f"{named}:{call}" if named else f"after:{rng.uniform(0, 4):.2f}"
        if train(root, kill if kills < MOST else None) != 0:
            kills += 1
    return kills, compare(root, unbroken)


def campaign(folder: Path, kinds: Sequence[str], kills: int, seed: int) -> int:
    """Kill, give the line again, compare, until there were so many kills of each kind; returns how many differ."""
    from campaign.commands import KINDS, killed_command

    bad = 0
    for kind in kinds:
        log = folder / f"{kind}.jsonl"
        done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        while sum(entry["kills"] for entry in done) < kills:
            number, rng = len(done), random.Random(f"{seed} {kind} {len(done)}")
            place = folder / kind
            shutil.rmtree(place / str(number), ignore_errors=True)  # of a campaign that was stopped there
            if kind == "train":
                killed, differences = killed_train(place, number, rng)
            else:
                killed, differences = killed_command(KINDS[kind], place, number, rng)
            done.append({"kills": killed, "differences": differences})
            with log.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(f"{kind} {number}, killed {killed} times: {'; '.join(differences) or 'identical'}", flush=True)
            if not differences:
                shutil.rmtree(place / str(number))
        bad += sum(bool(entry["differences"]) for entry in done)
        print(f"{kind}: {sum(entry['kills'] for entry in done)} kills, {len(done)} compared", flush=True)
    return bad


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2], sys.argv[3:]))
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from campaign.commands import KINDS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=["train", *KINDS], choices=["train", *KINDS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = (options.folder or Path(scratch)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        sys.exit(1 if campaign(place, options.kinds, options.kills, options.seed) else 0)
