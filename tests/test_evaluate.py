"""`cnnexp evaluate`: the recorded figures again, and other data by the names of its classes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.commands.evaluate import _show_confusion
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.metrics.names import FIGURE_NAMES
from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.predictions import Predictions, read_predictions
from cnnexp.runs.evaluation import Evaluation, class_numbers, read_map

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]
CLASSES = ("apple", "pear", "plum")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of three classes, and in `out` the store with one run on them."""
    from cnnexp.cli import main

    root = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    for number, kind in enumerate(CLASSES):
        (root / "photos" / kind).mkdir(parents=True)
        for picture in range(12):
            image = rng.integers(0, 100, (20, 20, 3), np.uint8)
            image[..., number] += 150
            assert cv2.imwrite(str(root / "photos" / kind / f"{picture}.png"), image)
    data = ["dataset=folder", f"dataset.path={root / 'photos'}", "dataset.image_size=32", "dataset.limit=null"]
    line = ["backbone=mnist_cnn", *data, "debug=smoke", f"paths.root={root / 'out'}", "optimizer.learning_rate=3e-3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["cnnexp"])
        assert main(["train", *line, "trainer.steps_per_epoch=8"]) == 0
    return root


@pytest.fixture
def evaluate(cnnexp: Run, root: Path) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        return cnnexp("evaluate", "latest", f"paths.root={root / 'out'}", *arguments)

    return run


def figures(evaluate: Run, *arguments: str) -> dict[str, Any]:
    code, out, err = evaluate("--json", *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def recorded(root: Path) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/out/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cnnexp").experiment_id])
    return run


def test_its_own_test_images_give_what_the_run_recorded(evaluate: Run, root: Path, tmp_path: Path) -> None:
    before = recorded(root).data.metrics
    found = figures(evaluate, "--csv", str(tmp_path / "answers.csv"))
    assert found["acc"] == before["test/acc"] == found["recorded"]["acc"]
    assert found["loss"] == pytest.approx(before["test/loss"], abs=1e-6)
    assert found["ece"] == pytest.approx(before["test/ece"], abs=1e-6)
    assert (found["same_data"], found["images"]) == (True, 9)
    for name in ("balanced_acc", "f1_macro", "mcc", "brier", "roc_auc"):
        assert found[name] == pytest.approx(before[f"test/{name}"], abs=1e-6) == found["recorded"][name]
    low, high = found["intervals"]["brier"]
    assert (low, high) == pytest.approx((before["test/brier_low"], before["test/brier_high"]), abs=1e-5)
    for row, (name, of_class) in zip(found["confusion"], found["classes"].items(), strict=True):
        place = found["class_names"].index(name)
        assert of_class["support"] == sum(row) and of_class["recall"] == row[place] / sum(row)
        assert of_class["recall"] == before[f"x/class/{name}/recall"]
        assert of_class["intervals"]["recall"] == list(wilson_interval(row[place], sum(row)))
    right = round(9 * found["acc"])
    assert found["interval"] == list(wilson_interval(right, 9))
    assert np.array(found["confusion"]).trace() == right and np.array(found["confusion"]).sum() == 9
    (folder,) = (root / "out/runs").iterdir()
    then, now = read_predictions(folder / "predictions.csv"), read_predictions(tmp_path / "answers.csv")
    assert (then.ids, then.class_names) == (now.ids, now.class_names)
    np.testing.assert_allclose(then.probabilities, now.probabilities, atol=1e-6)
    assert recorded(root).data.metrics == before  # nothing was recorded


def test_the_tables_and_the_log(evaluate: Run, root: Path) -> None:
    before = recorded(root).data.metrics
    code, out, err = evaluate("--log")
    assert code == 0, err
    accuracy = next(line for line in out.splitlines() if line.strip().startswith("accuracy"))
    assert accuracy.split()[1] == accuracy.split()[-2] == f"{before['test/acc']:.6f}" and accuracy.split()[-1] == "+0"
    assert "95 % interval" in out and "confusion" in out and "recorded in run" in out
    after = recorded(root).data.metrics
    assert after["evaluate/folder/test/acc"] == before["test/acc"]
    added = {name.removeprefix("evaluate/folder/test/") for name in set(after) - set(before)}
    assert {"acc", "loss", "ece"} < added <= {"loss", *FIGURE_NAMES}
    assert after["evaluate/folder/test/f1_macro"] == pytest.approx(before["test/f1_macro"])
    assert "of each class, with 95 % intervals" in out


def test_splits(evaluate: Run) -> None:
    counts = {split: figures(evaluate, "--split", split) for split in ("train", "validation", "all")}
    assert {split: found["images"] for split, found in counts.items()} == {"train": 18, "validation": 9, "all": 36}
    assert not any(found["recorded"] for found in counts.values())
    test = figures(evaluate)
    parts = [counts["train"], counts["validation"], test]
    assert counts["all"]["loss"] == pytest.approx(sum(p["loss"] * p["images"] for p in parts) / 36, abs=1e-9)


def test_classes_are_matched_by_name(evaluate: Run, root: Path, tmp_path: Path) -> None:
    """Without apple, pear and plum are the numbers 0 and 1 of the folder, and 1 and 2 of the model."""
    for kind in CLASSES[1:]:
        shutil.copytree(root / "photos" / kind, tmp_path / "fewer" / kind)
    one_by_one = "trainer.evaluation_batch_size=1"  # how many there are in a batch may decide the last digits
    answers = ["--split", "all", "--csv", str(tmp_path / "answers.csv"), one_by_one]
    figures(evaluate, *answers)
    with open(tmp_path / "answers.csv", newline="") as file:
        known = {row["file"]: row for row in csv.DictReader(file)}
    found = figures(evaluate, "dataset=folder", f"dataset.path={tmp_path / 'fewer'}", *answers)
    with open(tmp_path / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["images"] == 24
    assert [{**row, "file": 0} for row in rows] == [{**known[row["file"]], "file": 0} for row in rows]
    assert found["acc"] == np.mean([row["truth"] == row["predicted"] for row in rows])
    assert sum(found["confusion"][0]) == 0 and not found["same_data"]
    assert found["recorded"] == {}


def test_class_numbers() -> None:
    assert class_numbers(("b", "a", "c"), ("a", "b", "c")) == [1, 0, 2]
    assert class_numbers(("b", "a", "c"), ("c",)) == [2]
    with pytest.raises(UserError, match=r"'A'.* does not know"):
        class_numbers(("b", "a"), ("A", "b"))


def test_other_names_are_refused_before_a_file_is_read_and_joined_by_map(
    evaluate: Run, root: Path, tmp_path: Path
) -> None:
    for kind in CLASSES[:2]:
        shutil.copytree(root / "photos" / kind, tmp_path / "other" / f"{kind}s")
        shutil.copytree(root / "photos" / kind, tmp_path / "same/test" / kind)
    other = ["dataset=folder", f"dataset.path={tmp_path / 'other'}"]
    damaged = tmp_path / "other/apples/broken.png"
    damaged.write_text("no picture")
    code, _, err = evaluate(*other)
    assert code == 2 and len(err.splitlines()) == 1 and "broken" not in err
    assert "'apples' and 1 more" in err and "it knows apple, pear, plum" in err
    assert "--map apples=apple,pears=pear says which is which" in err
    damaged.unlink()
    joined = figures(evaluate, *other, "--map", "apples=apple,pears=pear")
    same = figures(evaluate, "dataset=folder", f"dataset.path={tmp_path / 'same'}")
    assert joined["images"] == same["images"] == 24 and joined["split"] == "all"
    assert (joined["acc"], joined["confusion"]) == (same["acc"], same["confusion"])
    code, _, err = evaluate(*other, "--map", "apples=apple,pears=pear", "--split", "train")
    assert code == 2 and "--split train: the data has no train images, it has 24 test" in err


def test_every_photo_of_another_folder_is_tested_and_no_leak_is_reported(
    evaluate: Run, root: Path, tmp_path: Path
) -> None:
    """Four photos of one class, one of them twice, divided by nobody; and a class whose photos cannot be read."""
    for name, copy in (("train/plum", 0), ("train/plum", 1), ("test/plum", 2), ("test/plum", 0)):
        (tmp_path / "few" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"photos/plum/{copy}.png", tmp_path / "few" / name / f"{copy}.png")
    (tmp_path / "few/test/pear").mkdir()
    (tmp_path / "few/test/pear/1.png").write_text("")
    code, out, err = evaluate("dataset=folder", f"dataset.path={tmp_path / 'few'}", "dataset.on_bad=skip")
    assert code == 0 and "leak" not in err and "left out" in err
    assert "folder: 4 images (2 train, 2 test; --split takes one of them)" in out
    assert "no images of 2 of 3 classes (apple, pear): the precisions, recall_macro, F1 and mcc say little" in out
    confusion = out[out.index("confusion: ") :]
    assert "\n  plum " in confusion and "\n  apple " not in confusion and "\n  pear " not in confusion


def test_many_classes_are_shown_by_their_most_frequent_confusions(capsys: pytest.CaptureFixture[str]) -> None:
    """30 classes of two images; of class k > 0 one is taken for class k - 1, and both of class 7 for class 3."""
    labels = np.repeat(np.arange(30), 2)
    predicted = np.maximum(labels - np.tile([0, 1], 30), 0)
    predicted[labels == 7] = 3
    names = tuple(f"class {number}" for number in range(30))
    probabilities = np.eye(30)[predicted]
    answers = Predictions(tuple(map(str, range(60))), labels, predicted, probabilities, names)
    _show_confusion(Evaluation(answers, {}, {}, False))
    out = capsys.readouterr().out
    assert "the 20 most frequent of 29 confusions (all: --json)" in out and len(out.splitlines()) < 30
    assert next(line for line in out.splitlines() if line.startswith("  class ")).split() == [
        "class",
        "7",
        "class",
        "3",
        "2",
    ]
    few = answers.take(np.flatnonzero((labels < 10) & (labels > 0)))
    _show_confusion(Evaluation(few, {}, {}, False))
    out = capsys.readouterr().out
    assert "confusion: a row is a true class, a column an answer" in out
    assert "class 0" in out and out.count("\n  class ") == 9  # it was answered, and has no images


def test_the_runs_own_images_elsewhere_are_divided_as_they_were(evaluate: Run, root: Path, tmp_path: Path) -> None:
    """Else three quarters of the photos that are tested would be those that the model was trained on."""
    shutil.copytree(root / "photos", tmp_path / "copy")
    found = figures(evaluate, "dataset=folder", f"dataset.path={tmp_path / 'copy'}")
    assert (found["images"], found["same_data"], found["split"]) == (9, True, "test")
    assert found["acc"] == found["recorded"]["acc"]
    more = root / "photos/plum/more.png"
    shutil.copy(root / "photos/plum/3.png", more)
    code, out, err = evaluate("dataset=folder", f"dataset.path={root / 'photos'}")
    more.unlink()
    assert code == 0 and "37 images" in out and "those that it was trained on are tested, too" in err
    (tmp_path / "copy/plum/3.png").unlink()
    found = figures(evaluate, f"dataset.path={tmp_path / 'copy'}")
    assert (found["images"], found["same_data"], found["split"], found["recorded"]) == (35, False, "all", {})


def test_map() -> None:
    assert read_map([], ("a", "b"), ("a", "b")) == {"a": "a", "b": "b"}
    assert read_map(["cats=cat,kittens=cat", "dogs=dog"], ("cats", "dogs", "kittens"), ("cat", "dog")) == {
        "cats": "cat",
        "dogs": "dog",
        "kittens": "cat",
    }
    assert read_map(["a,b=c=d"], ("a,b", "e"), ("c=d", "e")) == {"a,b": "c=d", "e": "e"}
    for given, said in (
        ("cats", "'cats' is no pair"),
        ("cat=cat", "the data has no class 'cat'; it has cats, dogs"),
        ("cats=kat", "the model has no class 'kat'; it has cat, dog"),
    ):
        with pytest.raises(UserError, match=said):
            read_map([given], ("dogs", "cats"), ("cat", "dog"))


def test_changed_data_is_said(evaluate: Run, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "photos", tmp_path / "photos")
    code, _, err = evaluate(f"dataset.path={tmp_path / 'photos'}")
    assert code == 0 and "not that of the run" not in err
    with (tmp_path / "photos/plum/3.png").open("ab") as file:
        file.write(b"a comment")
    code, _, err = evaluate(f"dataset.path={tmp_path / 'photos'}")
    assert code == 0
    assert "the data is not that of the run" in err and len(err.strip().splitlines()) == 1


def test_what_is_refused_in_one_line(evaluate: Run, root: Path, tmp_path: Path) -> None:
    for kind in ("apple", "cherry"):
        shutil.copytree(root / "photos" / "apple", tmp_path / "other" / kind)
    for arguments, said in (
        (["dataset=folder", f"dataset.path={tmp_path / 'other'}", "dataset.on_leak=ignore"], "'cherry'"),
        (["--split", "tests"], "--split tests"),
        (["seed=1"], "seed=1"),
        (["backbone=vgg16"], "backbone=vgg16"),
        (["more"], "give one run"),
        (["--nothing"], "--nothing"),
        (["--csv", str(tmp_path)], "--csv"),
    ):
        code, _, err = evaluate(*arguments)
        assert (code, len(err.strip().splitlines())) == (2, 1), err
        assert said in err
