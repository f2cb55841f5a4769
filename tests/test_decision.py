"""Thresholds, costs and temperatures: against brute force, scikit-learn and SciPy, and in a run from end to end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from omegaconf import OmegaConf
from scipy.optimize import minimize_scalar
from test_imbalance import dataset

from cnnexp.config.composition import load_config
from cnnexp.data.images import read_square
from cnnexp.errors import UserError
from cnnexp.metrics.decision import (
    ARGMAX,
    Decision,
    cost,
    cuts,
    fit_temperature,
    max_f1,
    precision_at_least,
    read_decision,
    recall_at_least,
    with_temperature,
)
from cnnexp.metrics.paired import p_value
from cnnexp.metrics.registry import Table, figures
from cnnexp.report.answered import Answers, read_answers
from cnnexp.report.predictions import write_predictions
from cnnexp.runs.decision import decide, decision_plan
from cnnexp.runs.recorded_config import as_recorded, restore_config
from cnnexp.training.trainer import FitResult

Run = Callable[..., tuple[int, str, str]]
POSITIVE = np.array([1, 1, 0, 1, 0, 0, 1, 0], bool)
SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], np.float32)


# ------------------------------------------------------------------------------------------------ the rules


def test_thresholds_worked_out_by_hand() -> None:
    # of 4 positive images: 1, 2, 2, 3, 3, 3, 4, 4 are found by the 1, 2, ..., 8 highest scores
    assert recall_at_least(POSITIVE, SCORE, 0.5) == pytest.approx(0.75)
    assert recall_at_least(POSITIVE, SCORE, 0.51) == pytest.approx(0.55)
    assert recall_at_least(POSITIVE, SCORE, 1.0) == pytest.approx(0.25)
    assert precision_at_least(POSITIVE, SCORE, 1.0) == pytest.approx(0.75)
    assert precision_at_least(POSITIVE, SCORE, 0.75) == pytest.approx(0.55)
    assert precision_at_least(~POSITIVE, SCORE, 0.9) == pytest.approx(0.0), "half is the best there is"
    assert max_f1(POSITIVE, SCORE) == pytest.approx(0.55)  # 2 * 3 / (4 + 4)
    assert cost(POSITIVE, SCORE, missed=1, false_alarm=1) == pytest.approx(0.75)  # two errors, as at 0.55
    assert cost(POSITIVE, SCORE, missed=3, false_alarm=1) == pytest.approx(0.25)  # 3 false alarms; at 0.55: 1 + 3
    assert cost(POSITIVE, SCORE, missed=0, false_alarm=1) > 0.95, "nothing is called positive"
    assert cost(POSITIVE, SCORE, missed=1, false_alarm=0) == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(4))
def test_rules_against_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(40) < 0.3
    positive[:2] = [True, False]
    score = np.round(rng.random(40) * 0.7 + 0.3 * positive, 1 if seed % 2 else 7).astype(np.float32)  # with ties

    def tried(threshold: float) -> tuple[float, float, float, float]:
        called = score >= np.float32(threshold)
        recall = reference.recall_score(positive, called)
        precision = reference.precision_score(positive, called, zero_division=0)
        paid = 5 * (positive & ~called).sum() + 2 * (called & ~positive).sum()
        return recall, precision, reference.f1_score(positive, called), float(paid)

    every = np.array([tried(threshold) for threshold in [*np.unique(score), 1.1]])
    assert tried(max_f1(positive, score))[2] == pytest.approx(every[:, 2].max())
    assert tried(cost(positive, score, missed=5, false_alarm=2))[3] == every[:, 3].min()
    recall, precision, _, _ = tried(recall_at_least(positive, score, 0.8))
    assert recall >= 0.8 and precision == pytest.approx(every[every[:, 0] >= 0.8][:, 1][-1])
    wanted = every[:, 1].max() * 0.9
    recall, precision, _, _ = tried(precision_at_least(positive, score, wanted))
    assert precision >= wanted and recall == every[every[:, 1] >= wanted][:, 0].max()


def test_a_threshold_parts_scores_that_are_next_to_each_other() -> None:
    low = np.float32(0.3)
    pair = np.array([np.nextafter(low, np.float32(1)), low], np.float32)
    threshold = recall_at_least(np.array([True, False]), pair, 1.0)
    decision = Decision("recall_at_least", 1, threshold)
    written = np.array([[1 - float(f"{value:.9g}"), float(f"{value:.9g}")] for value in pair])
    assert decision.classes(written).tolist() == [1, 0], "as read from predictions.csv"
    assert cuts(np.array([True, False]), np.ones(2)).thresholds[0] > 1, "above a probability of 1, too"


def test_answers_of_the_least_expected_cost() -> None:
    costs = ((0.0, 1.0, 1.0), (20.0, 0.0, 1.0), (1.0, 1.0, 0.0))
    shares = np.array([[0.6, 0.1, 0.3], [0.96, 0.02, 0.02], [0.2, 0.3, 0.5]])
    # costs to expect: 0: 20 p1 + p2, 1: p0 + p2, 2: p0 + p1
    assert Decision("cost", costs=costs).classes(shares).tolist() == [2, 0, 2]
    assert ARGMAX.classes(shares).tolist() == [0, 0, 2]
    assert Decision("max_f1", 0, 0.2).classes(np.array([[0.2, 0.8], [0.1, 0.9]])).tolist() == [0, 1]


def test_figures_are_those_of_the_answers() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 200)
    second = np.clip(0.3 * labels + 0.7 * rng.random(200), 0, 1)
    shares = np.stack([1 - second, second], axis=1)
    decided = Decision("max_f1", 0, 0.8).classes(shares)
    found = figures(Table(labels, shares, decided, positive=0))
    assert found["acc"] == reference.accuracy_score(labels, decided)
    assert found["f1_macro"] == pytest.approx(reference.f1_score(labels, decided, average="macro"))
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, decided))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(labels == 0, shares[:, 0]))
    plain = figures(Table(labels, shares))
    assert plain["average_precision"] == pytest.approx(reference.average_precision_score(labels, second))
    assert plain["acc"] != found["acc"] and plain["roc_auc"] == pytest.approx(found["roc_auc"])
    assert all(plain[name] == pytest.approx(found[name]) for name in ("log_loss", "brier", "ece"))


def test_comparisons_are_of_the_decided_answers(tmp_path: Path) -> None:
    second = np.array([0.1, 0.3, 0.4, 0.9], np.float32)
    shares, labels = np.stack([1 - second, second], axis=1), np.array([0, 1, 1, 1])
    for name, decision in (("plain", ARGMAX), ("decided", Decision("max_f1", 1, 0.2))):
        answered = decision.classes(shares), shares
        write_predictions(tmp_path / name, list("abcd"), labels, answered, ["cat", "dog"])
    plain, decided = (read_answers(name, [tmp_path / name]) for name in ("plain", "decided"))
    assert isinstance(plain, Answers) and isinstance(decided, Answers)
    for name, before, after in (("acc", 0.5, 1.0), ("f1_macro", 0.5, 1.0), ("brier", 0.2175, 0.2175)):
        one, other = plain.measure(name), decided.measure(name)
        assert one is not None and other is not None
        assert (one.value, other.value) == pytest.approx((before, after), abs=1e-6)
    one, other = plain.measure("acc"), decided.measure("acc")
    assert one is not None and other is not None and p_value(one, other) == pytest.approx(0.25)  # 2 of 2 signs: mid p
    turned = read_answers("plain", [tmp_path / "plain"], positive="cat")
    assert isinstance(turned, Answers) and not turned.same_images(plain)
    one, other = plain.measure("average_precision"), turned.measure("average_precision")
    assert one is not None and other is not None
    assert one.value == pytest.approx(reference.average_precision_score(labels, second))
    assert other.value == pytest.approx(reference.average_precision_score(labels == 0, 1 - second))


# ----------------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_that_of_the_least_cross_entropy(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = 2 * rng.normal(size=(400, classes))
    truth = np.exp(logits / 2.5)
    labels = np.array([rng.choice(classes, p=row / row.sum()) for row in truth])
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = outputs[:, 1:].astype(np.float32) if classes == 2 else outputs.astype(np.float32)

    def loss(temperature: float) -> float:
        powers = np.exp(logits / temperature)
        return float(-np.log(powers[np.arange(400), labels] / powers.sum(axis=1)).mean())

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-8}).x
    found = fit_temperature(given, labels)
    assert found == pytest.approx(best, rel=1e-3) and 1.5 < best < 4
    cooled = with_temperature(given, found)
    assert cooled.dtype == np.float32 and cooled.shape == given.shape
    own = cooled[:, 0] if classes == 2 else cooled[np.arange(400), labels]
    own = np.where(labels == 1, own, 1 - own) if classes == 2 else own
    assert -np.log(own).mean() == pytest.approx(loss(best), rel=1e-4)
    np.testing.assert_allclose(with_temperature(cooled, 1 / found), given, atol=2e-4)
    assert fit_temperature(given, given.argmax(axis=1) if classes > 2 else (given[:, 0] > 0.5).astype(int)) is None


@pytest.mark.parametrize("units", [1, 3])
def test_the_recorded_network_does_the_same(units: int, tmp_path: Path) -> None:
    import keras

    from cnnexp.models.build import calibrated, flip_averaged, trained_network

    keras.utils.set_random_seed(1)
    image = keras.Input((6, 6, 3), name="image")
    flat = keras.layers.Flatten()(image)
    last = keras.layers.Dense(units, activation="sigmoid" if units == 1 else "softmax", name="predictions")(flat)
    network = keras.Model(image, last, name="net")
    photos = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype(np.float32) / 40
    made = calibrated(flip_averaged(network), 2.5)
    plain = flip_averaged(network).predict(photos, verbose=0)
    np.testing.assert_allclose(made.predict(photos, verbose=0), with_temperature(plain, 2.5), atol=1e-6)
    made.save(tmp_path / "m.keras")
    read = keras.saving.load_model(tmp_path / "m.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(read.predict(photos, verbose=0), made.predict(photos, verbose=0))
    assert trained_network(read).name == "net" and trained_network(network) is network


# --------------------------------------------------------------------------------------- what is asked, and refused


@pytest.mark.parametrize(
    ("overrides", "classes", "said"),
    [
        (
            ["decision=max_f1"],
            3,
            "decision=max_f1: chooses a threshold between two classes, and the data has 3; allowed",
        ),
        (["decision.positive=x"], 2, "decision.positive=x: there is no such class; there are a, b"),
        (["decision.positive=a"], 3, "decision.positive=a: one of two classes is the positive one, and the data has 3"),
        (
            ["decision=recall_at_least", "decision.recall=0"],
            2,
            "decision.recall=0.0: must be at most 1 and more than 0",
        ),
        (["decision=precision_at_least", "decision.precision=1.1"], 2, "decision.precision=1.1: must be at most 1"),
        (["decision=cost", "decision.costs={a:{x:2}}"], 2, "decision.costs.a.x: there is no class x; there are a, b"),
        (["decision=cost", "decision.costs={x:{a:2}}"], 2, "decision.costs.x: there is no class x; there are a, b"),
        (
            ["decision=cost", "decision.costs=5"],
            2,
            "decision.costs=5: must be a mapping, as {ill:{healthy:20}}, or null",
        ),
        (["decision=cost", "decision.costs={a:2}"], 2, "decision.costs.a=2: must be a mapping by answers"),
        (["decision=cost", "decision.costs={a:{b:-1}}"], 2, "decision.costs.a.b=-1: must be a number, at least 0"),
        (["decision=cost", "decision.costs={a:{a:1}}"], 2, "decision.costs.a.a=1: a right answer costs nothing"),
        (["decision.calibration=platt"], 2, "decision.calibration=platt: must be one of temperature, none"),
        (["decision=custom"], 2, "decision._target_: no value given"),
        (["decision=custom", "decision._target_=numpy.sum"], 2, "decision._target_=numpy.sum: "),
        (["decision=custom", "decision._target_=test_decision.everything"], 2, "decision._target_=test_decision.every"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], classes: int, said: str) -> None:
    with pytest.raises(UserError) as refused:
        decision_plan(load_config(["dataset=synthetic", *overrides]), dataset(dict.fromkeys("abc"[:classes], 3)))
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def everything(positive: np.ndarray, score: np.ndarray) -> str:
    """No threshold."""
    return "all"


def median(positive: np.ndarray, score: np.ndarray, factor: float = 1.0) -> float:
    """A rule of one's own."""
    return factor * float(np.median(score))


