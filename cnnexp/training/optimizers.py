"""Optimizers with their learning rate over the run."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("cnnexp")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to `peak`, then constant, cosine or exponential to `final_fraction * peak`.

    The cosine is that of SGDR without restarts (Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5); the warm-up
    is that of Goyal et al. 2017 (arXiv 1706.02677, section 2.2). Step s of the warm-up uses `(s + 1) / warmup_steps`
    of the peak, so that the first step already learns.

    Args:
        peak: the learning rate after the warm-up.
        name: "constant", "cosine" or "exponential".
        total_steps: steps of the whole run; the final rate is reached at the last one.
        warmup_steps: steps of the warm-up.
        final_fraction: the last rate, as a fraction of the peak (not used by "constant").
    """

    def __init__(
        self, peak: float, name: str, total_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0
    ) -> None:
        assert name in ("constant", "cosine", "exponential"), name
        self.peak, self.name = peak, name
        self.total_steps, self.warmup_steps, self.final_fraction = total_steps, warmup_steps, final_fraction

    def __call__(self, step: Any) -> Any:
        """The learning rate of step `step`, counted from 0."""
        step = ops.cast(step, "float32")
        decay_steps = max(self.total_steps - 1 - self.warmup_steps, 1)
        done = ops.clip((step - self.warmup_steps) / decay_steps, 0.0, 1.0)
        if self.name == "cosine":
            factor = self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + ops.cos(math.pi * done))
        elif self.name == "exponential":
            factor = ops.power(self.final_fraction, done)
        else:
            factor = ops.ones_like(done)
        warmup = (step + 1) / max(self.warmup_steps, 1)
        return self.peak * ops.where(step < self.warmup_steps, warmup, factor)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "peak": self.peak,
            "name": self.name,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "final_fraction": self.final_fraction,
        }


def build_optimizer(
    optimizer: Callable[..., keras.optimizers.Optimizer],
    learning_rate: float,
    schedule: str,
    warmup_epochs: float,
    final_fraction: float,
    epochs: int,
    steps_per_epoch: int,
) -> keras.optimizers.Optimizer:
    """Call `optimizer(learning_rate=...)` with a number, or with a `WarmupSchedule` where the rate changes."""
    if schedule == "constant" and warmup_epochs == 0:
        return optimizer(learning_rate=learning_rate)
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    total_steps = epochs * steps_per_epoch
    rate = WarmupSchedule(learning_rate, schedule, total_steps, warmup_steps, final_fraction)
    return optimizer(learning_rate=rate)
