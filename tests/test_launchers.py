"""Sweeps on Hydra's launchers: the same figures, one parent with its jobs, and a dead process is one failed job."""

from __future__ import annotations

import os
import pkgutil
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.runs import sweep_job
from cnnexp.runs.folder import result_affecting
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]

LAUNCHERS = {
    "joblib": "hydra_joblib_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
}


def sweep(drawn_root: Path, *overrides: str) -> list[str]:
    small = ["debug=smoke", "dataset=synthetic", "dataset.image_size=48", "tracking.log_model=false"]
    return ["train", "-m", *small, f"paths.data={drawn_root}", *overrides]


def parent_and_children(root: Path) -> tuple[RunInfo, list[RunInfo]]:
    tracker = Tracker(f"sqlite:///{root}/outputs/mlflow.db", "cnnexp", str(root / "outputs" / "mlartifacts"))
    (parent,) = tracker.sweeps(5)
    return parent, tracker.children(parent.run_id)


def installed(launcher: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{LAUNCHERS[launcher]}") is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory, drawn_root: Path) -> dict[str, bytes]:
    """The test predictions of each seed, trained one after the other in this process."""
    from cnnexp.cli import main

    root = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["cnnexp"])
        assert main(sweep(drawn_root, "seed=0,1")) == 0
    return predictions(root)


def predictions(root: Path) -> dict[str, bytes]:
    files = (root / "outputs" / "runs").glob("*/*/predictions.csv")
    return {file.parent.name: file.read_bytes() for file in files}


@pytest.mark.trains
@pytest.mark.long
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_give_the_same(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, serial: dict[str, bytes], launcher: str
) -> None:
    if not installed(launcher):
        pytest.skip(f"{LAUNCHERS[launcher]} is not installed")
    code, _, err = cnnexp(*sweep(drawn_root, "seed=0,1", f"hydra/launcher={launcher}"))
    assert code == 0, err
    assert "validated against ConfigStore" not in err
    assert len(set(serial.values())) == 2 and predictions(tmp_path) == serial
    parent, children = parent_and_children(tmp_path)
    assert parent.status == "FINISHED" and [child.status for child in children] == ["FINISHED"] * 2


@pytest.mark.trains
@pytest.mark.long
def test_a_job_whose_process_is_killed_fails_alone(cnnexp: Run, tmp_path: Path) -> None:
    (tmp_path / "deadly").touch()
    given = ["train", "-m", "debug=smoke", "dataset=custom", "dataset._target_=deadly.pictures"]
    given += ["dataset.image_size=48", "tracking.log_model=false"]
    given += [f"+dataset.arguments.path={tmp_path / 'drawn'}", "+dataset.arguments.deadly_file=deadly,none"]
    code, out, err = cnnexp(*given, "sweep.fresh_process=true")
    assert code == 1
    assert "job 0 failed: its process was killed by SIGKILL" in err and "Traceback" not in err
    assert out.count("epoch   2/2") == 1
    parent, children = parent_and_children(tmp_path)
    assert parent.status == "FAILED" and sorted(child.status for child in children) == ["FAILED", "FINISHED"]
    failed = next(child for child in children if child.status == "FAILED")
    assert failed.tags["error"].startswith("its process was killed by SIGKILL")
    (tmp_path / "deadly").unlink()
    code, out, err = cnnexp(*given)  # in one process now, which changes nothing of what is computed
    assert code == 0 and out.count("is done already") == 1, err


@pytest.mark.trains
def test_which_jobs_get_a_process(cnnexp: Run, drawn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("cnnexp.runs.tasks.train_in_fresh_process", lambda *_: seen.append(os.getpid()) or 0.0)
    monkeypatch.setattr("cnnexp.runs.tasks.train_here", lambda *_: 0.0)
    for choice, count in (("null", 0), ("false", 0), ("true", 1)):
        seen.clear()
        cnnexp(*sweep(drawn_root, "seed=0", f"sweep.fresh_process={choice}"))
        assert len(seen) == count, choice
    assert result_affecting(["seed=0", "sweep.fresh_process=true"]) == ["seed=0"]


def test_how_a_process_ended() -> None:
    assert sweep_job._ending(-signal.SIGKILL).startswith("was killed by SIGKILL")
    assert sweep_job._ending(3) == "ended with exit code 3"


def test_a_worker_of_a_ray_cluster_begins_in_the_folder_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that runs already is elsewhere, with an environment of its own."""
    monkeypatch.chdir("/")  # and back again at the end
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with hydra_context():
        given = compose_config(["hydra/launcher=ray"], with_hydra=True).hydra.launcher.ray.init.runtime_env
    (folder,) = given.env_vars  # its value is the folder in which Hydra's own program was started
    monkeypatch.setenv(folder, str(tmp_path))
    pkgutil.resolve_name(given.worker_process_setup_hook)()
    assert Path.cwd() == tmp_path
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("n_jobs=x", "hydra.launcher.n_jobs=x: value 'x'"),
        ("n_jobs=0", "joblib: n_jobs == 0 in Parallel"),
    ],
)
def test_a_launcher_refuses_its_keys_before_the_sweep_is_opened(
    cnnexp: Run, tmp_path: Path, key: str, said: str
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, _, err = cnnexp("train", "-m", "debug=smoke", "seed=0,1", "hydra/launcher=joblib", f"hydra.launcher.{key}")
    assert code == 2 and said in err and len(err.splitlines()) == 1, err
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_that_fails_before_its_first_job_is_named(
    cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise OSError("no room for a process")

    monkeypatch.setattr("cnnexp.config.hydra_driver.run_sweep", fail)
    code, _, err = cnnexp("train", "-m", "debug=smoke", "dataset=synthetic", "seed=0,1")
    assert code == 1 and "hydra/launcher=basic: no job was begun: OSError: no room for a process" in err
    assert len(err.splitlines()) == 1


def test_a_launcher_that_is_not_installed_is_named(cnnexp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnexp.config.composition.find_spec", lambda name: None)
    for choice, extra in (("launcher=ray", "ray"), ("launcher=submitit_slurm", "slurm"), ("launcher=joblib", "joblib")):
        code, _, err = cnnexp("train", "-m", f"hydra/{choice}", "seed=0,1")
        assert code == 2 and len(err.splitlines()) == 1
        assert f"hydra/{choice}: " in err and f"pip install 'cnnexp[{extra}]'" in err


@pytest.mark.trains
def test_threads_stay_for_the_life_of_a_process(cnnexp: Run, drawn_root: Path) -> None:
    import tensorflow as tf

    tf.constant(1.0) + 1  # starts TensorFlow's threads
    given = ["train", *sweep(drawn_root, "trainer.threads=7")[2:]]
    code, _, err = cnnexp(*given)
    assert code == 2 and "trainer.threads=7: this process computes with" in err and "fresh_process" in err
    assert tf.config.threading.get_intra_op_parallelism_threads() == 0
