"""The typed schema of the whole configuration; the part of each group, with its limits, in the file of its name.

The values themselves stand in `conf/`. Hydra composes them into these dataclasses and refuses an unknown key
or a wrong type; `validated` checks the rest (ranges, choices, relations) before anything heavy is imported.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from cnnexp.config.data import AUGMENTATIONS, DATASETS, AugmentationConfig, DatasetConfig
from cnnexp.config.decision import DECISIONS, DecisionConfig
from cnnexp.config.limits import check_keywords, check_limits, option
from cnnexp.config.loss import LOSSES, LossConfig
from cnnexp.config.network import BACKBONES, HEADS, BackboneConfig, FreezePolicyConfig, HeadConfig
from cnnexp.config.phases import PhaseConfig
from cnnexp.config.targets import HOMES
from cnnexp.config.training import (
    OPTIMIZERS,
    OptimizerConfig,
    PathsConfig,
    SweepConfig,
    TrackingConfig,
    TrainerConfig,
)
from cnnexp.errors import UserError, nearest


@dataclass
class Config:
    """The whole configuration, as `cnnexp train --cfg job` shows it."""

    name: str = option("baseline", doc="The variant's name, in tables, in charts and in MLflow.")
    seed: int = option(
        0,
        minimum=0,
        maximum=2**31 - 1,
        doc="Decides initial weights, the order of the images, augmentation and dropout.",
    )
    reference_accuracy: Optional[float] = option(
        None, minimum=0, maximum=1, doc="A published test accuracy, to stand beside ours in the comparison."
    )
    dataset: DatasetConfig = option(doc="Where the images come from.")
    augmentation: AugmentationConfig = option(doc="How the training images are changed at random.")
    backbone: BackboneConfig = option(doc="The feature extractor.")
    head: HeadConfig = option(doc="What turns features into class probabilities.")
    freeze_policy: FreezePolicyConfig = option(doc="Which part of the backbone is trained.")
    loss: LossConfig = option(LossConfig, doc="What the training makes small.")
    decision: DecisionConfig = option(DecisionConfig, doc="How probabilities become an answer.")
    optimizer: OptimizerConfig = option(doc="How weights are updated.")
    trainer: TrainerConfig = option(doc="The training loop.")
    tracking: TrackingConfig = option(doc="Where runs are recorded.")
    paths: PathsConfig = option(doc="Where files are written.")
    sweep: SweepConfig = option(SweepConfig, doc="How the jobs of a sweep are run.")
    phases: dict[str, PhaseConfig] = option(
        dict, doc="The parts of a training, by name, in their order; without any, the keys above describe the only one."
    )

    def check(self) -> None:
        if not self.name.strip():
            raise UserError(f"name={self.name!r}: must not be empty; name the variant, as name=baseline")
        for key, epochs, optimizer in self.schedules():
            if optimizer.schedule.warmup_epochs > epochs:
                warmup = f"{optimizer.schedule.warmup_epochs:g}"
                raise UserError(
                    f"{key}optimizer.schedule.warmup_epochs={warmup}: more than {key or 'trainer.'}epochs={epochs}"
                )
        if self.trainer.augmented_passes and not self.trainer.feature_cache:
            raise UserError(
                f"trainer.augmented_passes={self.trainer.augmented_passes}: are kept in the feature cache, "
                "which trainer.feature_cache=false turns off; leave one of the two away"
            )
        if self.trainer.augmented_passes and self.augmentation.mixup:
            raise UserError(
                f"augmentation.mixup={self.augmentation.mixup:g}: mixes images anew in each step, which "
                f"trainer.augmented_passes={self.trainer.augmented_passes} cannot keep; leave one of the two away"
            )

    def schedules(self) -> list[tuple[str, int, OptimizerConfig]]:
        """Key prefix, epochs and optimizer of each phase."""
        limit = self.trainer.max_epochs or sys.maxsize
        if not self.phases:
            return [("", min(self.trainer.epochs, limit), self.optimizer)]
        return [
            (f"phases.{name}.", min(phase.epochs or self.trainer.epochs, limit), phase.optimizer or self.optimizer)
            for name, phase in self.phases.items()
        ]


SCHEMAS: dict[str, dict[str, type]] = {  # of the groups whose options have keys of their own
    "dataset": DATASETS,
    "augmentation": AUGMENTATIONS,
    "backbone": BACKBONES,
    "head": HEADS,
    "loss": LOSSES,
    "decision": DECISIONS,
    "optimizer": OPTIMIZERS,
}


def schema_of(group: str, target: str | None) -> type | None:
    """The schema of a function of cnnexp or an optimizer of Keras, if an option is called like it."""
    home, _, name = str(target).rpartition(".")
    is_known = group in HOMES and f"{home}.".startswith(f"{HOMES[group]}.")
    return SCHEMAS[group].get(name.lower()) if is_known else None


def register() -> None:
    """Put the schemas into Hydra's ConfigStore: `schema` for the root, `schema/GROUP/NAME` for options."""
    store = ConfigStore.instance()
    if "schema.yaml" in store.repo:  # a tenth of a composition's time
        return
    store.store(name="schema", node=Config)
    for group, options in SCHEMAS.items():
        for name, node in options.items():
            store.store(group=f"schema/{group}", name=name, node=node)


def validated(config: DictConfig) -> Config:
    """The composed config as dataclasses, every value checked.

    Raises:
        UserError: the first value that is missing or not allowed, named by its dotted key.
    """
    try:
        result = OmegaConf.to_object(config)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: no value given; set it, as {error.full_key}=VALUE") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {str(error.msg or error).splitlines()[0]}") from error
    if not isinstance(result, Config):
        raise UserError(
            "the config has no schema: begin its defaults list with `- schema`, as conf/config.yaml; "
            "what a run recorded is trained again by `cnnexp reproduce RUN`"
        )
    check_limits("paths.", result.paths)  # before the places that lie below them
    for prefix, node in _walk(result, ""):
        _check_names(prefix, node)
        check_limits(prefix, node)
        _check_arguments(prefix, node)
    for _, node in _walk(result, ""):
        if hasattr(node, "check"):
            node.check()
    return result


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, node
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from _walk(value, f"{prefix}{item.name}.")
        elif isinstance(value, dict):
            for name, below in value.items():
                if is_dataclass(below):
                    yield from _walk(below, f"{prefix}{item.name}.{name}.")


def _check_names(prefix: str, node: Any) -> None:
    """Refuse what Hydra's `+KEY=VALUE` can add beside the declared fields, or once more in `arguments`."""
    known = [item.name for item in fields(node)]
    for name in getattr(node, "arguments", {}):
        if name in known:
            raise UserError(f"{prefix}arguments.{name}: is a key of its own; set {prefix}{name}")
    for name in vars(node):
        if name not in known:
            allowed = ", ".join(f"{prefix}{near}" for near in nearest(name, known))
            hint = f"; for a function of your own: +{prefix}arguments.{name}=VALUE"
            given = f"{prefix}{name}={getattr(node, name)}"
            raise UserError(f"{given}: no such key; allowed: {allowed}{hint * ('arguments' in known)}")


def _check_arguments(prefix: str, node: Any) -> None:
    """What a known function gets by `arguments` has the types and limits of its schema, as its own keys have."""
    if not getattr(node, "arguments", None):
        return
    schema = schema_of(prefix.split(".")[-2], node._target_)
    if schema is not None:
        declared = {item.name: getattr(node, item.name) for item in fields(node)}
        check_keywords(f"{prefix}arguments.", schema, declared | node.arguments)
