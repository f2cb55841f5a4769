"""A grid: its ranks, its ties and what its keys do, against figures worked out by hand; and how it is shown."""

import csv
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from made_runs import CLASSES, answers, result, texts
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.text import Text
from test_report_page import Page

from cnnexp.errors import UserError
from cnnexp.report.compare import Comparison, Result
from cnnexp.report.grid import Grid, rank
from cnnexp.report.grid_chart import MOST_POINTS, draw_grid, grid_figure
from cnnexp.report.predictions import write_predictions
from cnnexp.report.tables import chosen_table, effect_table, grid_table, ranked_by, to_csv, to_json
from cnnexp.runs.comparison import Layout, compare, show_comparison, write_report
from cnnexp.runs.settings import report_of, split_line, told, varying


def grid(figures: Mapping[tuple[str, ...], float | None], /, keys: tuple[str, ...] = ("a", "b"), **others: Any) -> Grid:
    """By the values of `keys` the validation accuracy of a point; None: it failed."""
    runs, settings = [], []
    for order, (values, figure) in enumerate(figures.items()):
        status = "FAILED" if figure is None else "FINISHED"
        test = None if figure is None else 1 - figure  # ranked by it, everything would be the other way round
        run = f"run{order}"
        runs.append(
            result("v", test, order, run_id=run, val_accuracy=figure, objective=figure, status=status, **others)
        )
        settings.append(dict(zip(keys, values, strict=True)))
    return rank(runs, settings)


FULL = {("1", "x"): 0.70, ("1", "y"): 0.80, ("2", "x"): 0.76, ("2", "y"): 0.88}


def rows_of(made: Grid) -> list[dict[str, str]]:
    table = grid_table(made)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


# --------------------------------------------------------------------------------------------------- ranks


def test_points_are_ranked_by_validation_and_not_by_test_figures() -> None:
    made = grid({**FULL, ("3", "x"): None, ("3", "y"): 0.80})
    assert [tuple(point.settings.values()) for point in made.points] == [
        ("2", "y"), ("1", "y"), ("3", "y"), ("2", "x"), ("1", "x"), ("3", "x")
    ]  # fmt: skip
    assert [point.rank for point in made.points] == [1, 2, 2, 4, 5, None]
    assert [point.best for point in made.points] == [True, False, False, False, False, False]
    shown = rows_of(made)
    assert shown[0] | {"test %": "12.0"} == shown[0] and shown[0]["val %"] == "88.0"
    assert (shown[0]["mark"], shown[1]["mark"], shown[-1]["runs"]) == ("best", "", "failed")
    assert shown[-1]["rank"] == shown[-1]["val %"] == "-"


def test_seeds_are_one_point() -> None:
    runs = [result("v", 0.5, n, seed=n % 2, val_accuracy=figure) for n, figure in enumerate((0.5, 0.6, 0.8, 0.9))]
    made = rank(runs, [{"a": "1"}, {"a": "1"}, {"a": "2"}, {"a": "2"}])
    best, other = made.points
    assert best.figure == pytest.approx(0.85) and best.spread == pytest.approx(0.05 * math.sqrt(2))
    assert other.variant.seeds == (0, 1) and rows_of(made)[0]["runs"] == "2"


def test_a_tie_is_not_to_be_told_from_the_best(tmp_path: Path) -> None:
    """Of 10 validation images the best has 9 right, the others 8, 3 and 9; one has no answers."""
    right = {"best": "RRRRRRRRRW", "near": "RRRRRRRRWW", "far": "RRWWWWWWWR", "equal": "WRRRRRRRRR", "old": None}
    runs = []
    for order, (name, letters) in enumerate(right.items()):
        path = tmp_path / name / "predictions.csv"
        if letters:
            answers(path.with_name("predictions_val.csv"), letters)
        share = (letters or "RRRRRRRWWW").count("R") / 10
        runs.append(result(name, 0.5, order, val_accuracy=share, predictions_path=path))
    made = rank(runs, [{"a": name} for name in right])
    found = {point.settings["a"]: point for point in made.points}
    assert found["best"].best and found["best"].p_value is None
    assert found["near"].p_value == 0.5 and found["near"].tied  # they differ in one image
    # 7 images that the best alone has right, 1 that it alone has wrong: 2 * (1 + 8 / 2) / 2 ** 8, of three tests
    assert found["far"].p_value == pytest.approx(10 / 256) and found["far"].p_holm == pytest.approx(30 / 256)
    assert found["far"].tied
    assert found["equal"].tied and found["equal"].rank == 1 and not found["equal"].best
    assert found["old"].p_value is None and not found["old"].tied
    assert {row["a"]: row["p"] for row in rows_of(made)}["old"] == "-"


