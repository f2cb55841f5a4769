"""`cnnexp compare` on a store with a sweep that was recorded without training."""

import json
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


def test_a_store_that_cannot_be_written_is_no_failure(cnnexp: Run, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, ids = store

    def refuse(*_: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr("mlflow.MlflowClient.log_artifact", refuse)
    code, out, err = cnnexp("compare", f"paths.root={root}")
    assert code == 0
    assert "comparison.html" in out and f"comparison.html was not recorded in run {ids['sweep']}: read only" in err


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
