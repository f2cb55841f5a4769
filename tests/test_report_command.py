"""`cnnexp compare` on a store with a sweep that was recorded without training."""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import answers, keep_mistakes

from cnnexp.tracking.mlflow import Tracker

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tracker, dict[str, str]]:
    """A `paths.root` with a sweep: old with two seeds, new with one and a failed one. Its runs' ids by name."""
    root = tmp_path_factory.mktemp("store")
    tracker = Tracker(f"sqlite:///{root}/mlflow.db", "cnnexp", f"{root}/mlartifacts")
    ids = {"sweep": tracker.start_run("progression", {}, {"sweep": "parent"})}
    tracker.end_run("FINISHED")
    for name, seed, right in [("old", 0, "RRWW"), ("old", 1, "RRRW"), ("new", 0, "WRRR"), ("new", 1, "")]:
        params = {"name": name, "seed": str(seed), "reference_accuracy": "0.7"}
        overrides = f"experiment={name} seed={seed}"
        run = f"{name}{seed}"
        ids[run] = tracker.start_run(run, params, {"overrides": overrides}, parent_run_id=ids["sweep"])
        if not right:
            tracker.end_run("FAILED", error="stopped")
            continue
        metrics = {"test/acc": right.count("R") / 4, "count/test_images": 4, "final/val_acc": 0.5, "time/total_s": 12.0}
        metrics |= {"test/own_error": {"old0": 0.4, "old1": 0.6, "new0": 0.3}[run], "final/val_own_error": 0.5}
        tracker.log_metrics(
            metrics | {"count/trainable_parameters": 1000, "count/parameters": 2000, "count/epochs": 3}, step=3
        )
        path = answers(root / run / "predictions.csv", right)
        tracker.log_artifact(path)
        if name == "old":
            keep_mistakes(path)
            tracker.log_artifact(path.with_name("mistakes.zip"))
        tracker.end_run("FINISHED")
    return root, tracker, ids


@pytest.mark.pictures
def test_the_newest_sweep(cnnexp: Run, store: Any, tmp_path: Path) -> None:
    root, tracker, ids = store
    code, out, err = cnnexp("compare", f"paths.root={root}")
    assert code == 0, err
    assert "old" in out and "62.5 ± 17.7" in out and "1/1" not in out and "2/1" in out
    assert f"mistakes.zip: no such artifact of run {ids['new0']}" in err and ids["old0"] not in err
    for kind in ("html", "png", "csv"):
        written = root / "compare" / ids["sweep"] / f"comparison.{kind}"
        assert str(written) in out
        recorded = tracker.download(ids["sweep"], f"comparison.{kind}", tmp_path)
        assert recorded.read_bytes() == written.read_bytes()
    html = (root / "compare" / ids["sweep"] / "comparison.html").read_text()
    assert html.count("data:image/jpeg") == 2  # what new fixed was wrong in old; new kept no pictures
    assert html.count("taken for") == 2


def test_named_runs_are_compared_in_their_order_and_recorded_nowhere(cnnexp: Run, store: Any) -> None:
    root, tracker, ids = store
    before = [artifact.path for artifact in tracker.client().list_artifacts(ids["new0"])]
    code, out, err = cnnexp("compare", ids["new0"], ids["old0"], f"paths.root={root}")
    assert code == 0, err
    assert out.index("new") < out.index("old")
    assert [artifact.path for artifact in tracker.client().list_artifacts(ids["new0"])] == before


def test_json_is_all_there_is_on_standard_output(cnnexp: Run, store: Any) -> None:
    root, _, ids = store
    code, out, err = cnnexp("compare", "--json", "--sweep", ids["sweep"][:12], f"paths.root={root}")
    assert code == 0, err
    old, new = json.loads(out)["rows"]
    assert old["test_accuracies"] == [0.5, 0.75] and old["interval"][0] < 0.625 < old["interval"][1]
    assert old["reference_accuracy"] == 0.7 and old["val_accuracy"] == 0.5
    assert old["trainable_parameters"] == 1000 and old["train_seconds"] == 12 and old["epochs"] == 3
    assert new["run_ids"] == [ids["new0"], ids["new1"]] and new["statuses"] == ["FINISHED", "FAILED"]
    assert new["step"]["fixed"] == ["test/2.jpg", "test/3.jpg"] and new["step"]["broken"] == ["test/0.jpg"]
    assert [run["status"] for run in json.loads(out)["runs"]] == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]


