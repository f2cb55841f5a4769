"""From the config to the parts of a run: data, network, phases."""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnexp.config import Config
from cnnexp.config.loss import LossConfig
from cnnexp.config.network import BackboneConfig, FreezePolicyConfig
from cnnexp.config.targets import HOMES, partial_from_config
from cnnexp.config.training import OptimizerConfig
from cnnexp.data.array_store import GIB
from cnnexp.data.balance import image_counts
from cnnexp.data.dataset import Dataset, Split
from cnnexp.data.loading import CacheLimits, ImageLoader
from cnnexp.errors import UserError, shown_names
from cnnexp.files import writable
from cnnexp.metrics.names import VAL_LOSS
from cnnexp.metrics.registry import Table, figures, use_own
from cnnexp.models.backbone import Backbone
from cnnexp.models.build import Network, build_model, layers_with
from cnnexp.models.freeze import apply_freeze_policy, layer_factors
from cnnexp.models.kept import forget_network, kept_network
from cnnexp.runs.decision import DecisionPlan, decision_plan
from cnnexp.runs.memory import check_network
from cnnexp.training.callbacks import EpochListener
from cnnexp.training.devices import Strategy
from cnnexp.training.feature_store import FeatureStore
from cnnexp.training.inputs import Augmentation, SplitData, Training, TrainingData
from cnnexp.training.losses import LossPlan
from cnnexp.training.optimizers import OptimizerPlan
from cnnexp.training.phases import Phase
from cnnexp.training.trainer import FitResult, train

SINGLE = "training"  # the phase of a run that lists none
SPLITS = 3  # train, validation, test
_images: dict[tuple[Any, ...], ImageLoader] = {}  # of the data set of the last run


@dataclass(frozen=True)
class RunParts:
    """What a config comes to.

    dataset:  the images with their labels; `data` holds them as the training takes them.
    network:  with the freeze policy of its last phase.
    decision: how probabilities are to become answers.
    strategy: for several devices, or None.
    """

    config: Config
    dataset: Dataset
    data: TrainingData
    network: Network
    decision: DecisionPlan
    strategy: Strategy | None = None


def assemble(config: Config, dataset: Dataset, strategy: Strategy | None = None, share: bool = False) -> RunParts:
    """Make the parts; with `share` the network of the run before in this process serves again, where it can."""
    decision = check_fits(config, dataset)
    build = network_for if share else build_network
    data = training_data(config, dataset)
    network = build(config, dataset.channels, len(dataset.class_names), strategy)
    return RunParts(config, dataset, data, network, decision, strategy)


def check_fits(config: Config, dataset: Dataset) -> DecisionPlan:
    """Refuse figures, loss and decision that do not fit the data, before anything is built or recorded.

    From here on the figures of the user's own are those of this config.

    Raises:
        UserError: of `check_figures`, `loss_plan` or `decision_plan`.
    """
    use_own(_own_figures(config))
    check_figures(config, dataset)
    loss_plan(config, dataset)
    return decision_plan(config, dataset)


def check_parts(config: Config) -> None:
    """Refuse what can be refused before any data is read or weights are loaded: a layer that the backbone does not
    have; an optimizer, a loss, an augmentation or a figure that does not take what the config has for it.

    Raises:
        UserError: that.
    """
    check_layer_names(config)
    check_optimizers(config)
    _own_figures(config)
    _loss(config)
    augmentation(config)


def _own_figures(config: Config) -> dict[str, Callable[..., Any]]:
    own = config.trainer.own_figures().items()
    return {name: partial_from_config(f"trainer.figures.{name}", node) for name, node in own}


