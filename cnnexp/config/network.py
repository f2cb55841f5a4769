"""The config groups `backbone`, `head` and `freeze_policy`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from cnnexp.config.limits import option
from cnnexp.errors import UserError

PREPROCESSING = ("caffe", "tf", "torch", "lite", "rescale", "none")
FREEZE_MODES = ("none", "full", "until_layer")


@dataclass
class BackboneConfig:
    """The feature extractor. `weights`: imagenet, a local weights file, or null (random)."""

    _target_: str = MISSING
    name: str = MISSING
    weights: Optional[str] = None
    preprocessing: str = option("rescale", choices=PREPROCESSING)
    finetune_from: Optional[str] = None  # first layer that `freeze_policy=until_layer` trains
    arguments: dict[str, Any] = option({})

    def check(self) -> None:
        if self.weights not in (None, "imagenet") and not Path(self.weights).expanduser().is_file():
            raise UserError(
                f"backbone.weights={self.weights}: there is no such file; "
                "give the path of a weights file, imagenet, or null for random weights"
            )


@dataclass
class PretrainedConfig(BackboneConfig):
    """A published network with its ImageNet weights, from the file that `paths.weights` has for it, if any."""

    weights: Optional[str] = "${oc.select:paths.weights.${.name},imagenet}"


@dataclass
class ConvnetConfig(BackboneConfig):
    """Convolutions and max-pools from scratch."""

    filters: list[int] = option([32, 64, 128, 128])
    pool_last: bool = True

    def check(self) -> None:
        super().check()
        if self.weights == "imagenet":
            raise UserError(
                f"backbone.weights=imagenet: {self.name} has no ImageNet weights; "
                "give the path of a weights file, or null for random weights"
            )
        if not self.filters or min(self.filters) < 1:
            raise UserError(
                f"backbone.filters={list(self.filters)}: must be a list of positive numbers, as [32,64,128]"
            )


BACKBONES: dict[str, type] = {"pretrained": PretrainedConfig, "convnet": ConvnetConfig}

# -------------------------------------------------------------------------------------------------- head


@dataclass
class HeadConfig:
    """What turns features into class probabilities."""

    _target_: str = MISSING
    name: str = MISSING
    arguments: dict[str, Any] = option({})


@dataclass
class FlattenDenseConfig(HeadConfig):
    """Flatten, dense layer, output."""

    units: int = option(512, minimum=1)
    input_dropout: float = option(0.0, minimum=0, below=1)  # before the dense layer
    dropout: float = option(0.0, minimum=0, below=1)  # after it


@dataclass
class PooledConfig(HeadConfig):
    """Global average pooling, optional dense layer, output."""

    units: int = option(0, minimum=0)
    dropout: float = option(0.0, minimum=0, below=1)


HEADS: dict[str, type] = {"flatten_dense": FlattenDenseConfig, "pooled": PooledConfig}

# ----------------------------------------------------------------------------------------- freeze policy


@dataclass
class FreezePolicyConfig:
    """Which part of the backbone is trained."""

    mode: str = option("none", choices=FREEZE_MODES)
    first_trainable_layer: Optional[str] = None

    def check(self) -> None:
        if self.mode == "until_layer" and self.first_trainable_layer is None:
            raise UserError(
                "freeze_policy.first_trainable_layer=null: freeze_policy=until_layer needs the name of a "
                "layer (`cnnexp summary` lists them), and this backbone declares no backbone.finetune_from"
            )
