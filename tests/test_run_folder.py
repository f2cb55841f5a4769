"""The folder of a run: what it keeps is there wherever it lies, and a folder of the version before is read."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from made_runs import result

from cnnexp.runs.folder import RunFolder, RunManifest, SweepFolder, SweepManifest


def test_a_result_names_no_place_and_is_read_wherever_the_folder_lies(tmp_path: Path) -> None:
    here = RunFolder(tmp_path / "here")
    made = result("frozen", 0.9, predictions_path=str(here.predictions))
    here.write_result(made)
    assert str(tmp_path) not in (here.path / "result.json").read_text()
    assert here.read_result() == made
    there = RunFolder(Path(shutil.move(here.path, tmp_path / "there")))
    assert there.read_result().predictions_path == str(tmp_path / "there" / "predictions.csv")
    assert there.status == "FINISHED" and here.status is None


def test_a_result_with_the_place_where_it_was_made_is_read_too(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    made = result("frozen", 0.9, predictions_path="/elsewhere/outputs/runs/1/predictions.csv")
    (tmp_path / "result.json").write_text(json.dumps(asdict(made)))
    assert folder.read_result().predictions_path == str(tmp_path / "predictions.csv")


def test_a_run_that_did_not_finish_has_no_answers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_result(result("frozen", None, predictions_path=None, status="FAILED"))
    assert folder.read_result().predictions_path is None and folder.status == "FAILED"
    folder.reopen()
    assert folder.status is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"run_id": "a"}', '{"run_id": "a", "other": 1}'])
def test_a_manifest_that_is_none_of_ours_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert RunFolder(tmp_path).manifest is None


def test_a_sweep_is_told_by_its_folder(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    assert (sweep.parent_run_id, sweep.shared_overrides, sweep.chooses) == (None, [], False)
    sweep.begin(SweepManifest("parent", ["seed=0,1"], "seeds", "grid"))
    assert (sweep.parent_run_id, sweep.shared_overrides, sweep.chooses) == ("parent", ["seed=0,1"], True)
    sweep.begin(SweepManifest("parent", ["experiment=a,b"], "both", "progression"))
    assert not sweep.chooses


def test_the_jobs_of_a_sweep_come_in_their_order(tmp_path: Path) -> None:
    for number, objective in ((10, 0.5), (9, 0.75), (2, float("nan"))):
        job = RunFolder(tmp_path / str(number))
        job.write_result(result(str(number), 0.5, predictions_path=None))
        job.write_manifest(RunManifest("id", "hash", "digest", objective))
        job.network.touch()
    sweep = SweepFolder(tmp_path)
    assert [job.path.name for job in sweep.ended_jobs()] == ["2", "9", "10"]
    assert sweep.best_job("val/acc") == RunFolder(tmp_path / "9")
    assert sweep.best_job("val/loss") == RunFolder(tmp_path / "10")
    sweep.remove_networks()
    assert not any(job.network.exists() for job in sweep.ended_jobs())
