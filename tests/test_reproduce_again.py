"""`cnnexp reproduce`: what it takes, variations, what was stopped, and the lines that train or go on with a run."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from resuming import Run, folders, line, tracker

from cnnexp.config import SCHEMAS
from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.errors import UserError
from cnnexp.runs.folder import REPRODUCTION, RunFolder
from cnnexp.runs.recorded_config import find_original
from cnnexp.runs.recorded_line import OPTIONS, line_of_values, values_of_params
from cnnexp.runs.settings import split_line
from cnnexp.tracking.info import RunInfo
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.record import config_hash, flatten

pytestmark = pytest.mark.usefixtures("no_training")
EXPLAINED = "tracking.explain=false"


def made(root: Path) -> list[RunInfo]:
    """The runs in the store, the oldest first."""
    return tracker(root).find_runs()[::-1]


def commanded(out: str) -> list[str]:
    """The line of a shell that an output ends with, as words after `cnnexp`."""
    program, *words = shlex.split(out.strip().splitlines()[-1])
    assert program == "cnnexp"
    return words


# ------------------------------------------------------------------------------------------- what it takes


def test_every_name_of_a_run(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    register = ["tracking.log_model=true", "tracking.register=pets", "seed=2"]
    assert cnnexp(*line(drawn_root, EXPLAINED, *register))[0] == 0
    (run,) = made(tmp_path)
    (folder,) = folders(tmp_path)
    where = f"paths.data={drawn_root}"
    model = tracker(tmp_path).find_logged_model(run.run_id)
    names = [
        "latest",
        run.run_id[:7],
        f"runs:/{run.run_id}",
        f"runs:/{run.run_id}/model",
        f"http://127.0.0.1:5000/#/experiments/1/runs/{run.run_id}/artifacts",
        "models:/pets@best",
        "models:/pets/1",
        "models:/pets/latest",
        f"models:/{model.model_id}",
        str(folder),
        os.path.relpath(folder) + "/",
        f"{folder}/.hydra",
    ]
    found = tracker(tmp_path)
    assert [find_original(found, name).run_id for name in names] == [run.run_id] * len(names)
    for name, said in (
        ("runs:/" + "0" * 32, "no such run"),
        ("models:/pets", "write models:/NAME/VERSION"),
        ("models:/cars/latest", "no such model"),
        ("models:/m-" + "0" * 32, "no such model"),
        (str(drawn_root), "no run or sweep is recorded in this folder"),
        ("lost/folder", "not a run"),
    ):
        with pytest.raises(UserError, match=said):
            find_original(found, name)
    code, out, err = cnnexp("reproduce", names[-1], where)
    assert code == 0, out + err
    new = made(tmp_path)[-1]
    assert (new.tags["reproduces"], new.tags["reproduction"]) == (run.run_id, "agrees")
    assert find_original(found, "latest").run_id == run.run_id
    assert cnnexp("predict", names[3], str(next(drawn_root.rglob("test/dog/*.jpg"))))[0] == 0


def test_a_folder_of_another_place_says_so(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp(*line(drawn_root, EXPLAINED, "paths.root=there"))[0] == 0
    (folder,) = (tmp_path / "there/runs").iterdir()
    code, _, err = cnnexp("reproduce", str(folder))
    assert (code, len(err.splitlines())) == (2, 1) and f"paths.root={tmp_path / 'there'}" in err
    assert cnnexp("reproduce", str(folder), "paths.root=there", f"paths.data={drawn_root}")[0] == 0


@pytest.mark.long
def test_a_sweep_has_one_verdict(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = line(drawn_root, "-m", "seed=0,1", "hydra.sweep.dir=outputs/runs/s")
    assert cnnexp(*sweep)[0] == 0
    (parent,) = tracker(tmp_path).sweeps(2)
    old = [run.run_id for run in tracker(tmp_path).children(parent.run_id)]
    where = f"paths.data={drawn_root}"
    code, out, err = cnnexp("reproduce", "outputs/runs/s", where)
    assert code == 0, err
    assert f"sweep {parent.run_id}: 2 jobs are reproduced with the same figures: 2 of 2" in out
    assert [run.tags["reproduces"] for run in made(tmp_path)[-2:]] == old
    code, out, _ = cnnexp("reproduce", f"runs:/{parent.run_id}", where, "trainer.epochs=1")
    assert code == 0 and f"sweep {parent.run_id}: 2 jobs were varied" in out
    assert [run.tags["variation_of"] for run in made(tmp_path)[-2:]] == old
    monkeypatch.setattr("cnnexp.runs.reproduction.same_figures", lambda _, old_id, *more: old_id == old[0])
    code, out, _ = cnnexp("reproduce", parent.run_id, where)
    assert code == 1 and "with the same figures: 1 of 2" in out


# ---------------------------------------------------------------------------------------------- variations


def test_a_variation_is_no_failure_and_latest_is_the_original(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp(*line(drawn_root, "seed=3"))[0] == 0
    (old,) = made(tmp_path)
    where = f"paths.data={drawn_root}"
    for seed in (4, 5):
        code, out, err = cnnexp("reproduce", "latest", where, f"seed={seed}")
        assert (code, err) == (0, "")
        new = made(tmp_path)[-1]
        assert f"run {new.run_id} varies {old.run_id}" in out and "differs" in out
        assert (new.tags["variation_of"], new.params["seed"]) == (old.run_id, str(seed))
        assert not {"reproduces", "reproduction"} & set(new.tags)
        assert f"Varies [{old.run_id}]" in new.tags["mlflow.note.content"]
        assert f"seed=3 paths.data={drawn_root}" not in new.tags["overrides"]
    code, out, _ = cnnexp("reproduce", "latest", where, "trainer.loader_threads=1")
    assert code == 0 and made(tmp_path)[-1].tags["reproduction"] == "agrees"  # how this machine works varies nothing
    assert made(tmp_path)[-1].tags["reproduces"] == old.run_id
    found = tracker(tmp_path).get_run(old.run_id).tags
    assert len(found["varied_by"].split()) == 2 and len(found["reproduced_by"].split()) == 1


# ------------------------------------------------------------------------------------------- goes on


@pytest.mark.parametrize(
    "more", [[], pytest.param(["seed=4"], marks=pytest.mark.long)], ids=["reproduction", "variation"]
)
def test_an_interrupted_one_goes_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None], more: list[str]
) -> None:
    assert cnnexp(*line(drawn_root, "seed=3", "trainer.epochs=4", "trainer.max_epochs=4"))[0] == 0
    where = f"paths.data={drawn_root}"
    interrupted(2)
    code, out, _ = cnnexp("reproduce", "latest", where, *more)
    assert code == 130 and "epoch   2/4" in out and "epoch   3/4" not in out
    stopped = made(tmp_path)[-1]
    assert stopped.status == "KILLED"
    code, out, _ = cnnexp("doctor", where)
    words = commanded(out)
    assert code == 0 and words[:1] == ["reproduce"] and out.count("can go on") == 1
    code, out, err = cnnexp(*words)
    assert code == 0, err
    assert f"goes on with run {stopped.run_id}" in out and "epoch   2/4" not in out and "epoch   3/4" in out
    assert len(made(tmp_path)) == 2 and made(tmp_path)[-1].status == "FINISHED"
    assert "can go on" not in cnnexp("doctor", where)[1]
    assert cnnexp("reproduce", "latest", where, *more)[0] == 0 and len(made(tmp_path)) == 3  # and another one begins
    assert not list(tmp_path.rglob(f"{REPRODUCTION}*"))


@pytest.mark.long
def test_one_that_was_killed_goes_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill leaves it: nothing is closed. Once while files are recorded, once before the verdict."""
    assert cnnexp(*line(drawn_root, "seed=3"))[0] == 0

    def cut_off(*arguments: Any, **named: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "end_run", lambda *arguments, **named: None)
        patch.setattr(RunFolder, "write_result", lambda *arguments: None)
        patch.setattr("cnnexp.runs.run._record_files", cut_off)
        assert cnnexp("reproduce", "latest", f"paths.data={drawn_root}")[0] == 9
    killed = made(tmp_path)[-1]
    assert killed.status == "RUNNING"
    with monkeypatch.context() as patch:
        patch.setattr("cnnexp.runs.reproduction.same_figures", cut_off)
        code, out, _ = cnnexp("reproduce", "latest", f"paths.data={drawn_root}")
    assert code == 9 and f"goes on with run {killed.run_id}" in out
    code, out, err = cnnexp("reproduce", "latest", f"paths.data={drawn_root}")
    assert code == 0, err
    assert f"is trained already, run {killed.run_id}" in out and len(made(tmp_path)) == 2
    assert made(tmp_path)[-1].tags["reproduction"] == "agrees"


