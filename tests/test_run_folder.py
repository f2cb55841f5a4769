"""The folder of a run: what it keeps is there wherever it lies, and a folder of the version before is read."""

import json
import math
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from made_runs import result
from omegaconf import OmegaConf

import cnnexp.runs.folder as folder_module
from cnnexp.config.composition import load_config
from cnnexp.errors import UserError
from cnnexp.report.compare import summarise
from cnnexp.report.tables import table_rows
from cnnexp.runs.comparison import distinguish, read_jobs
from cnnexp.runs.folder import RunFolder, RunManifest, SweepFolder, SweepManifest, find_sweeps, single_runs
from cnnexp.runs.recorded_config import hash_today
from cnnexp.runs.result import at_chance, phases_in_words, read_result
from cnnexp.tracking.info import RunInfo


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


def bomb() -> str:
    """Some 600 bytes of YAML that stand for 8 ** 29 values."""
    lines = ["z0: &z0 {" + ", ".join(f"k{key}: 1" for key in range(10)) + "}"]
    lines += [f"z{n}: &z{n} {{<<: [{', '.join([f'*z{n - 1}'] * 8)}]}}" for n in range(1, 30)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(), "merge keys (<<) have no place here; refused"),
        ("- 1", "is no mapping of keys"),
        ("'{a: 1}'", "is no mapping of keys"),
        ("name: ${oc.env:CNNEXP_NOT_SET}", "cannot be read: "),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_hydra_wrote_of_a_run_is_read_with_bounds(tmp_path: Path, text: str | None, said: str) -> None:
    """Others may have changed it."""
    folder = RunFolder(tmp_path)
    if text is not None:
        (tmp_path / ".hydra").mkdir()
        (tmp_path / ".hydra" / "config.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        folder.read_config()
    assert said in str(caught.value) and ".hydra/config.yaml" in str(caught.value)
    folder.write_manifest(RunManifest("1", "hash", "digest"))
    assert hash_today(folder, "other") is None


def test_what_hydra_wrote_of_a_run_keeps_its_types(tmp_path: Path) -> None:
    values = {"rate": 1e-5, "text": "1e-5", "day": "2024-01-01", "off": "off", "n": None, "also": "${rate}"}
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(values), tmp_path / ".hydra" / "config.yaml")
    assert RunFolder(tmp_path).read_config() == values | {"also": 1e-5}


def test_what_a_job_left_is_read_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, read = SweepFolder(tmp_path), []
    sweep.begin(SweepManifest(None, [], swept=[]))
    for number in range(3):
        job = RunFolder(tmp_path / str(number))
        job.path.mkdir()
        job.write_manifest(RunManifest(f"run {number}", "hash", "digest"))
        sweep.record_job(number, job, [])
    real = folder_module.read_json
    monkeypatch.setattr(
        folder_module, "read_json", lambda file, shape: read.append(file.parent.name) or real(file, shape)
    )

    def runs() -> list[str]:
        return [job.manifest.run_id for job in sweep.jobs().values() if job.manifest]

    assert [runs() for _ in range(3)] == [["run 0", "run 1", "run 2"]] * 3
    assert sorted(set(read) - {tmp_path.name}) == ["0", "1", "2"] and len([name for name in read if name == "1"]) == 1
    RunFolder(tmp_path / "1").write_manifest(RunManifest("run A", "hash", "digest"))
    sweep.record_job(2, RunFolder(tmp_path / "0"), [])  # the number of another job: no folder stands there twice
    assert runs() == ["run 0", "run A"]


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


def test_the_newest_is_told_by_its_time_and_not_by_its_name(tmp_path: Path) -> None:
    """In Berlin at 02:30 on 25 October, then after the clocks went back; then in a container on UTC."""
    names = ["2026-10-25_02-30-00-0", "2026-10-25_02-10-00-0", "2026-10-25_01-20-00-0"]
    for number, name in enumerate(names):
        begun = 1_792_888_200.0 + 2400 * number
        SweepFolder(tmp_path / "s" / name).begin(SweepManifest("parent", ["seed=0,1"], begun=begun))
        RunFolder(tmp_path / "r" / name).path.mkdir(parents=True)
        RunFolder(tmp_path / "r" / name).write_manifest(RunManifest("id", "hash", "digest", begun=begun))
    assert [sweep.path.name for sweep in find_sweeps(tmp_path / "s")] == names[::-1]
    assert [run.path.name for run in single_runs(tmp_path / "r")] == names
    for name in names:  # as a version wrote them that kept no time
        for file in (tmp_path / "s" / name / "sweep.json", tmp_path / "r" / name / "run.json"):
            found = json.loads(file.read_text())
            del found["begun"]
            file.write_text(json.dumps(found))
    assert [sweep.path.name for sweep in find_sweeps(tmp_path / "s")] == sorted(names, reverse=True)
    assert [run.path.name for run in single_runs(tmp_path / "r")] == sorted(names)
    assert RunFolder(tmp_path / "r" / names[0]).manifest == RunManifest("id", "hash", "digest")