def test_metric_against_and_pairs(cnnexp: Run, store: Any) -> None:
    root, _, ids = store
    code, out, err = cnnexp("compare", "--metric", "loss", "--against", ids["new0"][:10], f"paths.root={root}")
    assert code == 0, err
    assert "gain and p: test log_loss, on new; lower is better" in out
    # old is right in 5 of 8 answers, new in 3 of 4: -log of 0.75 and of 0.25
    assert f"{-(5 * math.log(0.75) + 3 * math.log(0.25)) / 8:.4f}" in out
    code, out, err = cnnexp("compare", "--pairs", "--csv", f"paths.root={root}")
    (line,) = csv.DictReader(io.StringIO(out))
    assert code == 0 and (line["variant"], line["other"], line["gain"]) == ("new", "old", "0.125")
    code, out, err = cnnexp("compare", "--pairs", f"paths.root={root}")
    assert code == 0 and "each pair" in out and f"{root}/compare/{ids['sweep']}/pairs.csv" in out
    assert "Each pair" in (root / "compare" / ids["sweep"] / "comparison.html").read_text()
    code, out, err = cnnexp("compare", ids["old0"], ids["new0"], "--against", "old", f"paths.root={root}")
    assert code == 0 and "on old; higher is better" in out  # named runs, too
    for arguments, message in (
        (["--metric", "f2"], "--metric f2: no such figure; it is one of acc, balanced_acc, "),
        (["--metric", "own_error_low"], "--metric own_error_low: no such figure; it is one of acc, "),
        (["--metric", "top5_acc"], "--metric top5_acc: no finished run has it of its test images; they have acc, own_"),
        (["--against", "best"], "--against best: is none of the variants that have finished; name one of: old; new"),
        (["--pairs", "sweep.report=grid"], "--pairs compares variants, and a grid has none; leave out --pairs or"),
    ):
        code, out, err = cnnexp("compare", *arguments, f"paths.root={root}")
        lines = [line for line in err.splitlines() if "mistakes.zip" not in line]
        assert code == 2 and message in err and not out and len(lines) == 1, (arguments, err)


def test_a_figure_of_ones_own_is_compared_as_it_was_recorded(cnnexp: Run, store: Any, grid: Any) -> None:
    """Of a progression, and of a grid, whose points it ranks otherwise than accuracy."""
    code, out, err = cnnexp("compare", "--metric", "own_error", f"paths.root={store[0]}")
    assert code == 0, err
    said = "gain: test own_error, on the variant before; lower is better; your own, it has no interval and no p"
    assert said in out and "0.5000 ± 0.1414" in out and "\N{MINUS SIGN}0.2000" in out and "not compared" not in out
    assert said in (store[0] / "compare" / store[2]["sweep"] / "comparison.html").read_text()
    code, out, err = cnnexp("compare", "--metric", "own_error", "--pairs", "--json", f"paths.root={store[0]}")
    row = json.loads(out)["rows"][1]
    assert row["figures"]["own_error"] == {"value": 0.3, "spread": None, "seeds": [0.3], "interval": None}
    assert (row["step"]["gain"], row["step"]["p_value"]) == (pytest.approx(-0.2), None)
    code, out, err = cnnexp("compare", "--metric", "own", f"paths.root={grid[0]}")
    assert code == 0 and "val/own is your own: it has no interval, no p and no correction" in out, err
    rows = [line.split() for line in out.splitlines() if "adam" in line or "sgd" in line]
    assert [row[:5] for row in rows[:2]] == [
        ["1", rate, "adam", "12.5000", mark] for rate, mark in (("0.001", "best"), ("0.01", "tie"))
    ]
    assert rows[2][:5] == ["3", "0.001", "sgd", "10.0000", "-"]
    assert "is your own" in (grid[0] / "compare" / grid[2]["sweep"] / "comparison.html").read_text()


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tracker, dict[str, str]]:
    """A `paths.root` with a sweep over a rate and an optimizer, by validation in the other order than by test; and an
    older run outside of it, with other params, whose line says nothing."""
    root = tmp_path_factory.mktemp("grid")
    tracker = Tracker(f"sqlite:///{root}/mlflow.db", "cnnexp", f"{root}/mlartifacts")
    tags = {"sweep": "parent", "overrides": "optimizer.learning_rate=1e-3,1e-2 optimizer=adam,sgd"}
    tags |= {"sweep.grid": tags["overrides"], "python": "3.12.1", "keras": "3.15.0"}
    ids = {"sweep": tracker.start_run("a grid", {}, tags)}
    tracker.end_run("FINISHED")
    for rate, optimizer, right in [("0.001", "adam", "RRWW"), ("0.001", "sgd", "RRRW"), ("0.01", "adam", "RWWW")]:
        name = f"{optimizer}{rate}"
        params = {"name": "frozen", "seed": "0", "dataset.name": "digits", "optimizer.name": optimizer}
        params |= {"optimizer.learning_rate": rate, "trainer.monitor": "val/acc"}
        line = {"overrides": f"optimizer.learning_rate={rate} optimizer={optimizer}", "data_digest": "abc123"}
        ids[name] = tracker.start_run(name, params, line, parent_run_id=ids["sweep"])
        share = right.count("R") / 4
        own = {"test/own": 40 * share, "final/val_own": {"RRWW": 12.5, "RRRW": 10.0, "RWWW": 12.5}[right]}
        tracker.log_metrics({"test/acc": 1 - share, "count/test_images": 4, "final/val_acc": share} | own, step=0)
        tracker.log_artifact(answers(root / name / "predictions_val.csv", right))
        tracker.log_artifact(answers(root / name / "predictions.csv", "RRRR"))
        tracker.end_run("FINISHED")
    params = {"name": "frozen", "seed": "0", "optimizer.name": "rmsprop", "optimizer.learning_rate": "0.1"}
    ids["old"] = tracker.start_run("old", params, {"overrides": "seed=0"})
    tracker.log_metrics({"test/acc": 0.5, "count/test_images": 4, "final/val_acc": 0.125}, step=0)
    tracker.end_run("FINISHED")
    return root, tracker, ids


