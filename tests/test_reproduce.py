"""`cnnexp reproduce`: the same figures from what the store holds, and what it says where something differs."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from cnnexp.config import validated
from cnnexp.config.composition import load_config
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.runs.recorded_config import restore_config, typed_record, variations
from cnnexp.runs.reproduction import IGNORED, compare_figures, read_pins, same_figures, show_code, show_packages
from cnnexp.runs.tracker import open_tracker

Run = Callable[..., tuple[int, str, str]]
NETWORK = ["backbone=mnist_cnn", "augmentation=geometric", "augmentation.rotation_range=20", "head.dropout=0.3"]


def draw(folder: Path, classes: tuple[str, ...] = ("apple", "pear", "plum")) -> Path:
    """Eight pictures of noise a class."""
    rng = np.random.default_rng(0)
    for kind in classes:
        (folder / kind).mkdir(parents=True)
        for number in range(8):
            assert cv2.imwrite(str(folder / kind / f"{number}.png"), rng.integers(0, 256, (20, 20, 3), np.uint8))
    return folder


def train(root: Path, *more: str) -> None:
    from cnnexp.cli import main

    data = ["dataset=folder", f"dataset.path={root / 'photos'}", "dataset.image_size=32", "debug=smoke"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["cnnexp"])
        assert main(["train", *NETWORK, *data, f"paths.root={root / 'out'}", *more]) == 0


def client(root: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{root}/out/mlflow.db")


def runs(root: Path) -> list[Any]:
    """The newest first."""
    store = client(root)
    return list(store.search_runs([store.get_experiment_by_name("cnnexp").experiment_id]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and in `out` the store with a sweep of one run on them."""
    root = tmp_path_factory.mktemp("reproduce")
    draw(root / "photos")
    train(root, "-m", "seed=3", "tracking.log_model=false")
    return root


@pytest.fixture(scope="module")
def first(root: Path) -> str:
    """The id of that run, which is the one job of a sweep."""
    (job,) = [run for run in runs(root) if "mlflow.parentRunId" in run.data.tags]
    return str(job.info.run_id)


@pytest.fixture(scope="module")
def values(root: Path, first: str) -> dict[str, Any]:
    """Its config, as it was recorded."""
    (file,) = root.glob(f"out/mlartifacts/**/{first}/artifacts/config.yaml")
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


# ------------------------------------------------------------------------------------------------ whole command


@pytest.mark.trains
def test_the_same_figures(cnnexp: Run, root: Path, first: str) -> None:
    code, out, err = cnnexp("reproduce", first[:12], f"paths.root={root / 'out'}")
    assert code == 0, out + err
    assert "agree exactly; largest difference 0" in out
    assert "data: the same, folder" in out and "varied" not in out
    for metric in ("train/loss (in 2 epochs)", "val/acc (in 2 epochs)", "test/loss", "test/ece", "final/val_loss"):
        assert metric in out
    assert "time/" not in out and "images_per_s" not in out
    new, old = runs(root)[0], client(root).get_run(first)
    assert new.info.run_id != first
    assert new.data.tags["reproduces"] == first
    assert new.data.tags["reproduction"] == "agrees"
    assert new.data.tags["config_hash"] == old.data.tags["config_hash"]
    assert new.info.run_id in old.data.tags["reproduced_by"].split()
    assert f"Reproduces [{first}]" in new.data.tags["mlflow.note.content"]
    assert new.data.metrics["test/loss"] == old.data.metrics["test/loss"]


@pytest.mark.trains
def test_one_changed_photo(cnnexp: Run, root: Path, first: str, tmp_path: Path) -> None:
    shutil.copytree(root / "photos", tmp_path / "photos")
    photo = tmp_path / "photos/apple/0.png"
    photo.write_bytes(photo.read_bytes() + b"\0")  # the picture is the same, the file is not
    code, out, err = cnnexp("reproduce", first, f"paths.root={root / 'out'}", f"dataset.path={tmp_path / 'photos'}")
    assert code == 1
    assert "varied" not in out  # the place of the data does not count
    assert "data: differs" in out and "the content of files changed" in out
    assert "agree exactly" in out
    assert "this is no reproduction" in err
    assert runs(root)[0].data.tags["reproduction"] == "differs"


