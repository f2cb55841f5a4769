"""The config groups `backbone`, `head` and `freeze_policy`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from cnnexp.config.limits import option
from cnnexp.errors import UserError

PREPROCESSING = ("caffe", "tf", "torch", "lite", "rescale", "none")
FREEZE_MODES = ("none", "full", "until_layer")


@dataclass
class BackboneConfig:
    """The feature extractor. `weights`: imagenet, a local weights file, or null (random)."""

    _target_: str = option(
        doc="The function that returns the cnnexp.models.backbone.Backbone; one of your own goes with backbone=custom."
    )
    name: str = option(doc="The network's name.")
    weights: Optional[str] = option(
        None, place=True, doc="imagenet, a local file of weights, or null for random weights."
    )
    preprocessing: str = option(
        "rescale",
        choices=PREPROCESSING,
        doc="How raw values are scaled: as the network's weights were trained, rescale for 1/255, or none.",
    )
    finetune_from: Optional[str] = option(
        None, doc="The first layer that freeze_policy=until_layer trains, if the policy names none."
    )
    arguments: dict[str, Any] = option({}, doc="Keywords for a function of your own.")

    def check(self) -> None:
        if self.weights not in (None, "imagenet") and not Path(self.weights).expanduser().is_file():
            raise UserError(
                f"backbone.weights={self.weights}: there is no such file; "
                "give the path of a weights file, imagenet, or null for random weights"
            )


@dataclass
class PretrainedConfig(BackboneConfig):
    """A published network with its ImageNet weights, from the file that `paths.weights` has for it, if any."""

    weights: Optional[str] = option(
        "${oc.select:paths.weights.${.name},imagenet}",
        place=True,
        doc="imagenet (from paths.weights, if the network has a file there), a local file, or null for random.",
    )


@dataclass
class ConvnetConfig(BackboneConfig):
    """Convolutions and max-pools from scratch."""

    filters: list[int] = option([32, 64, 128, 128], doc="The filters of the convolution of each block.")
    pool_last: bool = option(True, doc="Whether the last block ends in max-pooling too.")

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


BACKBONES: dict[str, type] = {"custom": BackboneConfig, "pretrained": PretrainedConfig, "convnet": ConvnetConfig}

# -------------------------------------------------------------------------------------------------- head


@dataclass
class HeadConfig:
    """What turns features into class probabilities."""

    _target_: str = option(
        doc="The function from features to class probabilities; one of your own goes with head=custom."
    )
    name: str = option(doc="The head's name.")
    arguments: dict[str, Any] = option({}, doc="Keywords for a function of your own.")


@dataclass
class FlattenDenseConfig(HeadConfig):
    """Flatten, dense layer, output."""

    units: int = option(512, minimum=1, doc="Width of the dense layer.")
    input_dropout: float = option(0.0, minimum=0, below=1, doc="Dropout rate before the dense layer; 0: none.")
    dropout: float = option(0.0, minimum=0, below=1, doc="Dropout rate after the dense layer; 0: none.")


@dataclass
class PooledConfig(HeadConfig):
    """Global average pooling, optional dense layer, output."""

    units: int = option(0, minimum=0, doc="Width of a dense layer between pooling and output; 0: none.")
    dropout: float = option(0.0, minimum=0, below=1, doc="Dropout rate before the output; 0: none.")


HEADS: dict[str, type] = {"custom": HeadConfig, "flatten_dense": FlattenDenseConfig, "pooled": PooledConfig}

# ----------------------------------------------------------------------------------------- freeze policy


@dataclass
class FreezePolicyConfig:
    """Which part of the backbone is trained."""

    mode: str = option(
        "none",
        choices=FREEZE_MODES,
        doc="none trains the whole backbone, full nothing of it, until_layer what lies from first_trainable_layer on.",
    )
    first_trainable_layer: Optional[str] = option(
        None, doc="The first layer of the backbone that is trained; `cnnexp summary` lists them."
    )

    def check(self) -> None:
        if self.mode == "until_layer" and self.first_trainable_layer is None:
            raise UserError(
                "freeze_policy.first_trainable_layer=null: freeze_policy=until_layer needs the name of a "
                "layer (`cnnexp summary` lists them), and this backbone declares no backbone.finetune_from"
            )
