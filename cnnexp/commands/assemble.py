"""From the config to the parts of a run: data, network, optimizer, tracker."""

from pathlib import Path

import keras

from cnnexp.config import Config
from cnnexp.data.pipeline import Images
from cnnexp.data.sources import Dataset, Split
from cnnexp.models.backbone import Backbone
from cnnexp.models.build import Network, build_model
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.targets import bind
from cnnexp.training.optimizers import build_optimizer
from cnnexp.training.trainer import OptimizerFactory, Part, Settings, TrainingData


def training_data(config: Config, dataset: Dataset) -> TrainingData:
    """The splits as images of `dataset.image_size`, read when they are needed."""
    augmentation = None
    if config.augmentation._target_ is not None:
        augmentation = bind("augmentation", config.augmentation)()

    def part(split: Split) -> Part:
        images = Images(split, config.dataset.image_size, dataset.channels, config.trainer.loader_threads)
        return Part(images=images, labels=split.labels, digest=split.digest)

    return TrainingData(
        train=part(dataset.train),
        validation=part(dataset.validation),
        test=part(dataset.test),
        num_classes=len(dataset.class_names),
        image_size=config.dataset.image_size,
        augmentation=augmentation,
    )


def build_network(config: Config, channels: int, num_classes: int) -> Network:
    """The network with its freeze policy applied, not compiled."""
    size = config.dataset.image_size
    network = build_model(
        (size, size, channels),
        num_classes,
        backbone=bind("backbone", config.backbone, omit=("finetune_from",)),
        head=bind("head", config.head),
        name=config.name,
    )
    apply_freeze_policy(network, config.freeze_policy.mode, config.freeze_policy.first_trainable_layer)
    return network


def check_layer_name(config: Config) -> None:
    """Refuse a layer that the backbone does not have, before any data is read or weights are loaded."""
    if config.freeze_policy.mode != "until_layer":
        return
    keras.backend.clear_session()  # layers that Keras numbers get the names that they will have
    size = config.dataset.image_size
    builder = bind("backbone", config.backbone, omit=("finetune_from",), weights=None)
    body = builder(keras.Input((size, size, 3), name="image"))
    if isinstance(body, Backbone):
        outline = Network(keras.Model(body.inputs, body.outputs), body.layers, head_layers=())
        apply_freeze_policy(outline, config.freeze_policy.mode, config.freeze_policy.first_trainable_layer)
    keras.backend.clear_session()


def optimizer_factory(config: Config) -> OptimizerFactory:
    """Makes the optimizer once the number of steps in an epoch is known."""
    node = config.optimizer
    optimizer = bind("optimizer", node, omit=("learning_rate", "schedule"))
    return lambda steps_per_epoch: build_optimizer(
        optimizer,
        node.learning_rate,
        node.schedule.name,
        node.schedule.warmup_epochs,
        node.schedule.final_fraction,
        config.trainer.epochs,
        steps_per_epoch,
    )


def settings(config: Config) -> Settings:
    """What the training loop needs of `trainer`, `seed` and `paths`."""
    return Settings(
        epochs=config.trainer.epochs,
        batch_size=config.trainer.batch_size,
        steps_per_epoch=config.trainer.steps_per_epoch,
        evaluation_batch_size=config.trainer.evaluation_batch_size,
        seed=config.seed,
        cache_folder=Path(config.paths.cache) / "features" if config.trainer.feature_cache else None,
    )