@pytest.mark.long
def test_a_sweep_that_was_stopped_goes_on_at_its_job(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cnnexp(*line(drawn_root, "-m", "seed=0,1"))[0] == 0
    (parent,) = tracker(tmp_path).sweeps(2)
    from cnnexp.runs import run as run_module

    real = run_module.run_job

    def once(*arguments: Any) -> float:
        objective = real(*arguments)
        monkeypatch.setattr(run_module, "run_job", real)
        interrupted(1)
        return objective

    monkeypatch.setattr(run_module, "run_job", once)
    assert cnnexp("reproduce", parent.run_id, f"paths.data={drawn_root}")[0] == 130
    assert len(made(tmp_path)) == 5
    code, out, err = cnnexp("reproduce", parent.run_id, f"paths.data={drawn_root}")
    assert code == 0, err
    assert out.count("is trained already") == 1 and out.count("goes on with run") == 1 and "2 of 2" in out
    assert len(made(tmp_path)) == 5


def test_a_refused_one_leaves_nothing(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp(*line(drawn_root))[0] == 0
    before = sorted(tmp_path.rglob("*"))
    for wrong in (["seed=-1"], ["trainer.threads=0"], ["dataset=folder", "dataset.path=empty"]):
        assert cnnexp("reproduce", "latest", f"paths.data={drawn_root}", *wrong)[0] == 2
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


@pytest.mark.long
def test_the_advice_for_a_stopped_run_and_sweep_works(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    """With the flags and the quotes that they need."""
    (tmp_path / "my own/experiment").mkdir(parents=True)
    (tmp_path / "my own/experiment/mine.yaml").write_text("# @package _global_\nname: mine\n")
    own = ["--config-dir", "my own", "experiment=mine", "+tracking.tags.why='a b'"]
    for more in ([], ["-m", "seed=0,1"]):
        interrupted(1)
        assert cnnexp(*line(drawn_root, *own, *more))[0] == 130
        stopped = made(tmp_path)[-1]
        code, out, _ = cnnexp("doctor")
        words = commanded(out)
        assert words[0] == "train" and "--config-dir=my own" in words
        code, out, err = cnnexp(*words)
        assert code == 0, err
        assert f"goes on with run {stopped.run_id}" in out
        assert "can go on" not in cnnexp("doctor")[1]


# ------------------------------------------------------------------------------------------- the line of a run


def same_again(cnnexp: Run, root: Path, name: str, *more: str) -> tuple[list[str], str]:
    """Run the line that `--print` gives; it has to compute the same. Returns its words, and what was said."""
    code, out, err = cnnexp("reproduce", "--print", name)
    assert code == 0, err
    words = commanded(out)
    before = tracker(root).find_run(name)
    assert cnnexp(*words, *more)[0] == 0
    after = made(root)[-1]
    assert after.tags["config_hash"] == before.tags["config_hash"] and after.run_id != before.run_id
    return words, err


def test_the_line_of_a_run(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    (tmp_path / "my own/experiment").mkdir(parents=True)
    own = tmp_path / "my own/experiment/mine.yaml"
    own.write_text("# @package _global_\nname: mine\noptimizer:\n  learning_rate: 0.25\n")
    odd = ["+tracking.tags.why='a b=c $HOME \"x\"'", "name='it is 5 o%clock'"]
    given = line(drawn_root, "--config-dir=my own", "experiment=mine", *odd, "seed=5")
    assert cnnexp(*given)[0] == 0
    (run,) = made(tmp_path)
    words, err = same_again(cnnexp, tmp_path, run.run_id)
    assert (sorted(words), err) == (sorted(given), "")
    own.write_text("# @package _global_\nname: mine\noptimizer:\n  learning_rate: 0.5\n")  # means something else now
    words, err = same_again(cnnexp, tmp_path, run.run_id, f"paths.data={drawn_root}")
    assert (
        "composes another config today" in err
        and "optimizer.learning_rate=0.25" in words
        and "experiment=mine" not in words
    )
    code, out, _ = cnnexp("reproduce", "--print", run.run_id, "seed=6")
    assert code == 0 and "seed=6" in commanded(out) and "seed=5" not in commanded(out)


LINES = [
    [],
    ["experiment=finetuned_augmented", "seed=3", "optimizer=adam", "optimizer.beta_1=0.8", "name='it is 5 o%clock'"],
    [
        "experiment=frozen",
        "phases=slow_head_first",
        "phases.finetune.epochs=7",
        "augmentation=strong",
        "dataset=folder",
    ],
    [
        "backbone=vgg16",
        "phases=head_first",
        "+optimizer@phases.finetune.optimizer=sgd",
        "dataset.path=/a b/c",
        "name='1'",
    ],
    ["dataset=custom", "dataset._target_=my.own", "+dataset.arguments.kind={a: [1, 'x y'], b: 2}", "name='true'"],
    ["optimizer=custom", "optimizer._target_=keras.optimizers.Lion", "+optimizer.arguments.beta_1=0.5", "debug=smoke"],
]


@pytest.mark.parametrize("overrides", LINES, ids=range(len(LINES)))
def test_params_make_a_line_that_composes_the_same(overrides: list[str]) -> None:
    with hydra_context():
        values: Any = OmegaConf.to_container(compose_config(overrides), resolve=True)
        params = {key: text for key, text in flatten(values).items() if text not in ("null", "{}")}
        made_of = line_of_values("r", values_of_params(params))
        again: Any = OmegaConf.to_container(compose_config(made_of), resolve=True)
    assert config_hash(again) == config_hash(values), made_of
    assert len(made_of) <= len(SCHEMAS) + len(OPTIONS) + 15  # options, and not each value by itself


@pytest.mark.long
def test_a_line_without_the_file_and_without_the_tag(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = line(drawn_root, "experiment=baseline", "name='it is 5 o%clock'")
    assert cnnexp(*given)[0] == 0
    run = made(tmp_path)[-1]
    artifacts = tmp_path / "outputs/mlartifacts"
    next(artifacts.rglob(f"{run.run_id}/artifacts/overrides.yaml")).unlink()
    code, out, err = cnnexp("reproduce", "--print", run.run_id)
    assert (code, err, commanded(out)) == (0, "", given)
    next(artifacts.rglob(f"{run.run_id}/artifacts/config.yaml")).unlink()
    tracker(tmp_path).client().delete_tag(run.run_id, "overrides")
    words, err = same_again(cnnexp, tmp_path, run.run_id, f"paths.data={drawn_root}")
    assert err == "" and "experiment=baseline" not in words


def test_the_line_of_a_sweep_and_of_its_job(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp(*line(drawn_root, "-m", "seed=0,1"))[0] == 0
    (parent,) = tracker(tmp_path).sweeps(2)
    code, out, _ = cnnexp("reproduce", "--print", parent.run_id)
    assert code == 0 and commanded(out)[:2] == ["train", "-m"] and commanded(out)[-1] == "seed=0,1"
    job = tracker(tmp_path).children(parent.run_id)[1]
    words, _ = same_again(cnnexp, tmp_path, job.run_id)
    assert "-m" not in words and words[-1] == "seed=1"
    code, _, err = cnnexp("reproduce", "--print", "latest", "--config-dir=x")
    assert code == 2 and len(err.splitlines()) == 1


def test_overrides_in_a_tag_are_told_apart() -> None:
    for overrides in (
        [],
        ["seed=1", "~experiment", "+tracking.tags.why='a b=c'", "name=two words", "optimizer@phases.a.optimizer=adam"],
        ["+a={b: 1, c: [2, 3]}", 'name="x y=z w"', "seed=2"],
    ):
        assert split_line(" ".join(overrides)) == overrides


def test_a_hostile_line_reaches_no_terminal(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp(*line(drawn_root))[0] == 0
    (run,) = made(tmp_path)
    file = next((tmp_path / "outputs/mlartifacts").rglob(f"{run.run_id}/artifacts/overrides.yaml"))
    file.write_text(json.dumps(["name=\x1b[2J; rm -rf $HOME"]))
    code, out, err = cnnexp("reproduce", "--print", run.run_id)
    assert code == 2 and "control characters" in err and "\x1b" not in out + err
