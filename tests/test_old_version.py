"""What an earlier version recorded is compared, tested, reproduced and gone on with.

What it left lies in `data/old_version.tar.xz`, and `old_version.py` says how it was made: a finished run and its model,
a finished sweep of two jobs, a run that was killed before its third checkpoint, the same run unbroken, and a sweep
whose second job was killed. Where processor and packages are those of then, figures are the same to the last bit.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from old_version import LINES, PLACE
from resuming import Run, tracker

from cnnexp.config.composition import load_config
from cnnexp.data.opencv import cv2
from cnnexp.report.predictions import read_predictions
from cnnexp.runs.folder import RunFolder
from cnnexp.runs.job import load_dataset
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.record import environment_tags

pytestmark = pytest.mark.trains

ARCHIVE = Path(__file__).parent / "data" / "old_version.tar.xz"
DECIDING = ("processor", "cores", "tensorflow", "keras", "numpy", "opencv")  # tags: what can change the last digits

Find = Callable[..., RunInfo]


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path) -> Path:
    """The old version's outputs, with the store's paths as if they had been made here."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    with closing(sqlite3.connect(tmp_path / "outputs" / "mlflow.db")) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (PLACE, str(tmp_path)))
        store.execute(
            "UPDATE logged_models SET artifact_location = replace(artifact_location, ?, ?)", (PLACE, str(tmp_path))
        )
    return tmp_path / "outputs"


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """The run with this name, this status and these tags or parameters."""

    def find_run(name: str, status: str = "FINISHED", **values: object) -> RunInfo:
        runs = [run for run in tracker(tmp_path).find_runs(status=status) if run.params.get("name") == name]
        (found,) = (run for run in runs if all((run.tags | run.params).get(k) == str(v) for k, v in values.items()))
        return found

    return find_run


def as_then(run: RunInfo) -> bool:
    """Whether this machine and its packages compute the same digits as when the run was recorded."""
    here = environment_tags()
    return all(run.tags[name] == here[name] for name in DECIDING)


def figures(root: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every figure of every epoch, and those at the end; seconds left out."""
    store = tracker(root)
    names = [name for name in store.find_run(run_id).metrics if "time" not in name and name != "images_per_s"]
    return {name: store.history(run_id, name) for name in names}


def folder_of(outputs: Path, run_id: str) -> RunFolder:
    """Where the run with this id lies."""
    folders = [RunFolder(file.parent) for file in outputs.glob("runs/**/run.json")]
    (found,) = (folder for folder in folders if folder.manifest and folder.manifest.run_id == run_id)
    return found


def test_a_sweep_is_compared(cnnexp: Run, find: Find) -> None:
    """With the figures that were recorded."""
    jobs = [find("job", seed=seed) for seed in (2, 3)]
    code, out, err = cnnexp("compare", "--sweep", str(jobs[0].parent_run_id), "--json", "sweep.report=progression")
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert row["run_ids"] == [job.run_id for job in jobs] and row["seeds"] == [2, 3]
    assert row["test_accuracies"] == [job.metrics["test/acc"] for job in jobs]


def test_a_model_is_evaluated(cnnexp: Run, find: Find) -> None:
    run = find("finished")
    code, out, err = cnnexp("evaluate", run.run_id, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["same_data"] and found["recorded"]["acc"] == run.metrics["test/acc"]
    assert found["acc"] == pytest.approx(run.metrics["test/acc"])
    assert found["loss"] == pytest.approx(run.metrics["test/loss"], abs=1e-5)


def test_a_model_predicts(cnnexp: Run, find: Find, outputs: Path, tmp_path: Path) -> None:
    """The probabilities that the run recorded for the same images."""
    run = find("finished")
    expected = read_predictions(folder_of(outputs, run.run_id).predictions)
    test = load_dataset(load_config(LINES["finished"])).test
    assert tuple(test.ids) == expected.ids
    images = test.arrays
    assert images is not None
    for number, image in enumerate(images):
        assert cv2.imwrite(str(tmp_path / f"{number:03d}.png"), image)
    code, out, err = cnnexp("predict", run.run_id, "*.png", "--json")
    assert code == 0, err
    rows = json.loads(out)
    np.testing.assert_allclose([[*row["probabilities"].values()] for row in rows], expected.probabilities, atol=1e-5)
    assert [row["predicted"] for row in rows] == [expected.class_names[number] for number in expected.predicted]


def test_a_run_is_reproduced(cnnexp: Run, find: Find) -> None:
    run = find("finished")
    code, out, err = cnnexp("reproduce", run.run_id)
    assert code == 0 or not as_then(run), out + err
    assert "this is no reproduction" not in err  # the images are the same, on every machine
    assert find("finished", reproduces=run.run_id)


def test_a_killed_run_goes_on(cnnexp: Run, find: Find, tmp_path: Path) -> None:
    killed, unbroken = find("killed", status="RUNNING"), find("killed")
    code, out, err = cnnexp("train", *LINES["killed"], "trainer.resume=true")
    assert code == 0, err
    assert f"goes on with run {killed.run_id}" in out and "epoch   3/4" in out and "epoch   2/4" not in out
    resumed = figures(tmp_path, killed.run_id)
    assert [step for step, _ in resumed["train/loss"]] == [1, 2, 3, 4]
    assert tracker(tmp_path).find_run(killed.run_id).status == "FINISHED"
    if as_then(unbroken):
        before = figures(tmp_path, unbroken.run_id)
        assert {name: resumed[name] for name in before} == before  # this version has more of them


def test_a_killed_sweep_goes_on(cnnexp: Run, find: Find, outputs: Path, tmp_path: Path) -> None:
    done, killed = find("job", seed=5), find("job", seed=6, status="RUNNING")
    kept = folder_of(outputs, done.run_id)
    before = kept.read_result()
    code, out, err = cnnexp("train", *LINES["killed_sweep"])
    assert code == 0, err
    assert f"is done already, run {done.run_id}" in out and out.count("is done already") == 1
    assert f"goes on with run {killed.run_id}" in out and "epoch   2/4" in out and "epoch   1/4" not in out
    assert kept.read_result() == before
    for run_id in (done.run_id, killed.run_id):
        assert [step for step, _ in figures(tmp_path, run_id)["train/loss"]] == [1, 2, 3, 4]
    parent = tracker(tmp_path).find_run(str(done.parent_run_id))
    assert parent.status == "FINISHED" and parent.tags["sweep.state"] == "2 of 2 jobs finished"
