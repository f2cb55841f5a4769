"""The trainer, the feature cache and the schedules, against numbers worked out by hand."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnexp.errors import UserError
from cnnexp.training.callbacks import EpochReport, TrainingDivergedError, loss_and_accuracy
from cnnexp.training.features import cached_features, cut_model, features_key
from cnnexp.training.optimizers import WarmupSchedule, build_optimizer


def small_model(freeze: int = 2, dropout: float = 0.0) -> keras.Model:
    """conv1 -> conv2 -> conv3 -> flatten -> [dropout] -> dense; the first `freeze` convolutions are frozen."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3), name="image")
    for number in range(3):
        layer = keras.layers.Conv2D(4, 3, activation="relu", name=f"conv{number + 1}")
        layer.trainable = number >= freeze
        x = layer(x)
    x = keras.layers.Flatten()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x))


def residual_model() -> keras.Model:
    """A frozen stem whose output goes into a trained branch and around it: the cut is one tensor used twice,
    and a frozen side branch from further up makes it two."""
    image = keras.Input((8, 8, 3))
    stem = keras.layers.Conv2D(4, 3, padding="same", name="stem")
    early = keras.layers.Conv2D(4, 3, padding="same", name="early")
    stem.trainable = early.trainable = False
    first = early(image)
    second = stem(first)
    x = keras.layers.Conv2D(4, 3, padding="same", name="branch")(second)
    x = keras.layers.Add()([x, second, keras.layers.Activation("relu")(x)])
    x = keras.layers.Concatenate()([x, first])
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(x)))


IMAGES = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)


def test_cut_lies_at_the_last_frozen_layer() -> None:
    cut = cut_model(small_model(freeze=2))
    assert cut is not None
    assert [layer.name for layer in cut.fixed.layers if layer.weights] == ["conv1", "conv2"]
    assert next(layer.name for layer in cut.tail.layers if layer.weights) == "conv3"
    assert len(cut.tail.trainable_variables) == 4


def test_both_parts_give_what_the_whole_gives() -> None:
    for model in (small_model(1), small_model(3, dropout=0.5), residual_model()):
        cut = cut_model(model)
        assert cut is not None
        np.testing.assert_allclose(cut.tail(cut.fixed(IMAGES)), model(IMAGES.astype("float32")), rtol=1e-5, atol=1e-5)


def test_a_cut_may_be_several_tensors() -> None:
    cut = cut_model(residual_model())
    assert cut is not None
    assert len(cut.fixed.outputs) == 2


def test_dropout_is_never_in_the_fixed_part() -> None:
    cut = cut_model(small_model(3, dropout=0.5))
    assert cut is not None
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in cut.fixed.layers)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in cut.tail.layers)


def test_nothing_frozen_nothing_cut() -> None:
    assert cut_model(small_model(freeze=0)) is None


def test_key_depends_on_what_the_features_depend_on() -> None:
    def key(freeze: int = 2, digest: str = "d", size: int = 8, nudge: float = 0.0) -> str:
        keras.backend.clear_session()
        model = small_model(freeze)
        kernel = model.get_layer("conv1").kernel
        kernel.assign(kernel + nudge)
        cut = cut_model(model)
        assert cut is not None
        return features_key(cut.fixed, digest, size, "float32")

    same = key()
    assert key() == same
    assert len({same, key(freeze=1), key(digest="e"), key(size=9), key(nudge=1e-3)}) == 5


def test_features_are_computed_once(tmp_path: Path) -> None:
    cut = cut_model(small_model())
    assert cut is not None
    asked: list[int] = []

    def take(indices: np.ndarray) -> np.ndarray:
        asked.extend(indices.tolist())
        return IMAGES[indices]

    first, found = cached_features(tmp_path, "k", cut.fixed, take, len(IMAGES), batch_size=4)
    assert not found
    second, found = cached_features(tmp_path, "k", cut.fixed, take, len(IMAGES), batch_size=4)
    assert found
    assert asked == list(range(10))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_allclose(first[0], cut.fixed(IMAGES), rtol=1e-6, atol=1e-5)


