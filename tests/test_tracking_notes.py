"""Names, tags, notes and views: what MLflow's UI shows of a run before anything is clicked."""

import json
from pathlib import Path

import pytest

from cnnexp.commands.ui import _say_links
from cnnexp.tracking import notes, views
from cnnexp.tracking.mlflow import Tracker

CONFIG = {
    "name": "frozen",
    "seed": 3,
    "dataset": {"name": "pets"},
    "augmentation": {"name": "none"},
    "backbone": {"name": "vgg16", "weights": "imagenet"},
    "head": {"name": "pooled"},
    "optimizer": {"name": "adam"},
}


@pytest.mark.parametrize(
    ("overrides", "shared", "name"),
    [
        ("", "", "frozen"),
        ("experiment=frozen seed=1", "", "frozen seed=1"),
        ("experiment=frozen backbone=resnet50 seed=1", "", "frozen backbone=resnet50 seed=1"),
        ("experiment=frozen paths.root=x dataset.source=y tracking=none hydra/launcher=joblib", "", "frozen"),
        ("experiment=frozen +tracking.tags.a=b dataset=pets", "", "frozen dataset=pets"),
        ("experiment=frozen seed=1 dataset=pets", "experiment=frozen,best seed=0,1 dataset=pets", "frozen seed=1"),
        ("experiment=demo/frozen sweep=demo", "sweep=demo", "frozen"),
        (
            "experiment=frozen seed=1 head.units=8",
            "experiment=frozen seed=0,1 head.units=4,8",
            "seed=1 head.units=8 (frozen)",
        ),
        ("seed=1 debug=smoke", "seed=0,1 debug=smoke", "seed=1 (frozen)"),
        ("name=frozen seed=1", "name=a,frozen seed=0,1", "frozen name=frozen seed=1"),
        ("seed=1", "seed=1", "frozen"),
    ],
)
def test_run_name(overrides: str, shared: str, name: str) -> None:
    assert notes.run_name("frozen", overrides.split(), shared.split()) == name


def test_a_long_run_name_is_cut() -> None:
    name = notes.run_name("frozen", [f"backbone.weights={'x' * 200}"])
    assert len(name) == 100 and name.startswith("frozen backbone.weights=xxx") and name.endswith("...")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("sweep=demo", "demo"),
        ("sweep=demo seed=0,1 dataset=pets", "demo, seed"),
        ("experiment=a,b seed=range(3) trainer.epochs=5", "experiment, seed"),
        ("backbone.filters=[1,2] +x={a:1,b:[2,3]} y='1,2'", "sweep"),
        ("backbone.filters=[1,2],[3,4] +x=choice(1,2)", "backbone.filters, x"),
    ],
)
def test_sweep_name(line: str, name: str) -> None:
    assert notes.sweep_name(line.split()) == name


def test_a_sweep_is_named_after_experiment_and_keys() -> None:
    """Also where a file of the sweep has them, or Optuna is given intervals."""
    assert notes.sweep_name(["experiment=frozen", "seed=0,1"]) == "frozen: seed"
    assert notes.sweep_name(["experiment=frozen"], ["head.units=4,8", "seed=0,1"]) == "frozen: head.units, seed"
    assert notes.sweep_name(["sweep=demo"], ["experiment=a,b", "seed=0,1"]) == "demo, seed"
    line = ["experiment=best", "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))", "+x=choice(1,2)"]
    assert notes.sweep_name(line) == "best: optimizer.learning_rate, x"


