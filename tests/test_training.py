"""The schedules and the figures of an epoch, against numbers worked out by hand."""

import keras
import numpy as np
import pytest

from cnnexp.training.callbacks import EpochReport, TrainingDivergedError
from cnnexp.training.optimizers import OptimizerPlan, WarmupSchedule
from cnnexp.training.recipe import loss_and_accuracy

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
    optimizer = OptimizerPlan(keras.optimizers.SGD, 0.1).build(epochs=2, steps_per_epoch=3)
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
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
    report.set_model(model)
    report.on_epoch_begin(0)
    report.on_train_batch_end(0)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1 is nan: lower optimizer.learning_rate=0.5"):
        report.on_epoch_end(0, {"loss": float("nan"), "acc": 0.5, "val_loss": 1.0, "val_acc": 0.5})
    assert received[0]["train/acc"] == 0.5
    assert received[0]["lr"] == 0.5