def test_an_interrupted_pass_leaves_no_entry(tmp_path: Path) -> None:
    cut = cut_model(small_model())
    assert cut is not None

    def take(indices: np.ndarray) -> np.ndarray:
        if indices[0] >= 4:
            raise KeyboardInterrupt
        return IMAGES[indices]

    with pytest.raises(KeyboardInterrupt):
        cached_features(tmp_path, "k", cut.fixed, take, len(IMAGES), batch_size=4)
    assert [p.name for p in tmp_path.iterdir()] == ["k.lock"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate")
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cut = cut_model(small_model())
    assert cut is not None
    with pytest.raises(UserError, match=r"No space left on device.*paths.cache"):
        cached_features(tmp_path, "k", cut.fixed, lambda i: IMAGES[i], len(IMAGES), batch_size=4)
    assert [p.name for p in tmp_path.iterdir()] == ["k.lock"]


# ------------------------------------------------------------------------------------------------ schedules


def rates(schedule: WarmupSchedule, steps: int) -> list[float]:
    return [round(float(schedule(step)), 6) for step in range(steps)]


def test_constant_after_warmup() -> None:
    assert rates(WarmupSchedule(1.0, "constant", 6, warmup_steps=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_goes_from_peak_to_final() -> None:
    # cos(0), cos(pi/4), cos(pi/2), cos(3 pi/4), cos(pi), mapped to 1 .. 0 and then to 2 .. 0.2
    expected = [2 * (0.1 + 0.9 * share) for share in (1.0, 0.853553, 0.5, 0.146447, 0.0)]
    schedule = WarmupSchedule(2.0, "cosine", 5, final_fraction=0.1)
    assert rates(schedule, 5) == pytest.approx(expected, abs=1e-5)


def test_exponential_halves_evenly() -> None:
    schedule = WarmupSchedule(1.0, "exponential", 3, final_fraction=0.25)
    assert rates(schedule, 3) == pytest.approx([1.0, 0.5, 0.25])


def test_plain_rate_where_nothing_changes() -> None:
    optimizer = build_optimizer(keras.optimizers.SGD, 0.1, "constant", 0, 0, epochs=2, steps_per_epoch=3)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_schedule_survives_its_config() -> None:
    schedule = WarmupSchedule(2.0, "cosine", 5, 1, 0.1)
    assert rates(WarmupSchedule.from_config(schedule.get_config()), 5) == rates(schedule, 5)


# ------------------------------------------------------------------------------------------------- figures


def test_binary_loss_by_hand() -> None:
    probabilities = np.array([[0.9], [0.2], [0.4]], np.float32)
    loss, accuracy = loss_and_accuracy(probabilities, np.array([1, 0, 1]))
    assert loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4)) / 3, rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)


def test_loss_equals_keras() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), 50).astype(np.float32)
    labels = rng.integers(0, 5, 50)
    expected = keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)
    assert loss_and_accuracy(probabilities, labels)[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_loss_that_is_no_number_stops_after_it_was_reported() -> None:
    received: list[dict[str, float]] = []
    report = EpochReport(4, [lambda _, metrics: received.append(metrics)])
    model = small_model()
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
    report.set_model(model)
    report.on_epoch_begin(0)
    report.on_train_batch_end(0)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1 is nan: lower optimizer.learning_rate=0.5"):
        report.on_epoch_end(0, {"loss": float("nan"), "acc": 0.5, "val_loss": 1.0, "val_acc": 0.5})
    assert received[0]["train/acc"] == 0.5
    assert received[0]["lr"] == 0.5


@pytest.mark.slow
def test_two_processes_compute_one_entry_once(tmp_path: Path) -> None:
    script = tmp_path / "compute.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time, numpy as np
        from pathlib import Path
        from types import SimpleNamespace
        from cnnexp.training.features import cached_features
        def predict(x):
            time.sleep(0.2)
            Path(sys.argv[1], "calls").open("a").write("x")
            return x * 2.0
        fixed = SimpleNamespace(outputs=[np.zeros((1, 3))], predict_on_batch=predict)
        take = lambda i: np.repeat(i[:, None], 3, axis=1)
        arrays, _ = cached_features(Path({str(tmp_path / "cache")!r}), "k", fixed, take, 8, 2)
        assert (arrays[0][:, 0] == np.arange(8) * 2).all()
        """)
    )
    processes = [subprocess.Popen([sys.executable, str(script), str(tmp_path)]) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert len((tmp_path / "calls").read_text()) == 4
