"""The typed schema of every config group, with the limits of each value beside its declaration.

The values themselves stand in `conf/`; Hydra composes them into these dataclasses, so that an unknown key or a wrong
type is refused by Hydra, and `typed` checks the rest (ranges, choices, relations) before anything heavy is imported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from cnnexp.errors import UserError, nearest

PREPROCESSING = ("caffe", "tf", "torch", "lite", "rescale", "none")


def option(
    default: Any = MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A config field with its limits: inclusive (`minimum`, `maximum`), exclusive (`above`, `below`), or `choices`."""
    limits = {"minimum": minimum, "maximum": maximum, "above": above, "below": below, "choices": choices}
    metadata = {name: limit for name, limit in limits.items() if limit is not None}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


# ----------------------------------------------------------------------------------------------- dataset


@dataclass
class DatasetConfig:
    """Where images come from. `_target_` may name a function of one's own; it gets `arguments` as keywords."""

    _target_: str = MISSING
    name: str = MISSING
    image_size: int = option(150, minimum=8, maximum=4096)  # pixels, height and width
    limit: Optional[int] = option(None, minimum=2)  # at most so many images of each split
    arguments: dict[str, Any] = option({})


@dataclass
class ImageFilesConfig(DatasetConfig):
    """A data set that lies on disk as image files."""

    path: Optional[str] = None
    on_bad: str = option("error", choices=("error", "skip"))  # what to do with a file that cannot be read


@dataclass
class FolderConfig(ImageFilesConfig):
    """Class subfolders, with or without train/validation/test folders above them."""

    validation_fraction: float = option(0.25, above=0, below=1)  # used where the folder has no split of its own
    test_fraction: float = option(0.25, above=0, below=1)
    split_seed: int = option(0, minimum=0)

    def check(self) -> None:
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError(
                f"dataset.validation_fraction + dataset.test_fraction is "
                f"{self.validation_fraction + self.test_fraction:g}: it must be less than 1, so that photos to train on remain"
            )


@dataclass
class DogsVsCatsConfig(ImageFilesConfig):
    """The Kaggle photos, split by number as in the tutorial."""

    source: Optional[str] = None  # Kaggle's `train/` folder; `path` is where the split is prepared


@dataclass
class MnistConfig(DatasetConfig):
    """MNIST from `keras.datasets.mnist`, or from a local `mnist.npz`."""

    path: Optional[str] = None
    validation_size: int = option(5000, minimum=10, maximum=50000)  # taken from the 60,000 training images
    split_seed: int = option(0, minimum=0)


@dataclass
class DigitsConfig(DatasetConfig):
    """scikit-learn's 1797 handwritten digits, 8x8."""

    validation_fraction: float = option(0.2, above=0, below=1)
    test_fraction: float = option(0.2, above=0, below=1)
    split_seed: int = option(0, minimum=0)

    check = FolderConfig.check


@dataclass
class SyntheticConfig(ImageFilesConfig):
    """Cats and dogs drawn with OpenCV."""

    train: int = option(2000, minimum=2)
    validation: int = option(1000, minimum=2)
    test: int = option(1000, minimum=2)
    size: int = option(180, minimum=32, maximum=1024)  # pixels of a drawn picture, before resizing
    seed: int = option(0, minimum=0)

    def check(self) -> None:
        for name in ("train", "validation", "test"):
            if getattr(self, name) % 2:
                raise UserError(f"dataset.{name}={getattr(self, name)}: must be even, half cats and half dogs")


# ------------------------------------------------------------------------------------------ augmentation


@dataclass
class AugmentationConfig:
    """Random changes of the training images; `_target_: null` is none."""

    _target_: Optional[str] = MISSING
    name: str = MISSING
    arguments: dict[str, Any] = option({})


@dataclass
class GeometricConfig(AugmentationConfig):
    """The parameters of Keras' ImageDataGenerator, with its meaning."""

    rotation_range: float = option(0.0, minimum=0, maximum=180)  # degrees
    width_shift_range: float = option(0.0, minimum=0)  # fraction below 1, pixels from 1 on
    height_shift_range: float = option(0.0, minimum=0)
    shear_range: float = option(0.0, minimum=0, below=90)  # degrees
    zoom_range: float = option(0.0, minimum=0, below=1)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill_mode: str = option("nearest", choices=("nearest", "reflect", "constant"))


