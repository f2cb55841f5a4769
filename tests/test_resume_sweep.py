"""Sweeps that were stopped, or given again, do nothing twice and end as if nothing had been."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from campaign import kill
from resuming import Run, age, folders, line, tracker

from cnnexp.runs.folder import result_affecting

pytestmark = pytest.mark.trains


@pytest.mark.long
def test_a_sweep_with_a_failed_and_a_killed_job_is_finished_by_the_same_line(
    cnnexp: Run, drawn_root: Path, tmp_path: Path
) -> None:
    """Five folders of pictures, of which one is not there at first; the process is killed in the fourth job."""
    cnnexp("prepare", "synthetic", "debug=smoke", f"paths.data={drawn_root}")
    (pictures,) = (folder for folder in (drawn_root / "synthetic").iterdir() if folder.is_dir())
    for name in "acde":
        (tmp_path / name).symlink_to(pictures)
    given = ["-m", "debug=smoke", "dataset=folder", "dataset.path=a,b,c,d,e"]
    given += ["dataset.image_size=48", "tracking.log_model=false"]
    first = kill.in_process(tmp_path, given, "log_metrics:10")  # each job that is well calls it 4 times
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert "job 1 failed: dataset.path=b: does not exist" in first.stderr
    (tmp_path / "b").symlink_to(pictures)
    code, out, err = cnnexp("train", *given)
    assert code == 0, err
    assert out.count("is done already") == 2 and out.count("goes on with run") == 1
    (folder,) = folders(tmp_path)
    (parent,) = tracker(tmp_path).sweeps(5)
    children = tracker(tmp_path).children(parent.run_id)
    finished = [run for run in children if run.status == "FINISHED"]
    assert parent.status == "FINISHED" and parent.tags["sweep.state"] == "5 of 5 jobs finished"
    assert parent.tags["sweep.grid"] == "dataset.path=a,b,c,d,e"
    assert sorted(run.params["dataset.path"] for run in finished) == list("abcde")
    assert [run.params["dataset.path"] for run in children if run.status == "FAILED"] == ["b"]
    for run in finished:  # trained once: each epoch is there once
        history = tracker(tmp_path).client().get_metric_history(run.run_id, "train/loss")
        assert [figure.step for figure in history] == [1, 2], run.params["dataset.path"]
    assert len(list(folder.glob("*/result.json"))) == 5


# ------------------------------------------------------------------------------------------------- sweeps


@pytest.mark.usefixtures("no_training")
def test_a_line_given_again_does_nothing_twice(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = ["train", "-m", *line(drawn_root, "seed=0,1")[1:]]
    assert cnnexp(*given)[0] == 0
    code, out, _ = cnnexp(*given, "trainer.resume=true")
    assert code == 0 and out.count("is done already") == 2 and "epoch" not in out
    assert len(folders(tmp_path)) == 1 and len(tracker(tmp_path).find_runs()) == 3
    code, out, _ = cnnexp(*given, "sweep.resume=false")
    assert code == 0 and "is done already" not in out and len(folders(tmp_path)) == 2
    assert len(tracker(tmp_path).find_runs()) == 6


@pytest.mark.usefixtures("no_training")
def test_a_job_with_other_values_is_trained_anew(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = ["train", "-m", *line(drawn_root, "tracking=none", "seed=0,1")[1:]]
    assert cnnexp(*given)[0] == 0
    (folder,) = folders(tmp_path)
    age(folder / "1", lambda config: config["trainer"].update(batch_size=7))
    code, out, _ = cnnexp(*given)
    assert code == 0 and out.count("is done already") == 1 and out.count("epoch   1/2") == 1


@pytest.mark.usefixtures("no_training")
def test_a_job_of_a_version_that_had_fewer_keys_is_done(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = ["train", "-m", *line(drawn_root, "tracking=none", "seed=0,1")[1:]]
    assert cnnexp(*given)[0] == 0
    (folder,) = folders(tmp_path)
    age(folder / "0", lambda config: config["trainer"].pop("feature_dtype"))
    age(folder / "1", lambda config: (config.pop("phases"), config["dataset"].pop("decoys")))
    code, out, err = cnnexp("plan", "-m", *given[2:], "--json")
    assert code == 0 and out.count('"state": "done"') == 2, err
    assert all("of-old" in (folder / name / "run.json").read_text() for name in "01")  # nothing is written
    code, out, err = cnnexp(*given)
    assert code == 0 and out.count("is done already") == 2 and "epoch" not in out, err


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("policy", "started"), [pytest.param("continue", 3, marks=pytest.mark.long), ("stop", 1)])
def test_on_failure(
    cnnexp: Run, drawn_root: Path, interrupted: Callable[..., None], tmp_path: Path, policy: str, started: int
) -> None:
    given = ["train", "-m", *line(drawn_root, "seed=0,1,2", f"sweep.on_failure={policy}")[1:]]
    interrupted(1, RuntimeError)
    code, out, err = cnnexp(*given)
    assert code == 1 and "job 0 failed: RuntimeError: stopped" in err
    assert out.count("epoch   1/2") == started and out.count("is not started") == 3 - started
    failed = next(run for run in tracker(tmp_path).find_runs() if run.tags.get("error") == "RuntimeError: stopped")
    tracker(tmp_path).download(failed.run_id, "traceback.txt", tmp_path / "downloaded")
    assert 'raise error("stopped")' in (tmp_path / "downloaded" / "traceback.txt").read_text()
    code, out, _ = cnnexp(*given)  # the failed one goes on after its first epoch, the others are done or begin
    assert code == 0 and out.count("epoch   1/2") == 3 - started and "goes on with run" in out


@pytest.mark.usefixtures("no_training")
def test_an_interrupted_sweep_goes_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    given = ["train", "-m", *line(drawn_root, "seed=0,1")[1:]]
    interrupted(1)
    assert cnnexp(*given)[0] == 130
    assert [run.status for run in tracker(tmp_path).find_runs()] == ["KILLED", "KILLED"]
    code, out, err = cnnexp(*given)
    assert code == 0, err
    assert "goes on with the sweep" in out and len(folders(tmp_path)) == 1
    assert [run.status for run in tracker(tmp_path).find_runs()] == ["FINISHED"] * 3


@pytest.mark.usefixtures("no_training")
def test_how_a_sweep_is_shown_does_not_make_it_another(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """The same line goes on with the same sweep, and shows it as it is asked to."""
    given = ["train", "-m", *line(drawn_root, "head.units=8,4")[1:]]
    code, out, err = cnnexp(*given)
    assert code == 0, err
    rows = [row.split()[:2] for row in out.splitlines() if row.strip()[:2] in ("1 ", "2 ")]
    assert sorted(row[1] for row in rows) == ["4", "8"]
    assert "what each key does" in out and "fixed/broken" not in out
    assert tracker(tmp_path).sweeps(1)[0].tags["sweep.report"] == "grid"
    code, out, err = cnnexp(*given, "sweep.report=progression")
    assert code == 0 and out.count("is done already") == 2, err
    assert "fixed/broken" in out and "what each key does" not in out
    (parent,) = tracker(tmp_path).sweeps(2)
    assert parent.tags["sweep.report"] == "progression"
    code, out, err = cnnexp("compare")
    assert code == 0 and "fixed/broken" in out


def test_what_only_steers_a_sweep_does_not_make_it_another() -> None:
    given = ["experiment=baseline", "seed=0,1"]
    assert result_affecting([*given, "sweep.report=grid"]) == given
    assert result_affecting([*given, "sweep.resume=true", "trainer.resume=true", "hydra/launcher=joblib"]) == given
    assert result_affecting([*given, "trainer.epochs=3"]) != given


@pytest.mark.usefixtures("no_training")
def test_a_resumed_run_keeps_the_objective(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """What a sweeper is told of a job that is done is what it was told when it was trained."""
    given = ["train", "-m", *line(drawn_root, "tracking=none", "seed=0")[1:]]
    assert cnnexp(*given)[0] == 0
    (folder,) = folders(tmp_path)
    state = json.loads((folder / "0" / "run.json").read_text())
    result = json.loads((folder / "0" / "result.json").read_text())
    assert np.isclose(state["objective"], result["val_accuracy"])
