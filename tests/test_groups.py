"""Images that belong together: from a column of the table to every interval and test."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from made_runs import answers, result
from resuming import tracker

from cnnexp.data.fetch.tables import TableRules, read_table
from cnnexp.data.opencv import cv2
from cnnexp.data.sources import folder
from cnnexp.data.splits import divide
from cnnexp.errors import UserError
from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.compare import Variant, Wanted, summarise
from cnnexp.report.grid import rank
from cnnexp.report.predictions import Predictions, read_predictions, write_predictions
from cnnexp.report.tables import compared_by, not_compared, ranked_by

Run = Callable[..., tuple[int, str, str]]
SPLITS = ["train"] * 24 + ["validation"] * 16 + ["test"] * 32
LINE = [
    "dataset=folder", "dataset.group=Patient", "backbone=mnist_cnn", "debug=smoke", "dataset.image_size=32",
    "dataset.limit=null", "tracking.explain=false",
]  # fmt: skip


def table(root: Path, patients: list[str] | None = None, split: bool = True) -> Path:
    """72 pictures of two classes, four in a row of one patient."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = ["path,label,split,patient" if split else "path,label,patient"]
    rng = np.random.default_rng(0)
    for number, name in enumerate(SPLITS):
        cv2.imwrite(str(root / "images" / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), np.uint8))
        patient = patients[number] if patients else f"P{number // 4}"
        rows.append(",".join([f"images/{number}.png", "ab"[number // 4 % 2], *([name] if split else []), patient]))
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root / "list.csv"


def by_groups(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % of a share over whole groups: the standard error of a mean of clusters, on the scale of the logit."""
    share, names = values.mean(), np.unique(groups)
    sums = [float((values[groups == name] - share).sum()) for name in names]
    error = math.sqrt(math.fsum(one**2 for one in sums)) / len(values) * math.sqrt(len(names) / (len(names) - 1))
    reach = scipy.stats.t.ppf(0.975, len(names) - 1) * error / (share * (1 - share))
    low, high = scipy.special.expit(scipy.special.logit(share) + np.array([-reach, reach]))
    return float(low), float(high)


@pytest.mark.usefixtures("no_training")
def test_the_groups_of_a_table_reach_every_interval(cnnexp: Run, tmp_path: Path) -> None:
    file = table(tmp_path / "data")
    code, _, err = cnnexp("train", *LINE, f"dataset.path={file}", "seed=1")
    assert code == 0, err
    (run,) = tracker(tmp_path).find_runs()
    found = read_predictions(tracker(tmp_path).download(run.run_id, "predictions.csv", tmp_path / "files"))
    assert found.groups is not None and found.ids[5] == "images/45.png"
    assert found.groups.tolist() == [f"P{number // 4}" for number in range(40, 72)]
    assert run.metrics["x/count/test_groups"] == 8 and run.metrics["x/count/train_groups"] == 6
    ends = [run.metrics["test/acc_low"], run.metrics["test/acc_high"]]
    assert ends == pytest.approx(by_groups(found.correct, found.groups), abs=0.02)  # of 1000 resamples
    assert ends != pytest.approx(wilson_interval(int(found.correct.sum()), 32), abs=0.01)
    with tracker(tmp_path).download(run.run_id, "classes.csv", tmp_path / "files").open(newline="") as opened:
        for row in csv.DictReader(opened):
            hits = round(float(row["recall"]) * int(row["support"]))
            assert float(row["recall_low"] or 0) != pytest.approx(wilson_interval(hits, int(row["support"]))[0])
    code, out, err = cnnexp("evaluate", run.run_id, "--json", "--csv", str(tmp_path / "again.csv"))
    tested, again = json.loads(out), read_predictions(tmp_path / "again.csv")  # of the network, which was not trained
    assert code == 0 and tested["groups"] == 8 and again.groups is not None, err
    assert again.groups.tolist() == found.groups.tolist()
    assert tested["interval"] == pytest.approx(by_groups(again.correct, again.groups), abs=0.02)
    assert tested["intervals"]["acc"] == tested["interval"]
    code, out, err = cnnexp("compare", run.run_id, "--json")
    (point,) = json.loads(out)["points"]
    assert code == 0 and (point["variant"]["test_groups"], point["variant"]["interval"]) == (8, ends), err


# ----------------------------------------------------------------------------------------------------- data


def test_a_column_of_groups(tmp_path: Path) -> None:
    _, parts = read_table(table(tmp_path), TableRules(group="PATIENT"))
    assert parts["test"].groups == tuple(f"P{number // 4}" for number in range(40, 72))
    assert parts["test"].take(np.array([4, 0])).groups == ("P11", "P10")
    _, without = read_table(table(tmp_path))
    assert without["test"].groups is None
    dataset = folder(path=str(tmp_path / "list.csv"), group="patient")
    assert (
        dataset.test.groups == parts["test"].groups and dataset.digest == folder(path=str(tmp_path / "list.csv")).digest
    )


def test_groups_that_are_in_several_splits_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the user divided; here of 18 groups of four the first four have images of two splits."""
    patients = [f"P{number // 4}" for number in range(72)]
    patients[24:28], patients[40:44] = ["P0"] * 4, ["P1"] * 2 + ["P7"] * 2
    path = str(table(tmp_path, patients))
    folder(path=path, group="patient")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "groups" in line]
    assert "3 of 16 groups have images in several splits" in line
    with pytest.raises(UserError, match=r"3 of 16 groups have .* or dataset.on_leak=warn goes on with them"):
        folder(path=path, group="patient", on_leak="error")
    folder(path=path, group="patient", on_leak="ignore")
    folder(path=str(table(tmp_path)), group="patient")
    assert "groups" not in capsys.readouterr().err


def test_prepare_shows_how_many_groups_there_are(cnnexp: Run, tmp_path: Path) -> None:
    code, out, err = cnnexp("prepare", "folder", f"dataset.path={table(tmp_path / 'data')}", "dataset.group=patient")
    assert code == 0, err
    words = [" ".join(line.split()) for line in out.splitlines()]
    assert {"train 24 12 a, 12 b; 6 groups", "test 32 16 a, 16 b; 8 groups"} <= set(words), out


def test_groups_are_not_divided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = folder(path=str(table(tmp_path, split=False)), group="patient")
    named = [{*(split.groups or ())} for split in dataset.splits]
    assert sum(map(len, named)) == len(set.union(*named)) == 18 and "groups" not in capsys.readouterr().err
    assert [len(split.ids) for split in dataset.splits] == [40, 16, 16]  # 18 of 72 are nearest to 16
    plain = folder(path=str(tmp_path / "list.csv"))
    assert [len(split.ids) for split in plain.splits] == [36, 18, 18] and plain.test.groups is None


@pytest.mark.parametrize("seed", range(20))
def test_a_division_of_groups_is_near_to_the_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 120)
    groups = [f"g{number}" for number in np.repeat(np.arange(120), sizes)]
    labels = np.repeat(rng.integers(0, 3, 120), sizes)
    labels = np.where(rng.random(len(labels)) < 0.2, rng.integers(0, 3, len(labels)), labels)  # some of another class
    wanted = {"test": len(labels) // 4, "validation": len(labels) // 10}
    parts = divide(labels, wanted, seed, "abc", groups)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))
    held = {split: {groups[at] for at in part} for split, part in parts.items()}
    assert sum(map(len, held.values())) == 120
    shares = np.bincount(labels) / len(labels)
    for split, size in wanted.items():
        assert np.abs(np.bincount(labels[parts[split]], minlength=3) - shares * size).max() <= 6, split
    assert all((parts[split] == again).all() for split, again in divide(labels, wanted, seed, "abc", groups).items())
    assert any(
        len(other) != len(parts[split]) or (other != parts[split]).any()
        for split, other in divide(labels, wanted, seed + 1, "abc", groups).items()
    )
    single = divide(labels, wanted, seed, "abc", [str(number) for number in range(len(labels))])
    for split, part in divide(labels, wanted, seed, "abc").items():  # groups of one are images
        assert np.bincount(labels[single[split]]).tolist() == np.bincount(labels[part]).tolist()


def test_a_class_of_few_groups() -> None:
    """Of the second class three groups, larger than its shares: each split gets one; of two groups train has none."""
    labels, groups = (
        np.repeat([0, 1], [60, 15]),
        [f"a{number}" for number in range(60)] + [f"b{n // 5}" for n in range(15)],
    )
    parts = divide(labels, {"test": 15, "validation": 15}, 0, ["cat", "dog"], groups)
    assert [int(labels[part].sum()) for part in parts.values()] == [5, 5, 5]
    said = "^dataset.group: the images of class 'dog' are of 2 groups, which stay whole: train gets none of them; add"
    with pytest.raises(UserError, match=said):
        divide(labels[:70], {"test": 15, "validation": 15}, 0, ["cat", "dog"], groups[:70])


def test_groups_by_the_names_of_files(tmp_path: Path) -> None:
    for number in range(48):
        file = tmp_path / "photos" / "ab"[number // 4 % 2] / f"P{number // 4}_{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8))
    path = str(tmp_path / "photos")
    for pattern, name in ((r"/(P\d+)_", "P{}"), (r"P\d+_", "P{}_")):
        dataset = folder(path=path, group=pattern)
        assert [len(split.ids) for split in dataset.splits] == [32, 8, 8]  # 6 of each class are as near to 4 as to 8
        for split in dataset.splits:
            numbers = [int(image.rpartition("_")[2].removesuffix(".png")) for image in split.ids]
            assert split.groups == tuple(name.format(number // 4) for number in numbers)
    for pattern, said in (
        ("(", r"is no regular expression: missing \), unterminated subpattern"),
        (r"P1\d_", "finds no group in the paths of 40 of 48 images, as a/P0_0.png; a folder takes"),
        (r"/(P1\d)?", "finds no group in the paths of 40 of 48 images, as a/P0_0.png; a folder takes"),
    ):
        with pytest.raises(UserError, match=rf"^dataset.group={re.escape(pattern)}: {said}"):
            folder(path=path, group=pattern)


def test_a_column_that_may_be_of_groups_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not where each image has a value of its own, or all have the same, and not where it is taken."""
    patients = [f"P{number // 2}" for number in range(72)]
    read_table(table(tmp_path, patients))
    said = "list.csv: column patient is not used; if images of one patient belong together: dataset.group=patient"
    assert said in capsys.readouterr().err
    read_table(table(tmp_path, patients), TableRules(group="patient"))
    for others in ([f"P{number}" for number in range(72)], ["P"] * 72):
        read_table(table(tmp_path, others))
    assert "not used" not in capsys.readouterr().err


def test_what_is_no_column_of_groups_is_refused(tmp_path: Path) -> None:
    patients = ["", *(f"P{number}" for number in range(70)), ""]
    file = table(tmp_path, patients)
    with pytest.raises(UserError, match=r"list.csv: 2 of 72 rows have no group: lines 2, 73; fill"):
        read_table(file, TableRules(group="patient"))
    _, parts = read_table(file, TableRules(group="patient", on_bad="skip"))
    assert len(parts["train"].ids) == 23 and parts["train"].groups == tuple(f"P{number}" for number in range(23))
    with pytest.raises(UserError, match=r"^dataset.group=animal: .* has no such column, or twice; its first line"):
        read_table(file, TableRules(group="animal"))


def test_predictions_keep_names_of_groups(tmp_path: Path) -> None:
    names = ['a,"b"', "=1+1", "007"]
    table = np.eye(2)[[0, 1, 1]]
    write_predictions(
        tmp_path / "p.csv", ["x", "y", "z"], np.array([0, 1, 1]), (np.array([0, 1, 1]), table), "ab", names
    )
    found = read_predictions(tmp_path / "p.csv")
    assert found.groups is not None and found.groups.tolist() == names and found.class_names == ("a", "b")
    assert found.probabilities.tolist() == table.tolist() and found.group_count == 3
    taken: Predictions = found.take(np.array([2]))
    assert taken.groups is not None and taken.groups.tolist() == ["007"]


# ---------------------------------------------------------------------------------------------- comparisons


def variants(folder: Path, groups: str | None, seeds: int = 1) -> list[Variant]:
    """Two of them, of 8 images: the newer gains images 0, 1, 2 and 5, and loses 6."""
    return list(summarise(made(folder, groups, seeds)).rows)


def made(folder: Path, groups: str | None, seeds: int = 1) -> list:  # type: ignore[type-arg]
    letters = {"old": "WWWRRWRW", "new": "RRRRRRWW"}
    return [
        result(
            name, text.count("R") / 8, order, seed=seed, test_total=8, val_accuracy=text.count("R") / 8,
            predictions_path=answers(folder / f"{name}{seed}" / "predictions.csv", text, None, groups),
            test_groups=None if groups is None else len({*groups}), figures={"acc_low": 0.25, "acc_high": 0.75},
        )
        for order, (name, text) in enumerate(letters.items())
        for seed in range(seeds)
    ]  # fmt: skip


def mid_p(sums: list[int]) -> float:
    """All signs of the groups' sums, half of the ties."""
    least = abs(sum(sums))
    tossed = [
        abs(sum(map(math.prod, zip(signs, sums, strict=True))))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    return float(np.mean([(total > least) + (total == least) / 2 for total in tossed]))


def test_groups_are_tossed_whole(tmp_path: Path) -> None:
    plain, grouped = (variants(tmp_path / str(groups), groups) for groups in (None, "aabbccdd"))
    assert plain[1].step is not None and plain[1].step.p_value == pytest.approx(mid_p([1, 1, 1, 1, -1]))
    step = grouped[1].step
    assert step is not None and step.p_value == pytest.approx(mid_p([2, 1, 1, -1])) and step.gain == 3 / 8
    assert step.interval is not None and plain[1].step.interval is not None and step.interval != plain[1].step.interval
    assert grouped[1].interval == (0.25, 0.75) and plain[1].interval == wilson_interval(6, 8)  # as it was recorded
    two = variants(tmp_path / "two", "aabbccdd", seeds=2)
    right = np.array([letter == "R" for letter in "RRRRRRWW"])
    assert two[1].interval == pytest.approx(by_groups(right, np.array([*"aabbccdd"])))
    comparison = summarise(made(tmp_path / "two", "aabbccdd", 2))
    assert "; over 4 groups of test images; --metric" in compared_by(comparison, False)


def test_other_groups_are_not_compared(tmp_path: Path) -> None:
    older, newer = made(tmp_path / "one", "aabbccdd")[0], made(tmp_path / "two", "abbccdda")[1]
    comparison = summarise([older, newer], Wanted(pairs=True))
    assert not_compared(comparison) == ["new: not the same groups of test images as old (dataset.group)"]
    assert comparison.pairs[0].p_value is None and comparison.pairs[0].gain == 3 / 8


def test_a_grid_is_tested_and_corrected_over_groups(tmp_path: Path) -> None:
    """Of 40 validation images in pairs of alike answers, which count once."""
    letters, found = {"a": "R" * 24 + "W" * 16, "b": "R" * 14 + "W" * 26}, {}
    for groups in (None, "".join(chr(65 + number // 2) for number in range(40))):
        runs = []
        for order, (name, text) in enumerate(letters.items()):
            place = tmp_path / str(groups is None) / name
            answers(place / "predictions_val.csv", text, None, groups)
            path = answers(place / "predictions.csv", text, None, groups)
            counted = None if groups is None else 20
            runs.append(
                result(name, 0.5, order, val_accuracy=text.count("R") / 40, predictions_path=path, test_groups=counted)
            )
        found[groups is None] = rank(runs, [{"a": name} for name in letters])
    # ten images, or five pairs of them, are gained, and none is lost
    assert found[True].points[1].p_value == pytest.approx(2**-10)
    assert found[False].points[1].p_value == pytest.approx(2**-5)
    both = [grid.chosen.corrected for grid in found.values() if grid.chosen]
    assert None not in both and both[0] != both[1]
    assert ranked_by(found[False]) == "intervals and tests are over 20 groups of test images" and not ranked_by(
        found[True]
    )
