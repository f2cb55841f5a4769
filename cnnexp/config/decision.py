"""The config group `decision`."""

import math
from dataclasses import dataclass
from typing import Any, Optional

from cnnexp.config.limits import is_number, option
from cnnexp.errors import UserError


@dataclass
class DecisionConfig:
    """How probabilities become an answer: the most probable class, unless an option of the group says otherwise."""

    _target_: str = option(
        "cnnexp.metrics.decision.argmax",
        doc="The function that chooses the threshold between two classes on the validation images; your own goes "
        "with decision=custom.",
    )
    name: str = option("argmax", doc="The rule's name.")
    positive: Optional[str] = option(
        None,
        doc="Of two classes the positive one, which threshold, recall, precision and their curves are of; null: the "
        "second in the order of the alphabet.",
    )
    calibration: str = option(
        "none",
        choices=("none", "temperature"),
        doc="temperature divides the logits by one number, fitted on the validation images (arXiv 1706.04599), in the "
        "recorded model too.",
    )
    arguments: dict[str, Any] = option({}, doc="Keywords for a rule of your own.")


@dataclass
class RecallConfig(DecisionConfig):
    """A threshold that finds a share of the positive images."""

    recall: float = option(
        0.95, above=0, maximum=1, doc="The share of the positive validation images that is found at least."
    )


@dataclass
class PrecisionConfig(DecisionConfig):
    """A threshold from which a share of the answers is right."""

    precision: float = option(
        0.95, above=0, maximum=1, doc="The share of the positive answers to validation images that is right at least."
    )


@dataclass
class CostConfig(DecisionConfig):
    """The answer of the least cost."""

    costs: Any = option(
        None,
        doc="What a wrong answer costs, by true class and answer, as {ill:{healthy:20}}; 1 where none is given.",
    )

    def check(self) -> None:
        """Whether the classes are those of the data is known once these are there, see `cnnexp.runs.decision`."""
        if self.costs is not None and not isinstance(self.costs, dict):
            raise UserError(f"decision.costs={self.costs}: must be a mapping, as {{ill:{{healthy:20}}}}, or null")
        for truth, row in (self.costs or {}).items():
            if not isinstance(row, dict):
                raise UserError(f"decision.costs.{truth}={row}: must be a mapping by answers, as {{healthy:20}}")
            for answer, value in row.items():
                if not is_number(value) or not 0 <= value < math.inf:
                    raise UserError(f"decision.costs.{truth}.{answer}={value}: must be a number, at least 0")
                if str(answer) == str(truth):
                    raise UserError(
                        f"decision.costs.{truth}.{answer}={value}: a right answer costs nothing; leave it out"
                    )


@dataclass
class CustomDecisionConfig(DecisionConfig):
    """A rule of the user's own."""

    _target_: str = option("", doc=DecisionConfig.__dataclass_fields__["_target_"].metadata["doc"])

    def check(self) -> None:
        if not self._target_:
            raise UserError("decision._target_: no value given; set it, as decision._target_=MODULE.FUNCTION")


DECISIONS: dict[str, type] = {
    "custom": CustomDecisionConfig,
    "argmax": DecisionConfig,
    "max_f1": DecisionConfig,
    "recall_at_least": RecallConfig,
    "precision_at_least": PrecisionConfig,
    "cost": CostConfig,
}