def test_a_grid_is_ranked_by_validation(cnnexp: Run, grid: Any) -> None:
    root, _, ids = grid
    code, out, err = cnnexp("compare", f"paths.root={root}")
    assert code == 0 and err == ""  # mistakes are not looked for
    rows = [line.split() for line in out.splitlines() if "adam" in line or "sgd" in line]
    # rank, rate, optimizer, val, mark, p, p Holm, test
    assert rows[0][:8] == ["1", "0.001", "sgd", "75.0", "best", "-", "-", "25.0"]
    assert rows[1][:8] == ["2", "0.001", "adam", "50.0", "tie", "0.50", "0.50", "50.0"]
    assert rows[2][:8] == ["3", "0.01", "adam", "25.0", "tie", "0.25", "0.50", "75.0"]
    assert ["learning_rate", "0.01", "1", "25.0", "\N{MINUS SIGN}25.0", "-"] in [
        line.split() for line in out.splitlines()
    ]
    html = (root / "compare" / ids["sweep"] / "comparison.html").read_text()
    for fact in ("digits, digest abc123", "python 3.12.1, keras 3.15.0", ids["sgd0.001"], "cnnexp train -m"):
        assert fact in html


def test_a_grid_can_be_shown_as_a_progression_and_the_other_way_round(cnnexp: Run, grid: Any, store: Any) -> None:
    code, out, err = cnnexp("compare", "sweep.report=progression", f"paths.root={grid[0]}")
    assert code == 0 and "gain" in out and "rank" not in out
    code, out, err = cnnexp("compare", "sweep.report=grid", f"paths.root={store[0]}")
    assert code == 0 and "rank" in out and "fixed" not in out
    code, out, err = cnnexp("compare", "sweep.report=table", f"paths.root={store[0]}")
    assert code == 2 and "sweep.report=table: must be one of auto, progression, grid" in err


def test_named_runs_show_the_keys_in_which_they_differ(cnnexp: Run, grid: Any) -> None:
    """What a line does not say is taken from the config; older runs have no answers to validation images."""
    root, _, ids = grid
    code, out, err = cnnexp("compare", ids["adam0.001"], ids["old"], ids["sgd0.001"], f"paths.root={root}")
    assert code == 0, err
    rows = [line.split()[:6] for line in out.splitlines() if line.strip()[:1] in "123" and "." in line]
    assert rows[0] == ["1", "0.001", "sgd", "75.0", "best", "-"] and rows[1][:4] == ["2", "0.001", "adam", "50.0"]
    assert rows[2][:5] == ["3", "0.1", "rmsprop", "12.5", "-"]


def test_csv_and_wide(cnnexp: Run, grid: Any) -> None:
    root = grid[0]
    code, out, err = cnnexp("compare", "--csv", f"paths.root={root}")
    assert code == 0 and len(out.splitlines()) == 4
    assert out.startswith("rank,optimizer.learning_rate,optimizer,val/acc,")
    assert out.splitlines()[1].startswith("1,0.001,sgd,0.75,")
    code, out, err = cnnexp("compare", "--wide", f"paths.root={root}")
    assert code == 0 and "trainable" in out
    code, out, err = cnnexp("compare", "--wide", "--json", f"paths.root={root}")
    assert code == 2 and "one of --wide, --csv and --json" in err
    code, out, err = cnnexp("compare", "--json", f"paths.root={root}")
    found = json.loads(out)
    assert code == 0 and found["points"][0]["rank"] == 1 and found["chosen"]["points"] == 3
    assert {run["data_digest"] for run in found["runs"]} == {"abc123"}


def test_a_store_that_cannot_be_written_is_no_failure(cnnexp: Run, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, ids = store

    def refuse(*_: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr("mlflow.store.artifact.local_artifact_repo.LocalArtifactRepository.log_artifact", refuse)
    code, out, err = cnnexp("compare", f"paths.root={root}")
    assert code == 0
    assert "comparison.html" in out and f"comparison.html was not recorded in run {ids['sweep']}: " in err
    assert "no right to write to it (read only)" in err


def test_mistakes_in_the_line(cnnexp: Run, store: Any) -> None:
    root, _, ids = store
    for arguments, message in (
        (["--sweep", ids["sweep"], ids["old0"]], "not both"),
        (["--sweep", ids["old0"]], "no children"),
        (["--table"], "--table: no such option"),
        (["f" * 32], "no such run"),
    ):
        code, out, err = cnnexp("compare", *arguments, f"paths.root={root}")
        assert code == 2 and message in err and not out, arguments
        assert len(err.strip().splitlines()) == 1


def test_compare_imports_no_tensorflow() -> None:
    program = (
        "import sys, cnnexp.commands.compare, cnnexp.runs.comparison, cnnexp.report.tables\n"
        "print(*sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