@pytest.mark.trains
def test_a_varied_run_and_the_tolerance(cnnexp: Run, root: Path, first: str) -> None:
    where = f"paths.root={root / 'out'}"
    code, out, err = cnnexp("reproduce", "latest", "seed=4", "--tolerance", "100", where)
    assert code == 0, out + err
    assert "varied: seed=4;" in out and "agree within 100" in out
    new = runs(root)[0]
    assert (new.data.params["seed"], new.info.run_id != first) == ("4", True)
    tracker = open_tracker(load_config([where]).tracking)
    assert not same_figures(tracker, first, new.info.run_id, tolerance=0)
    assert same_figures(tracker, first, new.info.run_id, tolerance=100)
    for wrong in ("-1", "much", "nan"):
        code, _, err = cnnexp("reproduce", first, "--tolerance", wrong, where)
        assert (code, len(err.splitlines())) == (2, 1)


@pytest.mark.trains
def test_what_cannot_be_reproduced(cnnexp: Run, root: Path, first: str) -> None:
    where = f"paths.root={root / 'out'}"
    parent = client(root).get_run(first).data.tags["mlflow.parentRunId"]
    code, _, err = cnnexp("evaluate", parent, where)
    assert code == 2 and "is a sweep" in err
    store = client(root)
    empty = store.create_run(runs(root)[0].info.experiment_id, tags={"sweep": "parent"}).info.run_id
    failed = store.create_run(runs(root)[0].info.experiment_id).info.run_id
    store.set_terminated(failed, "FAILED")
    count = len(runs(root))
    for arguments, said in (
        ([failed], "is FAILED"),
        ([empty], "none of its jobs is finished"),
        (["0" * 32], "no such run"),
        ([], "give one run"),
        ([first, "experiment=baseline"], "experiment=baseline"),
        ([first, "seed=1,2"], "several values"),
        ([first, "trainer.epoch=3"], "trainer.epoch=3"),
        ([first, "dataset.path=nowhere"], "nowhere"),
    ):
        code, _, err = cnnexp("reproduce", *arguments, where)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert said in err
    assert len(runs(root)) == count


# ------------------------------------------------------------------------------------------------ rebuilt config


@pytest.mark.trains
def test_the_config_is_the_recorded_one_at_places_of_here(values: dict[str, Any], tmp_path: Path) -> None:
    config = validated(restore_config("r", values, [f"paths.root={tmp_path}", "trainer.epochs=1"]))
    assert config.paths.cache == f"{tmp_path}/cache"
    assert config.tracking.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert config.tracking.explain is False  # as recorded, not as composed here
    assert (config.seed, config.trainer.epochs, config.trainer.steps_per_epoch) == (3, 1, 2)
    assert config.optimizer.rho == values["optimizer"]["rho"]  # type: ignore[attr-defined]
    assert config.dataset.path == values["dataset"]["path"]  # type: ignore[attr-defined]


@pytest.mark.trains
def test_a_group_chosen_anew(values: dict[str, Any]) -> None:
    config = validated(restore_config("r", values, ["dataset=digits", "optimizer=adam", "optimizer.beta_1=0.8"]))
    assert (config.dataset.name, config.optimizer.name) == ("digits", "adam")
    assert config.optimizer.beta_1 == 0.8  # type: ignore[attr-defined]
    backbone = {**values["backbone"], "finetune_from": "conv_2"}
    frozen = validated(
        restore_config("r", {**values, "backbone": backbone}, ["freeze_policy=full", "phases=head_first"])
    )
    assert frozen.phases["finetune"].freeze_policy.first_trainable_layer == "conv_2"


@pytest.mark.trains
def test_older_and_newer_records(values: dict[str, Any]) -> None:
    older = OmegaConf.to_container(OmegaConf.create(values))
    assert isinstance(older, dict)
    del older["trainer"]["flip_averaging"], older["augmentation"]["mixup"], older["phases"]
    older["trainer"]["resume"] = True  # is nothing that a run computes
    config = validated(restore_config("r", older, []))
    assert (config.trainer.flip_averaging, config.augmentation.mixup, config.phases) == (False, 0.0, {})
    for change, said in (
        ({"trainer": {**values["trainer"], "turbo": 1}}, "trainer.turbo"),
        ({"dataset": {**values["dataset"], "colour": "red"}}, "dataset.colour"),
        ({"wings": 2}, "wings"),
        ({"trainer": 7}, "trainer=7"),
        ({"head": None}, "head=None"),
        ({"optimizer": {**values["optimizer"], "learning_rate": "fast"}}, "learning_rate"),
    ):
        with pytest.raises(UserError, match=said):
            restore_config("r", {**values, **change}, [])  # type: ignore[dict-item]
    with pytest.raises(UserError, match="wrong kind"):
        typed_record("r", restore_config("r", {**values, "backbone": {**values["backbone"], "filters": [[], 1]}}, []))


