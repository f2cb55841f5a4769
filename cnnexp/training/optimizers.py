"""Optimizers with their learning rate over the run."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from keras import ops

FUSED_FROM = 2**16  # weights of a variable; below, compiling costs more than it saves


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


class LayerRates(keras.optimizers.Optimizer):
    """Mixed into an optimizer: the rate of each variable is multiplied by a factor of its own.

    `factors` maps `variable.path` to its factor, 1 where it has none. Decoupled weight decay is scaled likewise, as
    where each layer is a parameter group.
    """

    factors: dict[str, float]

    def build(self, variables: list[keras.Variable]) -> None:
        """Note the factors in the order of the variables."""
        self._factors = [self.factors.get(variable.path, 1.0) for variable in variables]
        self._decay: float | None = self.weight_decay
        self.weight_decay: float | None = None  # applied here, with the rate of the layer
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step with this variable's rate."""
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[self._get_variable_index(variable)]
        if self._decay:
            self.assign_sub(variable, variable * self._decay * rate)
        super().update_step(gradient, variable, rate)


def with_layer_rates(optimizer: keras.optimizers.Optimizer, factors: dict[str, float]) -> keras.optimizers.Optimizer:
    """The same optimizer, not built yet, with a factor on the rate of some variables (`variable.path`)."""
    kind = type(optimizer)
    mixed_in: Any = type(f"{kind.__name__}WithLayerRates", (LayerRates, kind), {})
    scaled = mixed_in.from_config(optimizer.get_config())
    scaled.factors = factors
    return scaled


def with_fused_updates(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The same optimizer; the update of each large variable becomes one loop over its memory instead of some ten.

    A dense layer after Flatten has millions of weights, and their update costs more than the step's arithmetic. XLA
    fuses it; the rest of the step stays as it is, since XLA draws other random numbers for dropout.
    """
    update_step = optimizer.update_step

    def fused_update_step(gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        if math.prod(variable.shape) < FUSED_FROM:
            update_step(gradient, variable, learning_rate)
            return

        @tf.function(jit_compile=True, autograph=False)
        def update(gradient: tf.Tensor, rate: tf.Tensor) -> None:
            update_step(gradient, variable, rate)

        update(gradient, tf.convert_to_tensor(learning_rate))

    optimizer.update_step = fused_update_step
    return optimizer


@dataclass(frozen=True)
class OptimizerPlan:
    """How to make the optimizer of one phase, once its number of steps is known.

    factory:         called with `learning_rate`, and with `weight_decay`, `use_ema` and `ema_momentum` where they
                     are set (Keras' own arguments).
    learning_rate:   the peak.
    schedule:        "constant", "cosine" or "exponential", see `WarmupSchedule`.
    warmup_epochs:   of this phase.
    final_fraction:  see `WarmupSchedule`.
    weight_decay:    decoupled from the gradient (Loshchilov & Hutter 2019, arXiv 1711.05101), or None.
    ema_momentum:    of the moving average of the weights (Polyak & Juditsky 1992), or None.
    layer_factors:   see `with_layer_rates`; {} for none.
    """

    factory: Callable[..., keras.optimizers.Optimizer]
    learning_rate: float
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    final_fraction: float = 0.0
    weight_decay: float | None = None
    ema_momentum: float | None = None
    layer_factors: dict[str, float] = field(default_factory=dict)

    def build(
        self, epochs: int, steps_per_epoch: int, fused: bool = True, scale_loss: bool = False
    ) -> keras.optimizers.Optimizer:
        """The optimizer, with a `WarmupSchedule` where the rate changes and a number where it does not.

        Args:
            fused: see `with_fused_updates`; not for several devices, whose copies of a variable XLA does not know.
            scale_loss: so that small gradients do not vanish in float16 (Micikevicius et al. 2018, arXiv 1710.03740).
        """
        more: dict[str, Any] = {}
        if self.weight_decay is not None:
            more["weight_decay"] = self.weight_decay
        if self.ema_momentum is not None:
            more |= {"use_ema": True, "ema_momentum": self.ema_momentum}
        optimizer = self.factory(learning_rate=self._rate(epochs, steps_per_epoch), **more)
        if self.layer_factors:
            optimizer = with_layer_rates(optimizer, self.layer_factors)
        if fused:
            optimizer = with_fused_updates(optimizer)
        return keras.optimizers.LossScaleOptimizer(optimizer) if scale_loss else optimizer

    @property
    def constant(self) -> bool:
        """Whether the rate stays the same."""
        return self.schedule == "constant" and self.warmup_epochs == 0

    def traced(self, epochs: int) -> str | None:
        """What of this plan a traced step holds; None where the optimizer is the user's own, or averages the weights.

        A constant learning rate is not among it: it is a variable of the optimizer.
        """
        function, keywords = (getattr(self.factory, name, None) for name in ("func", "keywords"))
        if not str(getattr(function, "__module__", "")).startswith("keras.") or self.ema_momentum is not None:
            return None
        changing = [] if self.constant else [self.learning_rate, self.warmup_epochs, self.final_fraction, epochs]
        facts = [function, keywords, self.schedule, changing, self.weight_decay, self.layer_factors]
        return repr(facts)

    def _rate(self, epochs: int, steps_per_epoch: int) -> Any:
        if self.constant:
            return self.learning_rate
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        steps = epochs * steps_per_epoch
        return WarmupSchedule(self.learning_rate, self.schedule, steps, warmup_steps, self.final_fraction)


@contextmanager
def averaged_weights(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]) -> Iterator[None]:
    """The moving averages in place of the weights, where the optimizer keeps them; afterwards the weights again."""
    if not getattr(optimizer, "inner_optimizer", optimizer).use_ema:  # the inner one, where the loss is scaled
        yield
        return
    own = [keras.ops.convert_to_numpy(variable) for variable in variables]
    optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
