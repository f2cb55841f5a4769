"""From a trained network's probabilities to answers: chosen on the validation images, stated for both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from cnnexp.config import Config
from cnnexp.config.decision import CostConfig, DecisionConfig
from cnnexp.config.targets import HOMES, partial_from_config
from cnnexp.console import say, warn
from cnnexp.data.dataset import Dataset
from cnnexp.errors import UserError, first_line, shown_names
from cnnexp.metrics.decision import Decision, fit_temperature, with_temperature
from cnnexp.metrics.names import decision_figure
from cnnexp.metrics.registry import Table, figures
from cnnexp.models.build import calibrated
from cnnexp.models.classifier import class_probabilities
from cnnexp.report.scoring import operating_point
from cnnexp.training.recipe import loss_and_accuracy
from cnnexp.training.trainer import FitResult

CALIBRATION = ("log_loss", "brier", "ece")  # figures before and after


@dataclass(frozen=True)
class DecisionPlan:
    """What is chosen once the network is trained.

    rule:     its name.
    positive: of two classes, the number of the positive one.
    choose:   gives the threshold between two classes, see `cnnexp.metrics.decision`; None: there is none.
    costs:    (K, K) of true class and answer; they decide where there is no threshold.
    heats:    whether a temperature is fitted.
    """

    rule: str
    positive: int
    choose: Callable[[np.ndarray, np.ndarray], float] | None
    costs: tuple[tuple[float, ...], ...] | None
    heats: bool


def decision_plan(config: Config, dataset: Dataset) -> DecisionPlan:
    """What the config asks for, refused where it does not fit the classes.

    Raises:
        UserError: a class that there is not; a threshold between more than two classes, or for validation images of one
            class; a rule that there is not, or that does not take what the config has for it.
    """
    node, names = config.decision, dataset.class_names
    positive = _positive(node, names)
    costs = _costs(node.costs, names) if isinstance(node, CostConfig) else None
    asks = node._target_ != DecisionConfig()._target_
    heats = node.calibration != "none"
    if not asks or (costs is not None and len(names) > 2):
        return DecisionPlan(node.name, positive, None, costs, heats)
    if len(names) > 2:
        raise UserError(
            f"decision={node.name}: chooses a threshold between two classes, and the data has {len(names)}; allowed: "
            "argmax, cost"
        )
    present = np.bincount(dataset.validation.labels, minlength=2)
    if not present.all():
        raise UserError(
            f"decision={node.name}: is chosen on the validation images, and none of them is of the class "
            f"{names[int(np.argmin(present))]}; see dataset.validation_fraction, or take decision=argmax"
        )
    if costs is not None:
        both = {"missed": costs[positive][1 - positive], "false_alarm": costs[1 - positive][positive]}
        choose = partial_from_config("decision", node, omit=("positive", "calibration", "costs"), **both)
    else:
        choose = partial_from_config("decision", node, omit=("positive", "calibration"))
    if not node._target_.startswith(f"{HOMES['decision']}."):
        choose = partial(_checked, node._target_, choose)
        choose(np.array([True, False]), np.array([0.9, 0.1]))  # refused before anything is trained
    return DecisionPlan(node.name, positive, choose, costs, heats)


def _positive(node: DecisionConfig, names: tuple[str, ...]) -> int:
    if node.positive is None:
        return 1
    if node.positive not in names:
        there = shown_names(node.positive, names)
        raise UserError(f"decision.positive={node.positive}: there is no such class; there are {there}")
    if len(names) != 2:
        raise UserError(
            f"decision.positive={node.positive}: one of two classes is the positive one, and the data has "
            f"{len(names)}; leave it out"
        )
    return names.index(node.positive)


def _costs(given: dict[str, Any] | None, names: tuple[str, ...]) -> tuple[tuple[float, ...], ...]:
    """(K, K): 0 for right answers, and 1 for a wrong one that is not named."""
    matrix = 1 - np.eye(len(names))
    for truth, row in (given or {}).items():
        for answer, value in row.items():
            for key, name in ((f"decision.costs.{truth}", truth), (f"decision.costs.{truth}.{answer}", answer)):
                if str(name) not in names:
                    raise UserError(f"{key}: there is no class {name}; there are {shown_names(str(name), names)}")
            matrix[names.index(str(truth)), names.index(str(answer))] = value
    return tuple(tuple(map(float, row)) for row in matrix)


def _checked(
    target: str, choose: Callable[[np.ndarray, np.ndarray], Any], positive: np.ndarray, score: np.ndarray
) -> float:
    """The threshold of a rule of one's own."""
    try:
        found = choose(positive, score)
    except Exception as error:  # of the user's own code
        raise UserError(f"decision._target_={target}: {type(error).__name__}: {first_line(error)}") from error
    if isinstance(found, bool) or not isinstance(found, int | float | np.floating) or not 0 <= found <= 1:
        raise UserError(f"decision._target_={target}: returned {found!r}; must be a threshold from 0 to 1")
    return float(found)