@dataclass
class StrongConfig(GeometricConfig):
    """Geometric, then colour jitter, then random erasing."""

    brightness: float = option(0.0, minimum=0, maximum=1)
    contrast: float = option(0.0, minimum=0, maximum=1)
    saturation: float = option(0.0, minimum=0, maximum=1)
    erasing_probability: float = option(0.0, minimum=0, maximum=1)
    erasing_min_area: float = option(0.02, above=0, below=1)
    erasing_max_area: float = option(0.2, above=0, below=1)
    erasing_min_aspect: float = option(0.3, above=0, maximum=1)


# ---------------------------------------------------------------------------------------------- backbone


@dataclass
class BackboneConfig:
    """The feature extractor. `weights`: imagenet, a local weights file, or null (random)."""

    _target_: str = MISSING
    name: str = MISSING
    weights: Optional[str] = None
    preprocessing: str = option("rescale", choices=PREPROCESSING)
    finetune_from: Optional[str] = None  # first layer that `freeze_policy=until_layer` trains
    arguments: dict[str, Any] = option({})


@dataclass
class ConvnetConfig(BackboneConfig):
    """Convolutions and max-pools from scratch."""

    filters: list[int] = option([32, 64, 128, 128])
    pool_last: bool = True

    def check(self) -> None:
        if not self.filters or min(self.filters) < 1:
            raise UserError(f"backbone.filters={list(self.filters)}: must be a list of positive numbers, as [32,64,128]")


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


# ----------------------------------------------------------------------------------------- freeze policy


@dataclass
class FreezePolicyConfig:
    """Which part of the backbone is trained."""

    mode: str = option("none", choices=("none", "full", "until_layer"))
    first_trainable_layer: Optional[str] = None

    def check(self) -> None:
        if self.mode == "until_layer" and self.first_trainable_layer is None:
            raise UserError(
                "freeze_policy.first_trainable_layer=null: freeze_policy=until_layer needs the name of a layer of the "
                "backbone (`cnnexp summary` lists them), and this backbone declares no backbone.finetune_from"
            )


# --------------------------------------------------------------------------------------------- optimizer


@dataclass
class ScheduleConfig:
    """Learning rate over the run: linear warm-up to the optimizer's rate, then this shape."""

    name: str = option("constant", choices=("constant", "cosine", "exponential"))
    warmup_epochs: float = option(0.0, minimum=0)
    final_fraction: float = option(0.0, minimum=0, maximum=1)  # of the learning rate, reached at the last step

    def check(self) -> None:
        if self.name == "exponential" and self.final_fraction == 0:
            raise UserError("optimizer.schedule.final_fraction=0: an exponential schedule needs more than 0, as 0.01")


@dataclass
class OptimizerConfig:
    """A Keras optimizer; its other parameters go into `arguments`."""

    _target_: str = MISSING
    name: str = MISSING
    learning_rate: float = option(1e-3, above=0)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    arguments: dict[str, Any] = option({})


@dataclass
class RmspropConfig(OptimizerConfig):
    """keras.optimizers.RMSprop"""

    rho: float = option(0.9, minimum=0, below=1)
    momentum: float = option(0.0, minimum=0, below=1)
    epsilon: float = option(1e-7, above=0)


@dataclass
class AdamConfig(OptimizerConfig):
    """keras.optimizers.Adam"""

    beta_1: float = option(0.9, minimum=0, below=1)
    beta_2: float = option(0.999, minimum=0, below=1)
    epsilon: float = option(1e-7, above=0)


@dataclass
class AdamwConfig(AdamConfig):
    """keras.optimizers.AdamW"""

    weight_decay: float = option(0.004, minimum=0)


@dataclass
class SgdConfig(OptimizerConfig):
    """keras.optimizers.SGD"""

    momentum: float = option(0.9, minimum=0, below=1)
    nesterov: bool = False


# ------------------------------------------------------------------------------- trainer, tracking, paths


@dataclass
class TrainerConfig:
    """The training loop."""

    epochs: int = option(30, minimum=1)
    batch_size: int = option(20, minimum=1)
    steps_per_epoch: Optional[int] = option(None, minimum=1)  # null: as many as one pass over the images takes
    evaluation_batch_size: int = option(64, minimum=1)
    monitor: str = option("val/acc", choices=("val/acc", "val/loss", "train/acc", "train/loss"))
    feature_cache: bool = True  # compute what a frozen part puts out once, and keep it on disk
    loader_threads: int = option(2, minimum=1)
    deterministic: bool = True