def test_phases_and_chance_are_said() -> None:
    config = load_config(["experiment=finetuned", "trainer.epochs=6"])
    assert phases_in_words(config) == "phases: head 30 epochs, then finetune 6; 36 in all"
    config = load_config(["experiment=finetuned", "trainer.max_epochs=4", "phases.head.epochs=3"])
    assert phases_in_words(config) == "phases: head 3 epochs, then finetune 4; 7 in all"
    assert phases_in_words(load_config(["experiment=frozen"])) == ""
    labels = np.array([0] * 60 + [1] * 40)  # Wilson, 100 images: 69 are 0.594 to 0.772, 71 are 0.615 to 0.790
    for right, said in ((40, True), (69, True), (71, False), (99, False)):
        found = at_chance(result("a", right / 100, test_total=100), labels)
        assert found == said * "test accuracy is at chance: one answer for every image is right for 60.0 % of them"
    assert at_chance(result("a", None, test_total=None), labels) == ""
    assert at_chance(result("a", 1.0, test_total=100), labels * 0) == ""


# ---------------------------------------------------------------------------------------- damaged or of another version


@pytest.mark.parametrize("content", ["null", "[]", '{"overrides": 5}', '{"overrides": null}', "{", "", '"x"'])
def test_a_damaged_sweep_is_passed_over_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    for name in ("1", "2"):
        SweepFolder(tmp_path / name).begin(SweepManifest("parent", ["seed=0,1"], "seeds", "grid"))

    def found() -> list[str]:
        return [sweep.path.name for sweep in find_sweeps(tmp_path) if sweep.was_begun_with(["seed=0,1"], [])]

    assert found() == ["2", "1"]
    (tmp_path / "2" / "sweep.json").write_text(content)
    assert found() == ["1"]
    (tmp_path / "1" / "sweep.json").write_text(content)
    assert found() == []
    err = capsys.readouterr().err
    assert err.count(f"{tmp_path / '2' / 'sweep.json'}: ") == 1 and "passed over" in err
    with pytest.raises(UserError, match=r"sweep\.json: "):
        _ = SweepFolder(tmp_path / "1").shared_overrides


@pytest.mark.parametrize(
    "content", ["[]", '{"status": 5}', '{"run_id": "a", "status": "FINISHED"}', '{"status": "FINISHED", "new": 1}']
)
def test_a_result_of_another_shape_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    for number in (0, 1):
        job = RunFolder(tmp_path / str(number))
        job.write_result(result(f"r{number}", 0.5, predictions_path=None))
        (job.path / ".hydra").mkdir()
        (job.path / ".hydra" / "overrides.yaml").write_text(f"[seed={number}]")
    (tmp_path / "0" / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json: "):
        RunFolder(tmp_path / "0").read_result()
    assert [found.name for found in distinguish(*read_jobs(tmp_path))] == ["r1"]
    assert "result.json" in capsys.readouterr().err
    assert RunFolder(tmp_path / "0").status in (None, "FINISHED")


def test_what_is_no_job_among_the_jobs(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "result.json").write_text("{}")
    assert SweepFolder(tmp_path).ended_jobs() == []


# ----------------------------------------------------------------------------------------------- figures of a store

FIGURES = {"test/acc": 0.75, "x/count/test_images": 20.0, "x/count/epochs": 3.0, "x/count/parameters": 7.0}


def recorded(params: dict[str, str], metrics: dict[str, float]) -> RunInfo:
    now = datetime.now(UTC)
    return RunInfo("0" * 32, "r", "FAILED", params, metrics, {}, now, now, "", None)


@pytest.mark.parametrize(
    ("params", "metrics", "field", "said"),
    [
        ({}, {"x/count/epochs": math.nan}, "epochs", "x/count/epochs=nan"),
        ({}, {"x/count/epochs": 2.5}, "epochs", "x/count/epochs=2.5"),
        ({}, {"x/count/parameters": -1.0}, "total_parameters", "x/count/parameters=-1.0"),
        ({}, {"test/acc": 5.0}, "test_accuracy", "test/acc=5.0"),
        ({}, {"test/acc": math.nan}, "test_accuracy", "test/acc=nan"),
        ({}, {"x/count/test_images": math.inf}, "test_total", "x/count/test_images=inf"),
        ({"seed": "x"}, {}, "seed", "seed=x"),
        ({"seed": "1e3"}, {}, "seed", "seed=1e3"),
        ({"reference_accuracy": "abc"}, {}, "reference_accuracy", "reference_accuracy=abc"),
        ({"reference_accuracy": "nan"}, {}, "reference_accuracy", "reference_accuracy=nan"),
    ],
)
def test_figures_that_are_none_are_left_out_with_a_line(
    params: dict[str, str],
    metrics: dict[str, float],
    field: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = read_result(None, recorded(params, FIGURES | metrics), 0, tmp_path, ())  # type: ignore[arg-type]
    assert not getattr(found, field)
    assert found.interval is None or found.test_accuracy == 0.75
    assert f"cnnexp: run {'0' * 32}: {said}: is no such figure; left out\n" == capsys.readouterr().err
    rows = table_rows(summarise([found]))[1]
    assert len(rows) == 1


def test_figures_of_a_store_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = {"seed": "3", "reference_accuracy": "0.5", "name": "n"}
    found = read_result(None, recorded(params, FIGURES), 0, tmp_path, ())  # type: ignore[arg-type]
    assert (found.name, found.seed, found.reference_accuracy) == ("n", 3, 0.5)
    assert (found.test_accuracy, found.test_total, found.epochs, found.total_parameters) == (0.75, 20, 3, 7)
    assert capsys.readouterr().err == ""