def check_figures(config: Config, dataset: Dataset) -> None:
    """Refuse figures that are not defined for the validation images, before anything is trained.

    Raises:
        UserError: a figure of the user's own fails; an area where all images are of one class; the five most probable
            of no more than five classes.
    """
    labels, classes = dataset.validation.labels, len(dataset.class_names)
    defined = figures(Table(labels, np.full((len(labels), classes), 1 / classes)))
    for key, name in [
        ("trainer.monitor", config.trainer.monitor),
        *(("trainer.epoch_metrics", f"val/{name}") for name in config.trainer.epoch_metrics or []),
    ]:
        if name.startswith("val/") and name != VAL_LOSS and name.removeprefix("val/") not in defined:
            present = len(np.unique(labels))
            raise UserError(
                f"{key}={name}: is not defined for {present} classes among the validation images; take another figure, "
                "as val/f1_macro"
            )


def augmentation(config: Config) -> Augmentation:
    """The random changes of the training images."""
    node = config.augmentation
    described = {key: value for key, value in asdict(node).items() if key not in ("name", "seed", "mixup")}
    return Augmentation(
        transform=partial_from_config("augmentation", node, omit=("seed", "mixup"))()
        if node._target_ is not None
        else None,
        description=json.dumps(described, sort_keys=True),
        seed=config.seed if node.seed is None else node.seed,
        mixup=node.mixup,
    )


def split_images(config: Config, split: Split, image_size: int, channels: int) -> ImageLoader:
    """The images of a split, read when they are needed, and kept as `trainer` and `paths.cache` say.

    The jobs of a sweep on the same images share them: what one has decoded, the next need not.
    """
    trainer = config.trainer
    room = CacheLimits(
        memory_bytes=int(trainer.image_memory_limit * GIB),
        folder=writable(config.paths.cache) / "images",
        folder_bytes=int(trainer.image_cache_limit * GIB),
    )
    lies = split.paths[0] if split.paths is not None and len(split.paths) else None
    key = (split.name, split.digest, lies, image_size, channels, trainer.loader_threads, room)
    if key not in _images:
        while len(_images) >= SPLITS:
            del _images[next(iter(_images))]
        _images[key] = ImageLoader(split, image_size, channels, trainer.loader_threads, room)
    return _images[key]


def training_data(config: Config, dataset: Dataset) -> TrainingData:
    """The splits as images of `dataset.image_size`, read when they are needed."""

    def part(split: Split) -> SplitData:
        images = split_images(config, split, config.dataset.image_size, dataset.channels)
        return SplitData(images=images, labels=split.labels, digest=split.digest)

    return TrainingData(
        train=part(dataset.train),
        validation=part(dataset.validation),
        test=part(dataset.test),
        num_classes=len(dataset.class_names),
        image_size=config.dataset.image_size,
        augmentation=augmentation(config),
    )


def network_for(config: Config, channels: int, num_classes: int, strategy: Strategy | None = None) -> Network:
    """`build_network`; where the graph is that of the run before in this process, that one with fresh weights.

    A network with parts of the user's own is built anew each time: what these depend on is not known.
    """
    targets = (config.backbone._target_, config.head._target_)
    if strategy or not all(target.startswith("cnnexp.models.") for target in targets):
        forget_network()
        return build_network(config, channels, num_classes, strategy)
    facts = [asdict(config.backbone), asdict(config.head), config.name, config.dataset.image_size, channels]
    facts += [num_classes, config.trainer.dtype_policy, _file_stamp(config.backbone.weights)]
    network = kept_network(repr(facts), lambda: build_network(config, channels, num_classes))
    apply(freeze_policies(config)[-1], network)
    return network


def _file_stamp(weights: str | None) -> tuple[int, int] | None:
    """What changes when a file of weights is replaced."""
    try:
        found = Path(weights or "").expanduser().stat()
    except OSError:  # "imagenet"
        return None
    return found.st_mtime_ns, found.st_size


def network_name(name: str) -> str:
    """The variant's name as a network may bear it: TensorFlow takes letters, digits and some signs."""
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return clean if re.match(r"[A-Za-z0-9]", clean) else f"network{clean}"


