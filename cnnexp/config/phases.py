"""The config group `phases`: a training in several parts, as head first, then the last block."""

from dataclasses import dataclass, field
from typing import Optional

from cnnexp.config.limits import option
from cnnexp.config.network import FreezePolicyConfig
from cnnexp.config.training import OptimizerConfig


@dataclass
class PhaseConfig:
    """One phase; it goes on with the weights of the one before it, with a new optimizer.

    `optimizer: null` is that of the run; `learning_rate` replaces only the rate of it.
    """

    epochs: Optional[int] = option(None, minimum=1)  # null: trainer.epochs
    freeze_policy: FreezePolicyConfig = field(default_factory=lambda: FreezePolicyConfig(mode="full"))
    optimizer: Optional[OptimizerConfig] = None
    learning_rate: Optional[float] = option(None, above=0)