def test_validation_images_of_one_class_are_refused() -> None:
    with pytest.raises(UserError, match="none of them is of the class b; see dataset"):
        decision_plan(load_config(["dataset=synthetic", "decision=max_f1"]), dataset({"a": 3, "b": 0}))


def test_metadata_come_back_and_others_are_refused() -> None:
    names = ("cat", "dog")
    for decision in (
        ARGMAX,
        Decision("recall_at_least", 0, 0.25, temperature=1.5),
        Decision("cost", costs=((0.0, 2.0), (1.0, 0.0))),
    ):
        described = json.loads(json.dumps(decision.described(names)))
        assert read_decision(described or None, names) == decision
    assert ARGMAX.described(names) == {}
    for wrong in ([], {"threshold": "x"}, {"threshold": 0.5, "positive": "cow"}, {"costs": {"cat": {"dog": 1}}}):
        with pytest.raises(ValueError, match="its decision"):
            read_decision(wrong, names)


def test_a_record_without_the_group_has_the_most_probable_class() -> None:
    now: Any = OmegaConf.to_container(OmegaConf.structured(load_config(["dataset=synthetic"])), resolve=True)
    del now["decision"]
    assert as_recorded("r", now).decision.name == "argmax"
    assert restore_config("r", now, ["decision=recall_at_least", "decision.recall=0.5"]).decision.recall == 0.5


