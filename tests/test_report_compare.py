"""The comparison and its tables, against figures worked out by hand."""

import csv
import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from made_runs import answers, result, texts

from cnnexp.commands.compare import parser
from cnnexp.errors import UserError
from cnnexp.metrics.paired import holm
from cnnexp.metrics.registry import FIGURES
from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.chart import progression_figure
from cnnexp.report.columns import DROPPED_OF_GRID
from cnnexp.report.compare import Comparison, Result, Wanted, summarise
from cnnexp.report.page import write_page
from cnnexp.report.predictions import read_predictions, write_predictions
from cnnexp.report.tables import compared_by, dropped, not_compared, pair_table, table_rows, to_csv, to_json, write_csv


def test_a_step_by_hand(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRRWWWWWWW")
    newer = answers(tmp_path / "newer.csv", "WRRRRRRRWW")
    rows = summarise(
        [
            result("older", 0.3, order=0, test_total=10, predictions_path=older),
            result(
                "newer",
                0.7,
                1,
                test_total=10,
                predictions_path=newer,
                train_seconds=80.0,
                trainable_parameters=400,
            ),
        ]
    ).rows
    step = rows[1].step
    assert rows[0].step is None and step is not None
    assert step.previous == "older" and step.gain == pytest.approx(0.4)
    assert step.fixed == tuple(f"test/{i}.jpg" for i in (3, 4, 5, 6, 7)) and step.broken == ("test/0.jpg",)
    assert step.p_value == step.p_holm == pytest.approx(2 * (1 + 6 / 2) / 64)  # McNemar, mid p
    assert step.seconds_per_point == pytest.approx(2.0) and step.parameters_per_point == pytest.approx(10.0)
    assert rows[1].interval == wilson_interval(7, 10)


def test_images_are_matched_by_name(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRWW", ["a", "b", "c", "d"])
    newer = answers(tmp_path / "newer.csv", "WWRR", ["c", "d", "a", "b"])  # the same answers in another order
    step = (
        summarise([result("older", 0.5, 0, predictions_path=older), result("newer", 0.5, 1, predictions_path=newer)])
        .rows[1]
        .step
    )
    assert step is not None and (step.fixed, step.broken, step.p_value) == ((), (), 1.0)
    assert step.seconds_per_point is None  # nothing gained, so a point has no price


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRWW")
    for name, newer in {
        "names": answers(tmp_path / "names.csv", "RRRR", ["a", "b", "c", "d"]),
        "fewer": answers(tmp_path / "fewer.csv", "RRR"),
    }.items():
        step = (
            summarise(
                [
                    result("older", 0.5, 0, predictions_path=older),
                    result(name, 1.0, 1, predictions_path=newer),
                ]
            )
            .rows[1]
            .step
        )
        assert step is not None and step.gain is None and step.p_value is None
        assert step.note == "not the same test images as older"


def test_without_predictions_there_is_a_gain_but_no_p(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_text("nonsense")
    good = answers(tmp_path / "good.csv", "RRWW")
    for path, note in ((None, "has no predictions.csv"), (tmp_path / "broken.csv", "the first line is")):
        step = (
            summarise(
                [
                    result("older", 0.5, 0, predictions_path=good),
                    result("newer", 0.75, 1, predictions_path=path),
                ]
            )
            .rows[1]
            .step
        )
        assert step is not None and step.gain == 0.25 and step.p_value is None and note in step.note


def test_seeds_are_merged(tmp_path: Path) -> None:
    older = answers(tmp_path / "older.csv", "RRRRWW")
    low, high = answers(tmp_path / "low.csv", "RRRRRW"), answers(tmp_path / "high.csv", "WWWWWW")
    runs = [
        result("new", 0.961, 3, seed=2, predictions_path=high, val_accuracy=0.9, train_seconds=30.0),
        result("old", 0.90, 1, predictions_path=older),
        result("new", 0.959, 2, seed=1, predictions_path=low, val_accuracy=0.8, train_seconds=10.0),
        result("new", None, 4, seed=0, status="FAILED"),
    ]
    rows = summarise(runs).rows
    assert [row.name for row in rows] == ["old", "new"]
    new = rows[1]
    assert new.test_accuracy == pytest.approx(0.96) and new.test_spread == pytest.approx(0.002 / 2**0.5)
    assert new.seeds == (1, 2) and new.run_ids == ("new-0", "new-1", "new-2")
    assert new.interval == pytest.approx(wilson_interval(960, 1000))  # of one test set, not of two
    assert new.val_accuracy == pytest.approx(0.85) and new.train_seconds == 20.0
    assert new.step is not None and new.step.fixed == ("test/4.jpg",)  # seed 1, the lowest that finished


def three(folder: Path, **others: Any) -> list[Result]:
    """Three variants of two seeds, of 8 test images of two classes."""
    right = {"first": ("RRRRWWWW", "RRRWWWWR"), "second": ("RRRRRRWW", "RRRRRWRW"), "third": ("RRRRRRRR", "RRRRRRRW")}
    return [
        result(
            name, letters.count("R") / 8, order, seed=seed, test_total=8,
            predictions_path=answers(folder / f"{name}{seed}" / "predictions.csv", letters), **others,
        )
        for order, (name, seeds) in enumerate(right.items())
        for seed, letters in enumerate(seeds)
    ]  # fmt: skip


def test_gain_interval_and_p_are_of_all_seeds_and_corrected_for_all_steps(tmp_path: Path) -> None:
    _, second, third = summarise(three(tmp_path)).rows
    assert second.step is not None and third.step is not None
    # halves that `second` gained: images 3 (1), 4 (2), 5 (1), 6 (1) and, lost, 7 (1); sums of five signs with 1 1 1 1 2
    assert second.step.gain == pytest.approx((1 + 2 + 1 + 1 - 1) / 16)
    totals = [abs(a + b + c + d + 2 * e) for a, b, c, d, e in itertools.product((-1, 1), repeat=5)]
    p = np.mean([(total > 4) + (total == 4) / 2 for total in totals])
    assert second.step.p_value == pytest.approx(p)
    values = np.array([0, 0, 0, 1, 2, 1, 1, -1]) / 2
    half = scipy.stats.t.ppf(0.975, 7) * values.std(ddof=1) / math.sqrt(8)
    assert second.step.interval == pytest.approx((0.25 - half, 0.25 + half))
    # `third`: images 5 (1), 6 (1), 7 (1)
    assert third.step.p_value == pytest.approx(1 / 8)
    assert [second.step.p_holm, third.step.p_holm] == pytest.approx([max(2 / 8, p), max(2 / 8, p)])
    assert second.step.fixed == ("test/4.jpg", "test/5.jpg")  # of the lowest seeds


def test_a_seed_without_answers_has_the_gain_alone(tmp_path: Path) -> None:
    runs = three(tmp_path)
    Path(str(runs[3].predictions_path)).unlink()
    step = summarise(runs).rows[1].step
    assert step is not None and step.gain == pytest.approx(0.25) and step.p_value is None and step.interval is None
    assert step.note == "second has no predictions.csv of each seed"
    answers(Path(str(runs[3].predictions_path)), "RRRR")
    step = summarise(runs).rows[1].step
    assert step is not None and step.p_value is None and step.note == "the seeds of second have different images"


def test_against_a_baseline(tmp_path: Path) -> None:
    runs = three(tmp_path)
    for name in ("third", "third-1"):
        made = summarise(runs, Wanted(against=name))
        assert made.against == "third"
        steps = [row.step for row in made.rows]
        assert steps[2] is None and [step.previous for step in steps if step] == ["third", "third"]
        assert [step.gain for step in steps if step] == pytest.approx([-7 / 16, -3 / 16])
    for name, said in (
        ("fourth", "--against fourth: is none of the variants that have finished; name one of: first; second; third"),
        ("", "--against : is none of"),
    ):
        with pytest.raises(UserError, match=said):
            summarise(runs, Wanted(against=name))
    twins = [replace(run, run_id=f"a{number}") for number, run in enumerate(runs)]
    with pytest.raises(UserError, match="--against a: fits several variants"):
        summarise(twins, Wanted(against="a"))


def test_all_pairs(tmp_path: Path) -> None:
    made = summarise(three(tmp_path), Wanted(pairs=True))
    assert [(pair.variant, pair.other) for pair in made.pairs] == [
        ("second", "first"), ("third", "first"), ("third", "second")
    ]  # fmt: skip
    assert [pair.gain for pair in made.pairs] == pytest.approx([4 / 16, 7 / 16, 3 / 16])
    p_values = [pair.p_value for pair in made.pairs]
    assert p_values[2] == pytest.approx(1 / 8) and [pair.p_holm for pair in made.pairs] == holm(p_values)
    assert made.pairs[0].p_value == made.rows[1].step.p_value  # type: ignore[union-attr]
    table = pair_table(made)
    assert table.rows[2][:3] == ["third", "second", "+18.8"] and table.columns[-1] == "p Holm"
    lines = list(csv.DictReader(io.StringIO(to_csv(made, pairs=True))))
    assert float(lines[1]["gain"]) == 7 / 16 and lines[1]["metric"] == "acc" and float(lines[1]["gain_low"]) < 7 / 16
    assert [pair["other"] for pair in json.loads(to_json(made))["pairs"]] == ["first", "first", "second"]


def test_other_data_is_not_compared_though_images_are_called_alike(tmp_path: Path) -> None:
    runs = [replace(run, data_digest="ab" if run.name == "second" else "cd") for run in three(tmp_path)]
    for wanted in (Wanted(), Wanted(against="second"), Wanted(pairs=True)):
        made = summarise(runs, wanted)
        found = [row.step for row in made.rows if row.step] + list(made.pairs)
        refused = [step for step in found if step.note]
        assert refused and all(step.gain is None and step.p_value is None for step in refused)
        assert {step.note for step in refused} <= {f"not the same data as {name}" for name in ("first", "second")}
        write_page(tmp_path / "page.html", made, b"", "t")
        assert 'class="best"' not in (tmp_path / "page.html").read_text()
    assert "third: not the same data as second" in not_compared(made)
    apart = [pair for pair in made.pairs if not pair.note]
    assert [(pair.variant, pair.other) for pair in apart] == [("third", "first")]  # these are of the same
    assert apart[0].p_holm == apart[0].p_value


@pytest.mark.parametrize("metric", ["f1_macro", "log_loss", "roc_auc", "brier", "ece", "mcc"])
def test_another_figure(tmp_path: Path, metric: str) -> None:
    runs = three(tmp_path)
    made = summarise(runs, Wanted(metric))
    assert made.metric == metric
    for number, row in enumerate(made.rows):
        tables = [read_predictions(str(run.predictions_path)) for run in runs[2 * number : 2 * number + 2]]
        values = [FIGURES[metric].function(table.labels, table.probabilities) for table in tables]
        found = row.estimate(metric)
        assert found is not None and found.seeds == pytest.approx(values)
        assert found.value == pytest.approx(np.mean(values)) and found.spread == pytest.approx(np.std(values, ddof=1))
        assert (found.interval is None) == (metric == "ece" or abs(found.value) == 1)
    step = made.rows[1].step
    assert step is not None and step.gain == pytest.approx(
        made.rows[1].estimate(metric).value - made.rows[0].estimate(metric).value  # type: ignore[union-attr]
    )
    assert (step.p_value is None) == (metric == "ece")
    timed = summarise([replace(run, train_seconds=8.0) for run in runs], Wanted(metric)).rows[1].step
    assert timed is not None and timed.seconds_per_point == pytest.approx(8 / (100 * abs(step.gain)))  # falling or not
    columns, rows = table_rows(made)
    cell = dict(zip(columns, rows[1], strict=True))
    assert cell[f"test {metric}"].startswith(f"{made.rows[1].estimate(metric).value:.4f} ")  # type: ignore[union-attr]
    lines = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert lines[1]["metric"] == metric
    assert float(lines[1][f"test/{metric}"]) == made.rows[1].estimate(metric).value  # type: ignore[union-attr]
    assert json.loads(to_json(made))["rows"][1]["figures"][metric]["seeds"] == pytest.approx(
        made.rows[1].estimate(metric).seeds  # type: ignore[union-attr]
    )


def test_the_figure_that_all_runs_monitor_is_compared(tmp_path: Path) -> None:
    runs = three(tmp_path, monitor="val/f1_macro")
    assert summarise(runs).metric == "f1_macro" and summarise(runs, Wanted("acc")).metric == "acc"
    assert compared_by(summarise(runs), False).startswith("gain and p: test f1_macro, which the runs monitor, on the v")
    assert summarise(three(tmp_path, monitor="val/loss")).metric == "log_loss"
    assert summarise(three(tmp_path, monitor="train/loss")).metric == "acc"
    assert summarise([*runs[:-1], replace(runs[-1], monitor="val/acc")]).metric == "acc"
    with pytest.raises(UserError, match="--metric top5_acc: no finished run has it of its test images; they have acc"):
        summarise(runs, Wanted("top5_acc"))


def csv_gain(made: Comparison) -> float:
    """Of the second variant, as it is written."""
    return float(list(csv.DictReader(io.StringIO(to_csv(made))))[1]["gain"])


def test_of_a_figure_of_ones_own_only_its_values_are_known(tmp_path: Path) -> None:
    """Here monitored by all; what each step fixed is of the answers all the same."""
    found = [0.2, 0.4, 0.5, 0.9, 0.1, 0.1]
    runs = [replace(run, figures={"own": value}) for run, value in zip(three(tmp_path), found, strict=True)]
    made = summarise([replace(run, monitor="val/own") for run in runs], Wanted(pairs=True))
    assert made.metric == "own" and [row.figures["own"].value for row in made.rows] == pytest.approx([0.3, 0.7, 0.1])
    assert {row.figures["own"].interval for row in made.rows} == {None}
    by_accuracy = summarise(runs).rows[1].step
    step = made.rows[1].step
    assert step is not None and by_accuracy is not None and step.gain == pytest.approx(0.4) and not step.note
    assert (step.p_value, step.interval, step.fixed) == (None, None, by_accuracy.fixed)
    assert [pair.gain for pair in made.pairs] == pytest.approx([0.4, -0.2, -0.6]) and not not_compared(made)
    assert {"test own on 8 images", "ours"} <= {*texts(progression_figure(made, ""))}
    assert csv_gain(made) == pytest.approx(0.4)
    lost = [replace(runs[0], figures={}), *runs[1:]]  # one seed of which it was not defined
    assert summarise(lost, Wanted("own")).rows[0].estimate("own") is None
    with pytest.raises(UserError, match="--metric mine: no finished run has it of its test images; they have acc, own"):
        summarise(runs, Wanted("mine"))


def test_a_recorded_figure_is_taken_as_it_is(tmp_path: Path) -> None:
    figures = {"f1_macro": 0.6, "f1_macro_low": 0.4, "f1_macro_high": 0.7}
    made = summarise([result("old", 0.5, figures=figures), result("new", 0.5, 1)], Wanted("f1_macro"))
    found = made.rows[0].estimate("f1_macro")
    assert found is not None and (found.value, found.interval) == (0.6, (0.4, 0.7))
    assert made.rows[1].estimate("f1_macro") is None
    assert table_rows(made)[1][1][table_rows(made)[0].index("test f1_macro")] == "-"


def test_f1_stands_beside_accuracy_where_a_class_is_rare(tmp_path: Path) -> None:
    labels = np.array([0] * 9 + [1] * 3)
    for name in "ab":
        table = np.eye(2)[np.where(np.arange(12) < 10, 0, 1)] * 0.8 + 0.1
        write_predictions(
            tmp_path / f"{name}.csv", [f"{i}.jpg" for i in range(12)], labels, (table.argmax(axis=1), table), ["x", "y"]
        )
    runs = [result(name, 11 / 12, order, predictions_path=tmp_path / f"{name}.csv") for order, name in enumerate("ab")]
    made = summarise(runs)
    assert made.metric == "acc" and made.others == ("f1_macro",)
    columns, rows = table_rows(made)
    # F1 of x 18 / 19, of y 4 / 5
    assert dict(zip(columns, rows[0], strict=True))["test f1_macro"].startswith(f"{(18 / 19 + 0.8) / 2:.4f} (0.")
    assert summarise(three(tmp_path)).others == ()


def test_a_failed_variant_is_shown_and_stepped_over() -> None:
    runs = [
        result("first", 0.7, 0),
        result("second", 0.9, 1, status="KILLED", reference_accuracy=0.8),
        result("third", 0.75, 2),
        result("fourth", float("nan"), 3),
    ]
    comparison = summarise(runs)
    second, third, fourth = comparison.rows[1:]
    assert second.test_accuracy is None and second.step is None and second.reference_accuracy == 0.8
    assert third.step is not None and third.step.previous == "first"
    assert fourth.test_accuracy is None
    nothing = summarise([result("fourth", float("nan"))], Wanted("acc"))  # as at the end of a run that came to nothing
    assert table_rows(nothing)[1][0][3] == "-" and summarise([], Wanted("f1_macro")).rows == ()
    assert table_rows(comparison)[1][1][1] == "killed"


def test_table_csv_and_json(tmp_path: Path) -> None:
    older, newer = answers(tmp_path / "older.csv", "RRWW"), answers(tmp_path / "newer.csv", "RRRW")
    comparison = summarise(
        [
            result("old", 0.812, 0, reference_accuracy=0.8, predictions_path=older),
            result(
                "new",
                0.96,
                1,
                seed=0,
                predictions_path=newer,
                train_seconds=296.0,
                trainable_parameters=2_097_665,
            ),
            result("new", 0.964, 2, seed=1, predictions_path=newer),
        ]
    )
    columns, rows = table_rows(comparison)
    old, new = (dict(zip(columns, row, strict=True)) for row in rows)
    assert old["test %"] == "81.2" and old["95 % interval"] == "78.7 - 83.5" and old["published %"] == "80.0"
    assert old["gain"] == old["p"] == old["fixed/broken"] == old["time"] == "-"
    assert new["runs"] == "2" and new["test %"] == "96.2 ± 0.3"
    assert new["gain"] == "+15.0" and new["p"] == "0.50" and new["fixed/broken"] == "1/0"
    assert new["time"] == "4 min 56 s" and new["time/point"] == "20 s"
    assert new["trainable"] == "2.1 M" and new["trainable/point"] == "139.8 k"

    write_csv(tmp_path / "c.csv", comparison)
    with open(tmp_path / "c.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[1]["gain"]) == pytest.approx(0.15) and lines[1]["seeds"] == "0 1"
    assert lines[0]["gain"] == "" and lines[1]["fixed"] == "1" and lines[1]["previous"] == "old"
    assert float(lines[0]["interval_low"]) == wilson_interval(812, 1000)[0]
    figures = json.loads(to_json(comparison))
    assert figures["rows"][1]["step"]["fixed"] == ["test/2.jpg"]
    assert figures["rows"][1]["interval"] == list(wilson_interval(962, 1000))
    assert [run["run_id"] for run in figures["runs"]] == ["old-0", "new-0", "new-1"]


def test_json_has_no_nan() -> None:
    comparison = summarise([result("old", float("nan"), 0), result("new", 0.5, 1, train_seconds=float("inf"))])
    figures = json.loads(to_json(comparison))
    assert [run["test_accuracy"] for run in figures["runs"]] == [None, 0.5]
    assert figures["rows"][1]["train_seconds"] is None


def test_decimals_follow_the_number_of_test_images() -> None:
    assert summarise([result("a", 0.9, test_total=1000)]).decimals == 1
    assert table_rows(summarise([result("a", 0.9919, test_total=10000)]))[1][0][3] == "99.19"


def test_the_help_says_which_columns_go_first(tmp_path: Path) -> None:
    said = " ".join(parser().format_help().split())
    made = summarise(three(tmp_path))
    assert f"of a progression other figures, {', '.join(dropped(made))};" in said and "p, p Holm, val %, gain;" in said
    assert f"of a grid go first other figures, {', '.join(DROPPED_OF_GRID)}, then the keys" in said
    assert "of one by another figure than accuracy val % and test % go before p." in said
    others = dropped(summarise(three(tmp_path), Wanted("f1_macro")))
    rest = [name for name in dropped(made) if name != "val %"]
    assert [name for name in others if name in rest] == rest
    assert others[others.index("p") - 2 : others.index("p")] == ("val %", "test %")


def test_published_figures_have_a_column_only_where_there_is_one() -> None:
    plain, published = (
        Result("r", "a", 0, "FINISHED", 0.5, 10, 0.5, 1.0, 1, 10, 10, reference, None, 0) for reference in (None, 0.9)
    )
    columns, (row,) = table_rows(summarise([plain]))
    assert "published %" not in columns
    assert len(row) == len(columns)
    columns, (row,) = table_rows(summarise([published]))
    assert row[columns.index("published %")] == "90.0"
