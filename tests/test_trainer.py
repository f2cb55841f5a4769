"""The trainer: phases, checkpoints, kept augmented passes, early stopping; small networks, a few seconds."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.config.training import EarlyStoppingConfig, TrainerConfig
from cnnexp.console import EpochProgress
from cnnexp.data.augment import Geometric
from cnnexp.data.balance import is_unbalanced
from cnnexp.data.dataset import Split
from cnnexp.data.loading import ImageLoader
from cnnexp.errors import UserError
from cnnexp.metrics.registry import Table, figures
from cnnexp.models.classifier import class_probabilities
from cnnexp.training.checkpoint import read_checkpoint
from cnnexp.training.feature_store import FeatureStore
from cnnexp.training.inputs import Augmentation, SplitData, Training, TrainingData
from cnnexp.training.losses import LossPlan, cross_entropy, focal
from cnnexp.training.optimizers import OptimizerPlan
from cnnexp.training.phases import Phase, frozen_digest
from cnnexp.training.runtime import prepare_tensorflow
from cnnexp.training.trainer import FitResult, train

pytestmark = pytest.mark.trains


def settings(patience: int | None = None, min_delta: float = 0.0, **changed: Any) -> TrainerConfig:
    """Batches of 4 images, one pass an epoch."""
    stopping = EarlyStoppingConfig(patience, min_delta)
    return TrainerConfig(**{"batch_size": 4, "evaluation_batch_size": 8, "early_stopping": stopping, **changed})


SETTINGS = settings()


def network(dropout: float = 0.5, classes: int = 2) -> keras.Model:
    """Three convolutions and a dense head with dropout; the same weights every time."""
    prepare_tensorflow(0, deterministic=False)
    return built(dropout, classes)


def built(dropout: float, classes: int) -> keras.Model:
    x = image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(x)
    for number in range(3):
        x = keras.layers.Conv2D(4, 3, activation="relu", name=f"conv{number + 1}")(x)
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    output = keras.layers.Dense(1, "sigmoid") if classes == 2 else keras.layers.Dense(classes, "softmax")
    return keras.Model(image, output(x), name="small")


def data(augmentation: Augmentation | None = None, classes: int = 2) -> TrainingData:
    """10, 6 and 6 noisy images, brighter for a higher class."""
    rng = np.random.default_rng(0)

    def part(name: str, count: int) -> SplitData:
        labels = np.arange(count) % classes
        images = rng.integers(0, 100, (count, 8, 8, 3)) + labels[:, None, None, None] * 100 // (classes - 1)
        arrays = images.astype(np.uint8)
        split = Split(name, labels, None, arrays, tuple(f"{name}/{i}" for i in range(count)), f"{name} {classes}")
        return SplitData(ImageLoader(split, 8, 3, threads=1), labels, split.digest)

    parts = [part("train", 10), part("validation", 6), part("test", 6)]
    return TrainingData(*parts, num_classes=classes, image_size=8, augmentation=augmentation or Augmentation())


def freezing(model: keras.Model, count: int) -> Callable[[], None]:
    """Freezes the first `count` convolutions."""

    def freeze() -> None:
        for number in range(3):
            model.get_layer(f"conv{number + 1}").trainable = number >= count

    return freeze


def phase(model: keras.Model, frozen: int = 2, epochs: int = 3, name: str = "one", **plan: Any) -> Phase:
    factory = plan.pop("factory", keras.optimizers.Adam)
    return Phase(name, epochs, freezing(model, frozen), OptimizerPlan(factory, plan.pop("rate", 0.01), **plan))


def run(
    model: keras.Model,
    phases: list[Phase],
    given: TrainingData | None = None,
    config: TrainerConfig = SETTINGS,
    cache: dict[str, Any] | None = None,
    on_epoch: Any = lambda epoch, metrics: None,
    resume: bool = False,
    **more: Any,
) -> FitResult:
    """Train; `more` goes into `Training`."""
    cached = dict(cache or {})
    config = replace(config, augmented_passes=cached.pop("passes", None))
    return train(Training(model, given or data(), config, **cached, **more), phases, on_epoch, resume)


def cache(folder: Path, passes: int | None = None, dtype: str = "float32") -> dict[str, Any]:
    return {"store": FeatureStore(folder, dtype), "passes": passes}


def losses(result: FitResult) -> list[float]:
    return [epoch["train/loss"] for epoch in result.history]


GEOMETRIC = Augmentation(Geometric(rotation_range=40, horizontal_flip=True), "geometric", seed=5)


# -------------------------------------------------------------------------------------------------- phases


def test_each_phase_trains_what_it_names(tmp_path: Path) -> None:
    model = network()
    before = {layer.name: [w.numpy() for w in layer.weights] for layer in model.layers}
    result = run(model, [phase(model, 3, 2, "head"), phase(model, 2, 1, "last")], cache=cache(tmp_path))
    assert [(report.name, report.epochs, report.trainable_tensors) for report in result.phases] == [
        ("head", 2, 2),
        ("last", 1, 4),
    ]
    dense = 2 * 2 * 4 + 1
    assert [report.trainable_parameters for report in result.phases] == [dense, dense + 3 * 3 * 4 * 4 + 4]
    assert len(result.history) == 3
    changed = {
        layer.name
        for layer in model.layers
        if any((w.numpy() != old).any() for w, old in zip(layer.weights, before[layer.name], strict=True))
    }
    assert changed == {"conv3", "dense"}
    assert result.phases[-1].frozen_digest == frozen_digest(model)
    assert result.phases[0].frozen_digest != result.phases[1].frozen_digest


def test_a_second_phase_goes_on_with_the_weights_of_the_first() -> None:
    model = network(dropout=0)
    first = run(model, [phase(model, 3, 5, rate=0.05), phase(model, 3, 1, rate=1e-9)])
    assert losses(first)[5] < losses(first)[0]
    assert first.history[5]["val/loss"] == pytest.approx(first.history[4]["val/loss"], rel=1e-5)


def test_features_of_the_head_come_from_those_of_the_next_phase(tmp_path: Path) -> None:
    curves, taken = [], []
    for used in (None, cache(tmp_path, passes=2)):
        model, given = network(), data(GEOMETRIC)
        original, seen = given.train.images.take, []
        given.train.images.take = lambda i, take=original, seen=seen: seen.extend(i) or take(i)  # type: ignore
        phases = [phase(model, 3, 1, "head"), phase(model, 1, 1, "last")]
        curves.append(losses(run(model, phases, given, cache=used)))
        taken.append(len(seen))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert len(FeatureStore(tmp_path).entries()) == 7  # 2 passes and the validation images twice, the test images once
    assert taken[1] == 2 * 10  # each pass goes through the first layers once


# -------------------------------------------------------------------------------------- the feature cache


def test_phases_that_cut_at_the_same_place_share_their_features(tmp_path: Path) -> None:
    """Random dropout on one of two branches ends what is fixed, however much more the first phase freezes."""
    prepare_tensorflow(0, deterministic=False)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv1")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Add()([x, keras.layers.Dropout(0.5)(keras.layers.Conv2D(4, 1, name="conv2")(x))])
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, name="conv3")(x))
    model = keras.Model(image, keras.layers.Dense(1, "sigmoid")(x))
    result = run(model, [phase(model, 3, 1, "head"), phase(model, 2, 1, "last")], cache=cache(tmp_path))
    assert [report.trainable_tensors for report in result.phases] == [2, 4]
    assert len(FeatureStore(tmp_path).entries()) == 3  # one for each split


@pytest.mark.parametrize("frozen", [1])
def test_kept_passes_equal_fresh_draws_while_there_are_enough(tmp_path: Path, frozen: int) -> None:
    curves = []
    for used in (None, cache(tmp_path, passes=3), cache(tmp_path, passes=2)):
        model = network()
        curves.append(losses(run(model, [phase(model, frozen)], data(GEOMETRIC), cache=used)))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2][:2] == pytest.approx(curves[0][:2], rel=1e-4)
    assert curves[2][2] != pytest.approx(curves[0][2], rel=1e-4)  # the third epoch sees the first pass again


def test_augmented_images_are_not_kept_unasked(tmp_path: Path) -> None:
    for used in (None, 2):
        model = network()
        run(model, [phase(model)], data(GEOMETRIC), cache=cache(tmp_path / str(used), used))
    # validation and test images; and two passes over the training images
    assert len(FeatureStore(tmp_path / "None").entries()) == 2
    assert len(FeatureStore(tmp_path / "2").entries()) == 4


def test_the_seed_of_the_augmentation_decides_what_is_kept(tmp_path: Path) -> None:
    for seed, entries in ((5, 3), (5, 3), (6, 4)):
        model = network()
        changed = Augmentation(GEOMETRIC.transform, GEOMETRIC.description, seed)
        run(model, [phase(model)], data(changed), cache=cache(tmp_path, 1))
        assert len(FeatureStore(tmp_path).entries()) == entries


def test_half_precision_features_give_nearly_the_same(tmp_path: Path) -> None:
    results = []
    for dtype in ("float32", "float16"):
        model = network()
        results.append(run(model, [phase(model)], cache=cache(tmp_path, dtype=dtype)))
    exact, rounded = (losses(result) for result in results)
    assert rounded == pytest.approx(exact, rel=5e-3)
    assert rounded != exact


# -------------------------------------------------------------------------------------------------- recipe


def outcome(
    classes: int, config: TrainerConfig = SETTINGS, given: Any = None, plan: Any = None, **more: Any
) -> FitResult:
    model = network(classes=classes)
    return run(model, [phase(model, epochs=1, **(plan or {}))], data(given, classes), config, **more)


@pytest.fixture(scope="module")
def plain() -> dict[int, FitResult]:
    return {classes: outcome(classes) for classes in (2, 3)}


@pytest.mark.parametrize(
    ("classes", "changed"),
    [
        (2, {"loss": LossPlan(partial(cross_entropy, label_smoothing=0.2))}),
        (3, {"loss": LossPlan(partial(cross_entropy, label_smoothing=0.2), one_hot=True)}),
        (2, {"loss": LossPlan(weights=(1.0, 5.0))}),
        (3, {"loss": LossPlan(weights=(1.0, 5.0, 1.0)), "given": Augmentation(mixup=0.4)}),
        (3, {"loss": LossPlan(focal, one_hot=True)}),
        (3, {"loss": LossPlan(keras.losses.MeanSquaredError, is_ours=False, one_hot=True)}),
        (3, {"config": settings(balanced_sampling=True)}),
        (2, {"given": Augmentation(mixup=0.4)}),
        (3, {"given": Augmentation(mixup=0.4)}),
        (2, {"plan": {"ema_momentum": 0.5}}),
        (2, {"plan": {"weight_decay": 1.0}}),
        (2, {"plan": {"layer_factors": {"conv3/kernel": 0.1}}}),
        (3, {"config": settings(flip_averaging=True)}),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_each_ingredient_changes_the_outcome(
    plain: dict[int, FitResult], classes: int, changed: dict[str, Any]
) -> None:
    other = outcome(classes, **changed)
    assert np.isfinite(other.test_loss)
    assert np.abs(plain[classes].probabilities - other.probabilities).max() > 1e-6


@pytest.mark.parametrize("cached", [True, False])
def test_flip_averaging_is_part_of_the_saved_model(tmp_path: Path, cached: bool) -> None:
    model, given = network(), data()
    used = cache(tmp_path / "cache") if cached else None
    result = run(model, [phase(model)], given, settings(flip_averaging=True), used)
    images = given.test.images.take(np.arange(6))
    both = (model.predict_on_batch(images) + model.predict_on_batch(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(result.probabilities, both, atol=1e-6)
    result.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(loaded.predict_on_batch(images), both, atol=1e-6)
    assert result.validation_loss != pytest.approx(result.history[-1]["val/loss"], rel=1e-6)
    validation = given.validation.images.take(np.arange(6))
    both = (model.predict_on_batch(validation) + model.predict_on_batch(validation[:, :, ::-1])) / 2
    np.testing.assert_allclose(result.validation_probabilities, both, atol=1e-6)


def test_averaged_weights_are_those_that_are_kept() -> None:
    model = network()
    result = run(model, [phase(model, ema_momentum=0.9)])
    outputs = model.predict_on_batch(data().validation.images.take(np.arange(6)))
    correct = np.where(data().validation.labels == 1, outputs[:, 0], 1 - outputs[:, 0])
    assert result.history[-1]["val/loss"] == pytest.approx(-np.log(correct).mean(), rel=1e-4)


# ------------------------------------------------------------------------------------------ early stopping


@pytest.mark.parametrize(("monitor", "better"), [("val/loss", min), ("val/acc", max)])
def test_stops_after_patience_with_the_best_weights(monitor: str, better: Callable[..., float]) -> None:
    model = network(dropout=0)
    result = run(model, [phase(model, 0, 12, rate=0.05)], config=settings(2, monitor=monitor))
    values = [epoch[monitor] for epoch in result.history]
    assert result.selected_epoch == values.index(better(values))
    assert len(values) == result.selected_epoch + 3 < 12
    again = model.predict_on_batch(data().validation.images.take(np.arange(6)))[:, 0]
    labels = data().validation.labels
    loss = -np.log(np.clip(np.where(labels == 1, again, 1 - again), 1e-7, 1)).mean()
    assert result.history[result.selected_epoch]["val/loss"] == pytest.approx(loss, rel=1e-3)
    assert result.validation_loss == result.history[result.selected_epoch]["val/loss"]
    np.testing.assert_allclose(result.validation_probabilities[:, 0], again, atol=1e-5)


def test_an_improvement_below_min_delta_is_none() -> None:
    counts = []
    for min_delta in (0.0, 1e3):
        model = network(dropout=0)
        config = settings(1, min_delta, monitor="train/loss")
        counts.append(len(run(model, [phase(model, 0, 6)], config=config).history))
    assert counts[0] > counts[1] == 2


def test_the_best_epoch_is_kept_without_stopping_early() -> None:
    for keep_best in (True, False):
        model = network(dropout=0)
        config = settings(monitor="val/brier", keep_best=keep_best, epoch_metrics=["f1_macro", "roc_auc"])
        result = run(model, [phase(model, 0, 12, rate=0.05)], config=config)
        values = [epoch["val/brier"] for epoch in result.history]
        assert len(values) == 12 and result.selected_epoch == (values.index(min(values)) if keep_best else 11) != 0
        chosen, labels = result.history[result.selected_epoch], data().validation.labels
        own = figures(Table(labels, class_probabilities(result.validation_probabilities)))
        for name in ("brier", "f1_macro", "roc_auc"):
            assert chosen[f"val/{name}"] == own[name], "of the weights that were kept"
        assert "val/mcc" not in chosen


def test_unbalanced_classes_have_their_f1_in_each_epoch() -> None:
    given = data()
    labels = np.array([1] + [0] * 9)
    unbalanced = replace(given, train=replace(given.train, labels=labels))
    for made, more, expected in (
        (given, {}, ()),
        (unbalanced, {}, ("f1_macro",)),
        (unbalanced, {"epoch_metrics": []}, ()),
        (unbalanced, {"epoch_metrics": ["mcc", "acc"], "monitor": "val/brier"}, ("mcc", "brier")),
        (given, {"monitor": "train/loss"}, ()),
    ):
        assert Training(keras.Model(), made, settings(**more)).epoch_figures == expected
    assert is_unbalanced(np.array([0, 1, 1, 1]), 2) and not is_unbalanced(np.array([0, 0, 1, 1, 1]), 2)
    assert is_unbalanced(np.array([0, 0, 1, 1]), 3), "a class without images"


# -------------------------------------------------------------------------------------------------- resume


class KilledError(Exception):
    """Stands for a process that dies."""


def interrupted(phases: Callable[[keras.Model], list[Phase]], at: int, **more: Any) -> FitResult:
    """Train until epoch `at` has been logged, die there, and go on in a new network."""

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == at:
            raise KilledError

    model = network()
    with pytest.raises(KilledError):
        run(model, phases(model), on_epoch=on_epoch, **more)
    model = network()
    return run(model, phases(model), resume=True, **more)


def two_phases(model: keras.Model) -> list[Phase]:
    """The head with warm-up and cosine, then the last convolution with averaged weights and a rate of its own."""
    head = phase(model, 3, 2, "head", schedule="cosine", warmup_epochs=1)
    return [head, phase(model, 1, 3, "last", ema_momentum=0.9, layer_factors={"conv3/kernel": 0.5})]


@pytest.fixture(scope="module")
def unbroken() -> FitResult:
    model = network()
    return run(model, two_phases(model), data(GEOMETRIC), settings(4))


@pytest.mark.parametrize(("at", "passes"), [(0, None), (1, None), (2, 3), (4, None)])
def test_a_resumed_training_ends_as_an_unbroken_one(
    tmp_path: Path, unbroken: FitResult, at: int, passes: int | None
) -> None:
    more: dict[str, Any] = {"given": data(GEOMETRIC), "config": settings(4)}
    if passes:
        more["cache"] = cache(tmp_path / "cache", passes)
        model = network()
        unbroken = run(model, two_phases(model), **more)
    resumed = interrupted(two_phases, at, checkpoint=tmp_path / "run" / "checkpoint.npz", **more)
    assert losses(resumed) == losses(unbroken)
    np.testing.assert_array_equal(resumed.probabilities, unbroken.probabilities)
    for key in ("val/loss", "val/acc", "lr"):
        assert [epoch[key] for epoch in resumed.history] == [epoch[key] for epoch in unbroken.history]
    facts = [[(r.name, r.epochs, r.frozen_digest) for r in result.phases] for result in (resumed, unbroken)]
    assert facts[0] == facts[1]


def test_a_resumed_training_keeps_the_best_of_all_its_epochs(tmp_path: Path) -> None:
    """Which came before it was interrupted; with focal loss, weights, and classes that are drawn equally often."""
    given = data(GEOMETRIC)
    given = replace(given, train=replace(given.train, labels=np.array([1, 1] + [0] * 8)))
    more: dict[str, Any] = {
        "given": given,
        "config": settings(monitor="val/f1_macro", keep_best=True, balanced_sampling=True),
        "cache": cache(tmp_path / "cache", 2),
        "loss": LossPlan(focal, weights=(1.0, 2.0)),
    }
    model = network()
    whole = run(model, two_phases(model), **more)
    resumed = interrupted(two_phases, 4, checkpoint=tmp_path / "run" / "checkpoint.npz", **more)
    assert losses(resumed) == losses(whole)
    assert resumed.selected_epoch == whole.selected_epoch < 4
    np.testing.assert_array_equal(resumed.probabilities, whole.probabilities)
    assert [e["val/f1_macro"] for e in resumed.history] == [e["val/f1_macro"] for e in whole.history]


def test_a_stop_that_was_decided_stays_decided(tmp_path: Path) -> None:
    more: dict[str, Any] = {"config": settings(1, 1e3, monitor="train/loss"), "checkpoint": tmp_path / "checkpoint.npz"}
    model = network()
    whole = run(model, [phase(model, epochs=9)], **more)
    model = network()
    again = run(model, [phase(model, epochs=9)], resume=True, **more)
    assert len(again.history) == len(whole.history) == 2
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)


def test_a_checkpoint_appears_whole_and_holds_no_pickle(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.npz"
    model = network()
    run(model, [phase(model)], checkpoint=file)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]
    stored = read_checkpoint(file)
    assert stored is not None and stored[0].phase_epochs == 3
    assert not any("conv1" in name or "conv2" in name for name in stored[1])  # frozen: loaded anew
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="is not a checkpoint"):
        read_checkpoint(file)
    np.savez(file, progress=np.array([object()], dtype=object))
    with pytest.raises(UserError, match="is not a checkpoint"):
        read_checkpoint(file)


def test_an_epoch_that_was_printed_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt comes at the worst moment: behind the line of the epoch."""
    real, printed = EpochProgress.line, list[str]()

    def line(progress: EpochProgress, text: str) -> None:
        printed.append(text.split("/")[0])
        real(progress, text)
        if printed == ["epoch   1", "epoch   2"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochProgress, "line", line)
    model, file = network(), tmp_path / "checkpoint.npz"
    with pytest.raises(KeyboardInterrupt):
        run(model, [phase(model)], checkpoint=file)
    stored = read_checkpoint(file)
    assert stored is not None and len(stored[0].history) == 2
    model = network()
    run(model, [phase(model)], checkpoint=file, resume=True)
    assert printed == ["epoch   1", "epoch   2", "epoch   3"]
