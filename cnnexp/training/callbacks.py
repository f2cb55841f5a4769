"""Keras callbacks: validation on cached features, the figures of an epoch, the progress, a stop on NaN."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras

from cnnexp.console import EpochProgress
from cnnexp.metrics.names import (
    EPOCH_SECONDS,
    IMAGES_PER_SECOND,
    LEARNING_RATE,
    TRAIN_ACC,
    TRAIN_LOSS,
    VAL_ACC,
    VAL_LOSS,
)

EpochMetrics = dict[str, float]
EpochListener = Callable[[int, EpochMetrics], bool | None]


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a number."""


class Validation(keras.callbacks.Callback):
    """Adds the figures of the validation images to the logs of an epoch, as `val_NAME`; stands first, so that the
    others see them.

    It evaluates a model of its own choice: where the backbone is frozen, the tail on cached features, whose weights
    are those of the model in training.
    """

    def __init__(self, evaluate: Callable[[], EpochMetrics]) -> None:
        super().__init__()
        self.evaluate = evaluate

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluate, and write the figures into `logs`."""
        assert logs is not None
        logs.update({f"val_{name}": value for name, value in self.evaluate().items()})


class EpochReport(keras.callbacks.Callback):
    """Hands the figures of each epoch, under the names that are tracked, to every receiver.

    `time/epoch_s` and `images_per_s` cover the training steps, not the validation.

    Args:
        images_per_epoch: how many images the steps of an epoch take.
        receivers: called in their order with the epoch, counted from 0, and its figures; where one returns True,
            this epoch is the last.
    """

    def __init__(self, images_per_epoch: int, receivers: Iterable[EpochListener]) -> None:
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self.receivers = list(receivers)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.began = self.ended = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note when the last training step ended."""
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Name the figures and hand them on.

        Raises:
            TrainingDivergedError: the loss is NaN or infinite; the figures were handed on before.
        """
        assert logs is not None
        seconds = self.ended - self.began
        metrics = {
            TRAIN_LOSS: float(logs["loss"]),
            TRAIN_ACC: float(logs["acc"]),
            VAL_LOSS: float(logs["val_loss"]),
            VAL_ACC: float(logs["val_acc"]),
            **{f"val/{name[4:]}": float(value) for name, value in logs.items() if name.startswith("val_")},
            LEARNING_RATE: float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            EPOCH_SECONDS: seconds,
            IMAGES_PER_SECOND: self.images_per_epoch / seconds,
        }
        for receive in self.receivers:
            if receive(epoch, metrics):
                self.model.stop_training = True
        if not math.isfinite(metrics[TRAIN_LOSS]):
            raise TrainingDivergedError(
                f"the loss of epoch {epoch + 1} is {metrics[TRAIN_LOSS]}: lower optimizer.learning_rate="
                f"{metrics[LEARNING_RATE]:g}"
            )


class ShowProgress(keras.callbacks.Callback):
    """The progress bar of a run; a line for each epoch comes from `EpochReport` through `show_epoch`."""

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__()
        self.progress = EpochProgress(epochs, steps)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reset the bar."""
        self.progress.start(epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        self.progress.step(batch + 1)

    def show_epoch(self, epoch: int, metrics: EpochMetrics) -> None:
        """Print the figures of an epoch, those of the validation images beside loss and accuracy last."""
        others = [name for name in metrics if name.startswith("val/") and name not in (VAL_LOSS, VAL_ACC)]
        self.progress.line(
            f"epoch {epoch + 1:>3}/{self.progress.epochs}  loss {metrics[TRAIN_LOSS]:.4f}  "
            f"acc {metrics[TRAIN_ACC]:.4f}  val loss {metrics[VAL_LOSS]:.4f}  val acc {metrics[VAL_ACC]:.4f}  "
            f"{''.join(f'{name[4:]} {metrics[name]:.4f}  ' for name in others)}{metrics[EPOCH_SECONDS]:.1f} s"
        )