def test_views_have_a_column_for_what_was_swept(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/m.db", "e", str(tmp_path))
    tracker.prepare()
    client, number = tracker.client(), tracker.find_experiment().experiment_id
    for tags in (
        {"sweep.grid": "seed=0,1 optimizer.learning_rate=1e-3,1e-4 experiment=a,b"},  # of an earlier version
        {"sweep.keys": "head.units optimizer freeze_policy"},
    ):
        tracker.start_run("s", {}, {"sweep": "parent", **tags})
        tracker.end_run("FINISHED")
    tracker.view_links("http://127.0.0.1:5000")
    for key in ("sweeps", "best-first"):
        view = json.loads(client.get_experiment(number).tags[f"mlflow.sharedViewState.{key}"])
        state = json.loads(view["state"])
        swept = [
            "params.`head.units`",
            "tags.`optimizer`",
            "params.`freeze_policy.mode`",
            "params.`optimizer.learning_rate`",
        ]
        assert [column for column in state["selectedColumns"] if column in swept] == swept
        assert set(state["selectedColumns"]) <= set(state["columnOrder"])
        assert state["orderByKey"] in state["columnOrder"] or state["orderByKey"] == "attributes.start_time"


def test_tags_for_columns() -> None:
    assert notes.describing_tags(CONFIG) == {
        "variant": "frozen", "seed": "3", "dataset": "pets", "augmentation": "none", "backbone": "vgg16",
        "head": "pooled", "optimizer": "adam",
    }  # fmt: skip


def test_run_note() -> None:
    begun = notes.run_note(CONFIG, ["experiment=frozen", "a='b c'"], "outputs/runs/1")
    assert begun.splitlines() == [
        "**frozen** on `pets`: vgg16 with weights imagenet, augmentation none, adam, seed 3.",
        "",
        "```",
        "cnnexp train experiment=frozen 'a='\"'\"'b c'\"'\"''",
        "```",
        "",
        "Files in `outputs/runs/1`",
    ]
    job = notes.run_note(CONFIG, ["experiment=demo/frozen", "sweep=demo"], "f")
    assert "cnnexp train experiment=demo/frozen sweep=demo hydra.mode=RUN\n" in job
    ended = notes.run_note(CONFIG, [], "f", (0.959, 0.961), (0.945, 0.97))
    assert "Test accuracy **0.9590** (95 % interval 0.945 to 0.970), validation accuracy 0.9610." in ended
    assert "from scratch" in notes.run_note({**CONFIG, "backbone": {"name": "small_cnn", "weights": None}}, [], "f")


def test_sweep_note() -> None:
    rows = [("a|b", "#/x", ["0.9", "0.8 to 1.0", "0.91", "1,000", "12"]), ("c", "", ["FAILED", "", "", "", ""])]
    assert notes.sweep_note(["seed=0,1"], "f", rows).splitlines()[:4] == [
        "| run | test acc | 95 % interval | val acc | trained parameters | seconds |",
        "|---|---:|---:|---:|---:|---:|",
        "| [a\\|b](#/x) | 0.9 | 0.8 to 1.0 | 0.91 | 1,000 | 12 |",
        "| c | FAILED |  |  |  |  |",
    ]
    assert "cnnexp train -m seed=0,1" in notes.sweep_note(["seed=0,1"], "f")


def test_links_are_shown_as_they_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """The gate for secrets hides a password of the address, and not the name of the view."""
    _say_links(views.view_links("http://me:secret@host:5000", "7"))
    shown = capsys.readouterr().out.splitlines()
    runs = "http://me:***@host:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey"
    assert [line.split(maxsplit=1)[1] for line in shown if "Sweeps" in line] == [f"{runs}=sweeps"]
    assert [line.split(maxsplit=1)[1] for line in shown if "Curves" in line] == [
        f"{runs}=best-first&compareRunsMode=CHART"
    ]


def test_an_experiment_has_a_note_and_views(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/m.db", "e", str(tmp_path))
    links = tracker.view_links("http://127.0.0.1:5000")
    experiment = tracker.client().get_experiment_by_name("e")
    assert experiment.tags == views.experiment_tags()
    start = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&"
    assert links["Sweeps"] == f"{start}viewStateShareKey=sweeps"
    assert links["Curves"] == f"{start}viewStateShareKey=best-first&compareRunsMode=CHART"
    view = json.loads(experiment.tags["mlflow.sharedViewState.best-first"])
    assert view["name"] == "Best first"
    state = json.loads(view["state"])
    assert state["orderByKey"] in state["selectedColumns"]

    client = tracker.client()
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "mine")
    client.delete_experiment_tag(experiment.experiment_id, "mlflow.sharedViewState.sweeps")
    tracker.view_links("http://127.0.0.1:5000")
    tags = client.get_experiment_by_name("e").tags
    assert tags == {**views.experiment_tags(), "mlflow.note.content": "mine"}
    assert tracker.run_link("abc") == f"#/experiments/{experiment.experiment_id}/runs/abc"
