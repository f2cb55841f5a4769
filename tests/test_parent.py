"""The parent run of a sweep: its name, what was swept, how far it is, and which job is the best."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from resuming import folders, line, tracker

from cnnexp.report.predictions import read_predictions
from cnnexp.runs import tasks
from cnnexp.runs.folder import SweepFolder, SweepManifest

Run = Callable[..., tuple[int, str, str]]
KEYS = ("x/count/jobs", "x/count/failed", "best/val_acc")


def test_a_parent_is_up_to_date_whenever_a_job_ends(
    cnnexp: Run, tmp_path: Path, no_training: None, drawn_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, ...]] = []

    def show_progress(*arguments: Any) -> None:
        real(*arguments)
        (parent,) = tracker(tmp_path).sweeps(2)
        told.append(tuple(parent.metrics[key] for key in KEYS))

    real = tasks.show_progress
    monkeypatch.setattr(tasks, "show_progress", show_progress)
    assert cnnexp(*line(drawn_root, "-m", "seed=0,1,2", "trainer.epochs=1"))[0] == 0
    store = tracker(tmp_path)
    (parent,) = store.sweeps(2)
    children = store.children(parent.run_id)
    accuracies = [child.metrics["final/val_acc"] for child in children]
    assert told == [(n, 0, max(accuracies[:n])) for n in (1, 2, 3)]
    best = children[accuracies.index(max(accuracies))]
    # one point, of three seeds, with which no other was chosen
    files = sorted(folders(tmp_path)[0].glob("*/predictions_val.csv"))
    shares = [read_predictions(file).correct.mean() for file in files]
    assert parent.metrics["best/val_corrected"] == pytest.approx(sum(shares) / 3)
    assert parent.metrics["best/test_acc"] == pytest.approx(sum(child.metrics["test/acc"] for child in children) / 3)
    assert parent.name == "seed" and parent.tags["sweep.keys"] == "seed"
    assert (parent.tags["variant"], parent.tags["dataset"]) == ("custom", "synthetic")
    assert parent.metrics["best/val_loss"] == best.metrics["final/val_loss"]
    assert (parent.tags["best.run_id"], parent.tags["best.name"]) == (best.run_id, best.name)
    assert parent.tags["best.params"] == f"seed={best.params['seed']}"
    assert parent.tags["sweep.state"] == "3 of 3 jobs finished"
    assert [child.name for child in children] == [f"seed={seed} (custom)" for seed in range(3)]

    # a job that is gone is trained again, and the parent says so
    (folder,) = folders(tmp_path)
    shutil.rmtree(folder / best.params["seed"])
    real(store, SweepFolder(folder), "val/acc")
    assert store.get_run(parent.run_id).metrics["x/count/jobs"] == 2
    assert store.get_run(parent.run_id).tags["best.run_id"] != best.run_id
    assert cnnexp(*line(drawn_root, "-m", "seed=0,1,2", "trainer.epochs=1"))[0] == 0
    grown = store.get_run(parent.run_id)
    assert [grown.metrics[key] for key in KEYS] == [3, 0, max(accuracies)]
    assert grown.tags["best.run_id"] not in (best.run_id, "")  # that of the new run


def test_of_different_images_no_job_is_the_best(cnnexp: Run, tmp_path: Path, no_training: None) -> None:
    given = line(tmp_path / "data", "-m", "dataset.limit=12,8", "trainer.epochs=1", "tracking.explain=auto")
    code, out, err = cnnexp(*given)
    assert code == 0 and "not compared: " in out and "best" not in out.replace("none is the best", ""), err
    assert "explaining" not in out and "no job is explained" in out
    (parent,) = tracker(tmp_path).sweeps(2)
    assert parent.tags["best.run_id"] == parent.tags["best.params"] == ""
    assert math.isnan(parent.metrics["best/val_acc"])
    assert not {"best/val_corrected", "best/test_acc"} & set(parent.metrics)
    sweep = SweepFolder(folders(tmp_path)[0])
    assert sweep.has_several_data and sweep.best_job("val/acc") is None
    assert not list(sweep.path.glob("*/*.keras"))
    code, out, _ = cnnexp("compare")
    assert code == 0 and "not compared: " in out
    code, out, _ = cnnexp("compare", *[run.run_id for run in tracker(tmp_path).children(parent.run_id)])
    assert code == 0 and "not compared: " in out and "rank" not in out


def test_a_store_that_is_away_is_no_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Away:
        uri = "http://host"

        def get_run(self, run_id: str) -> None:
            raise ConnectionError("no answer")

    folder = SweepFolder(tmp_path)
    folder.begin(SweepManifest("p" * 32, ["seed=0,1"], "seed", "grid"))
    tasks.show_progress(Away(), folder, "val/acc")  # type: ignore[arg-type]
    assert "is not up to date: no answer" in capsys.readouterr().err
