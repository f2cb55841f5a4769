"""The comparison and its tables, against figures worked out by hand."""

import csv
import json
from pathlib import Path

import pytest
from made_runs import answers, result

from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.compare import Result, summarise
from cnnexp.report.tables import table_rows, to_json, write_csv


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
    assert step.p_value == 2 * (1 + 6) / 64
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
            result("new", 0.964, 2, seed=1),
        ]
    )
    columns, rows = table_rows(comparison)
    old, new = (dict(zip(columns, row, strict=True)) for row in rows)
    assert old["test %"] == "81.2" and old["95 % interval"] == "78.7 - 83.5" and old["published %"] == "80.0"
    assert old["gain"] == old["p"] == old["fixed/broken"] == old["time"] == "-"
    assert new["runs"] == "2" and new["test %"] == "96.2 ± 0.3"
    assert new["gain"] == "+15.0" and new["p"] == "1.00" and new["fixed/broken"] == "1/0"
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


def test_published_figures_have_a_column_only_where_there_is_one() -> None:
    plain, published = (
        Result("r", "a", 0, "FINISHED", 0.5, 10, 0.5, 1.0, 1, 10, 10, reference, None, 0) for reference in (None, 0.9)
    )
    columns, (row,) = table_rows(summarise([plain]))
    assert "published %" not in columns
    assert len(row) == len(columns)
    columns, (row,) = table_rows(summarise([published]))
    assert row[columns.index("published %")] == "90.0"
