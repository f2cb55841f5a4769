"""Jobs that equal finished ones of other sweeps are taken from there, and lead to them; what differs is trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import result
from resuming import Run, folders, line, tracker

from cnnexp.config.composition import load_config
from cnnexp.report.compare import summarise
from cnnexp.runs import reuse
from cnnexp.runs.code import own_targets
from cnnexp.runs.folder import RunFolder, RunManifest, SweepFolder


@pytest.fixture(autouse=True)
def digests_of_now() -> None:
    """A process takes its code to stay as it is."""
    reuse._digest.cache_clear()


# ----------------------------------------------------------------------------------------------- what made a run


def test_what_made_a_run_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(["dataset=synthetic"])
    made = reuse.made_by(config)
    assert re.fullmatch("[0-9a-f]{16}", made) and reuse.made_by(load_config(["dataset=digits", "seed=5"])) == made
    for name, value in (("cores", 97), ("processor", "another"), ("installed_version", "9")):
        with monkeypatch.context() as patch:
            patch.setattr(reuse, name, lambda *_, value=value: value)
            assert reuse.made_by(config) != made, name
    own, weights = tmp_path / "of_mine.py", tmp_path / "w.weights.h5"
    monkeypatch.syspath_prepend(tmp_path)
    for file, given in (
        (own, ["optimizer=custom", "optimizer._target_=of_mine.Own"]),
        (weights, [f"backbone.weights={weights}"]),
    ):
        file.write_text("a = 1\n")
        first = reuse.made_by(load_config(given))
        assert first != made and reuse.made_by(load_config([*given, "seed=3"])) == first
        file.write_text("a = 2\n")
        reuse._digest.cache_clear()
        assert reuse.made_by(load_config(given)) != first


def test_own_code_is_a_module_or_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packed_mine").mkdir()
    (tmp_path / "packed_mine" / "__init__.py").touch()
    helper = tmp_path / "packed_mine" / "helper.py"
    monkeypatch.syspath_prepend(tmp_path)
    codes = []
    for text in ("a = 1\n", "a = 2\n"):
        helper.write_text(text)
        reuse._digest.cache_clear()
        codes.append(reuse._code_of("packed_mine"))
    assert codes[0] != codes[1] and reuse._code_of("is_nowhere_at_all") == ""


def test_only_targets_of_ones_own_count() -> None:
    given = ["optimizer=custom", "optimizer._target_=mine.Lion", "head=custom", "head._target_=keras.layers.Dense"]
    assert own_targets(asdict(load_config([*given, "backbone=custom", "backbone._target_=mine.net"]))) == [
        "mine.Lion",
        "mine.net",
    ]


def test_a_run_trained_twice_is_not_two_seeds() -> None:
    runs = [result("a", accuracy, seed=seed) for accuracy, seed in ((0.5, 0), (0.7, 1), (0.5, 0))]
    (row,) = summarise(runs).rows
    assert row.seeds == (0, 1) and row.test_accuracy == pytest.approx(0.6) and len(row.run_ids) == 3
    (row,) = summarise([replace(runs[0], status="FAILED", test_accuracy=None), runs[2]]).rows
    assert row.seeds == (0,) and row.test_accuracy == 0.5


def test_a_taken_run_leads_to_the_files_of_the_other(tmp_path: Path) -> None:
    old, new = RunFolder(tmp_path / "old" / "3"), RunFolder(tmp_path / "new" / "s" / "0")
    old.write_result(result("a", 0.5, predictions_path=str(old.predictions)))
    old.write_manifest(RunManifest("one", "hash", "digest", 0.5))
    new.path.mkdir(parents=True)
    new.write_manifest(RunManifest("two", "hash", "digest", 0.5, reused_from="one", source="../../../old/3"))
    new.write_result(old.read_result())
    assert Path(str(new.read_result().predictions_path)).resolve() == old.predictions
    assert new.origin.manifest == old.manifest and old.origin == old


# ------------------------------------------------------------------------------------------------- whole sweeps


def small(drawn_root: Path, *overrides: str) -> list[str]:
    return ["-m", *line(drawn_root, *overrides)[1:]]


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_a_line_that_grew_takes_what_is_done(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=range(0,2)"))[0] == 0
    code, out, err = cnnexp("plan", *small(drawn_root, "seed=range(0,3)"), "--json")
    first = {run.params["seed"]: run for run in tracker(tmp_path).find_runs() if "seed" in run.params}
    assert code == 0, err
    states = re.findall(r'"state": "(.*)"', out)
    assert states == [*(f"taken from run {first[seed].run_id}" for seed in "01"), "new"]
    code, out, err = cnnexp("train", *small(drawn_root, "seed=range(0,3)"))
    assert code == 0, err
    assert out.count("which is taken for it") == 2 and out.count("epoch   1/2") == 1
    parent = tracker(tmp_path).sweeps(1)[0]
    children = tracker(tmp_path).children(parent.run_id)
    assert parent.tags["sweep.state"] == "3 of 3 jobs finished"
    assert [run.tags.get("reused_from") for run in children] == [first["0"].run_id, first["1"].run_id, None]
    for run in children[:2]:
        assert run.metrics == first[run.params["seed"]].metrics and run.status == "FINISHED"
        history = [tracker(tmp_path).history(run_id, "val/loss") for run_id in (run.run_id, run.tags["reused_from"])]
        assert history[0] == history[1] and [step for step, _ in history[0]] == [1, 2]
    assert tracker(tmp_path).find_run(children[0].run_id).run_id == first["0"].run_id
    assert cnnexp("doctor", "--check")[::2] == (0, "")
    code, out, err = cnnexp("compare")
    assert code == 0 and "no such artifact" not in err and "predictions" not in err
    # the same line, and one in another order, take the originals
    code, out, _ = cnnexp("train", *small(drawn_root, "seed=range(0,3)"))
    assert code == 0 and out.count("is done already") == 3 and "epoch   1" not in out
    code, out, _ = cnnexp("train", *small(drawn_root, "seed=2,0"))
    assert code == 0 and out.count("which is taken for it") == 2 and f"equals run {first['0'].run_id}" in out
    code, out, _ = cnnexp("train", *small(drawn_root, "seed=2,0", "sweep.resume=false"))
    assert code == 0 and "taken" not in out and out.count("epoch   1/2") == 2


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_a_job_that_stands_twice_in_a_line_is_counted_once(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    code, out, err = cnnexp("train", *small(drawn_root, "seed=4,5,4", "tracking=none"))
    assert code == 0 and out.count("epoch   1/2") == 2 and out.count("which is taken for it") == 1, err
    (folder,) = folders(tmp_path)
    results = _results(folder)
    assert [made.seed for made in results] == [4, 5, 4] and len({made.run_id for made in results}) == 3
    assert summarise(results).rows[0].seeds == (4, 5)


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_what_is_not_equal_or_not_there_is_trained(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1"))[0] == 0

    def taken(*overrides: str) -> int:
        """How many of seeds 0 to 2 the plan would take."""
        code, out, err = cnnexp("plan", *small(drawn_root, "seed=0,1,2", *overrides), "--json")
        assert code == 0, err
        return out.count("taken from run")

    assert taken() == 2
    assert taken("sweep.reuse=false") == taken("sweep.resume=false") == taken("trainer.deterministic=false") == 0
    assert taken("trainer.batch_size=7") == taken("tracking.explain=true") == taken("tracking.log_model=true") == 0
    assert taken("tracking.experiment=other") == 0
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "cores", lambda: 97)
        assert taken() == 0
    first = tracker(tmp_path).children(tracker(tmp_path).sweeps(1)[0].run_id)[0]
    tracker(tmp_path).client().delete_run(first.run_id)
    assert taken() == 1
    out = cnnexp("plan", *small(drawn_root, "seed=0,1"), "--json")[1]
    assert out.count('"state": "new"') == out.count('"state": "done"') == 1
    code, out, err = cnnexp("train", *small(drawn_root, "seed=0,1"))  # what was deleted is not done
    assert code == 0 and out.count("is done already") == 1 and out.count("epoch   1/2") == 1, err
    assert taken() == 2


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_a_sweep_elsewhere_is_known_to_the_store(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1", "hydra.sweep.dir=a"))[0] == 0
    code, out, _ = cnnexp("train", *small(drawn_root, "seed=1,2", "hydra.sweep.dir=b"))
    assert code == 0 and out.count("which is taken for it") == 1
    assert (tmp_path / "b").is_dir() and [made.seed for made in _results(tmp_path / "b")] == [1, 2]


def _results(folder: Path) -> list[Any]:
    return [job.read_result() for job in SweepFolder(folder).jobs().values()]


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_a_taking_that_was_stopped_goes_on(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1"))[0] == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reuse, "_copy_figures", stop)
        assert cnnexp("train", *small(drawn_root, "seed=1,2"))[0] == 130
    code, out, err = cnnexp("train", *small(drawn_root, "seed=1,2"))
    assert code == 0 and out.count("which is taken for it") == 1 and out.count("epoch   1/2") == 1, err
    children = tracker(tmp_path).children(tracker(tmp_path).sweeps(1)[0].run_id)
    assert [(run.params["seed"], run.status) for run in children] == [("1", "FINISHED"), ("2", "FINISHED")]


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_what_was_taken_is_trained_where_the_original_is_gone(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1"))[0] == 0
    assert cnnexp("train", *small(drawn_root, "seed=0,2"))[0] == 0
    child = tracker(tmp_path).children(tracker(tmp_path).sweeps(1)[0].run_id)[0]
    tracker(tmp_path).client().delete_run(child.tags["reused_from"])
    code, out, err = cnnexp("train", *small(drawn_root, "seed=0,2"))
    assert code == 0 and out.count("is done already") == 1 and out.count("epoch   1/2") == 1, err
    assert tracker(tmp_path).find_run(child.run_id).run_id == child.run_id
    code, out, _ = cnnexp("train", *small(drawn_root, "seed=0,2", "sweep.reuse=false"))
    assert code == 0 and out.count("is done already") == 2


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_best_and_registered_model_are_those_of_the_original(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, draw_pictures: Callable[[], None]
) -> None:
    models = ["tracking.log_model=true", "tracking.register=mine"]
    assert cnnexp("train", *small(drawn_root, "seed=0", *models))[0] == 0
    code, out, err = cnnexp("train", *small(drawn_root, "seed=0,0", "name=custom", *models))
    assert code == 0 and out.count("which is taken for it") == 2, err
    store = tracker(tmp_path)
    child = store.children(store.sweeps(1)[0].run_id)[0]
    original = store.find_run(child.run_id)
    assert original.run_id == child.tags["reused_from"] != child.run_id
    assert store.find_run("models:/mine@best").run_id == original.run_id
    versions = store.client().search_model_versions("name='mine'")
    assert {version.run_id for version in versions} == {original.run_id} and len(versions) == 2


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_a_sweep_that_was_deleted_is_begun_anew(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1"))[0] == 0
    assert cnnexp("train", *small(drawn_root, "seed=5,6", "hydra.sweep.dir=fixed"))[0] == 0
    for parent in tracker(tmp_path).sweeps(2):
        tracker(tmp_path).client().delete_run(parent.run_id)
    code, out, err = cnnexp("train", *small(drawn_root, "seed=0,1"))
    assert code == 0 and out.count("which is taken for it") == 2 and len(folders(tmp_path)) == 2, err
    code, _, err = cnnexp("train", *small(drawn_root, "seed=5,6", "hydra.sweep.dir=fixed"))
    assert code == 2 and "is no longer in the store" in err and len(err.splitlines()) == 1


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_a_launcher_takes_what_is_done_too(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1"))[0] == 0
    elsewhere = ["hydra/launcher=joblib", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    code, _, err = cnnexp("train", *small(drawn_root, "seed=1,0", *elsewhere))
    assert code == 0, err
    children = tracker(tmp_path).children(tracker(tmp_path).sweeps(1)[0].run_id)
    assert {run.params["seed"] for run in children if run.tags.get("reused_from")} == {"0", "1"}
    assert len(children) == 2
    assert [made.seed for made in _results(folders(tmp_path)[1])] == [1, 0]


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_a_search_takes_only_its_own(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert cnnexp("train", *small(drawn_root, "optimizer=sgd,adam"))[0] == 0
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "optimizer=choice(sgd,adam)"]
    search.append("hydra.sweep.subdir=${hydra.job.override_dirname}")  # two trials of one choice have one folder
    code, out, err = cnnexp("train", *small(drawn_root, *search))
    assert code == 0 and "taken for it" not in out, err
    results = _results(folders(tmp_path)[1])
    assert len(results) == out.count("epoch   1/2") <= 2 and out.count("is done already") == 4 - len(results)


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_what_cannot_be_taken_is_trained(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cnnexp("train", *small(drawn_root, "seed=0,1"))[0] == 0

    def fail(*_: object) -> None:
        raise RuntimeError("the store is away")

    monkeypatch.setattr(reuse, "_copy_figures", fail)
    code, out, err = cnnexp("train", *small(drawn_root, "seed=1,2", "hydra.output_subdir=null"))
    assert code == 0 and out.count("epoch   1/2") == 2, err
    assert "job 0 is trained, for" in err and "cannot be taken for it: the store is away" in err
    parent = tracker(tmp_path).sweeps(1)[0]
    children = tracker(tmp_path).children(parent.run_id)
    assert [run.status for run in children] == ["FINISHED"] * 2 and children[0].tags["reused_from"] == ""
    assert parent.tags["best.run_id"] in {run.run_id for run in children}
    assert parent.tags["best.params"] in ("seed=1", "seed=2")
