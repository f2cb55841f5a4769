"""The config group `phases`: a training in several parts, as head first, then the last block."""

from dataclasses import dataclass
from typing import Optional

from cnnexp.config.limits import option
from cnnexp.config.network import FreezePolicyConfig
from cnnexp.config.training import OptimizerConfig


@dataclass
class PhaseConfig:
    """One phase; it goes on with the weights of the one before it, with a new optimizer.

    `optimizer: null` is that of the run; `learning_rate` replaces only the rate of it.
    """

    epochs: Optional[int] = option(None, minimum=1, doc="Epochs of the phase; null: trainer.epochs.")
    freeze_policy: FreezePolicyConfig = option(
        lambda: FreezePolicyConfig(mode="full"), doc="Which part of the backbone the phase trains."
    )
    optimizer: Optional[OptimizerConfig] = option(None, doc="The optimizer of the phase; null: that of the run.")
    learning_rate: Optional[float] = option(
        None, above=0, doc="Replaces only the rate of the optimizer; null: the optimizer's own."
    )
