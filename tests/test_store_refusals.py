"""Runs and sweeps whose store, folder or disk is not as it should be: one line, and nothing half-done."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stand_ins
from filelock import FileLock
from resuming import folders, line, tracker

from cnnexp.config.training import PathsConfig
from cnnexp.errors import UserError
from cnnexp.runs.folder import RunFolder
from cnnexp.runs.paths import check_paths
from cnnexp.tracking import stores

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]


def nothing_left(root: Path) -> bool:
    """Whether no folder of a run or sweep is there."""
    runs = root / "outputs" / "runs"
    return not runs.exists() or not list(runs.iterdir())


def test_a_sweep_without_its_store_does_not_begin(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away, locked, damaged, the experiment deleted; of a new sweep and of one that was finished."""
    code, _, err = cnnexp(*line(drawn_root, "-m", "seed=0,1", "tracking.uri=http://127.0.0.1:9"))
    assert (code, len(err.splitlines())) == (2, 1) and "Connection refused" in err and "tracking.uri=" in err
    assert list(tmp_path.iterdir()) == []

    assert cnnexp(*line(drawn_root, "-m", "seed=0,1", "trainer.epochs=1"))[0] == 0
    (sweep,) = folders(tmp_path)
    file = tmp_path / "outputs" / "mlflow.db"
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}

    def refused(said: str) -> None:
        for seeds in ("seed=0,1", "seed=2,3"):
            code, out, err = cnnexp(*line(drawn_root, "-m", seeds, "trainer.epochs=1"))
            assert (code, len(err.splitlines())) == (2, 1) and said in err, err
            assert "done already" not in out and "Launching" not in out
        assert folders(tmp_path) == [sweep]
        assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before

    monkeypatch.setattr(stores, "PATIENCE_S", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        refused("is in use by another process (locked)")
    statement = "UPDATE experiments SET lifecycle_stage = '{}' WHERE name = 'cnnexp'"
    with closing(sqlite3.connect(file)) as other, other:
        other.execute(statement.format("deleted"))
    refused("was deleted; choose another name, or restore it")
    with closing(sqlite3.connect(file)) as other, other:
        other.execute(statement.format("active"))
    whole = file.read_bytes()
    file.write_bytes(os.urandom(8192) + whole[8192:])
    refused(f"tracking.uri=sqlite:///{file}: is damaged")
    file.write_bytes(whole)
    code, out, err = cnnexp(*line(drawn_root, "-m", "seed=0,1", "trainer.epochs=1"))
    assert code == 0 and out.count("done already") == 2, err


def test_a_sweep_whose_folder_is_held_does_not_begin(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "outputs" / "runs" / "mine"
    mine.mkdir(parents=True)
    with FileLock(mine / "run.lock"):
        for dataset in ([], ["dataset=folder", "dataset.path=missing"]):
            overrides = ["-m", "seed=0,1", f"hydra.sweep.dir={mine}", *dataset]
            code, _, err = cnnexp(*line(drawn_root, *overrides))
            assert (code, len(err.splitlines())) == (2, 1) and "is at work" in err
            assert [path.name for path in mine.iterdir()] == ["run.lock"]
    assert mine.is_dir()


def test_a_sweep_whose_jobs_fail_says_so(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    code, _, err = cnnexp(*line(drawn_root, "-m", "seed=0,1", "dataset=folder", "dataset.path=missing"))
    assert code == 1 and err.count("failed:") == 2
    (parent,) = tracker(tmp_path).sweeps(2)
    assert parent.status == "FAILED" and len(tracker(tmp_path).children(parent.run_id)) == 2


def delete_run(root: Path) -> None:
    with closing(sqlite3.connect(root / "outputs" / "mlflow.db")) as store, store:
        store.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE status = 'RUNNING'")


def test_a_run_that_is_deleted_in_mid_training(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are in its folder; going on with it records it anew, without a training."""

    def fit(*arguments: Any, **named: Any) -> Any:
        done = stand_ins.fit(*arguments, **named)
        delete_run(tmp_path)
        return done

    job = line(drawn_root, "trainer.epochs=1", "tracking.log_model=true")
    with monkeypatch.context() as patch:
        patch.setattr("cnnexp.runs.run.fit", fit)
        code, out, err = cnnexp(*job)
    (folder,) = folders(tmp_path)
    made = RunFolder(folder).manifest
    assert made is not None and code == 1
    remedy = "the same line with trainer.resume=true records it anew"
    assert err == f"cnnexp: run {made.run_id} was deleted in the store; its files are in {folder}; {remedy}\n"
    assert f"run {made.run_id} was deleted in the store; the run goes on" in out
    for name in ("predictions.csv", "config.yaml", "curves.png", "result.json"):
        assert (folder / name).is_file(), name
    assert RunFolder(folder).status == "FAILED"
    code, out, err = cnnexp(*job, "trainer.resume=true")
    assert code == 0 and "a new run is recorded" in err and "epoch" not in out, err
    (run,) = tracker(tmp_path).find_runs(status="FINISHED")
    assert run.run_id != made.run_id and tracker(tmp_path).has_model(run.run_id)
    assert len(tracker(tmp_path).history(run.run_id, "train/loss")) == 1


def test_a_sweep_of_which_a_run_is_deleted(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are at work: the first job's and the parent's. The second job goes on, and the exit code tells."""

    def fit(parts: Any, *more: Any, **named: Any) -> Any:
        done = stand_ins.fit(parts, *more, **named)
        if not list((tmp_path / "outputs" / "runs").glob("*/1")):
            delete_run(tmp_path)
        return done

    monkeypatch.setattr("cnnexp.runs.run.fit", fit)
    code, _, err = cnnexp(*line(drawn_root, "-m", "seed=0,1", "trainer.epochs=1"))
    (sweep,) = folders(tmp_path)
    assert code == 1 and "Traceback" not in err and "was deleted in the store" in err.splitlines()[-1]
    assert [RunFolder(sweep / job).status for job in "01"] == ["FAILED", "FINISHED"]
    assert (sweep / "comparison.html").is_file()


@pytest.mark.parametrize("sweep", [False, True])
def test_a_bucket_that_is_not_there(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: bool
) -> None:
    """It shows at the first file, which is sent before the training; the run says so, and is closed."""
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as places
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    class NoSuchBucketError(Exception):
        """As of boto3."""

    class Bucket(LocalArtifactRepository):
        def __init__(self, place: str, *more: Any, **named: Any) -> None:
            super().__init__(str(tmp_path / "bucket"))

        def log_artifact(self, *given: Any, **named: Any) -> None:
            raise NoSuchBucketError("The specified bucket does not exist")

    def fit(*given: Any, **named: Any) -> Any:
        raise AssertionError("it is trained")

    monkeypatch.setattr("cnnexp.runs.run.fit", fit)
    monkeypatch.setitem(places._registry, "bucket", Bucket)
    given = ["-m", "seed=0,1"] if sweep else []
    code, _, err = cnnexp(*line(drawn_root, *given, "tracking.artifact_root=bucket://nosuch/x"))
    said = "tracking.experiment=cnnexp: keeps its files in bucket://nosuch/x/"
    assert code == 1 and said in err and "which takes none: NoSuchBucketError: The specified" in err, err
    assert "Traceback" not in err and "it is trained" not in err and (sweep or len(err.splitlines()) == 1)
    statuses = [run.status for run in tracker(tmp_path).find_runs()]
    assert set(statuses) == {"FAILED"} and len(statuses) == (3 if sweep else 1)


@pytest.mark.parametrize(
    ("accident", "said"),
    [
        ("UPDATE experiments SET lifecycle_stage = 'deleted'", "was deleted; choose another name"),
        ("DROP TABLE experiments", "is of another version of MLflow|is no store of MLflow"),
    ],
)
def test_a_sweep_whose_store_takes_no_further_job(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, no_training: None, monkeypatch: pytest.MonkeyPatch, accident: str,
    said: str,
) -> None:  # fmt: skip
    """The second job cannot be opened: that is a failed job, exit code 1, and no mistake of the line."""

    def fit(parts: Any, *more: Any, **named: Any) -> Any:
        done = stand_ins.fit(parts, *more, **named)
        with closing(sqlite3.connect(tmp_path / "outputs" / "mlflow.db")) as store, store:
            store.execute("UPDATE runs SET lifecycle_stage = 'deleted'")  # as MLflow does with an experiment
            store.execute(accident)
        return done

    monkeypatch.setattr("cnnexp.runs.run.fit", fit)
    code, _, err = cnnexp(*line(drawn_root, "-m", "seed=0,1", "trainer.epochs=1"))
    (sweep,) = folders(tmp_path)
    assert code == 1 and "Traceback" not in err and any(words in err for words in said.split("|")), err
    assert [RunFolder(sweep / job).status for job in "01"] == ["FAILED", "FAILED"]


def test_a_place_that_cannot_be_written(cnnexp: Run, tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    for place, commands in (
        ("/dev/null/x", ["train", "train -m seed=0,1"]),
        ("afile", ["doctor", "prepare synthetic"]),
    ):
        for command in commands:
            code, _, err = cnnexp(*command.split(), f"paths.root={place}")
            assert code == 2 and len(err.splitlines()) == 1, err
            assert err.startswith(f"cnnexp: paths.root={place}: ") and "no folder; give another folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["afile"]


@pytest.mark.parametrize("name", ["runs", "data", "cache"])
def test_the_place_is_named_by_its_own_key(tmp_path: Path, name: str) -> None:
    (tmp_path / "afile").touch()
    paths = {each: f"{tmp_path}/out/{each}" for each in ("runs", "data", "cache")}
    check_paths(PathsConfig(root=f"{tmp_path}/out", **paths))
    paths[name] = f"{tmp_path}/afile/below"
    with pytest.raises(UserError, match=rf"^paths\.{name}={tmp_path}/afile/below: {tmp_path}/afile is no folder; give"):
        check_paths(PathsConfig(root=f"{tmp_path}/out", **paths))


def test_an_artifact_store_without_its_package(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnexp.tracking.artifacts._is_installed", lambda module: False)
    for several in ([], ["-m", "seed=0,1"]):
        code, _, err = cnnexp(*line(drawn_root, *several, "tracking.artifact_root=s3://bucket/x"))
        assert code == 2 and err.endswith("pip install boto3\n") and len(err.splitlines()) == 1, err
        assert nothing_left(tmp_path)


@pytest.mark.parametrize("what", ["runs", "cache"])
def test_a_sweep_on_a_disk_that_is_full(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, no_training: None, what: str
) -> None:
    """Of `paths.runs` or `paths.cache`: eight kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system here")
    try:
        (disk / "full").write_bytes(b"0" * 8192 if what == "runs" else b"0" * 4096)
        code, _, err = cnnexp(*line(drawn_root, "-m", "seed=0,1", "trainer.epochs=1", f"paths.{what}={disk}"))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    if what == "cache":
        assert code == 0, err
        return
    assert code == 1 and len(err.splitlines()) == 1, err
    assert "the disk is full; make room: the same line goes on with the sweep" in err
    (parent,) = tracker(tmp_path).sweeps(2)
    assert parent.status == "FAILED"
