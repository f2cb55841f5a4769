"""Runs that were stopped go on in the same folder and the same tracked run, and end as if nothing had been."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from campaign import kill
from resuming import Run, age, folders, line, tracker

from cnnexp.errors import UserError
from cnnexp.runs.folder import RunFolder, RunManifest
from cnnexp.runs.recorded_config import find_unfinished
from cnnexp.tracking.mlflow import Tracker

# ------------------------------------------------------------------------------------------------ kill -9


@pytest.mark.long
def test_a_run_killed_three_times_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """Before a checkpoint is in its place, while an epoch is recorded, and while the files are written."""
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    for moment in ("in_checkpoint:2", "log_metrics:4", "model:1"):
        assert kill.train(broken, moment) == -signal.SIGKILL, moment
    assert kill.train(broken) == kill.train(unbroken) == 0
    assert kill.compare(broken, unbroken) == []
    (folder,) = folders(broken)
    assert not RunFolder(folder).checkpoint.exists() and not RunFolder(folder).is_held


@pytest.mark.parametrize("moment", kill.MOMENTS)
def test_the_moments_of_the_campaign_exist(moment: str) -> None:
    module, path = kill.MOMENTS[moment]
    found = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)


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
    assert not RunFolder(folder).checkpoint.exists()
    assert cnnexp(*given)[0] == 0  # an unbroken one beside it
    unbroken = tracker(tmp_path).find_run("latest")
    for name, value in resumed.metrics.items():
        if "time" not in name and name != "images_per_s":
            assert value == unbroken.metrics[name], name


@pytest.mark.usefixtures("no_training")
def test_a_run_of_a_version_that_had_fewer_keys_goes_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root))[0] == 130
    (folder,) = folders(tmp_path)
    run_id = age(folder, lambda config: (config["trainer"].pop("feature_dtype"), config.pop("phases")))
    code, out, err = cnnexp(*line(drawn_root, "trainer.resume=true"))
    assert code == 0 and f"goes on with run {run_id}" in out, err
    assert len(folders(tmp_path)) == 1


@pytest.mark.usefixtures("no_training")
def test_a_run_with_another_value_does_not_go_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    (folder,) = folders(tmp_path)
    age(folder, lambda config: config["optimizer"].update(learning_rate=0.5))
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 0 and "no unfinished run of this config" in out and len(folders(tmp_path)) == 2


@pytest.mark.usefixtures("no_training")
def test_without_the_option_a_run_begins_anew(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none"))
    assert code == 0 and "epoch   1/2" in out and len(folders(tmp_path)) == 2


@pytest.mark.usefixtures("no_training")
def test_nothing_to_resume_is_said(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 0 and "no unfinished run of this config" in out and len(folders(tmp_path)) == 1
    code, out, _ = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))  # that one is finished
    assert code == 0 and "no unfinished run of this config" in out and len(folders(tmp_path)) == 2


@pytest.mark.usefixtures("no_training")
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


@pytest.mark.usefixtures("no_training")
def test_a_run_with_other_images_is_not_resumed(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    (folder,) = folders(tmp_path)
    state = json.loads((folder / "run.json").read_text())
    RunFolder(folder).write_manifest(RunManifest(state["run_id"], state["config_hash"], "of other images"))
    code, _, err = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 2 and "the images are no longer those of the run in" in err
    assert RunFolder(folder).checkpoint.is_file()


@pytest.mark.usefixtures("no_training")
def test_a_run_that_is_alive_is_not_resumed(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    interrupted(1)
    assert cnnexp(*line(drawn_root, "tracking=none"))[0] == 130
    (folder,) = folders(tmp_path)
    with RunFolder(folder).lock():
        code, _, err = cnnexp(*line(drawn_root, "tracking=none", "trainer.resume=true"))
    assert code == 2 and "is still in training" in err and len(err.splitlines()) == 1


def test_the_newest_unfinished_run_is_found(tmp_path: Path) -> None:
    for name, config_hash in (("1", "a"), ("2", "a"), ("3", "b")):
        RunFolder(tmp_path / name).write_manifest(RunManifest("id", config_hash, ""))
    assert find_unfinished(tmp_path, "a") == RunFolder(tmp_path / "2")
    (tmp_path / "2" / "result.json").write_text(json.dumps({"status": "FINISHED"}))
    assert find_unfinished(tmp_path, "a") == RunFolder(tmp_path / "1")
    (tmp_path / "1" / "run.json").write_text("cut off")
    assert find_unfinished(tmp_path, "a") is None


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path).is_held
    with RunFolder(tmp_path).lock():
        assert RunFolder(tmp_path).is_held
        with pytest.raises(UserError, match=r"another process \(\d+\) is at work"), RunFolder(tmp_path).lock():
            pass
    assert not RunFolder(tmp_path).is_held and not list(tmp_path.iterdir())