def decide(plan: DecisionPlan, fitted: FitResult, dataset: Dataset) -> tuple[FitResult, dict[str, float]]:
    """Choose temperature and threshold on the validation images.

    Args:
        plan: what is asked for.
        fitted: what the training gave.
        dataset: whose labels are those of the answers.

    Returns:
        `fitted` with calibrated model and probabilities, the decision, and the figures of these; and the figures that a
        run records below `x/decision/`: threshold, recall and precision of the positive class, or the mean cost, of
        validation and test images; the temperature, and log_loss, brier, ece without it.
    """
    if plan.choose is None and plan.costs is None and not plan.heats:
        return replace(fitted, decision=Decision(plan.rule, plan.positive)), {}
    validation, test = dataset.validation.labels, dataset.test.labels
    found: dict[str, float] = {}
    temperature = fit_temperature(fitted.validation_probabilities, validation) if plan.heats else None
    if temperature is not None:
        for split, labels, outputs in (
            ("val", validation, fitted.validation_probabilities),
            ("test", test, fitted.probabilities),
        ):
            before = figures(Table(labels, class_probabilities(outputs)), CALIBRATION)
            found |= {f"{split}_{name}_before": value for name, value in before.items()}
        found["temperature"] = temperature
        fitted = replace(
            fitted,
            model=calibrated(fitted.model, temperature),
            validation_probabilities=with_temperature(fitted.validation_probabilities, temperature),
            probabilities=with_temperature(fitted.probabilities, temperature),
        )
    elif plan.heats:
        warn(
            "cnnexp: decision.calibration=temperature: no temperature makes the validation answers better, as where "
            "all are right; the probabilities stay the network's own"
        )
    probabilities = class_probabilities(fitted.validation_probabilities)
    threshold = None
    if plan.choose is not None:
        threshold = plan.choose(validation == plan.positive, probabilities[:, plan.positive])
        found["threshold"] = threshold
    costs = plan.costs if threshold is None else None
    decision = Decision(plan.rule, plan.positive, threshold, costs, temperature)
    losses, accuracies = {}, {}
    for split, labels, outputs in (
        ("val", validation, fitted.validation_probabilities),
        ("test", test, fitted.probabilities),
    ):
        predicted = decision.classes(class_probabilities(outputs))
        losses[split], _ = loss_and_accuracy(outputs, labels)
        accuracies[split] = float((predicted == labels).mean())
        if plan.costs is not None:
            found[f"{split}_cost"] = float(np.array(plan.costs)[labels, predicted].mean())
        if threshold is not None:
            point = operating_point(labels, predicted, plan.positive)
            found |= {f"{split}_recall": point.recall, f"{split}_precision": point.precision}
    fitted = replace(
        fitted,
        decision=decision,
        validation_loss=losses["val"],
        validation_accuracy=accuracies["val"],
        test_loss=losses["test"],
        test_accuracy=accuracies["test"],
    )
    return fitted, {decision_figure(name): value for name, value in found.items() if np.isfinite(value)}


def show_decision(config: Config, decision: Decision, names: tuple[str, ...], metrics: Mapping[str, float]) -> None:
    """Say what was chosen, and what it gives and costs.

    Args:
        metrics: of the run, those of `decide` among them.
    """
    if said := decision.in_words(names):
        say(f"answers: {said}")
    figure = {name.removeprefix(decision_figure("")): value for name, value in metrics.items()}
    if decision.threshold is not None:
        shares = [
            f"recall {figure.get(f'{split}_recall', 0):.3f}, precision {figure.get(f'{split}_precision', 0):.3f} {of}"
            for split, of in (("val", "on validation"), ("test", "on test"))
        ]
        say(f"{names[decision.positive]}: {'; '.join(shares)}")
        wanted = getattr(config.decision, "precision", None)
        if wanted is not None and figure.get("val_precision", 0) < wanted:
            warn(
                f"cnnexp: decision.precision={wanted}: no threshold gives it on the validation images; this is the best"
            )
    if "test_cost" in figure:
        say(f"mean cost of an answer: {figure['val_cost']:.4g} on validation, {figure['test_cost']:.4g} on test")
    if decision.temperature is not None:
        changes = [
            f"{words} {figure[f'test_{name}_before']:.4f} to {metrics[f'test/{name}']:.4f}"
            for name, words in (("log_loss", "log loss"), ("ece", "calibration error"))
        ]
        say(f"by the temperature, on test: {', '.join(changes)}")