# --------------------------------------------------------------------------------------------- after a training

OVERRIDES = {
    "argmax": [],
    "max_f1": ["decision=max_f1"],
    "recall": ["decision=recall_at_least", "decision.recall=0.9"],
    "less recall": ["decision=recall_at_least", "decision.recall=0.5"],
    "precision": ["decision=precision_at_least", "decision.precision=0.9"],
    "cost": ["decision=cost", "decision.costs={a:{b:1},b:{a:6}}"],
    "positive": ["decision=recall_at_least", "decision.recall=0.9", "decision.positive=a"],
    "own": ["decision=custom", "decision._target_=test_decision.median", "+decision.arguments.factor=0.9"],
}


def test_each_option_changes_what_is_decided() -> None:
    rng = np.random.default_rng(8)
    data = dataset({"a": 60, "b": 30})
    outputs = [np.clip(0.25 * data.test.labels + 0.7 * rng.random(90), 0, 1).astype(np.float32) for _ in range(2)]
    outputs = [part[:, np.newaxis] for part in outputs]
    made = {}
    for name, overrides in OVERRIDES.items():
        plan = decision_plan(load_config(["dataset=synthetic", *overrides]), data)
        fitted = FitResult(None, validation_probabilities=outputs[0], probabilities=outputs[1])  # type: ignore[arg-type]
        fitted, found = decide(plan, fitted, data)
        assert fitted.probabilities is outputs[1]
        made[name] = fitted.decision
        if name == "argmax":
            assert found == {} and np.isnan(fitted.test_accuracy), "figures stay those of the training"
            continue
        validation = np.concatenate([1 - outputs[0], outputs[0]], axis=1)
        answers = fitted.decision.classes(validation)
        assert fitted.validation_accuracy == (answers == data.validation.labels).mean()
        number = 0 if name == "positive" else 1
        recall = reference.recall_score(data.validation.labels == number, answers == number)
        assert found["x/decision/val_recall"] == pytest.approx(recall)
        if "recall" in name or name == "positive":
            assert recall >= (0.5 if name == "less recall" else 0.9)
        if name == "cost":
            wrong = answers - data.validation.labels
            assert found["x/decision/val_cost"] == pytest.approx(((wrong == 1).sum() + 6 * (wrong == -1).sum()) / 90)
    assert len({(one.rule, one.positive, one.threshold) for one in made.values()}) == len(OVERRIDES)
    thresholds = {name: one.threshold for name, one in made.items() if name != "argmax"}
    assert len(set(thresholds.values())) == len(thresholds)


