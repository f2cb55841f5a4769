"""Which runs are explained, and explaining a run that is finished: `tracking.explain`, `cnnexp explain RUN`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import picture

from cnnexp.metrics.names import is_better
from cnnexp.runs.folder import RunFolder, SweepFolder
from cnnexp.runs.reproduction import compare_figures

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]
LINE = ("debug=smoke", "dataset=synthetic", "dataset.image_size=48", "trainer.epochs=1", "tracking.explain=auto")
HEAT_MAPS = "explain/heatmaps.png"


def line(root: Path, *overrides: str) -> list[str]:
    return [*LINE, f"paths.data={root}/data", *overrides]


def client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{Path.cwd()}/outputs/mlflow.db")  # MLflow keeps connections by their address


def recorded(run_id: str) -> tuple[list[str], set[str]]:
    """The artifacts of a run, and its figures of heat maps."""
    files = [file.path for folder in (None, "explain") for file in client().list_artifacts(run_id, folder)]
    return files, {name for name in client().get_run(run_id).data.metrics if name.startswith("explain/")}


def jobs(sweep: Path) -> list[dict[str, Any]]:
    files = sorted(sweep.glob("*/run.json"), key=lambda file: int(file.parent.name))
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize("log_model", [pytest.param(True, marks=pytest.mark.long), False])
def test_of_a_grid_the_chosen_job_alone_is_explained(
    cnnexp: Run, drawn_root: Path, tmp_path: Path, log_model: bool
) -> None:
    swept = ["trainer.monitor=val/loss", "optimizer.learning_rate=1e-9,0.01,1e-8", f"tracking.log_model={log_model}"]
    code, out, err = cnnexp("train", "-m", *line(drawn_root, *swept), "hydra.sweep.dir=outputs/runs/s")
    assert code == 0, err
    sweep = tmp_path / "outputs" / "runs" / "s"
    states = jobs(sweep)
    best = int(np.argmin([state["objective"] for state in states]))
    assert SweepFolder(sweep).best_job("val/loss") == RunFolder(sweep / str(best))
    assert [(sweep / str(number) / HEAT_MAPS).is_file() for number in range(3)] == [n == best for n in range(3)]
    assert f"explaining the best job, run {states[best]['run_id']}" in out
    for number, state in enumerate(states):
        files, figures = recorded(state["run_id"])
        assert (HEAT_MAPS in files, "explain/chance" in figures) == (number == best, number == best)
    assert not list(sweep.rglob("model.keras"))
    picture(sweep / str(best) / HEAT_MAPS)


def test_a_run_of_its_own_and_the_jobs_of_a_progression_are_explained(
    cnnexp: Run, drawn_root: Path, tmp_path: Path
) -> None:
    assert cnnexp("train", *line(drawn_root, "hydra.run.dir=outputs/runs/r"))[0] == 0
    assert (tmp_path / "outputs" / "runs" / "r" / HEAT_MAPS).is_file()
    swept = ["experiment=baseline,demo/baseline", "seed=0,1", "hydra.sweep.dir=outputs/runs/s", "tracking=none"]
    code, _, err = cnnexp("train", "-m", *line(drawn_root, *swept))
    assert code == 0, err
    assert len(list((tmp_path / "outputs" / "runs" / "s").glob(f"*/{HEAT_MAPS}"))) == 4


@pytest.mark.long
def test_a_finished_run_is_explained_as_if_it_had_been_at_once(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """Pictures and figures are those of a run that explained itself, with flip averaging too."""
    plain = line(drawn_root, "trainer.flip_averaging=true")
    for name, explain in (("now", "true"), ("later", "false")):
        code, _, err = cnnexp("train", *plain, f"tracking.explain={explain}", f"hydra.run.dir=outputs/runs/{name}")
        assert code == 0, err
    runs = tmp_path / "outputs" / "runs"
    now, later = (json.loads((runs / name / "run.json").read_text())["run_id"] for name in ("now", "later"))
    assert recorded(later) == ([file for file in recorded(now)[0] if not file.startswith("explain")], set())
    code, out, err = cnnexp("explain", later, f"paths.data={drawn_root}/data")
    assert code == 0, err
    assert out.split() == [str(runs / "later" / "errors.png"), str(runs / "later" / HEAT_MAPS)]
    assert recorded(later) == recorded(now)
    for file in ("errors.png", HEAT_MAPS):
        assert np.array_equal(picture(runs / "now" / file), picture(runs / "later" / file))
    one, other = (client().get_run(run_id).data.metrics for run_id in (now, later))
    for name in recorded(now)[1]:
        assert one[name] == pytest.approx(other[name], abs=1e-6), name
    # and once more: nothing is recorded twice
    assert cnnexp("explain", later, f"paths.data={drawn_root}/data")[0] == 0
    assert len(client().get_metric_history(later, "explain/chance")) == 1


@pytest.mark.long
def test_a_reproduction_explains_what_was_explained(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """The chosen job of a grid is reproduced with its heat maps, another one without."""
    swept = ["optimizer.learning_rate=1e-9,0.01", "trainer.monitor=val/loss", "hydra.sweep.dir=outputs/runs/s"]
    assert cnnexp("train", "-m", *line(drawn_root, *swept))[0] == 0
    for state in jobs(tmp_path / "outputs" / "runs" / "s"):
        code, out, err = cnnexp("reproduce", state["run_id"], f"paths.data={drawn_root}/data")
        assert code == 0, out + err
        (new,) = client().get_run(state["run_id"]).data.tags["reproduced_by"].split()
        assert recorded(new) == recorded(state["run_id"])


def test_an_explanation_that_cannot_be_made_says_why(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = line(drawn_root, "tracking.explain=false", "tracking.log_model=false", "hydra.run.dir=outputs/runs/r")
    assert cnnexp("train", *given)[0] == 0
    code, _, err = cnnexp("explain", "latest", f"paths.data={drawn_root}/data")
    assert (code, err.count("\n")) == (2, 1) and "no such artifact" in err
    code, _, err = cnnexp("explain", "latest", "dataset=synthetic", "dataset.seed=9", "dataset.limit=8")
    assert (code, err.count("\n")) == (2, 1) and "its test images are not those of the run" in err
    code, _, err = cnnexp("train", *line(drawn_root, "tracking.explain=maybe"))
    assert (code, err) == (2, "cnnexp: tracking.explain=maybe: must be one of auto, true, false\n")


def test_figures_of_heat_maps_are_compared_within_their_rounding() -> None:
    def agree(name: str, difference: float) -> bool:
        (figure,) = compare_figures({name: [(0, 0.5)]}, {name: [(0, 0.5 + difference)]})
        return not figure.differs(0.0)

    assert agree("explain/energy_inside/gradcam", 9e-6) and not agree("explain/energy_inside/gradcam", 2e-5)
    assert agree("test/acc", 0.0) and not agree("test/acc", 1e-9)


def test_better() -> None:
    assert is_better("val/acc", 0.9, 0.8) and not is_better("val/acc", 0.8, 0.8)
    assert is_better("val/loss", 0.1, 0.2) and not is_better("val/loss", 0.2, 0.1)
