"""What is done for rare classes: weights, focal loss, balanced sampling, and the line that says so."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.utils.class_weight import compute_class_weight

from cnnexp.config.composition import load_config
from cnnexp.data.balance import members, unbalanced_line
from cnnexp.data.dataset import Dataset, Split
from cnnexp.data.pipeline import FeatureArrays, TrainBatches, balanced_indices
from cnnexp.errors import UserError
from cnnexp.runs.build import class_weights, loss_plan
from cnnexp.runs.recorded_config import as_recorded, restore_config
from cnnexp.runs.recorded_line import line_of_values
from cnnexp.training.losses import LossPlan, cross_entropy, focal
from cnnexp.training.recipe import targets

Run = Callable[..., tuple[int, str, str]]


def dataset(counts: dict[str, int]) -> Dataset:
    """Of small grey images, so many of each class in each split."""
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    parts = [
        Split(name, labels, None, np.zeros((len(labels), 8, 8, 1), np.uint8), tuple(map(str, range(len(labels)))), name)
        for name in ("train", "validation", "test")
    ]
    return Dataset("made", tuple(counts), 1, *parts, digest="made")


# ---------------------------------------------------------------------------------------------- balanced sampling

LABELS = np.array([0] * 7 + [1] * 2 + [2] * 1 + [4] * 3)  # of class 3 there is none


def test_classes_take_turns_and_their_images_come_equally_often() -> None:
    indices, passes = balanced_indices(np.arange(4 * 42), members(LABELS), seed=3)
    assert (LABELS[indices] == np.tile([0, 1, 2, 4], 42)).all()
    for number, times in ((0, 6), (1, 21), (2, 42), (4, 14)):
        assert set(Counter(indices[LABELS[indices] == number].tolist()).values()) == {times}
        own = passes[LABELS[indices] == number]
        size = (number == LABELS).sum()
        assert own.tolist() == np.repeat(np.arange(times), size).tolist(), "a pass has each image of the class once"
    first = indices[LABELS[indices] == 0].reshape(6, 7)
    assert len({tuple(row) for row in first.tolist()}) > 3, "each pass in another order"
    assert not np.array_equal(indices, balanced_indices(np.arange(4 * 42), members(LABELS), seed=4)[0])


@pytest.mark.parametrize("steps", [None, 5])
def test_batches_are_a_function_of_seed_epoch_and_step(steps: int | None) -> None:
    def made() -> TrainBatches:
        inputs = FeatureArrays((np.arange(len(LABELS)),))
        return TrainBatches(inputs, LABELS, 4, steps, seed=1, balanced=members(LABELS))

    batches = made()
    drawn = [batches.indices(epoch, step) for epoch in range(3) for step in range(len(batches))]
    assert [len(indices) for indices, _ in drawn] == ([4, 4, 4, 1] if steps is None else [4] * 5) * 3
    whole = balanced_indices(np.arange(sum(len(indices) for indices, _ in drawn)), members(LABELS), seed=1)
    for found, expected in zip(zip(*drawn, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(found), expected)
    for (epoch, step), (indices, passes) in {(2, 1): drawn[2 * len(batches) + 1], (0, 3): drawn[3]}.items():
        np.testing.assert_array_equal(made().indices(epoch, step)[0], indices)
        np.testing.assert_array_equal(made().indices(epoch, step)[1], passes)
    x, y = batches.batch(1, 1)
    assert isinstance(x, np.ndarray) and (LABELS[x] == y).all()
    if steps:
        ((stacked, of_classes),) = batches.stacks(1, 2, 5)
        assert isinstance(stacked, np.ndarray)
        np.testing.assert_array_equal(stacked.ravel(), np.concatenate([batches.batch(1, s)[0] for s in range(5)]))
        assert (LABELS[stacked] == of_classes).all()


# ----------------------------------------------------------------------------------------------------------- losses


def test_weights_multiply_the_losses_of_their_classes() -> None:
    p = np.array([[0.9], [0.2], [0.4]], np.float32)
    y = targets(np.array([1, 0, 1]), 2)
    found = float(LossPlan(weights=(3.0, 0.5)).build(2, one_hot=False)(y, p))
    assert found == pytest.approx(-(0.5 * np.log(0.9) + 3 * np.log(0.8) + 0.5 * np.log(0.4)) / 3, rel=1e-5)
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)
    expected = -(4.0 * np.log(0.7) + 1.0 * np.log(0.6)) / 2
    plan = LossPlan(weights=(4.0, 2.0, 1.0))
    for one_hot in (False, True):
        found = float(plan.build(3, one_hot)(targets(np.array([0, 2]), 3, one_hot), rows))
        assert found == pytest.approx(expected, rel=1e-5)
    mixed = np.array([[0.5, 0.5, 0.0]], np.float32)  # weighs (4 + 2) / 2
    assert float(plan.build(3, True)(mixed, rows[:1])) == pytest.approx(-3 * (np.log(0.7) + np.log(0.2)) / 2, rel=1e-5)


def test_focal_loss_by_hand() -> None:
    p = np.array([[0.9], [0.2]], np.float32)
    y = targets(np.array([1, 1]), 2)
    expected = -(0.1**3 * np.log(0.9) + 0.8**3 * np.log(0.2)) / 2
    assert float(focal(2, False, gamma=3)(y, p)) == pytest.approx(expected, rel=1e-4)
    rows = np.array([[0.7, 0.2, 0.1]], np.float32)
    y = targets(np.array([1]), 3, one_hot=True)
    assert float(focal(3, True, gamma=2)(y, rows)) == pytest.approx(-(0.8**2) * np.log(0.2), rel=1e-5)
    for classes, one_hot, given in ((2, False, p), (3, True, rows)):
        y = targets(np.arange(len(given)) % 2, classes, one_hot)
        plain = float(cross_entropy(classes, one_hot, label_smoothing=0.1)(y, given))
        assert float(focal(classes, one_hot, 0.0, label_smoothing=0.1)(y, given)) == pytest.approx(plain, rel=1e-5)


def test_balanced_weights_equal_scikit_learn() -> None:
    made = dataset({"a": 70, "b": 20, "c": 10})
    labels = made.train.labels
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights("balanced", made) == pytest.approx(tuple(expected))
    absent = dataset({"a": 30, "b": 0, "c": 10})
    assert class_weights("balanced", absent) == pytest.approx((40 / 2 / 30, 1.0, 40 / 2 / 10))
    assert class_weights(None, made) is None
    assert class_weights({"c": 3, "a": 1, "b": 0.5}, made) == (1.0, 0.5, 3.0)
    assert class_weights({8: 2, 9: 1}, dataset({"8": 1, "9": 1})) == (2.0, 1.0), "names that YAML takes for numbers"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss.class_weight={a:1,bb:2}"], "loss.class_weight.bb: there is no such class; there are b, a"),
        (["loss.class_weight={a:1}"], "loss.class_weight: has none for the class b; give one for each, 1 for none"),
        (["loss.class_weight=half"], "loss.class_weight=half: must be balanced, null, or a weight for each class"),
        (["loss.class_weight={a:1,b:-1}"], "loss.class_weight.b=-1: must be a number more than 0"),
        (["loss=focal", "loss.gamma=-1"], "loss.gamma=-1.0: must be at least 0"),
        (["loss=custom"], "loss._target_: no value given"),
        (["loss=custom", "loss._target_=keras.losses.Nothing"], "loss._target_=keras.losses.Nothing: cannot be imp"),
        (["loss=custom", "loss._target_=keras.losses.mse"], "loss._target_=keras.losses.mse: "),
        (["loss=custom", "loss._target_=os.getpid"], "loss._target_=os.getpid: "),
        (
            ["loss=custom", "loss._target_=keras.losses.Poisson", "+loss.arguments.gamma=1"],
            "loss._target_=keras.losses.Poisson: ",
        ),
    ],
)
def test_what_is_no_loss_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        loss_plan(load_config(["dataset=synthetic", *overrides]), dataset({"a": 3, "b": 1}))
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_a_loss_of_keras_or_ones_own() -> None:
    overrides = ["loss=custom", "loss._target_=keras.losses.MeanSquaredError", "loss.class_weight=balanced"]
    plan = loss_plan(load_config(["dataset=synthetic", *overrides]), dataset({"a": 3, "b": 1}))
    assert plan.one_hot and plan.traced is None
    y, p = np.array([[0.0], [1.0]], np.float32), np.array([[0.5], [0.2]], np.float32)
    assert float(plan.build(2, False)(y, p)) == pytest.approx((0.25 * 4 / 6 + 0.64 * 4 / 2) / 2, rel=1e-5)
    own = LossPlan(lambda: lambda y, p: keras.ops.mean(keras.ops.abs(y - p), axis=-1), is_ours=False)
    assert float(own.build(2, False)(y, p)) == pytest.approx((0.5 + 0.8) / 2)


# ------------------------------------------------------------------------------------------- the name of before


def test_label_smoothing_by_its_earlier_name() -> None:
    assert load_config(["trainer.label_smoothing=0.1"]).loss.label_smoothing == 0.1
    assert load_config(["trainer.label_smoothing=0.1", "loss=focal"]).loss.label_smoothing == 0.1
    assert load_config(["trainer.label_smoothing=0.1", "loss.label_smoothing=0"]).loss.label_smoothing == 0


def test_a_record_without_the_group_has_cross_entropy_and_its_smoothing() -> None:
    now: Any = OmegaConf.to_container(OmegaConf.structured(load_config(["dataset=synthetic"])), resolve=True)
    del now["loss"]
    now["trainer"] |= {"label_smoothing": 0.1}
    for name in ("keep_best", "epoch_metrics", "balanced_sampling"):
        del now["trainer"][name]
    read = as_recorded("r", now)
    assert (read.loss.name, read.loss.label_smoothing, read.trainer.balanced_sampling) == ("cross_entropy", 0.1, False)
    for given, smoothing in ((["trainer.label_smoothing=0.3"], 0.3), (["loss.label_smoothing=0.2"], 0.2), ([], 0.1)):
        assert restore_config("r", now, given).loss.label_smoothing == smoothing
    assert restore_config("r", now, ["loss=focal"]).loss.label_smoothing == 0.1
    line = line_of_values("r", now)
    assert not [word for word in line if word.startswith("loss=")]
    assert load_config(line).loss.label_smoothing == 0.1


# ------------------------------------------------------------------------------------------------- what is said


def test_the_line_about_unbalanced_classes() -> None:
    assert unbalanced_line(("a", "b"), np.array([0] * 29 + [1] * 10)) is None
    said = unbalanced_line(("cat", "dog"), np.array([0] * 1200 + [1] * 400)) or ""
    assert said.startswith("the classes are unbalanced: 1,200 training images are cat, 400 dog; ")
    for choice in ("trainer.monitor=val/f1_macro", "loss.class_weight=balanced", "trainer.balanced_sampling=true"):
        load_config([choice])
        assert choice in said


@pytest.mark.usefixtures("no_training")
def test_prepare_and_train_say_it(cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset({"cat": 30, "dog": 3})
    made = replace(made, train=replace(made.train, arrays=np.zeros((33, 16, 16, 1), np.uint8)))
    monkeypatch.setattr("cnnexp.data.sources.digits", lambda **_: made)
    code, out, err = cnnexp("prepare", "digits")
    assert code == 0 and "the classes are unbalanced: 30 training images are cat, 3 dog; " in out, err
    line = ["experiment=baseline", "dataset=digits", "dataset.image_size=16", "backbone.filters=[4]", "head.units=8"]
    line += ["trainer.epochs=1", "tracking=none", "tracking.explain=false"]
    code, out, err = cnnexp("train", *line)
    assert code == 0 and err.count("the classes are unbalanced") == 1
    assert "mean F1 of the classes 0." in out and "; weakest class: " in out
    code, _, err = cnnexp("train", *line, "loss.class_weight=balanced")
    assert code == 0 and "unbalanced" not in err
