"""Searches: what the sweeper is told, that a line goes on where it was stopped, and the charts at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from campaign import kill

from cnnexp.config import validated
from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.report.search import Axis, draw_importance, draw_parallel_coordinates
from cnnexp.runs.search import repeats_itself, search_overrides
from cnnexp.tracking.mlflow import Tracker

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="cnnexp[optuna] is not installed")

Run = Callable[..., tuple[int, str, str]]
SEARCH = "hydra/sweeper=optuna"
STORAGE = "hydra.sweeper.storage={_target_:cnnexp.runs.search.memory}"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], ["direction=maximize", "max_failure_rate=1.0", STORAGE]),
        (["trainer.monitor=val/loss"], ["direction=minimize", "max_failure_rate=1.0", STORAGE]),
        (["hydra.sweeper.direction=maximize"], ["direction=maximize", "max_failure_rate=1.0", STORAGE]),
        (["hydra.sweeper.max_failure_rate=0.5"], ["direction=maximize", STORAGE]),
    ],
)
def test_what_the_sweeper_is_told(given: list[str], told: list[str]) -> None:
    with hydra_context():
        composed = compose_config([SEARCH, *given], with_hydra=True)
    assert [override.removeprefix("hydra.sweeper.") for override in search_overrides(composed, given)] == [
        override.removeprefix("hydra.sweeper.") for override in told
    ]


def test_a_search_in_the_wrong_direction_is_refused(cnnexp: Run) -> None:
    code, _, err = cnnexp("train", "-m", SEARCH, "hydra.sweeper.direction=minimize", "seed=1,2")
    assert code == 2 and "trainer.monitor=val/acc is better with maximize" in err and len(err.splitlines()) == 1
    with hydra_context():
        composed = compose_config([SEARCH, "trainer.monitor=train/loss"], with_hydra=True)
    with pytest.raises(UserError, match="better with minimize"):
        search_overrides(composed, ["hydra.sweeper.direction=maximize"])


WRONG_SPACES = [
    (["hydra.sweeper.params={}"], "nothing is to be searched; give KEY=interval(LOW,HIGH)"),
    (["hydra.sweeper.sampler._target_=optuna.samplers.Nosuch", "seed=0,1"], "Error loading 'optuna.samplers.Nosuch'; "),
    (["hydra/sweeper/sampler=grid", "head.dropout=interval(0,0.5)"], "only supports discrete"),
    (["hydra.sweeper.custom_search_space=nosuch.space", "seed=0,1"], "Error locating target 'nosuch.space'; "),
    (["hydra.sweeper.storage=abc", "seed=0,1"], "hydra.sweeper.storage=abc: "),
    (["head.dropout=interval(1,0)"], "must be smaller than or equal to the `high`"),
    (["head.dropot=interval(0,0.5)"], "no such key; allowed: head.dropout"),
    (["head.dropout=interval(2,3)"], "must be at least 0 and less than 1"),
]


@pytest.mark.parametrize(("given", "said"), WRONG_SPACES)
def test_a_search_that_cannot_be_is_refused_in_one_line(
    cnnexp: Run, tmp_path: Path, given: list[str], said: str
) -> None:
    """Before anything is opened or left."""
    code, _, err = cnnexp("train", "-m", "debug=smoke", SEARCH, *given)
    assert code == 2 and said in err and len(err.splitlines()) == 1, err
    assert list(tmp_path.iterdir()) == []


def test_which_searches_repeat_themselves() -> None:
    with hydra_context():
        assert repeats_itself(compose_config([SEARCH], with_hydra=True))
        assert not repeats_itself(compose_config([SEARCH, "hydra.sweeper.sampler.seed=null"], with_hydra=True))
        assert not repeats_itself(compose_config([SEARCH, "hydra/sweeper/sampler=random"], with_hydra=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["search_head", "search_finetuning", "search_augmentation"])
def test_ready_spaces(name: str) -> None:
    """Every key of a space is one of the config, and both of its ends are allowed."""
    with hydra_context():
        composed = compose_config([f"sweep={name}", "experiment=demo/finetuned"], with_hydra=True)
        for key, space in composed.hydra.sweeper.params.items():
            inside = space[space.rindex("(") + 1 : space.index(")")].split(",")
            for value in inside:
                validated(compose_config([f"sweep={name}", "experiment=demo/finetuned", f"{key}={value.strip()}"]))


@pytest.mark.trains
@pytest.mark.pictures
@pytest.mark.long
def test_a_killed_search_goes_on_and_asks_for_the_same(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    given = ["-m", SEARCH, "debug=smoke", "dataset=synthetic", f"paths.data={drawn_root}", "hydra.sweeper.n_trials=4"]
    given += ["dataset.image_size=48", "tracking.log_model=false"]
    given += ["optimizer.learning_rate=tag(log,interval(1e-5,1e-1))", "head.dropout=choice(0,0.5)"]
    killed = kill.in_process(tmp_path, given, "log_metrics:10")  # each job calls it four times
    assert killed.returncode == -9, killed.stderr
    code, out, err = cnnexp("train", *given)
    assert code == 0, err
    assert out.count("is done already") == 2 and out.count("goes on with run") == 1
    tracker = Tracker(f"sqlite:///{tmp_path}/outputs/mlflow.db", "cnnexp", str(tmp_path / "outputs" / "mlartifacts"))
    (parent,) = tracker.sweeps(5)
    children = tracker.children(parent.run_id)
    assert parent.status == "FINISHED" and [child.status for child in children] == ["FINISHED"] * 4
    assert len({child.params["optimizer.learning_rate"] for child in children}) == 4
    file = tracker.download(parent.run_id, "parallel_coordinates.png", tmp_path / "downloaded")
    assert cv2.imread(str(file)) is not None


# -------------------------------------------------------------------------------------------------- charts


def test_positions_on_an_axis() -> None:
    places, ticks = Axis("rate", [1e-4, 1e-2, 1e-3], logarithmic=True).positions()
    np.testing.assert_allclose(places, [0, 1, 0.5])
    assert ticks == [(0.0, "0.0001"), (0.5, "0.001"), (1.0, "0.01")]
    places, ticks = Axis("units", [0, 64, 16]).positions()
    np.testing.assert_allclose(places, [0, 1, 0.25])
    assert ticks[1] == (0.5, "32")
    places, ticks = Axis("name", ["cosine", "constant", "cosine"]).positions()
    np.testing.assert_allclose(places, [0, 1, 0])
    assert ticks == [(0.0, "cosine"), (1.0, "constant")]
    assert Axis("flag", [True, False]).categorical and not Axis("same", [2.0, 2.0]).categorical
    assert Axis("same", [2.0, 2.0]).positions()[0].tolist() == [0.5, 0.5]


def orange(file: Path) -> np.ndarray:
    """Whether each pixel is orange: (H, W) bool."""
    blue, green, red = np.moveaxis(cv2.imread(str(file)).astype(int), -1, 0)
    return (red > 200) & (green < 150) & (blue < 80)


@pytest.mark.pictures
def test_the_best_trial_stands_out(tmp_path: Path) -> None:
    """It is drawn from low to high, or with a loss from high to low."""
    ends = {}
    for maximize in (True, False):
        file = tmp_path / f"{maximize}.png"
        draw_parallel_coordinates(file, [Axis("x", [0.0, 1.0])], [0.5, 0.9], "val/acc", maximize)
        rows, _ = np.nonzero(orange(file))
        ends[maximize] = rows.mean()
    assert ends[True] < ends[False] - 100  # (1, 0.9) is a line at the top, (0, 0.5) one at the bottom


@pytest.mark.pictures
def test_importance_has_a_bar_for_each(tmp_path: Path) -> None:
    draw_importance(tmp_path / "i.png", {"a": 0.25, "b": 0.75}, "val/acc", 20)
    picture = cv2.imread(str(tmp_path / "i.png")).astype(int)
    blue = (picture[..., 0] > 150) & (picture[..., 2] < 60)
    assert not blue[:30].any() and (picture[:30] < 100).any()  # the title has a place of its own
    lengths = sorted({int(n) for n in blue.sum(axis=1) if n > 20})
    assert lengths[-1] / lengths[0] == pytest.approx(3, rel=0.05)
