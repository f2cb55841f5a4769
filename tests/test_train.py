"""`cnnexp train` from the command line to the files and records of a run, in this process."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from cnnexp.config.composition import load_config
from cnnexp.config.hydra_driver import conf_dir
from cnnexp.config.targets import partial_from_config
from cnnexp.errors import UserError
from cnnexp.runs import build

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]
EXPERIMENTS = sorted(
    str(file.relative_to(conf_dir() / "experiment").with_suffix(""))
    for file in (conf_dir() / "experiment").rglob("*.yaml")
)
KINDS = ("baseline", "augmented", "frozen", "mnist")  # the others are put together of the same parts


def line(drawn_root: Path, *overrides: str) -> list[str]:
    """A smoke run on the shared drawn pictures in small, written below the working folder."""
    return ["train", "debug=smoke", "dataset.image_size=48", f"paths.data={drawn_root}", *overrides]


def results(root: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(root.glob("outputs/runs/**/result.json"))]


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=() if name in KINDS else pytest.mark.long) for name in EXPERIMENTS]
)
def test_every_experiment_runs(cnnexp: Run, drawn_root: Path, tmp_path: Path, experiment: str) -> None:
    dataset = "digits" if experiment == "mnist" else "synthetic"
    code, out, err = cnnexp(*line(drawn_root, f"experiment={experiment}", f"dataset={dataset}", "tracking=none"))
    assert code == 0, err
    (result,) = results(tmp_path)
    assert result["status"] == "FINISHED"
    epochs = 4 if experiment.startswith("finetuned") else 2  # two phases
    assert result["epochs"] == epochs
    assert f"epoch   {epochs}/{epochs}" in out
    assert ("phases: head 2 epochs, then finetune 2; 4 in all" in out) == (epochs == 4)


def test_a_run_leaves_its_files(tracked_run: Path) -> None:
    (folder,) = (tracked_run / "outputs/runs").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.yaml",
        "overrides.yaml",
        "summary.txt",
        "requirements.txt",
        "curves.png",
        "predictions.csv",
    }
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 3
    assert "experiment=baseline" in yaml.safe_load((folder / "overrides.yaml").read_text())
    assert len((folder / "predictions.csv").read_text().splitlines()) == 17  # 16 test images and the heading
    assert (folder / ".hydra/config.yaml").is_file()


def test_the_answers_to_the_validation_images_are_those_of_the_kept_epoch(tracked_run: Path) -> None:
    from cnnexp.report.predictions import read_predictions

    (folder,) = (tracked_run / "outputs/runs").iterdir()
    (result,) = results(tracked_run)
    answers = read_predictions(folder / "predictions_val.csv")
    assert len(answers.ids) == 16 and not set(answers.ids) & set(read_predictions(folder / "predictions.csv").ids)
    assert answers.correct.mean() == result["val_accuracy"] == result["objective"]
    assert result["monitor"] == "val/acc"


def test_a_run_is_recorded_as_the_design_says(tracked_run: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked_run}/outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cnnexp").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "baseline debug=smoke dataset=synthetic seed=3"
    assert run.data.params["optimizer.learning_rate"] == "0.0001"
    assert run.data.params["seed"] == "3"
    for metric in ("train/loss", "train/acc", "val/loss", "val/acc", "lr", "time/epoch_s", "images_per_s"):
        history = client.get_metric_history(run.info.run_id, metric)
        assert [point.step for point in history] == [1, 2], metric
    assert {"test/loss", "test/acc", "x/count/trainable_parameters", "x/count/test_images"} <= set(run.data.metrics)
    assert {"final/val_acc", "test/ece", "test/brier", "x/count/epochs"} <= set(run.data.metrics)
    assert {"explain/chance", "explain/pointing_game/gradcam", "explain/energy_inside/layercam"} <= set(
        run.data.metrics
    )
    assert run.data.metrics["x/count/test_images"] == 16
    tags = run.data.tags
    for tag in ("overrides", "config_hash", "data_digest", "run_dir"):
        assert tags[tag], tag
    assert tags["why"] == "test"
    assert Path(tags["run_dir"]).is_dir()
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert artifacts >= {"config.yaml", "overrides.yaml", "summary.txt", "requirements.txt", "curves.png"}
    assert artifacts >= {"confusion.png", "predictions.csv", "predictions_val.csv", "explain"}
    inputs = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert set(inputs) == {"train", "validation", "test"}
    assert inputs["test"].name == "synthetic/test"


def test_the_tracked_model_takes_raw_images(tracked_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pyfunc
    from mlflow.tracking import MlflowClient

    from cnnexp.data.images import read_square
    from cnnexp.report.predictions import read_predictions

    uri = f"sqlite:///{tracked_run}/outputs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("cnnexp").experiment_id])
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    (folder,) = (tracked_run / "outputs/runs").iterdir()
    recorded = read_predictions(folder / "predictions.csv")
    (config,) = [yaml.safe_load((folder / "config.yaml").read_text())]
    drawn = Path(config["dataset"]["path"]).iterdir()  # other tests have drawn other sets there
    root = next(folder for folder in drawn if all((folder / name).is_file() for name in recorded.ids))
    images = np.stack([read_square(str(root / name), config["dataset"]["image_size"]) for name in recorded.ids])
    np.testing.assert_allclose(model.predict(images)[:, 0], recorded.probabilities[:, 1], atol=1e-5)


def test_the_same_line_gives_the_same_figures(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    arguments = line(drawn_root, "experiment=augmented", "dataset=synthetic", "tracking=none")
    for extra in ("trainer.loader_threads=1", "trainer.loader_threads=2", "seed=1"):
        assert cnnexp(*arguments, extra)[0] == 0
    files = sorted(tmp_path.glob("outputs/runs/*/predictions.csv"))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()


@pytest.mark.long
def test_cached_and_uncached_training_agree(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    arguments = line(drawn_root, "experiment=demo/finetuned", "dataset=synthetic", "tracking=none")
    for extra in ("trainer.feature_cache=true", "trainer.feature_cache=false"):
        assert cnnexp(*arguments, extra)[0] == 0
    curves = [
        [float(number) for number in re.findall(r"loss ([0-9.]+)", (folder / "train.log").read_text())]
        for folder in sorted(tmp_path.glob("outputs/runs/*"))
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


@pytest.mark.usefixtures("no_training")
def test_a_sweep_is_a_parent_with_its_jobs(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, draw_pictures: Callable[[], None]
) -> None:
    from mlflow.tracking import MlflowClient

    code, out, err = cnnexp(
        *line(drawn_root, "-m", "experiment=baseline", "dataset=synthetic", "tracking.log_model=false"),
        "optimizer=rmsprop,adam",
        "head.dropout=0,0.5",
    )
    assert code == 0, err
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("cnnexp").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 4
    assert {run.data.tags["sweep_id"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    found = {(run.data.params["optimizer.name"], run.data.params["head.dropout"]) for run in children}
    assert found == {(name, rate) for name in ("rmsprop", "adam") for rate in ("0.0", "0.5")}
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"comparison.png", "comparison.html"}

    (figures,) = tmp_path.glob("outputs/runs/*_sweep/comparison.csv")
    rows = [row.split(",") for row in figures.read_text().splitlines()]
    assert rows[0][:3] == ["rank", "optimizer", "head.dropout"] and len(rows) == 5
    assert {tuple(row[1:3]) for row in rows[1:]} == {
        (name, rate) for name in ("rmsprop", "adam") for rate in ("0", "0.5")
    }

    draw_pictures()
    code, out, err = cnnexp("compare", f"paths.root={tmp_path / 'outputs'}")
    assert code == 0, err
    assert "comparison.html" in out
    assert (tmp_path / "outputs/compare" / parent.info.run_id / "comparison.png").stat().st_size > 10_000


@pytest.mark.usefixtures("no_training")
def test_a_failing_job_does_not_end_the_sweep(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    code, _, err = cnnexp(
        *line(drawn_root, "-m", "experiment=baseline", "dataset=synthetic", "tracking.log_model=false"),
        "dataset.image_size=16,64",  # 16 pixels are too few for four max-pools
    )
    assert code == 1
    assert "Traceback" not in err
    assert [result["status"] for result in results(tmp_path)] == ["FAILED", "FINISHED"]


def test_bad_input_leaves_nothing_behind(cnnexp: Run, tmp_path: Path) -> None:
    code, _, err = cnnexp("train", "dataset=folder", "dataset.path=nowhere")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
    code, _, err = cnnexp(
        "train", "experiment=finetuned", "dataset=synthetic", "backbone.weights=null", "debug=smoke",
        "freeze_policy.first_trainable_layer=block5_cov1",
    )  # fmt: skip
    assert code == 2
    assert "block5_conv1" in err
    assert not (tmp_path / "outputs/data").exists()


def tracked_pictures(tracked_run: Path) -> tuple[Path, list[str]]:
    """The folder of the tracked run's pictures, and the ids of its test pictures."""
    (folder,) = (tracked_run / "outputs/runs").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    root = next(Path(config["dataset"]["path"]).rglob("test")).parent
    return root, [row.split(",")[0] for row in (folder / "predictions.csv").read_text().splitlines()[1:]]