@pytest.mark.trains
def test_every_command_agrees_on_every_answer(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    import mlflow

    line = ["experiment=baseline", "debug=smoke", f"paths.data={drawn_root}", "dataset=synthetic", "seed=3"]
    line += ["decision=recall_at_least", "decision.positive=cat", "decision.calibration=temperature"]
    code, out, err = cnnexp("train", *line, "tracking.explain=false", "trainer.flip_averaging=true")
    assert code == 0, err
    assert "answers: cat from a probability of " in out and "cat: recall " in out
    (file,) = (tmp_path / "outputs/runs").rglob("predictions.csv")
    assert (file.parent / "roc_pr.png").is_file()
    rows = [text.split(",") for text in file.read_text().splitlines()[1:]]
    model = mlflow.pyfunc.load_model(str(next((tmp_path / "outputs").rglob("MLmodel")).parent))
    described = model.metadata.metadata["decision"]
    assert described["rule"] == "recall_at_least" and described["positive"] == "cat"
    threshold = described["threshold"]
    assert [row[2] for row in rows] == ["cat" if float(row[3]) >= threshold else "dog" for row in rows]
    assert any((row[2] == "cat") != (float(row[3]) > 0.5) for row in rows), "the threshold is not a half"
    code, out, err = cnnexp("evaluate", "latest", "--json", "--csv", "again.csv")
    assert code == 0, err
    found = json.loads(out)
    assert found["decision"] == described and found["acc"] == found["recorded"]["acc"]
    again = [text.split(",") for text in Path("again.csv").read_text().splitlines()[1:]]
    assert [row[:3] for row in again] == [row[:3] for row in rows]
    photos = sorted(next(drawn_root.rglob("test/cat")).glob("*"))[:6]
    code, out, err = cnnexp("predict", "latest", *map(str, photos), "--json")
    assert code == 0, err
    size = model.metadata.signature.inputs.inputs[0].shape[1]
    served = model.predict(np.stack([read_square(str(photo), size, 3) for photo in photos]))
    for row, (of_dog,) in zip(json.loads(out), served, strict=True):
        assert row["probabilities"]["dog"] == pytest.approx(of_dog, abs=1e-6)
        assert row["predicted"] == ("cat" if 1 - of_dog >= threshold else "dog")
    code, out, err = cnnexp("explain", "latest", str(photos[0]))
    assert code == 0, err
