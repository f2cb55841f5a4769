"""Runs that were stopped go on in the same folder and the same tracked run, and end as if nothing had been."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaign import kill

from cnnexp.commands import job as job_module
from cnnexp.commands.unfinished import CHECKPOINT, RunState, decisive, find_unfinished, held, is_held, write_state
from cnnexp.errors import UserError
from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]


def line(drawn_root: Path, *overrides: str) -> list[str]:
    return ["train", "debug=smoke", "dataset=synthetic", f"paths.data={drawn_root}", *overrides]


def tracker(root: Path) -> Tracker:
    return Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", str(root / "outputs" / "mlartifacts"))


def folders(root: Path) -> list[Path]:
    return sorted((root / "outputs" / "runs").iterdir())


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, type[BaseException]], None]:
    """Ends the next training after some epochs."""

    def arm(epochs: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        real = job_module.fit

        def fit(config: Any, network: Any, data: Any, on_epoch: Any, *more: Any, **options: Any) -> Any:
            def stop(epoch: int, metrics: dict[str, float]) -> None:
                if epoch == epochs:
                    monkeypatch.setattr(job_module, "fit", real)
                    raise error("stopped")
                on_epoch(epoch, metrics)

            return real(config, network, data, stop, *more, **options)

        monkeypatch.setattr(job_module, "fit", fit)

    return arm


# ------------------------------------------------------------------------------------------------ kill -9


@pytest.mark.slow
def test_a_run_killed_three_times_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """Before a checkpoint is in its place, while an epoch is recorded, and while the files are written."""
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    for moment in ("in_checkpoint:2", "log_metrics:4", "model:1"):
        assert kill.train(broken, moment) == -signal.SIGKILL, moment
    assert kill.train(broken) == kill.train(unbroken) == 0
    assert kill.compare(broken, unbroken) == []
    (folder,) = folders(broken)
    assert not (folder / CHECKPOINT).exists() and not is_held(folder)


@pytest.mark.slow
def test_a_sweep_with_a_failed_and_a_killed_job_is_finished_by_the_same_line(
    cnnexp: Run, drawn_root: Path, tmp_path: Path
) -> None:
    """Six folders of pictures, of which one is not there at first; the process is killed in the fifth job."""
    cnnexp("prepare", "synthetic", "debug=smoke", f"paths.data={drawn_root}")
    (pictures,) = (folder for folder in (drawn_root / "synthetic").iterdir() if folder.is_dir())
    for name in "abdef":
        (tmp_path / name).symlink_to(pictures)
    given = ["-m", "debug=smoke", "dataset=folder", "dataset.path=a,b,c,d,e,f"]
    first = kill.in_process(tmp_path, given, "log_metrics:14")  # each job that is well calls it 4 times
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert "job 2 failed: dataset.path=c: does not exist" in first.stderr
    (tmp_path / "c").symlink_to(pictures)
    code, out, err = cnnexp("train", *given)
    assert code == 0, err
    assert out.count("is done already") == 3 and out.count("goes on with run") == 1
    (folder,) = folders(tmp_path)
    (parent,) = tracker(tmp_path).sweeps(5)
    children = tracker(tmp_path).children(parent.run_id)
    finished = [run for run in children if run.status == "FINISHED"]
    assert parent.status == "FINISHED" and parent.tags["sweep.state"] == "6 of 6 jobs finished"
    assert parent.tags["sweep.grid"] == "dataset.path=a,b,c,d,e,f"
    assert sorted(run.params["dataset.path"] for run in finished) == list("abcdef")
    assert [run.params["dataset.path"] for run in children if run.status == "FAILED"] == ["c"]
    for run in finished:  # trained once: each epoch is there once
        history = tracker(tmp_path).client().get_metric_history(run.run_id, "train/loss")
        assert [figure.step for figure in history] == [1, 2], run.params["dataset.path"]
    assert len(list(folder.glob("*/result.json"))) == 6


# ----------------------------------------------------------------------------------------- trainer.resume


def test_an_interrupted_run_goes_on_in_its_folder_and_its_tracked_run(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    given = line(drawn_root, "experiment=augmented", "trainer.max_epochs=3", "trainer.epochs=3")
    interrupted(2)
    assert cnnexp(*given)[0] == 130
    (run,) = tracker(tmp_path).find_runs()
    assert run.status == "KILLED" and run.tags["error"] == "interrupted: stopped"
    code, out, err = cnnexp(*given, "trainer.resume=true")
    assert code == 0, err
    assert "epoch   3/3" in out and "epoch   2/3" not in out
    (folder,) = folders(tmp_path)
    (resumed,) = tracker(tmp_path).find_runs()
    assert (resumed.run_id, resumed.status) == (run.run_id, "FINISHED") and "error" not in resumed.tags
    history = tracker(tmp_path).client().get_metric_history(run.run_id, "val/loss")
    assert sorted(figure.step for figure in history) == [1, 2, 3]
    assert not (folder / CHECKPOINT).exists()
    assert cnnexp(*given)[0] == 0  # an unbroken one beside it
    unbroken = tracker(tmp_path).find_run("latest")
    for name, value in resumed.metrics.items():
        if "time" not in name and name != "images_per_s":
            assert value == unbroken.metrics[name], name


def test_without_the_option_a_run_begins_anew(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none"))
    assert code == 0 and "epoch   1/2" in out and len(folders(tmp_path)) == 2


def test_nothing_to_resume_is_said(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 0 and "no unfinished run of this config" in out and len(folders(tmp_path)) == 1
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))  # that one is finished
    assert code == 0 and "no unfinished run of this config" in out and len(folders(tmp_path)) == 2


def test_a_run_killed_while_it_was_opened_is_the_one_that_goes_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*arguments: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "_log_params", cut_off)
        patch.setattr(Tracker, "end_run", lambda *arguments, **named: None)
        assert cnnexp(*line(drawn_root))[0] == 9
    (begun,) = tracker(tmp_path).find_runs()
    assert begun.status == "RUNNING" and not begun.params
    code, out, err = cnnexp(*line(drawn_root, "trainer.resume=true"))
    assert code == 0 and f"goes on with run {begun.run_id}" in out, err
    (run,) = tracker(tmp_path).find_runs()
    assert run.status == "FINISHED" and run.params["seed"] == "0"


def test_a_run_with_other_images_is_not_resumed(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    (folder,) = folders(tmp_path)
    state = json.loads((folder / "run.json").read_text())
    write_state(folder, RunState(state["run_id"], state["config_hash"], "of other images"))
    code, _, err = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 2 and "the images are no longer those of the run in" in err
    assert (folder / CHECKPOINT).is_file()


def test_a_run_that_is_alive_is_not_resumed(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    (folder,) = folders(tmp_path)
    with held(folder):
        code, _, err = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 2 and "is still in training" in err and len(err.splitlines()) == 1


def test_the_newest_unfinished_run_is_found(tmp_path: Path) -> None:
    for name, config_hash in (("1", "a"), ("2", "a"), ("3", "b")):
        write_state(tmp_path / name, RunState("id", config_hash, ""))
    assert find_unfinished(tmp_path, "a") == tmp_path / "2"
    (tmp_path / "2" / "result.json").write_text(json.dumps({"status": "FINISHED"}))
    assert find_unfinished(tmp_path, "a") == tmp_path / "1"
    (tmp_path / "1" / "run.json").write_text("cut off")
    assert find_unfinished(tmp_path, "a") is None


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UserError, match="another process is at work"), held(tmp_path):
            pass
    assert not is_held(tmp_path) and not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- sweeps


def test_a_line_given_again_does_nothing_twice(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = ["train", "-m", *line(drawn_root, "seed=0,1")[1:]]
    assert cnnexp(*given)[0] == 0
    code, out, _ = cnnexp(*given, "trainer.resume=true")
    assert code == 0 and out.count("is done already") == 2 and "epoch" not in out
    assert len(folders(tmp_path)) == 1 and len(tracker(tmp_path).find_runs()) == 3
    code, out, _ = cnnexp(*given, "sweep.resume=false")
    assert code == 0 and "is done already" not in out and len(folders(tmp_path)) == 2
    assert len(tracker(tmp_path).find_runs()) == 6


def test_a_job_with_other_values_is_trained_anew(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = ["train", "-m", *line(drawn_root, "tracking=none", "seed=0,1")[1:]]
    assert cnnexp(*given)[0] == 0
    (folder,) = folders(tmp_path)
    state = json.loads((folder / "1" / "run.json").read_text())
    write_state(folder / "1", RunState(state["run_id"], "of another config", state["data_digest"]))
    code, out, _ = cnnexp(*given)
    assert code == 0 and out.count("is done already") == 1 and out.count("epoch   1/2") == 1


@pytest.mark.parametrize(("policy", "started"), [("continue", 3), ("stop", 1)])
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


def test_what_only_steers_a_sweep_does_not_make_it_another() -> None:
    given = ["experiment=baseline", "seed=0,1"]
    assert decisive([*given, "sweep.resume=true", "trainer.resume=true", "hydra/launcher=joblib"]) == given
    assert decisive([*given, "trainer.epochs=3"]) != given


def test_a_resumed_run_keeps_the_objective(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """What a sweeper is told of a job that is done is what it was told when it was trained."""
    given = ["train", "-m", *line(drawn_root, "tracking=none", "seed=0")[1:]]
    assert cnnexp(*given)[0] == 0
    (folder,) = folders(tmp_path)
    state = json.loads((folder / "0" / "run.json").read_text())
    result = json.loads((folder / "0" / "result.json").read_text())
    assert np.isclose(state["objective"], result["val_accuracy"])