@dataclass
class TrackingConfig:
    """Where runs are recorded; `uri: null` records only into the run folder."""

    uri: Optional[str] = None
    experiment: str = "cnnexp"
    artifact_root: str = MISSING
    log_model: bool = True
    tags: dict[str, str] = option({})


@dataclass
class PathsConfig:
    """Everything that is written goes under `root`."""

    root: str = "outputs"
    data: str = MISSING
    cache: str = MISSING
    runs: str = MISSING


@dataclass
class Config:
    """The whole configuration, as `cnnexp train --cfg job` shows it."""

    name: str = "baseline"  # of the variant, in tables and charts
    seed: int = option(0, minimum=0, maximum=2**31 - 1)
    reference_accuracy: Optional[float] = option(None, minimum=0, maximum=1)  # a published figure to stand beside ours
    dataset: DatasetConfig = MISSING
    augmentation: AugmentationConfig = MISSING
    backbone: BackboneConfig = MISSING
    head: HeadConfig = MISSING
    freeze_policy: FreezePolicyConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    trainer: TrainerConfig = MISSING
    tracking: TrackingConfig = MISSING
    paths: PathsConfig = MISSING

    def check(self) -> None:
        if self.optimizer.schedule.warmup_epochs > self.trainer.epochs:
            raise UserError(
                f"optimizer.schedule.warmup_epochs={self.optimizer.schedule.warmup_epochs:g}: more than "
                f"trainer.epochs={self.trainer.epochs}"
            )


SCHEMAS: dict[str, dict[str, type]] = {
    "dataset": {
        "custom": DatasetConfig,
        "folder": FolderConfig,
        "dogs_vs_cats": DogsVsCatsConfig,
        "mnist": MnistConfig,
        "digits": DigitsConfig,
        "synthetic": SyntheticConfig,
    },
    "augmentation": {"none": AugmentationConfig, "geometric": GeometricConfig, "strong": StrongConfig},
    "backbone": {"pretrained": BackboneConfig, "convnet": ConvnetConfig},
    "head": {"flatten_dense": FlattenDenseConfig, "pooled": PooledConfig},
    "optimizer": {"rmsprop": RmspropConfig, "adam": AdamConfig, "adamw": AdamwConfig, "sgd": SgdConfig},
}


def register() -> None:
    """Put the schemas into Hydra's ConfigStore: `schema` for the root, `schema/GROUP/NAME` for each option's type."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, options in SCHEMAS.items():
        for name, node in options.items():
            store.store(group=f"schema/{group}", name=name, node=node)


def typed(config: DictConfig) -> Config:
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
    assert isinstance(result, Config)
    for prefix, node in _walk(result, ""):
        _check_names(prefix, node)
        _check_limits(prefix, node)
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


def _check_names(prefix: str, node: Any) -> None:
    """Refuse what Hydra's `+KEY=VALUE` can add beside the declared fields."""
    known = [item.name for item in fields(node)]
    for name in vars(node):
        if name not in known:
            hint = f"; for a function of your own: +{prefix}arguments.{name}=VALUE" if "arguments" in known else ""
            allowed = ", ".join(f"{prefix}{near}" for near in nearest(name, known))
            raise UserError(f"{prefix}{name}: no such key; allowed: {allowed}{hint}")


def _check_limits(prefix: str, node: Any) -> None:
    for item in fields(node):
        value, limits = getattr(node, item.name), item.metadata
        if value is None or not limits:
            continue
        key = f"{prefix}{item.name}"
        if "choices" in limits:
            if value not in limits["choices"]:
                raise UserError(f"{key}={value}: must be one of {', '.join(nearest(value, list(limits['choices'])))}")
            continue
        bounds = {
            "at least": ("minimum", lambda bound, value=value: value >= bound),
            "at most": ("maximum", lambda bound, value=value: value <= bound),
            "more than": ("above", lambda bound, value=value: value > bound),
            "less than": ("below", lambda bound, value=value: value < bound),
        }
        wanted = [f"{words} {limits[name]:g}" for words, (name, _) in bounds.items() if name in limits]
        # `not holds` rather than its opposite, so that nan is refused too
        if not all(holds(limits[name]) for name, holds in bounds.values() if name in limits):
            raise UserError(f"{key}={value}: must be {' and '.join(wanted)}")
