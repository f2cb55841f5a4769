"""Outputs that were renamed, copied or mounted elsewhere: everything works there, and nothing of the original is
touched."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cnnexp.tracking.locations import HOME_TAG, Move, find_move, local_folder, mend
from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]
SMOKE = ["debug=smoke", "trainer.epochs=1", "dataset.image_size=48", "tracking.explain=false"]


@pytest.mark.parametrize(
    ("place", "now"),
    [
        ("file:///a/outputs/mlartifacts/RUN/artifacts", "file:///b%20c/mlartifacts/RUN/artifacts"),
        ("file:///a/outputs", "file:///b%20c"),
        ("/a/outputs/runs/1", "/b c/runs/1"),
        ("file:///a/outputs2/mlartifacts", "file:///a/outputs2/mlartifacts"),  # begins alike, and is another folder
        ("/elsewhere/artifacts", "/elsewhere/artifacts"),
        ("s3://bucket/a/outputs", "s3://bucket/a/outputs"),
        ("mlflow-artifacts:/1/RUN/artifacts", "mlflow-artifacts:/1/RUN/artifacts"),
    ],
)
def test_what_lies_below_the_folder_moves_with_it(place: str, now: str) -> None:
    assert Move(Path("/a/outputs"), Path("/b c")).resolve(place) == now


def test_a_folder_that_was_moved_into_itself() -> None:
    move = Move(Path("/a"), Path("/a/old"))
    assert move.resolve("/a/runs/1") == "/a/old/runs/1"
    assert move.resolve("/a/old/runs/1") == "/a/old/runs/1"


def test_local_folders() -> None:
    assert local_folder("file:///a%20b/c") == Path("/a b/c")
    assert local_folder("/a b") == Path("/a b")
    assert local_folder("s3://bucket/x") is None and local_folder("mlflow-artifacts:/1/x") is None


# ------------------------------------------------------------------------------------------------- a store


def tracker_of(folder: Path, artifacts: Path | None = None) -> Tracker:
    return Tracker(f"sqlite:///{folder}/mlflow.db", "cnnexp", str(artifacts or folder / "mlartifacts"))


def store(folder: Path, artifacts: Path | None = None) -> str:
    """One finished run with the artifact a.txt, in the experiment cnnexp."""
    tracker = tracker_of(folder, artifacts)
    run_id = tracker.start_run("r", {}, {"run_dir": str(folder / "runs" / "1"), "config_hash": "0"})
    tracker.log_text("original", "a.txt")
    tracker.end_run("FINISHED")
    return run_id


def rows(folder: Path, question: str) -> list[tuple[str]]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return connection.execute(question).fetchall()


def without_home(folder: Path) -> None:
    """As an earlier version made it."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("DELETE FROM experiment_tags WHERE key = ?", (HOME_TAG,))
        connection.commit()


