"""The model registry, on a real SQLite store: versions, the alias `best`, and reading a version back as a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnexp.config.composition import load_config
from cnnexp.errors import UserError
from cnnexp.runs import sweep
from cnnexp.runs.folder import SweepFolder
from cnnexp.runs.sweep import Sweep
from cnnexp.tracking.mlflow import Tracker
from cnnexp.tracking.registry import best_run

Record = Callable[..., str]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture
def tracker(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Tracker:
    tracker = Tracker(uri, request.node.name, str(tmp_path / "artifacts"))
    tracker.prepare()
    return tracker


@pytest.fixture
def record(tracker: Tracker) -> Record:
    """Records a run with a validation accuracy and, without Keras, a model of no content."""
    from mlflow.entities import LoggedModelOutput

    def run(accuracy: float | None, model: bool = True, status: Any = "FINISHED", **others: Any) -> str:
        tags = {"data_digest": others.get("digest", "d"), "overrides": "seed=1", "sweep_id": ""}
        params = {"tracking.register": others.get("register", "null"), **others.get("params", {})}
        run_id = tracker.start_run(others.get("name", "frozen"), params, tags, others.get("parent"))
        if accuracy is not None:
            figures = {"val/acc": 0.1, "final/val_acc": accuracy, "test/acc": 1 - accuracy}
            tracker.log_metrics(figures | others.get("figures", {}), step=0)
        if model:
            client = tracker.client()
            entry = client.create_logged_model(tracker._experiment_id, name="model", source_run_id=run_id)
            client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=0)])
            client.finalize_logged_model(entry.model_id, "READY")
        tracker.end_run(status)
        return run_id

    return run


def test_versions_are_numbered_and_tell_their_run(tracker: Tracker, record: Record) -> None:
    run_id = record(0.75, name="frozen seed=1")
    entry = tracker.register(run_id, "told")
    assert (entry.name, entry.version, entry.uri) == ("told", "1", "models:/told/1")
    version = tracker.client().get_model_version("told", "1")
    assert version.run_id == run_id
    assert version.tags == {
        "run_name": "frozen seed=1", "val_acc": "0.75", "test_acc": "0.25", "data_digest": "d", "overrides": "seed=1"
    }  # fmt: skip
    assert "validation accuracy 0.7500, test accuracy 0.2500" in version.description.lower()
    assert tracker.register(run_id, "told").uri == "models:/told/2"
    assert tracker.client().get_registered_model("told").description


def test_the_alias_moves_to_what_is_better(tracker: Tracker, record: Record) -> None:
    """By validation accuracy: here the test accuracy says the opposite."""

    def best() -> str:
        return str(tracker.client().get_model_version_by_alias("alias", "best").version)

    steps = [
        (0.6, "d", "1"),
        (0.6, "d", "1"),
        (0.5, "d", "1"),
        (0.7, "d", "4"),
        (0.9, "other data", "4"),
        (None, "d", "4"),
    ]
    for accuracy, digest, expected in steps:
        entry = tracker.register(record(accuracy, digest=digest), "alias")
        assert best() == expected, (accuracy, digest)
        assert ("is this version" in entry.best) == (entry.version == expected)
    assert tracker.register(record(0.8), "alias").best == (
        "models:/alias@best is this version: validation accuracy 0.8000, version 4 had 0.7000"
    )


def test_the_alias_goes_by_the_monitored_figure(tracker: Tracker, record: Record) -> None:
    """Whatever the validation accuracy says; versions that were chosen by another figure are not compared."""

    def registered(name: str, monitor: str, value: float, accuracy: float) -> str:
        figures = {monitor.replace("val/", "final/val_"): value}
        return tracker.register(record(accuracy, params={"trainer.monitor": monitor}, figures=figures), name).best

    assert registered("by f1", "val/f1_macro", 0.5, 0.9).endswith("is this version, the first")
    assert registered("by f1", "val/f1_macro", 0.6, 0.8).endswith(
        "is this version: val/f1_macro 0.6000, version 1 had 0.5000"
    )
    assert "stays with version 2: val/f1_macro 0.6000" in registered("by f1", "val/f1_macro", 0.55, 0.99)
    assert tracker.register(record(0.99), "by f1").best.endswith(
        "stays with version 2, which was chosen by val/f1_macro"
    )
    assert registered("by brier", "val/brier", 0.3, 0.5).endswith("the first")
    assert "is this version: val/brier 0.2000" in registered("by brier", "val/brier", 0.2, 0.4)


def test_a_version_is_read_back_as_its_run(tracker: Tracker, record: Record, uri: str) -> None:
    ids = [record(accuracy) for accuracy in (0.9, 0.8)]
    for run_id in ids:
        tracker.register(run_id, "read back")
    assert tracker.find_run("models:/read back/2").run_id == ids[1]
    assert tracker.find_run("models:/read back@best").run_id == ids[0]
    assert Tracker(uri, "another experiment", "a").find_run("models:/read back/1").run_id == ids[0]
    for wrong in ("models:/read back/3", "models:/none/1", "models:/read back@none", "models:/read back", "models:/"):
        with pytest.raises(UserError, match=f"^{wrong}: ") as error:
            tracker.find_run(wrong)
        assert "\n" not in str(error.value)


def test_what_cannot_be_registered(tracker: Tracker, record: Record) -> None:
    with pytest.raises(UserError, match="recorded no model"):
        tracker.register(record(0.5, model=False), "no model")
    for name in ("a/b", "a:b", ""):
        with pytest.raises(UserError, match=r"^tracking\.register="):
            tracker.register(record(0.5), name)
    assert not tracker.client().search_registered_models("name = 'no model'")


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "' '", ".", "x" * 201])
def test_bad_names_are_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(UserError, match=r"^tracking\.register=.*without / : @"):
        load_config([f"tracking.register={name}"])


@pytest.mark.parametrize("without", ["tracking=none", "tracking.uri=null", "tracking.log_model=false"])
def test_without_a_model_there_is_nothing_to_register(without: str) -> None:
    assert load_config([without]).tracking.register is None
    with pytest.raises(UserError, match=r"^tracking\.register=pets: tracking\.(uri=null|log_model=false) leaves"):
        load_config([without, "tracking.register=pets"])


@pytest.fixture
def parent(tracker: Tracker, tmp_path: Path) -> Sweep:
    """A sweep of this process, whose jobs are recorded by the test."""
    run_id = tracker.start_run("sweep", {}, {"sweep": "parent"})
    own = Tracker(tracker.uri, tracker.experiment, "a")
    own._run_id = run_id
    return Sweep(SweepFolder(tmp_path), own, run_id, "sweep", [], [], "val/acc", "grid")


def test_a_sweep_registers_its_best_job(
    tracker: Tracker, record: Record, parent: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    children = [record(accuracy, register="a sweep", parent=parent.run_id) for accuracy in (0.7, 0.8, 0.8)]
    record(0.95, register="a sweep", parent=parent.run_id, status="FAILED")
    record(0.9, parent=parent.run_id)  # asks for nothing
    record(0.99, register="a sweep")  # of no sweep
    sweep._register_best(parent)
    (version,) = tracker.client().search_model_versions("name = 'a sweep'")
    assert version.run_id == children[1]
    assert tracker.client().get_run(parent.run_id).data.tags["registered.a sweep"] == "models:/a sweep/1"
    assert "models:/a sweep/1" in capsys.readouterr().out
    assert not parent.failed


def test_a_sweep_registers_of_each_data_set_the_best(tracker: Tracker, record: Record, parent: Sweep) -> None:
    given = (("d", 0.7), ("other", 0.9), ("d", 0.8))
    children = [record(figure, register="two", parent=parent.run_id, digest=digest) for digest, figure in given]
    sweep._register_best(parent)
    versions = tracker.client().search_model_versions("name = 'two'")
    assert {version.run_id for version in versions} == {children[1], children[2]}
    tag = tracker.client().get_run(parent.run_id).data.tags["registered.two"]
    assert sorted(tag.split()) == ["models:/two/1", "models:/two/2"]


def test_a_sweep_without_a_model_says_so(record: Record, parent: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    record(0.9, register="nothing", parent=parent.run_id, status="FAILED")
    record(0.9, register="not saved", parent=parent.run_id, model=False)
    sweep._register_best(parent)
    assert parent.failed
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cnnexp: tracking.register=nothing: no job finished")
    assert lines[1].startswith("cnnexp: tracking.register=not saved: run ")


def test_the_best_run_is_a_finished_one(tracker: Tracker, record: Record) -> None:
    for accuracy, status in ((None, "FINISHED"), (float("nan"), "FINISHED"), (0.9, "KILLED")):
        record(accuracy, model=False, status=status)
    assert best_run(tracker.find_runs(), "val/acc") is None
    expected = record(0.3, model=False, figures={"final/val_loss": 0.4})
    other = record(0.2, model=False, figures={"final/val_loss": 0.3})
    for monitor, run_id in (("val/acc", expected), ("val/loss", other)):
        found = best_run(tracker.find_runs(), monitor)
        assert found is not None and found.run_id == run_id
