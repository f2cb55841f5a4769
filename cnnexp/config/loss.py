"""The config group `loss`."""

from dataclasses import dataclass
from typing import Any

from cnnexp.config.limits import is_number, option
from cnnexp.errors import UserError


@dataclass
class LossConfig:
    """What the training makes small: cross-entropy, unless an option of the group says otherwise."""

    _target_: str = option(
        "cnnexp.training.losses.cross_entropy",
        doc="The function that returns the loss; a loss of Keras or your own goes with loss=custom.",
    )
    name: str = option("cross_entropy", doc="The loss's name.")
    class_weight: Any = option(
        None,
        doc="Factors on the losses of each class's images: a mapping by class name, as {cat:2,dog:1}; balanced for the "
        "inverse of how frequent a class is among the training images, 1 on average; null: none.",
    )
    label_smoothing: float = option(
        "${trainer.label_smoothing}",
        minimum=0,
        below=1,
        doc="By how much targets are moved towards each other (arXiv 1512.00567, section 7); 0: none.",
    )
    arguments: dict[str, Any] = option({}, doc="Keywords for a loss of Keras or of your own.")

    def check(self) -> None:
        """Whether the classes are those of the data is known once these are there, see `cnnexp.runs.build`."""
        given = self.class_weight
        if given is None or given == "balanced":
            return
        if not isinstance(given, dict) or not given:
            raise UserError(
                f"loss.class_weight={given}: must be balanced, null, or a weight for each class, as {{cat:2,dog:1}}"
            )
        for name, weight in given.items():
            if not is_number(weight) or not 0 < weight < float("inf"):
                raise UserError(f"loss.class_weight.{name}={weight}: must be a number more than 0")


@dataclass
class FocalConfig(LossConfig):
    """Focal loss."""

    gamma: float = option(
        2.0,
        minimum=0,
        doc="How much less an image counts that is answered well already (arXiv 1708.02002); 0: cross-entropy.",
    )


@dataclass
class CustomLossConfig(LossConfig):
    """A loss of Keras, or of the user's own."""

    _target_: str = option("", doc=LossConfig.__dataclass_fields__["_target_"].metadata["doc"])

    def check(self) -> None:
        super().check()
        if not self._target_:
            raise UserError("loss._target_: no value given; set it, as loss._target_=keras.losses.Poisson")


LOSSES: dict[str, type] = {"custom": CustomLossConfig, "cross_entropy": LossConfig, "focal": FocalConfig}
