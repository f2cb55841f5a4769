"""How probabilities become an answer: the rule, its threshold, and the temperature of the probabilities.

A rule chooses the threshold between two classes from the validation images alone: it takes `positive`, (N,) bool, and
`score`, (N,) float, the probability of the positive class, of images of both classes, and gives the probability from
which on the answer is the positive class. Of equally good thresholds the highest is taken.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cnnexp.metrics.registry import SMALLEST, answers
from cnnexp.metrics.statistics import counts_by_threshold

COLDEST, HOTTEST = 0.05, 20.0  # temperatures beyond which nothing is fitted
ABOVE_ALL = float(np.nextafter(np.float32(1), np.float32(2)))


class Cuts(NamedTuple):
    """What each threshold gives, falling from above every score to below every score, (T,) each."""

    thresholds: np.ndarray  # float32, in float64
    found: np.ndarray  # positive images at or above it
    answered: np.ndarray  # images at or above it

    @property
    def precision(self) -> np.ndarray:
        """Share of the answers that is right; 1 where there is none."""
        return np.divide(self.found, self.answered, out=np.ones(len(self.found)), where=self.answered > 0)


def cuts(positive: np.ndarray, score: np.ndarray) -> Cuts:
    """The thresholds midway between neighbouring scores, and above and below all of them."""
    found, false, scores = counts_by_threshold(positive, np.asarray(score, np.float32))
    upper = np.append(np.float32(ABOVE_ALL), scores.astype(np.float32))
    lower = np.append(scores.astype(np.float32), np.float32(0))
    middle = ((upper.astype(np.float64) + lower) / 2).astype(np.float32)
    middle = np.where(middle > lower, middle, upper)  # between neighbours in float32 there is nothing
    middle[-1] = 0
    return Cuts(middle.astype(np.float64), np.append(0, found), np.append(0, found + false))


def argmax(positive: np.ndarray, score: np.ndarray) -> float:
    """The more probable class is the answer, whatever the validation images say."""
    return 0.5


def max_f1(positive: np.ndarray, score: np.ndarray) -> float:
    """The highest F1 of the positive class."""
    given = cuts(positive, score)
    return float(given.thresholds[np.argmax(2 * given.found / (positive.sum() + given.answered))])


def recall_at_least(positive: np.ndarray, score: np.ndarray, recall: float) -> float:
    """The highest threshold at which this share of the positive images is found; so the fewest are called so wrongly.

    Args:
        positive, score: see above.
        recall: more than 0, at most 1.
    """
    given = cuts(positive, score)
    return float(given.thresholds[np.argmax(given.found >= recall * positive.sum() - 1e-9)])


def precision_at_least(positive: np.ndarray, score: np.ndarray, precision: float) -> float:
    """The most positive images found, of thresholds at which this share of the answers is right.

    Where no threshold gives that, the one with the highest precision.

    Args:
        positive, score: see above.
        precision: more than 0, at most 1.
    """
    given = cuts(positive, score)
    reached = (given.precision >= precision - 1e-9) & (given.found > 0)
    if not reached.any():
        reached = given.precision == given.precision[1:].max()
    return float(given.thresholds[np.argmax(np.where(reached, given.found, -1))])


def cost(positive: np.ndarray, score: np.ndarray, missed: float, false_alarm: float) -> float:
    """The least cost.

    Args:
        positive, score: see above.
        missed: what a positive image costs that is not found.
        false_alarm: what another image costs that is called positive.
    """
    given = cuts(positive, score)
    total = missed * (positive.sum() - given.found) + false_alarm * (given.answered - given.found)
    return float(given.thresholds[np.argmin(total)])


# ------------------------------------------------------------------------------------------ what was chosen


@dataclass(frozen=True)
class Decision:
    """How a trained network's probabilities become answers; by default the most probable class is the answer.

    rule:        by which it was chosen, for people.
    positive:    of two classes, the number of the positive one.
    threshold:   of two classes, the probability from which on the positive one is the answer; None: see `costs`.
    costs:       (K, K), what an image of class `row` costs that is answered with class `column`: the answer is the
                 class of the least cost to be expected (Duda and Hart 1973, "Pattern Classification and Scene
                 Analysis", section 2.2); None: the most probable class.
    temperature: by which the probabilities were divided, see `with_temperature`; None: they are the network's own.
    """

    rule: str = "argmax"
    positive: int = 1
    threshold: float | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    temperature: float | None = None

    def classes(self, probabilities: np.ndarray) -> np.ndarray:
        """(N,) int64: the answers, from (N, K) probabilities, float32 or what was written of them."""
        if self.threshold is not None:
            score = np.asarray(probabilities[:, self.positive], np.float32)
            return np.where(score >= np.float32(self.threshold), self.positive, 1 - self.positive)
        if self.costs is not None:
            return (np.asarray(probabilities, np.float64) @ np.array(self.costs)).argmin(axis=1)
        return answers(probabilities)

    def described(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As the recorded model's metadata have it: `rule`, `positive` (a class name), `threshold`, `costs` by class
        names, `temperature`; what does not apply is left out. Empty where the most probable class is the answer."""
        found: dict[str, Any] = {}
        if self.threshold is not None:
            found |= {"positive": class_names[self.positive], "threshold": self.threshold}
        if self.costs is not None:
            found["costs"] = {
                name: dict(zip(class_names, row, strict=True))
                for name, row in zip(class_names, self.costs, strict=True)
            }
        if self.temperature is not None:
            found["temperature"] = self.temperature
        return {"rule": self.rule, **found} if found else {}

    def in_words(self, class_names: Sequence[str]) -> str:
        """As `dog from a probability of 0.312 on (recall_at_least)`; "" where the most probable class is the answer."""
        parts = []
        if self.threshold is not None:
            parts.append(f"{class_names[self.positive]} from a probability of {self.threshold:.3g} on ({self.rule})")
        if self.costs is not None:
            parts.append(f"the class of the least cost ({self.rule})")
        if self.temperature is not None:
            parts.append(f"probabilities of temperature {self.temperature:.3g}")
        return "; ".join(parts)


ARGMAX = Decision()


def read_decision(described: Any, class_names: Sequence[str]) -> Decision:
    """What `Decision.described` gave; of a model without one, the default.

    Raises:
        ValueError: it is not of these classes, or something else.
    """
    if described is None:
        return ARGMAX
    if not isinstance(described, Mapping):
        raise ValueError("its decision is no mapping")
    names = [str(name) for name in class_names]
    positive, threshold, costs = (described.get(key) for key in ("positive", "threshold", "costs"))
    if threshold is not None and not (isinstance(threshold, float | int) and 0 <= threshold <= 2):
        raise ValueError(f"its decision has the threshold {threshold!r}, which is no probability")
    if threshold is not None and (len(names) != 2 or positive not in names):
        raise ValueError(f"its decision has the positive class {str(positive)[:60]!r}, which is none of two classes")
    matrix = None
    if costs is not None:
        try:
            matrix = tuple(tuple(float(costs[row][column]) for column in names) for row in names)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its decision has no cost for each pair of classes ({error})") from error
    temperature = described.get("temperature")
    return Decision(
        str(described.get("rule"))[:60],
        names.index(positive) if positive in names else 1,
        None if threshold is None else float(threshold),
        matrix,
        float(temperature) if isinstance(temperature, float | int) else None,
    )


# ---------------------------------------------------------------------------------------------- calibration


def with_temperature(outputs: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logits are divided by a temperature (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The recorded model does the same, see `cnnexp.models.build.calibrated`.

    Args:
        outputs: (N, 1) of class 1, or (N, K), float32.
        temperature: more than 0; above 1 the probabilities become less sure.

    Returns:
        The same shape, float32. The most probable class stays.
    """
    scores = logits(outputs) / temperature
    if outputs.shape[1] == 1:
        return (1 / (1 + np.exp(-scores))).astype(np.float32)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def logits(outputs: np.ndarray) -> np.ndarray:
    """(N, 1) or (N, K) float64 whose sigmoid or softmax are the outputs; those are clipped at 1e-7."""
    clipped = np.clip(np.asarray(outputs, np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(clipped) - (np.log1p(-clipped) if outputs.shape[1] == 1 else 0)


def fit_temperature(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature with the least cross-entropy, of validation images.

    Args:
        outputs: (N, 1) of class 1, or (N, K).
        labels: (N,) int.

    Returns:
        0.05 to 20; None where there is none: where every image is answered right, the surer the better.
    """
    scores = logits(outputs)
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    own = scores[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Of the mean cross-entropy, by 1 / temperature; it rises, for the cross-entropy is convex in that."""
        powers = np.exp(inverse * (scores - scores.max(axis=1, keepdims=True)))
        return float(np.mean((scores * powers).sum(axis=1) / powers.sum(axis=1) - own))

    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    if slope(math.exp(low)) >= 0 or slope(math.exp(high)) <= 0:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)