def test_answers_to_other_images_say_nothing(tmp_path: Path) -> None:
    runs = []
    for order, ids in enumerate((["a", "b"], ["a", "c"])):
        path = tmp_path / str(order) / "predictions.csv"
        answers(path.with_name("predictions_val.csv"), "RR" if order else "RW", ids)
        runs.append(result("v", 0.5, order, val_accuracy=0.5 + order / 2, predictions_path=path))
    made = rank(runs, [{"a": "1"}, {"a": "2"}])
    assert made.not_ranked and [(point.rank, point.p_value) for point in made.points] == [(None, None)] * 2
    path.with_name("predictions_val.csv").write_text("nonsense")
    again = rank(runs, [{"a": "1"}, {"a": "2"}])
    assert not again.not_ranked and again.points[1].p_value is None and not again.points[1].tied


def test_of_different_data_sets_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their validation images are called alike; two seeds of the middle one are on the same images."""
    runs = []
    for order, (data, seed) in enumerate([("x", 0), ("y", 0), ("y", 1), ("z", 0)]):
        path = answers(tmp_path / str(order) / "predictions.csv", "RRRW")
        answers(path.with_name("predictions_val.csv"), "RRRW" if data == "x" else "RRRR")
        share = 0.75 if data == "x" else 1.0
        given: dict[str, Any] = {"val_accuracy": share, "objective": share, "predictions_path": path}
        runs.append(result(data, 0.75, order, seed=seed, data_digest=f"digest of {data}", **given))
    runs.append(result("none", None, 4, status="FAILED", data_digest="of a failure"))
    settings = [{"dataset": run.name, "b": "1" if run.name == "x" else "2"} for run in runs]
    made = rank(runs, settings)
    assert [point.settings["dataset"] for point in made.points] == ["x", "y", "z", "none"]  # as in the sweep
    assert [point.figure for point in made.points] == [0.75, 1.0, 1.0, None]
    assert {(point.rank, point.p_value, point.p_holm, point.tied, point.best) for point in made.points} == {
        (None, None, None, False, False)
    }
    assert made.chosen is None and made.effects == () and chosen_table(made).rows == effect_table(made).rows == []
    table = grid_table(made)
    assert table.columns[:4] == ["dataset", "b", "runs", "val %"] and table.names == 2
    assert not {"rank", "mark", "p", "p Holm"} & set(table.columns)
    show_comparison(made)
    said = capsys.readouterr().out
    assert "not all of the same images" in said and "best of" not in said and "all else equal" not in said
    lines = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert {line[name] for line in lines for name in ("rank", "p_value", "p_holm", "corrected")} == {""}
    assert json.loads(to_json(made))["not_ranked"] == made.not_ranked and json.loads(to_json(made))["chosen"] is None
    drawn = texts(grid_figure(made, "t"))
    assert "not ranked: not all of the same images" in drawn and not {"best", "mean of a value"} & set(drawn)
    html, _ = page_of(tmp_path / "page", made)
    assert 'class="best"' not in html and made.not_ranked in html and "The best, and what" not in html
    assert not rank(runs[1:3], settings[1:3]).not_ranked  # one point


def test_points_whose_seeds_divide_the_images_alike_are_ranked() -> None:
    """As with dataset.split_seed=${seed}: each point is a mean over the same divisions."""
    runs = [
        result("v", 0.5, 2 * a + seed, seed=seed, val_accuracy=0.5 + a / 10, data_digest=f"division {seed}")
        for a in range(2)
        for seed in range(2)
    ]
    settings = [{"a": str(order // 2)} for order in range(4)]
    made = rank(runs, settings)
    assert not made.not_ranked and [point.settings["a"] for point in made.points] == ["1", "0"]
    assert rank(runs[:3], settings[:3]).not_ranked  # one mean is of one division alone
    swept = rank(runs, [{"a": str(n // 2), "dataset.split_seed": str(n % 2)} for n in range(4)])
    assert swept.not_ranked and swept.effects == ()


def test_a_loss_is_ranked_from_below(tmp_path: Path) -> None:
    runs = []
    for order, given in enumerate(([0.5, 0.5, 0.5], [0.5, 0.6, 0.9])):
        path = tmp_path / str(order) / "predictions.csv"
        shares = np.array([[share, 1 - share] for share in given])
        ids, labels = ["a", "b", "c"], np.zeros(3, int)
        write_predictions(path.with_name("predictions_val.csv"), ids, labels, (shares.argmax(axis=1), shares), CLASSES)
        loss = float(-np.log(given).mean())
        others: dict[str, Any] = {"val_accuracy": 0.5, "monitor": "val/loss", "objective": loss}
        runs.append(result("v", 0.5, order, predictions_path=path, **others))
    made = rank(runs, [{"a": "1"}, {"a": "2"}])
    assert [point.settings["a"] for point in made.points] == ["2", "1"]
    assert made.points[1].p_value == pytest.approx(0.5, abs=0.08)  # of two images that differ the signs must be one
    assert rows_of(made)[0]["val loss"] == f"{-np.log([0.5, 0.6, 0.9]).mean():.4f}"
    assert rows_of(made)[0]["val %"] == "50.0"


def test_runs_that_monitor_different_figures_are_ranked_by_accuracy() -> None:
    runs = [
        result("v", 0.5, 0, val_accuracy=0.6, monitor="val/loss", objective=0.1),
        result("v", 0.5, 1, val_accuracy=0.7, objective=0.7),
        result("v", None, 2, status="FAILED", monitor="train/acc"),
    ]
    made = rank(runs, [{"a": "1"}, {"a": "2"}, {"a": "3"}])
    assert made.monitor == "val/acc" and made.points[0].settings["a"] == "2"
    assert rank(runs[::2], [{"a": "1"}, {"a": "3"}]).monitor == "val/loss"  # what failed has no say


def answered(folder: Path, right: Mapping[str, Sequence[str]], **others: Any) -> Grid:
    """By the value of `a` the letters of each seed, of validation and test images alike."""
    runs, settings = [], []
    for order, (name, seeds) in enumerate(right.items()):
        for seed, letters in enumerate(seeds):
            path = answers(folder / f"{name}{seed}" / "predictions.csv", letters)
            answers(path.with_name("predictions_val.csv"), letters)
            share = letters.count("R") / len(letters)
            values = {"val_accuracy": share, "objective": share, "predictions_path": path, "seed": seed, **others}
            runs.append(result(name, share, order, test_total=len(letters), **values))
            settings.append({"a": name})
    return rank(runs, settings)


def test_a_tie_is_told_by_all_seeds(tmp_path: Path) -> None:
    """By the lowest seeds alone the two would differ in 2 of 8 images."""
    made = answered(tmp_path, {"best": ("RRRRRRRR", "RRRRRRRR"), "other": ("RRRRRRWW", "WWWWWWRR")})
    # half a point of each image, all for the best: 2 ** -7 for all signs alike, half of it as the mid p
    assert made.points[1].p_value == pytest.approx(2**-8) and not made.points[1].tied


def test_the_best_beside_what_it_is_worth(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    letters = {str(n): ("".join(rng.choice(["R", "W"], 100, p=[0.8, 0.2])),) for n in range(20)}
    made = answered(tmp_path, letters)
    best = made.chosen
    assert best is not None and best.points == 20 and best.metric == "acc"
    assert best.figure == made.points[0].figure == max(one.count("R") / 100 for (one,) in letters.values())
    mean = np.mean([one.count("R") / 100 for (one,) in letters.values()])
    assert best.corrected is not None and abs(best.corrected - mean) < 0.25 * (best.figure - mean)
    assert best.test is not None and best.test.interval == made.points[0].variant.interval
    table = chosen_table(made)
    assert table.columns == ["best of 20", "val %", "corrected", "test %", "95 % interval"]
    assert table.rows[0][1:4] == [f"{100 * best.figure:.1f}", f"{100 * best.corrected:.1f}", f"{100 * best.figure:.1f}"]
    lines = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [line["corrected"] for line in lines] == [str(best.corrected)] + [""] * 19
    assert json.loads(to_json(made))["chosen"]["corrected"] == best.corrected
    figure = grid_figure(made, "t")
    assert "the best, corrected for the choice" in texts(figure)
    assert any(text.startswith(f"best of 20: val % {table.rows[0][1]},\ncorrected for the") for text in texts(figure))
    html = page_of(tmp_path / "page", made)[0]
    assert "The best, and what choosing it added" in html and f">{100 * best.corrected:.1f}</td>" in html


def test_without_answers_nothing_is_corrected(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    made = answered(tmp_path, {"1": ("RRRW",), "2": ("RRWW",)})
    assert made.chosen is not None and made.chosen.corrected is not None
    (tmp_path / "20" / "predictions_val.csv").unlink()
    runs = list(made.runs)
    again = rank(runs, [{"a": run.name} for run in runs])
    assert again.chosen is not None and again.chosen.corrected is None and chosen_table(again).rows[0][2] == "-"
    assert again.points[1].p_value is None
    assert grid(FULL).chosen is not None and grid(FULL).chosen.corrected is None  # type: ignore[union-attr]
    assert rank([result("v", None, status="FAILED")], [{}]).chosen is None
    elsewhere = [replace(run, data_digest=f"data of {run.name}") for run in made.runs]
    answers(tmp_path / "20" / "predictions_val.csv", "RRWW")
    other = rank(elsewhere, [{"a": run.name} for run in runs])
    assert other.points[1].p_value is None and other.chosen is None
    trained = [replace(run, monitor="train/acc", objective=0.5) for run in runs]
    assert rank(trained, [{"a": run.name} for run in runs]).chosen.corrected is None  # type: ignore[union-attr]


def test_a_grid_by_another_figure(tmp_path: Path) -> None:
    """Of 8 images 4 are of each class; F1 falls where the mistakes are in one class."""
    made = answered(tmp_path, {"even": ("RRRRWWWW",), "one": ("RWRWRWRW",), "good": ("RRRRRRRW",)})
    by_f1 = rank(made.runs, [{"a": run.name} for run in made.runs], "f1_macro")
    assert by_f1.monitor == "val/f1_macro"
    assert [point.settings["a"] for point in by_f1.points] == ["good", "even", "one"]
    # all are taken for the first class: F1 of 2 / 3 and 0
    assert by_f1.points[2].figure == pytest.approx(1 / 3) and by_f1.points[1].figure == pytest.approx(0.5)
    assert by_f1.points[1].p_value is not None and by_f1.chosen is not None and by_f1.chosen.metric == "f1_macro"
    assert by_f1.chosen.test is not None and by_f1.chosen.test.value == pytest.approx(by_f1.points[0].figure)
    assert "test f1_macro" in grid_table(by_f1).columns and "val f1_macro" in grid_table(by_f1).columns
    assert "test/f1_macro_low" in to_csv(by_f1).splitlines()[0]
    with pytest.raises(UserError, match="--metric top5_acc: no finished run"):
        rank(made.runs, [{"a": run.name} for run in made.runs], "top5_acc")


def test_a_grid_by_a_figure_of_ones_own(tmp_path: Path) -> None:
    """Its value is that which was recorded; there is nothing to test or to correct, and equal ones are ties."""
    made = answered(tmp_path, {"even": ("RRRRWWWW",), "one": ("RWRWRWRW",), "good": ("RRRRRRRW",)})
    found = {"even": 30.0, "one": 30.0, "good": 12.0}
    monitored = [
        replace(run, monitor="val/own", objective=found[run.name], figures={"own": found[run.name] + 1})
        for run in made.runs
    ]
    recorded = [replace(run, val_figures={"own": found[run.name]}, figures={"own": 1.0}) for run in made.runs]
    for grid in (
        rank(monitored, [{"a": run.name} for run in made.runs]),
        rank(recorded, [{"a": run.name} for run in made.runs], "own"),
    ):
        assert grid.monitor == "val/own" and [point.figure for point in grid.points] == [30.0, 30.0, 12.0]
        assert [(point.rank, point.tied, point.p_value) for point in grid.points] == [
            (1, False, None), (1, True, None), (3, False, None)
        ]  # fmt: skip
        assert grid.chosen is not None and (grid.chosen.corrected, grid.chosen.metric) == (None, "own")
        assert ranked_by(grid).startswith("val/own is your own: it has no interval")
        assert "val/own" in texts(grid_figure(grid, "own")) and json.loads(to_json(grid))["points"][0]["figure"] == 30
        assert chosen_table(grid).rows[0][1:3] == ["30.0000", "-"]
        assert grid.chosen.test is not None and grid.chosen.test.value in (31.0, 1.0)
    assert not ranked_by(made)


# ------------------------------------------------------------------------------------------------- effects


def test_effects_by_hand() -> None:
    a, b = grid(FULL).effects
    assert [(level.value, level.points) for level in a.levels] == [("1", 2), ("2", 2)]
    assert [level.mean for level in a.levels] == pytest.approx([0.75, 0.82])
    # gains of 0.06 and 0.08: mean 0.07, standard error 0.01, Student's t of one degree of freedom 12.706
    assert a.levels[0].gain is None and a.levels[1].gain == pytest.approx(0.07)
    assert a.levels[1].interval == pytest.approx((0.07 - 0.12706, 0.07 + 0.12706), abs=1e-5)
    assert b.levels[1].gain == pytest.approx(0.11)  # 0.10 and 0.12
    assert effect_table(grid(FULL)).rows[:2] == [
        ["a", "1", "2", "75.0", "first", "-"],
        ["a", "2", "2", "82.0", "+7.0", "\N{MINUS SIGN}5.7 to +19.7"],
    ]


def test_points_without_a_partner_gain_nothing() -> None:
    made = grid({("10", "x"): 0.7, ("9", "x"): 0.6, ("9", "y"): 0.8, ("10", "y"): None})
    a, b = made.effects
    assert [level.value for level in a.levels] == ["9", "10"]  # as numbers
    assert a.levels[1].gain == pytest.approx(0.1) and a.levels[1].interval is None  # one pair
    assert [level.points for level in b.levels] == [2, 1]
    lonely = grid({("1", "x"): 0.7, ("2", "y"): 0.6}).effects[0]
    assert [level.gain for level in lonely.levels] == [None, None]


def test_a_key_with_one_value_among_what_finished_has_no_effect() -> None:
    assert [effect.key for effect in grid({("1", "x"): 0.7, ("1", "y"): 0.6, ("2", "y"): None}).effects] == ["b"]


def test_many_numbers_are_two_halves() -> None:
    figures: dict[tuple[str, ...], float | None] = {(str(n),): n / 10 for n in range(1, 9)}
    (effect,) = grid(figures, ("a",)).effects
    assert [(level.value, level.points) for level in effect.levels] == [
        ("\N{LESS-THAN OR EQUAL TO} 4.5", 4),
        ("> 4.5", 4),
    ]
    assert [level.mean for level in effect.levels] == pytest.approx([0.25, 0.65])
    welch = scipy.stats.ttest_ind([0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.4], equal_var=False).confidence_interval(0.95)
    assert effect.levels[1].gain == pytest.approx(0.4)
    assert effect.levels[1].interval == pytest.approx((welch.low, welch.high))


# ------------------------------------------------------------------------------------------------ settings


def test_lines_are_told_apart_by_what_they_say() -> None:
    lines = [
        ["lr=1e-3", "seed=0", "x=1", "optimizer=sgd"],
        ["lr=0.001", "seed=1", "x=1"],
        ["+lr=0.01", "tracking=none"],
    ]
    configs = [{}, {"optimizer.name": "adam", "x": "1"}, {"optimizer.name": "sgd", "x": "1.0"}]
    assert varying(lines, configs) == [
        {"lr": "0.001", "optimizer": "sgd"},
        {"lr": "0.001", "optimizer": "adam"},
        {"lr": "0.01", "optimizer": "sgd"},
    ]
    assert varying([["seed=1"], ["seed=2", "paths.root=x", "sweep.report=grid"]], [{}, {}]) == [{}, {}]
    assert told(["~head.dropout", "name='a b'", "hydra/launcher=joblib", "hydra.mode=RUN"]) == {
        "head.dropout": "-",
        "name": "a b",
    }


def test_configs_tell_apart_what_lines_do_not() -> None:
    """A group by its name alone."""
    one = {"optimizer.name": "adam", "optimizer.beta_1": "0.9", "seed": "0", "paths.root": "a", "head.units": "16"}
    other = {"optimizer.name": "sgd", "optimizer.momentum": "0.9", "seed": "1", "paths.root": "b", "head.units": "16"}
    assert varying([[], []], [one, other]) == [{"optimizer": "adam"}, {"optimizer": "sgd"}]


def test_a_recorded_line_is_split_where_overrides_end() -> None:
    line = "experiment=frozen head.units=[1, 2] name='a b' tracking.tags={x: 1, y: 2} note=a b ~head"
    assert split_line(line) == [
        "experiment=frozen", "head.units=[1, 2]", "name='a b'", "tracking.tags={x: 1, y: 2}", "note=a b", "~head"
    ]  # fmt: skip
    assert split_line("") == []


def test_what_is_a_progression() -> None:
    assert report_of(["experiment", "seed"], "auto") == "progression"
    assert report_of(["experiment"], "grid") == "grid"
    assert report_of(["experiment", "head.units"], "auto") == report_of(["seed"], "auto") == "grid"
    assert report_of(["head.units"], "progression") == "progression"


def test_a_run_trained_twice_is_not_two_seeds() -> None:
    runs = [result("v", 0.5, n, run_id=f"{n}" * 32, val_accuracy=0.5 + n / 10) for n in range(2)]
    once = compare(runs, [["lr=1"], ["lr=1.0"]], Layout("grid"))
    assert isinstance(once, Grid) and once.points[0].figure == 0.5 and once.points[0].spread is None
    made = compare(runs, [["lr=1"], ["lr=1.0"]], Layout("grid", apart=True))
    assert isinstance(made, Grid) and made.keys == ("run",)
    assert [point.settings["run"] for point in made.points] == ["1" * 8, "0" * 8]
    assert isinstance(compare(runs, [["lr=1"], ["lr=2"]], Layout("progression")), Comparison)


# --------------------------------------------------------------------------------------------------- shown


def long_grid() -> Grid:
    keys = ("optimizer.learning_rate", "head.dropout", "augmentation")
    values = [(a, b, c) for a in ("0.0001", "0.001") for b in ("0.2", "0.5") for c in ("none", "geometric")]
    return grid({value: 0.7 + n / 100 for n, value in enumerate(values)}, keys, train_seconds=4.0)


def test_columns_are_the_keys_that_vary() -> None:
    table = grid_table(long_grid())
    assert table.columns[:6] == ["rank", "learning_rate", "dropout", "augmentation", "val %", "mark"]
    assert table.names == 4 and table.rows[0][:6] == ["1", "0.001", "0.5", "geometric", "77.0", "best"]
    twins = grid({("1", "x"): 0.5, ("2", "y"): 0.6}, ("head.units", "phases.warm.units"))
    assert grid_table(twins).columns[1:3] == ["head.units", "phases.warm.units"]
    one = rank([result("alone", 0.5, val_accuracy=0.5)], [{}])
    assert grid_table(one).rows[0][:3] == ["1", "alone", "50.0"] and effect_table(one).rows == []


def test_csv_and_json_of_a_grid_have_all() -> None:
    made = long_grid()
    lines = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert lines[0]["rank"] == "1" and lines[0]["optimizer.learning_rate"] == "0.001"
    assert float(lines[0]["val/acc"]) == 0.77 and lines[0]["tied"] == "False" and lines[0]["run_ids"] == "run7"
    figures = json.loads(to_json(made))
    assert figures["points"][0]["settings"]["head.dropout"] == "0.5" and figures["keys"][2] == "augmentation"
    assert figures["effects"][0]["levels"][1]["gain"] == pytest.approx(0.04)
    assert len(figures["runs"]) == 8


def page_of(folder: Path, made: Grid) -> tuple[str, Page]:
    write_report(folder, made, "a title", {"data set": "synthetic <1>", "line": "cnnexp train"})
    html = (folder / "comparison.html").read_text(encoding="utf-8")
    return html, Page(html)


def test_the_page_of_a_grid(tmp_path: Path) -> None:
    made = long_grid()
    html, page = page_of(tmp_path, made)
    assert not page.open and "script" not in page.tags
    assert html.count(">a title<") == 2  # in the window's title and above the page
    assert {"synthetic <1>", "cnnexp train", "8 run ids", "run7 v, seed 0"} <= set(page.words)
    bold = [text.split("<")[0] for text in html.split('class="best"')[1:]]
    assert len(bold) == 1 and bold[0].endswith('data-head="val %">77.0')  # and no test figure
    assert (tmp_path / "comparison.csv").read_text() == to_csv(made).replace("\r\n", "\n")


# --------------------------------------------------------------------------------------------------- chart


def undrawn(axes: Axes) -> list[Text]:
    """The labels of ticks that lie outside of what is shown."""
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return found


def long_names() -> Grid:
    """32 settings of four keys, by a figure that has an interval, so that what the best is worth takes much room."""
    names = ("demo/frozen_with_a_long_name", "demo/finetuned_augmented", "best", "baseline")
    settings = itertools.product(names, ("cross_entropy", "focal"), ("false", "true"), ("none", "geometric"))
    figures = {"f1_macro": 0.9123, "f1_macro_low": 0.8765, "f1_macro_high": 0.9432}
    found = {values: 0.7 + number / 200 for number, values in enumerate(settings)}
    keys = ("experiment", "loss", "trainer.balanced_sampling", "augmentation")
    return grid(found, keys, monitor="val/f1_macro", figures=figures)


@pytest.mark.pictures
@pytest.mark.parametrize("kind", ["three", "two", "search", "one", "names"])
def test_no_words_of_the_chart_overlap(kind: str) -> None:
    two = {(a, b): n / 30 for n, (a, b) in enumerate((a, b) for a in ("0.01", "1", "3") for b in ("sgd", "adam"))}
    search = {(str(10.0 ** (n / 10)), str(n * 7)): 0.5 + n / 100 for n in range(-30, 0)}
    made = {
        "three": long_grid(),
        "two": grid(two, ("optimizer.weight_decay", "optimizer")),
        "search": grid(search, ("optimizer.learning_rate", "head.units")),
        "one": rank([result("alone", 0.5, val_accuracy=0.5)], [{}]),
        "names": long_names(),
    }[kind]
    figure = grid_figure(made, "Dogs vs cats, 2000 training photos")
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    words = [item for item in figure.findobj(Text) if item.get_visible() and item.get_text().strip()]
    hidden = {id(label) for axes in figure.findobj(Axes) for label in undrawn(axes)}
    words = [item for item in words if id(item) not in hidden and (item.axes is None or item.axes.get_visible())]
    boxes = [(item.get_text(), item.get_window_extent()) for item in words]
    for number, (text, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
        for other, beside in boxes[:number]:
            apart = box.x1 <= beside.x0 or beside.x1 <= box.x0 or box.y1 <= beside.y0 or beside.y1 <= box.y0
            assert apart, (text, other)
    for item in words:  # what stands out of one half is covered by the other
        if item.axes is not None and isinstance(half := item.axes.figure, SubFigure):
            box = item.get_window_extent()
            assert half.bbox.x0 <= box.x0 and box.x1 <= half.bbox.x1, item.get_text()
    said = texts(figure)
    assert ("val/acc of both" in said) == (kind in ("two", "search"))
    assert ("mean of a value" in said) == (kind in ("three", "two", "names"))
    if kind == "search":
        assert f"val/acc, the best {MOST_POINTS} of 30" in said


@pytest.mark.pictures
def test_the_chart_of_a_page_has_no_title(tmp_path: Path) -> None:
    from PIL import Image

    untitled = draw_grid(tmp_path / "chart.png", long_grid(), "a title")
    whole, below = Image.open(tmp_path / "chart.png"), Image.open(io.BytesIO(untitled))
    assert whole.width == below.width == 1600 and 30 <= whole.height - below.height <= 90
    cut = whole.crop((0, whole.height - below.height, 1600, whole.height))
    assert np.abs(np.asarray(cut, int) - np.asarray(below, int)).mean() < 1


def test_old_results_are_read_with_their_figure(tmp_path: Path) -> None:
    """Those of before hold neither the monitored figure nor its name."""
    from cnnexp.runs.comparison import distinguish, read_jobs
    from cnnexp.runs.folder import RunFolder, RunManifest

    folder = RunFolder(tmp_path / "0")
    folder.write_result(Result("r", "v", 0, "FINISHED", 0.5, 10, 0.5))
    written = json.loads((folder.path / "result.json").read_text())
    del written["monitor"], written["objective"]
    (folder.path / "result.json").write_text(json.dumps(written))
    (folder.path / "config.yaml").write_text("trainer: {monitor: val/loss}")
    (folder.path / ".hydra").mkdir()
    (folder.path / ".hydra" / "overrides.yaml").write_text("[seed=0]")
    folder.write_manifest(RunManifest("r", "", "a digest", 0.25))
    (read,) = distinguish(*read_jobs(tmp_path))
    assert (read.monitor, read.objective, read.data_digest) == ("val/loss", 0.25, "a digest")