@pytest.mark.long
def test_layer_names_are_checked_once_in_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building the network that has them takes seconds."""
    built = []
    monkeypatch.setattr(
        build, "partial_from_config", lambda *given, **more: built.append(given) or partial_from_config(*given, **more)
    )
    build._check_layer_names.cache_clear()

    config = load_config(
        ["experiment=baseline", "freeze_policy=until_layer", "freeze_policy.first_trainable_layer=block2_conv"]
    )

    def check(layer: str) -> int:
        config.freeze_policy.first_trainable_layer = layer
        build.check_layer_names(config)
        return len(built)

    assert [check(f"block{number}_conv") for number in (2, 2, 3, 2)] == [1, 1, 2, 2]
    for _ in range(2):
        with pytest.raises(UserError, match="no layer 'block9_conv'"):
            check("block9_conv")
    config.dataset.image_size = 64
    assert check("block2_conv") == 5


@pytest.mark.pictures
def test_explain_draws_what_is_asked_for(cnnexp: Run, tracked_run: Path) -> None:
    from cnnexp.data.images import read_image

    root, ids = tracked_pictures(tracked_run)
    where = f"paths.root={tracked_run / 'outputs'}"
    pictures = [str(root / name) for name in ids[:2]]
    code, out, err = cnnexp("explain", "latest", *pictures, where)
    assert code == 0, err
    narrow = read_image(out.strip().splitlines()[-1])
    asked = ["--method", "gradcam,layercam", "--layer", "block3_conv", "--class", "dog", "--activations"]
    code, out, err = cnnexp("explain", "latest", *pictures, *asked, where)
    assert code == 0, err
    sheet, *grids = [line for line in out.splitlines() if line.endswith(".png")]
    assert read_image(sheet).shape[1] == narrow.shape[1] // 2 * 3  # photo and two maps beside photo and one
    assert [Path(grid).stem for grid in grids] == ["block3_conv", "block3_conv"]
    for wrong in (["--method", "gradcan"], ["--class", "cow"], ["--layer", "block9"], ["--nothing"]):
        code, _, err = cnnexp("explain", "latest", *pictures, *wrong, where)
        assert code == 2, wrong
        assert len(err.strip().splitlines()) == 1
