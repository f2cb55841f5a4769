"""Where a sweep and its jobs lie: folders of any form, one for each job, and one sweep in each."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_runs import result
from resuming import Run, folders, line, tracker

from cnnexp.config.composition import job_subdirs, plan_jobs
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.errors import UserError
from cnnexp.runs.folder import JOBS, SWEEP, RunFolder, SweepFolder, SweepManifest

DIRNAME = "hydra.sweep.subdir=${hydra.job.override_dirname}"


def subdirs(*overrides: str) -> list[str]:
    with hydra_context():
        return job_subdirs(plan_jobs(overrides, multirun=True))


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["seed=0,1"], ["0", "1"]),
        (["seed=4,5", "name=a", DIRNAME], ["name=a,seed=4", "name=a,seed=5"]),
        (["optimizer=sgd,adam", "hydra.sweep.subdir=${hydra.job.num}_${optimizer.name}"], ["0_sgd", "1_adam"]),
        (["seed=7,8", "hydra.sweep.subdir=s/${seed}"], ["s/7", "s/8"]),
        (["experiment=demo/frozen,best", DIRNAME], ["experiment=demo/frozen", "experiment=best"]),
        (
            ["seed=1,2", "name=x", DIRNAME, "hydra.job.config.override_dirname.exclude_keys=[name]"],
            ["seed=1", "seed=2"],
        ),
        (["seed=1,2", DIRNAME, "hydra.job.config.override_dirname.kv_sep=-"], ["seed-1", "seed-2"]),
        (["trainer.epochs=2,3", "hydra.sweep.subdir=a/../${trainer.epochs}/"], ["2", "3"]),
    ],
)
def test_the_folders_of_jobs_are_known_beforehand(overrides: list[str], wanted: list[str]) -> None:
    assert subdirs(*overrides) == wanted


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=0,1", "hydra.sweep.subdir=same"], "jobs 0 and 1 would have one folder, same; take ${hydra.job.num}"),
        (["seed=0,1,0", DIRNAME], "jobs 0 and 2 would have one folder, seed=0"),
        (["seed=0,1", "hydra.sweep.subdir=../${seed}"], "job 0 would lie in ../0"),
        (["seed=0,1", "hydra.sweep.subdir=/elsewhere/${seed}"], "job 0 would lie in /elsewhere/0"),
        (["seed=0,1", "hydra.sweep.subdir=''"], "job 0 would lie in ., not in a folder of its own"),
        (["seed=0,1", "hydra.sweep.subdir=${optimiser.name}"], "Interpolation key 'optimiser.name' not found"),
        ([f"name=a,{'b' * 251}", DIRNAME], "the name of job 1's folder has over 255 bytes"),
        (["hydra/sweeper=optuna", "hydra.sweep.subdir=${seed}"], "two jobs of a search may get one folder"),
    ],
)
def test_folders_that_jobs_cannot_have_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        subdirs(*overrides)
    assert said in str(error.value) and str(error.value).startswith("hydra.sweep.subdir=")


def test_jobs_are_found_by_what_is_recorded(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    sweep.begin(SweepManifest("parent", ["seed=0,1"], "seeds", "grid", ["seed=0,1"]))
    for number, place in ((1, "s/one"), (0, "s/two"), (3, "s/one")):  # a search may choose the same twice
        folder = RunFolder(tmp_path / place)
        sweep.record_job(number, folder, [f"seed={number}"])
        folder.write_result(result(place, 0.5, predictions_path=None))
    RunFolder(tmp_path / "7").write_result(result("of another", 0.5, predictions_path=None))
    assert {number: job.path.name for number, job in sweep.jobs().items()} == {0: "two", 1: "one"}
    moved = SweepFolder(tmp_path.rename(tmp_path.with_name("moved")))
    assert [job.path for job in moved.ended_jobs()] == [moved.path / "s/two", moved.path / "s/one"]


@pytest.mark.parametrize("content", ["null", "[]", '{"overrides": 5}', '{"overrides": [1]}', "{", '{"swept": null}'])
def test_a_damaged_record_is_no_sweep(tmp_path: Path, content: str) -> None:
    (tmp_path / SWEEP).write_text(content)
    assert not SweepFolder(tmp_path).was_begun_with([], [])
    with pytest.raises(UserError, match=r"sweep\.json: "):  # no job runs there without its parent
        _ = SweepFolder(tmp_path).parent_run_id


def test_which_lines_go_on_with_a_sweep(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    sweep.begin(SweepManifest("parent", ["seed=0,1", "name=a"], "seeds", "grid", ["seed=0,1"]))
    assert sweep.was_begun_with(["name=a", "seed=0,1", "sweep.resume=true"], ["seed=0,1"])
    assert not sweep.was_begun_with(["name=a", "seed=0,2"], ["seed=0,2"])
    assert not sweep.was_begun_with(["name=a", "seed=0,1"], ["seed=0,1", "head.units=1,2"])  # a file of the sweeper's
    old = json.loads((tmp_path / SWEEP).read_text())
    del old["swept"]
    (tmp_path / SWEEP).write_text(json.dumps(old))
    assert sweep.was_begun_with(["name=a", "seed=0,1"], ["anything"])
    assert not sweep.was_begun_with(["seed=1", "name=a", "seed=0,1"], [])


# --------------------------------------------------------------------------------------------- whole sweeps


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "subdir",
    [
        "${hydra.job.override_dirname}",
        pytest.param("${hydra.job.num}_${optimizer.name}", marks=pytest.mark.long),
        pytest.param("s/${seed}", marks=pytest.mark.long),
    ],
)
def test_a_sweep_with_folders_of_ones_own_is_whole(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None], subdir: str
) -> None:
    """It is stopped in its second job, and goes on."""
    given = ["train", "-m", *line(drawn_root, "seed=4,5", f"hydra.sweep.subdir={subdir}")[1:]]
    assert cnnexp("plan", *given[1:])[0] == 0
    interrupted(1, RuntimeError)
    assert cnnexp(*given)[0] == 1
    code, out, err = cnnexp(*given)
    assert code == 0, err
    assert out.count("is done already") == 1 and out.count("goes on with run") == 1
    (folder,) = folders(tmp_path)
    jobs = SweepFolder(folder).jobs()
    assert [job.read_result().seed for job in jobs.values()] == [4, 5]
    assert not any(job.path.name.isdecimal() and job.path.parent == folder for job in jobs.values())
    (parent,) = tracker(tmp_path).sweeps(5)
    children = tracker(tmp_path).children(parent.run_id)
    assert parent.tags["sweep.state"] == "2 of 2 jobs finished" and parent.status == "FINISHED"
    assert [run.name for run in children] == [f"seed={seed} (custom)" for seed in (4, 5)]
    rows = (folder / "comparison.csv").read_text().splitlines()
    assert len(rows) == 2 and len(list((folder / JOBS).iterdir())) == 2


# ------------------------------------------------------------------------------------------- a folder of its own


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_only_the_same_line_goes_on_in_a_folder(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    small = line(drawn_root, "hydra.sweep.dir=fixed", "tracking=none")[1:]
    code, out, err = cnnexp("train", "-m", *small, "optimizer=sgd,adam", "seed=0,1")
    assert code == 0, err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "fixed").rglob("*")}
    for other, said in (
        (["seed=5"], "hydra.sweep.dir=fixed: holds the sweep of another line, debug=smoke"),
        (["optimizer=sgd,adam", "seed=0,1,2"], "holds the sweep of another line"),
        (["optimizer=sgd,adam", "seed=0,1", "sweep.resume=false"], "holds this sweep already"),
    ):
        for command in ("train", "plan"):
            code, _, err = cnnexp(command, "-m", *small, *other)
            assert code == 2 and said in err and len(err.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "fixed").rglob("*")} == before
    code, out, err = cnnexp("train", "-m", "seed=0,1", *reversed(small), "optimizer=sgd,adam")
    assert code == 0 and out.count("is done already") == 4 and "epoch" not in out, err
    seeds = [job.read_result().seed for job in SweepFolder(tmp_path / "fixed").jobs().values()]
    assert seeds == [0, 1, 0, 1]  # as the first line ordered them
    assert len((tmp_path / "fixed" / "comparison.csv").read_text().splitlines()) == 3


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_a_sweep_of_the_version_before_goes_on(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """Its jobs lie in numbered folders, and only its line is kept."""
    given = ["train", "-m", *line(drawn_root, "tracking=none", "seed=0,1")[1:]]
    assert cnnexp(*given)[0] == 0
    (folder,) = folders(tmp_path)
    kept = json.loads((folder / SWEEP).read_text())
    del kept["swept"]
    (folder / SWEEP).write_text(json.dumps(kept))
    shutil.rmtree(folder / JOBS)
    (folder / "1" / "result.json").unlink()
    code, out, err = cnnexp("plan", "-m", *given[2:], "--json")
    assert code == 0 and out.count('"state": "done"') == 1 and '"goes on after epoch 0"' in out, err
    code, out, err = cnnexp(*given)
    assert code == 0 and out.count("is done already") == 1, err
    assert folders(tmp_path) == [folder] and len(SweepFolder(folder).ended_jobs()) == 2


# ----------------------------------------------------------------------------------------------- empty sweeps


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=range(3,0)"], "seed=range(3,0): has no value"),
        (["seed=0,1", "trainer.epochs=range(1,1)"], "trainer.epochs=range(1,1): has no value"),
        (["experiment=glob(nothing*)"], "experiment=glob(nothing*): chooses no option of these: augmented, baseline"),
        (["experiment=glob(demo)"], "experiment=glob(demo): chooses no option"),
        (["experiment=glob(*,exclude=[*,demo/*])"], "chooses no option"),
        (["seed=glob(*)"], "seed=glob(*): chooses no option for seed is no config group; list values"),
        (["hydra/sweeper=optuna", "seed=glob(*)"], "seed is no config group"),
        (["hydra/sweeper=optuna", "seed=range(3,0)"], "seed=range(3,0): has no value"),
        (["seed=0,1", "hydra.sweeper.max_batch_size=0"], "hydra.sweeper.max_batch_size=0: must be at least 1"),
    ],
)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_an_empty_sweep_is_one_line(cnnexp: Run, tmp_path: Path, command: str, overrides: list[str], said: str) -> None:
    code, out, err = cnnexp(command, "-m", *overrides)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and said in err
    assert not list(tmp_path.iterdir())


def test_a_search_without_a_trial_is_one_line(cnnexp: Run, tmp_path: Path) -> None:
    line = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=0", "optimizer.learning_rate=interval(1e-4,1e-2)"]
    code, _, err = cnnexp("train", "-m", *line)
    assert (code, err) == (2, "cnnexp: hydra.sweeper.n_trials=0: must be at least 1\n") and not list(tmp_path.iterdir())


def experiments(overrides: list[str], multirun: bool = True) -> list[str]:
    with hydra_context():
        return [job[-1].partition("=")[2] for job in plan_jobs(overrides, multirun).jobs]


def test_a_glob_chooses_experiments_as_in_a_shell() -> None:
    demo = ["augmented", "baseline", "best", "finetuned", "finetuned_augmented", "frozen", "frozen_augmented"]
    assert experiments(["experiment=glob(demo/*)"]) == [f"demo/{name}" for name in demo]
    assert experiments(["experiment=glob(*)"]) == [*demo, "mnist"]
    assert experiments(["experiment=glob([b*,demo/b*],exclude=*st)"]) == ["baseline", "demo/baseline", "demo/best"]
    assert experiments(["experiment=glob(mn*)"]) == ["mnist"]
    with pytest.raises(UserError, match="several values run as a sweep; add -m"):
        experiments(["experiment=glob(demo/*)"], multirun=False)


@pytest.mark.parametrize(("value", "wanted"), [("glob(demo/b*)", ["demo/baseline", "demo/best"]), ("range(2,2)", None)])
def test_what_a_sweep_file_lists_is_read_as_on_the_line(tmp_path: Path, value: str, wanted: list[str] | None) -> None:
    (tmp_path / "sweep").mkdir()
    params = f"experiment: {value}" if wanted else f"seed: {value}"
    text = f"# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      {params}\n"
    (tmp_path / "sweep" / "own.yaml").write_text(text)
    with hydra_context(str(tmp_path)):
        if wanted is None:
            with pytest.raises(UserError, match=r"seed=range\(2,2\): has no value"):
                plan_jobs(["sweep=own"], multirun=False)
            return
        jobs = plan_jobs(["sweep=own", "seed=3"], multirun=False).jobs
    assert jobs == [[f"experiment={name}", "sweep=own", "seed=3"] for name in wanted]


def test_a_glob_runs_as_the_list_that_it_stands_for(
    cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    train, tracker = (lambda composed: ran.append(composed.name) or 0.0), SimpleNamespace(lost="")
    opened = SimpleNamespace(failed=False, train=train, tracker=tracker)
    monkeypatch.setattr("cnnexp.runs.sweep._opened", lambda *_: contextlib.nullcontext(opened))
    monkeypatch.setattr("cnnexp.runs.sweep._finish", lambda _: None)
    code, _, err = cnnexp("train", "-m", "experiment=glob(demo/b*)", "seed=1,2")
    assert (code, err) == (0, "") and ran == ["baseline", "baseline", "best", "best"]