@pytest.mark.trains
def test_phases_keep_their_optimizers(values: dict[str, Any]) -> None:
    phase = {"epochs": 2, "freeze_policy": {"mode": "none"}, "optimizer": values["optimizer"], "learning_rate": None}
    config = validated(restore_config("r", {**values, "phases": {"all": phase}}, []))
    assert config.phases["all"].optimizer is not None
    assert config.phases["all"].optimizer.rho == values["optimizer"]["rho"]  # type: ignore[attr-defined]


@pytest.mark.trains
def test_where_the_data_lies(values: dict[str, Any], tmp_path: Path) -> None:
    def path(recorded: str, *overrides: str) -> str:
        changed = {**values, "paths": {"data": "/gone/data"}, "dataset": {**values["dataset"], "path": recorded}}
        return str(restore_config("r", changed, [f"paths.data={tmp_path}", *overrides]).dataset.path)

    assert path("/gone/data/photos") == str(tmp_path / "photos")  # below paths.data: in that of here
    assert path(str(tmp_path)) == str(tmp_path)
    assert path("/gone/elsewhere", f"dataset.path={tmp_path}") == str(tmp_path)
    for outside in ("/gone/elsewhere", "/gone/data/../elsewhere", "/gone/database"):
        with pytest.raises(UserError, match="not on this machine"):
            path(outside)


def test_what_varies_a_run() -> None:
    for place in ("paths.root=a", "tracking.uri=b", "tracking=mlflow", "dataset.path=c", "backbone.weights=d"):
        assert not variations([place])
    for change in ("seed=1", "dataset=digits", "dataset.image_size=40", "trainer.epochs=2"):
        assert variations(["paths.root=a", change]) == [change]


# ------------------------------------------------------------------------------------------------ what is said


def test_differences_of_figures() -> None:
    old = {"test/loss": [(0, 0.5)], "val/loss": [(1, 1.0), (2, 0.5)], "gone": [(0, 1.0)], "nan": [(1, math.nan)]}
    new = {"test/loss": [(0, 0.5)], "val/loss": [(1, 1.25), (2, 0.5)], "added": [(0, 1.0)], "nan": [(1, math.nan)]}
    found = {figure.name: figure for figure in compare_figures(old, new)}
    assert {name: figure.difference for name, figure in found.items()} == {
        "test/loss": 0, "val/loss": 0.25, "gone": math.inf, "nan": 0,
    }  # fmt: skip
    assert (found["val/loss"].old, found["val/loss"].steps) == (0.5, 2)
    (shorter,) = compare_figures({"val/loss": [(1, 1.0), (2, 0.5)]}, {"val/loss": [(1, 1.0)]})
    assert shorter.difference == math.inf
    ignored = ["time/epoch_s", "time/total_s", "images_per_s", "phase/head/time_s", "memory/peak_gib", "evaluate/x/acc"]
    assert [name for name in (*ignored, "test/acc", "lr", "phase/head/trainable_tensors") if IGNORED.search(name)] == (
        ignored
    )


def test_packages_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    from cnnexp.tracking.record import environment_tags, requirements_text

    here = environment_tags()
    show_packages(here, requirements_text())
    assert "packages: the same versions" in capsys.readouterr().out
    show_packages({**here, "numpy": "1.0"}, requirements_text() + "leftpad==1.3\n; rm -rf\n__import__('os')\n")
    out = capsys.readouterr().out
    assert ["numpy", "1.0", here["numpy"]] in [line.split() for line in out.splitlines()]
    assert "other packages: 1 of" in out and "leftpad" in out
    show_code({**here, "git_commit": "f" * 40, "git_dirty": "false"})
    assert "then ffffffffffff, here" in capsys.readouterr().out
    assert read_pins("NumPy==2.0\n# x\na\nb==1 ; python_version\n") == {"numpy": "2.0"}
