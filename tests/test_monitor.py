"""`trainer.monitor`: any figure, from the line to the best of a sweep; what is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from resuming import tracker

from cnnexp.config.composition import compose_config, load_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.metrics.names import final, rises
from cnnexp.report.predictions import read_predictions
from cnnexp.report.wording import heading
from cnnexp.runs.folder import RunFolder, SweepFolder
from cnnexp.runs.result import read_result
from cnnexp.tracking.info import RunInfo

Run = Callable[..., tuple[int, str, str]]
OWN = "+trainer.figures."
LINE = (
    "experiment=baseline", "dataset=digits", "dataset.image_size=16", "dataset.limit=60", "backbone.filters=[4]",
    "head.units=8", "trainer.epochs=1", "trainer.steps_per_epoch=null", "tracking.log_model=false",
    "tracking.explain=false",
)  # fmt: skip


@pytest.mark.usefixtures("no_training")
@pytest.mark.long
def test_the_jobs_of_a_sweep_are_ranked_by_their_f1(cnnexp: Run, tmp_path: Path) -> None:
    code, _, err = cnnexp("train", "-m", *LINE, "trainer.monitor=val/f1_macro", "seed=1,2,3", "sweep.report=grid")
    assert code == 0, err
    (folder,) = (path for path in (tmp_path / "outputs" / "runs").iterdir() if path.is_dir())
    sweep, expected = SweepFolder(folder), {}
    for job in sweep.jobs().values():
        answers = read_predictions(job.path / "predictions_val.csv")
        expected[job.path] = sklearn.metrics.f1_score(answers.labels, answers.predicted, average="macro")
        assert job.manifest is not None and job.manifest.objective == pytest.approx(expected[job.path], abs=1e-9)
        run = tracker(tmp_path).find_run(job.manifest.run_id)
        assert run.metrics["final/val_f1_macro"] == pytest.approx(expected[job.path], abs=1e-9)
    assert len(set(expected.values())) == 3
    best = sweep.best_job("val/f1_macro")
    assert best is not None and expected[best.path] == max(expected.values())
    code, out, err = cnnexp("compare", "--csv")
    assert code == 0 and "val/f1_macro" in out.splitlines()[0], out + err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.monitor=val/f1"], "trainer.monitor=val/f1: must be one of val/f1_macro, "),
        (["trainer.epoch_metrics=[f1]"], "trainer.epoch_metrics: f1 is no figure; allowed: f1_macro, "),
        (
            ["dataset=synthetic", "trainer.monitor=val/top5_acc"],
            "trainer.monitor=val/top5_acc: is not defined for 2 classes among the validation images; take another",
        ),
        (
            ["trainer.monitor=val/fails", f"{OWN}fails._target_=test_monitor.fails"],
            "trainer.figures.fails: IndexError: ",
        ),
        (
            [f"{OWN}acc._target_=test_monitor.fails"],
            "trainer.figures.acc: is no name for a figure of your own; take one",
        ),
        (
            [f"{OWN}a_low._target_=test_monitor.fails"],
            "trainer.figures.a_low: is no name for a figure of your own; take",
        ),
        ([f"{OWN}none._target_=test_monitor.none"], "trainer.figures.none._target_=test_monitor.none: "),
        ([f"{OWN}none.arguments={{}}"], "trainer.figures.none={'arguments': {}}: must be a mapping of _target_"),
        (
            ["trainer.monitor=val/share", f"{OWN}shares._target_=test_monitor.share"],
            "trainer.monitor=val/share: must be one of val/shares, ",
        ),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_what_is_no_figure_is_refused(cnnexp: Run, overrides: list[str], said: str) -> None:
    code, _, err = cnnexp("train", *LINE, *overrides)
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not list(Path("outputs").rglob("mlflow.db"))


def share(labels: np.ndarray, probabilities: np.ndarray, of: int = 1) -> float:
    """Of the answers, those that are of class `of`."""
    return float((probabilities.argmax(axis=1) == of).mean())


def fails(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Is no figure."""
    return float(probabilities[len(labels), 0])


@pytest.mark.usefixtures("no_training")
def test_a_figure_of_ones_own_is_recorded_monitored_and_forgotten(cnnexp: Run, tmp_path: Path) -> None:
    own = [f"{OWN}share_error._target_=test_monitor.share", "trainer.monitor=val/share_error"]
    code, _, err = cnnexp("train", *LINE, *own, f"{OWN}share_error.arguments.of=3")
    assert code == 0, err
    (run,) = tracker(tmp_path).find_runs()
    (folder,) = (path for path in (tmp_path / "outputs" / "runs").iterdir() if path.is_dir())
    for name, file in (("final/val_share_error", "predictions_val.csv"), ("test/share_error", "predictions.csv")):
        assert run.metrics[name] == pytest.approx((read_predictions(folder / file).predicted == 3).mean(), abs=1e-6)
    manifest = RunFolder(folder).manifest
    assert manifest is not None and manifest.objective == run.metrics["final/val_share_error"]
    assert not rises("val/share_error") and "test/share_error_low" not in run.metrics
    code, _, err = cnnexp("train", *LINE)
    assert code == 0, err
    assert "test/share_error" not in max(tracker(tmp_path).find_runs(), key=lambda run: run.start_time).metrics


def test_the_defaults_choose_as_before() -> None:
    config = load_config(["dataset=synthetic"])
    assert config.trainer.monitor == "val/acc" and not config.trainer.keep_best
    assert config.trainer.epoch_metrics is None
    with hydra_context():
        assert compose_config(["trainer.epoch_metrics=[mcc,ece]"]).trainer.epoch_metrics == ["mcc", "ece"]


class Store:
    """Of one run, whose history of `train/loss` is known."""

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        return [(1, 0.5), (2, 0.25), (3, 0.75)]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"trainer.monitor": "val/brier"}, 0.125),
        ({"trainer.monitor": "train/loss"}, 0.75),
        ({"trainer.monitor": "train/loss", "trainer.keep_best": "true"}, 0.25),
        ({"trainer.monitor": "train/loss", "trainer.early_stopping.patience": "1"}, 0.25),
        ({"trainer.monitor": "val/f1_macro"}, None),
    ],
)
def test_the_monitored_figure_of_a_recorded_run(tmp_path: Path, params: dict[str, str], expected: float | None) -> None:
    info = RunInfo(
        "r",
        "r",
        "RUNNING",
        params,
        {"final/val_brier": 0.125, "train/loss": 0.75},
        {},
        datetime.now(UTC),
        None,
        "",
        None,
    )
    assert read_result(Store(), info, 0, tmp_path, ()).objective == expected  # type: ignore[arg-type]


def test_names_and_headings() -> None:
    assert final("val/acc") == "final/val_acc" and final("train/acc") == "train/acc"
    names = ("val/acc", "train/acc", "val/loss", "val/balanced_acc", "val/f1_macro")
    assert [heading(name) for name in names] == [
        "val %", "train %", "val loss", "val balanced_acc %", "val f1_macro",
    ]  # fmt: skip