@pytest.mark.parametrize("old", [False, True], ids=["", "of an earlier version"])
@pytest.mark.parametrize("way", ["copied", "renamed"])
def test_a_moved_store_is_read_where_it_is_and_mended_when_it_is_written_to(
    tmp_path: Path, way: str, old: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "t w o"
    run_id = store(one)
    if old:
        without_home(one)
    (shutil.copytree if way == "copied" else shutil.move)(one, two)
    (two / "mlartifacts" / run_id / "artifacts" / "a.txt").write_text("copy")
    before = (two / "mlflow.db").read_bytes()
    reader = tracker_of(two)
    assert reader.get_run(run_id).tags["run_dir"] == f"{two}/runs/1"
    assert reader.artifacts(run_id, "") == ["a.txt"]
    assert reader.download(run_id, "a.txt", tmp_path / "got").read_text() == "copy"
    assert (two / "mlflow.db").read_bytes() == before  # reading mends nothing
    (tmp_path / "b.txt").write_text("b")
    capsys.readouterr()
    reader.add_artifact(run_id, tmp_path / "b.txt")
    assert f"below {one} is named below {two} now" in capsys.readouterr().err
    assert sorted(file.name for file in (two / "mlartifacts" / run_id / "artifacts").iterdir()) == ["a.txt", "b.txt"]
    assert not (one / "mlartifacts" / run_id / "artifacts" / "b.txt").exists()
    assert rows(two, "SELECT artifact_uri FROM runs") == [(f"{two.as_uri()}/mlartifacts/{run_id}/artifacts",)]
    assert rows(two, "SELECT value FROM tags WHERE key = 'run_dir'") == [(f"{two}/runs/1",)]
    new = store(two)
    assert (two / "mlartifacts" / new / "artifacts" / "a.txt").is_file()
    assert capsys.readouterr().err == ""  # said once
    if way == "copied":
        assert rows(one, "SELECT artifact_uri FROM runs") == [(f"{one.as_uri()}/mlartifacts/{run_id}/artifacts",)]
    else:
        assert not one.exists()


@pytest.mark.parametrize("old", [False, True], ids=["", "of an earlier version"])
def test_a_place_outside_is_never_changed(tmp_path: Path, old: bool) -> None:
    one, two, outside = tmp_path / "one", tmp_path / "two", tmp_path / "elsewhere" / "mlartifacts"
    run_id = store(one, outside)
    if old:
        without_home(one)
    (one / "mlartifacts").mkdir()
    shutil.move(one, two)
    tracker = tracker_of(two)
    assert tracker.download(run_id, "a.txt", tmp_path / "got").read_text() == "original"
    tracker.prepare()
    assert rows(two, "SELECT artifact_uri FROM runs") == [(f"{outside.as_uri()}/{run_id}/artifacts",)]


def test_a_database_that_was_moved_alone_leaves_its_artifacts_where_they_are(tmp_path: Path) -> None:
    run_id = store(tmp_path / "one")
    (tmp_path / "two").mkdir()
    shutil.move(tmp_path / "one" / "mlflow.db", tmp_path / "two" / "mlflow.db")
    tracker = tracker_of(tmp_path / "two")
    assert tracker.move is None
    assert tracker.download(run_id, "a.txt", tmp_path / "got").read_text() == "original"


def test_there_and_back(tmp_path: Path) -> None:
    """As a folder that is mounted elsewhere for a while."""
    run_id, there = store(tmp_path / "here"), tmp_path / "there"
    for old, new in ((tmp_path / "here", there), (there, tmp_path / "here")):
        shutil.move(old, new)
        move = mend(new / "mlflow.db", (new / "mlartifacts").as_uri())
        assert move == Move(old, new)
        assert find_move(new / "mlflow.db", (new / "mlartifacts").as_uri()) is None
        assert mend(new / "mlflow.db", (new / "mlartifacts").as_uri()) is None
    assert tracker_of(tmp_path / "here").download(run_id, "a.txt", tmp_path / "got").read_text() == "original"


# ---------------------------------------------------------------------------------------------- the commands


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file but locks."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.mark.long
def test_all_commands_on_a_copy(cnnexp: Run, tmp_path: Path, no_training: None) -> None:
    assert cnnexp("train", "-m", *SMOKE, "seed=0,1", "paths.root=one")[0] == 0
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(one, two)
    before = files(one)
    photo = next((two / "data").rglob("*.png"), None) or next((two / "data").rglob("*.jp*g"))
    code, out, err = cnnexp("doctor", "--check", "paths.root=two")
    assert code == 1 and f"named below {one}, are below {two}" in err and "cnnexp doctor" in err
    run_id = tracker_of(two).find_run("latest").run_id
    for line in (
        ["predict", run_id, str(photo)],
        ["evaluate", run_id],
        ["compare"],
        ["reproduce", run_id],
        ["explain", run_id],
    ):
        code, out, err = cnnexp(*line, "paths.root=two")
        assert code == 0, (line, out, err)
        assert files(one) == before, line
    shutil.rmtree(one)
    code, out, _ = cnnexp("doctor", "paths.root=two")
    assert code == 0 and "mended" not in out  # what wrote has done it

    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{two}/mlflow.db")
    assert mlflow.pyfunc.load_model(f"runs:/{run_id}/model").metadata.run_id == run_id


def test_doctor_mends_and_names_what_cannot_be_reached(cnnexp: Run, tmp_path: Path) -> None:
    run_id = store(tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "two")
    code, out, _ = cnnexp("doctor", "paths.root=two")
    assert code == 0 and "places" in out and "mended" in out
    assert cnnexp("doctor", "paths.root=two")[:1] == (0,)
    shutil.rmtree(tmp_path / "two" / "mlartifacts")
    code, _, err = cnnexp("doctor", "paths.root=two")
    assert code == 1
    assert f"those of 1 of 1 finished runs are not there; mount or put back their folder (run {run_id}" in err


def test_doctor_looks_for_the_files_of_a_run_that_was_taken_where_the_original_has_them(
    cnnexp: Run, tmp_path: Path
) -> None:
    run_id = store(tmp_path / "outputs")
    tracker = tracker_of(tmp_path / "outputs")
    for origin in (run_id, "0" * 32):  # the second was deleted since
        tracker.start_run("taken", {}, {"config_hash": "0", "reused_from": origin})
        tracker.end_run("FINISHED")
    code, out, err = cnnexp("doctor", "--check")
    assert (code, err) == (0, "") and "artifacts" not in out
    shutil.rmtree(tmp_path / "outputs" / "mlartifacts")
    code, _, err = cnnexp("doctor", "--check")
    assert code == 1
    assert f"those of 2 of 3 finished runs are not there; mount or put back their folder (run {run_id}" in err