def build_network(config: Config, channels: int, num_classes: int, strategy: Strategy | None = None) -> Network:
    """The network with the freeze policy of its last phase applied, not compiled; its weights on all devices."""
    without = replace(config, backbone=replace(config.backbone, weights=None))
    check_network(config, lambda: _build(without, channels, num_classes).model)
    with strategy.scope() if strategy else nullcontext():
        network = _build(config, channels, num_classes)
    if strategy:  # made outside of the scope, it evaluates on one device
        network.model = keras.Model(network.model.inputs[0], network.model.outputs[0], name=network_name(config.name))
    apply(freeze_policies(config)[-1], network)
    return network


def _build(config: Config, channels: int, num_classes: int) -> Network:
    size = config.dataset.image_size
    with layers_with(config.trainer.dtype_policy):
        return build_model(
            (size, size, channels),
            num_classes,
            backbone=partial_from_config("backbone", config.backbone, omit=("finetune_from",)),
            head=partial_from_config("head", config.head),
            name=network_name(config.name),
        )


def build_without_weights(config: Config, channels: int, num_classes: int) -> Network:
    """`build_network` with random weights in the backbone: none is read or downloaded. What is trained is the same."""
    backbone = replace(config.backbone, weights=None)
    network = build_network(replace(config, backbone=backbone), channels, num_classes)
    network.pretrained = config.backbone.weights is not None
    apply(freeze_policies(config)[-1], network)
    return network


def freeze_policies(config: Config) -> list[FreezePolicyConfig]:
    """The freeze policy of each phase."""
    return [phase.freeze_policy for phase in config.phases.values()] or [config.freeze_policy]


def apply(policy: FreezePolicyConfig, network: Network) -> None:
    """Set `trainable` on the layers of the backbone."""
    apply_freeze_policy(network, policy.mode, policy.first_trainable_layer)


def check_layer_names(config: Config) -> None:
    """Refuse a layer that the backbone does not have, before any data is read or weights are loaded.

    A network is built for that, which takes seconds where it has many layers; a sweep asks once for the same names.
    """
    policies = [policy for policy in freeze_policies(config) if policy.mode == "until_layer"]
    if policies:
        size = config.dataset.image_size
        _check_layer_names(_LayerQuestion(repr((config.backbone, size, policies)), config.backbone, size, policies))


@dataclass(frozen=True)
class _LayerQuestion:
    """Whether a backbone has the layers that freeze policies name; two are the same where their texts are."""

    text: str
    backbone: BackboneConfig = field(compare=False)
    image_size: int = field(compare=False)
    policies: list[FreezePolicyConfig] = field(compare=False)


@lru_cache
def _check_layer_names(question: _LayerQuestion) -> None:
    keras.backend.clear_session()  # layers that Keras numbers get the names that they will have
    builder = partial_from_config("backbone", question.backbone, omit=("finetune_from",), weights=None)
    body = builder(keras.Input((question.image_size, question.image_size, 3), name="image"))
    if isinstance(body, Backbone):
        outline = Network(keras.Model(body.inputs, body.outputs), body.layers, head_layers=())
        for policy in question.policies:
            apply(policy, outline)
    keras.backend.clear_session()


def check_optimizers(config: Config) -> None:
    """Refuse an optimizer that does not take what the config has for it, before a run is recorded."""
    for prefix, _, node in config.schedules():
        _optimizer(f"{prefix}optimizer", node)


def _optimizer(group: str, node: OptimizerConfig) -> Callable[..., Any]:
    own = ("learning_rate", "schedule", "weight_decay", "ema_momentum", "layer_decay")
    return partial_from_config(group, node, omit=own)


def optimizer_plan(node: OptimizerConfig, network: Network) -> OptimizerPlan:
    """How the optimizer is made once the number of steps is known."""
    return OptimizerPlan(
        _optimizer("optimizer", node),
        node.learning_rate,
        node.schedule.name,
        node.schedule.warmup_epochs,
        node.schedule.final_fraction,
        node.weight_decay,
        node.ema_momentum,
        layer_factors(network, node.layer_decay),
    )


def loss_plan(config: Config, dataset: Dataset) -> LossPlan:
    """How the loss is made.

    Raises:
        UserError: a loss that there is not, or that does not take what the config has for it; a class that
            `loss.class_weight` does not name, or that there is not.
    """
    node = config.loss
    make, is_ours = _loss(config)
    weights = class_weights(node.class_weight, dataset)
    return LossPlan(
        make,
        is_ours,
        one_hot=bool(node.label_smoothing) or node._target_ != LossConfig()._target_,
        weights=weights,
        traced=repr((make, weights)) if is_ours else None,
    )


def _loss(config: Config) -> tuple[Callable[..., Any], bool]:
    """What makes the loss, and whether that is ours."""
    node = config.loss
    is_ours = node._target_.startswith(f"{HOMES['loss']}.")
    unused = [] if is_ours or node.label_smoothing else ["label_smoothing"]
    make = partial_from_config("loss", node, omit=("class_weight", *unused))
    if not is_ours:
        _check_own_loss(node._target_, make)
    return make, is_ours


def _check_own_loss(target: str, make: Callable[..., Any]) -> None:
    try:
        is_loss = callable(make())
    except TypeError as error:
        raise UserError(f"loss._target_={target}: {error}; give it as +loss.arguments.KEY=VALUE") from error
    if not is_loss:
        raise UserError(f"loss._target_={target}: returned no loss: a function of targets and probabilities")


def class_weights(given: Any, dataset: Dataset) -> tuple[float, ...] | None:
    """The weight of each class; balanced: N / (K n) for n of N training images, 1 for a class that has none.

    Raises:
        UserError: a class has no weight, or a weight no class.
    """
    if given is None:
        return None
    names = dataset.class_names
    if given == "balanced":
        counts = image_counts(dataset.train.labels, len(names))
        return tuple(float(counts.sum() / np.count_nonzero(counts) / n) if n else 1.0 for n in counts)
    weights = {str(name): float(weight) for name, weight in given.items()}
    for name in weights:
        if name not in names:
            raise UserError(f"loss.class_weight.{name}: there is no such class; there are {shown_names(name, names)}")
    missing = [name for name in names if name not in weights]
    if missing:
        raise UserError(f"loss.class_weight: has none for the class {missing[0]}; give one for each, 1 for none")
    return tuple(weights[name] for name in names)


def phases(config: Config, network: Network) -> list[Phase]:
    """The phases of the training; one, if the config lists none."""
    nodes = list(config.phases.values())
    names = list(config.phases) or [SINGLE]
    rates = [node.learning_rate for node in nodes] or [None]
    return [
        Phase(
            name,
            epochs,
            lambda policy=policy: apply(policy, network),  # type: ignore[misc]
            optimizer_plan(replace(optimizer, learning_rate=rate or optimizer.learning_rate), network),
        )
        for name, rate, policy, (_, epochs, optimizer) in zip(
            names, rates, freeze_policies(config), config.schedules(), strict=True
        )
    ]


def feature_store(config: Config) -> FeatureStore | None:
    """The feature cache below `paths.cache`, if it is used."""
    trainer = config.trainer
    if not trainer.feature_cache:
        return None
    limit = None if trainer.feature_cache_limit is None else int(trainer.feature_cache_limit * GIB)
    return FeatureStore(Path(config.paths.cache) / "features", trainer.feature_dtype, limit)


def fit(parts: RunParts, on_epoch: EpochListener, checkpoint: Path | None = None, resume: bool = False) -> FitResult:
    """Train the network as the config says; see `cnnexp.training.trainer.train`."""
    config = parts.config
    store = feature_store(config)
    training = Training(
        parts.network.model,
        parts.data,
        config.trainer,
        config.seed,
        store,
        checkpoint,
        loss_plan(config, parts.dataset),
        parts.strategy,
        parts.decision.positive,
    )
    return train(training, phases(config, parts.network), on_epoch, resume)
