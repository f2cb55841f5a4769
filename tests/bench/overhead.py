"""What an epoch of `cnnexp train` costs beside its steps and its validation: loader, metrics, checkpoint, MLflow.

The peer is a bare `fit` of the same network, compiled the same way, on the same photos: decoded, in memory, fed by
tf.data. Ours is the whole command with all that it records by default; its epochs are the times between the figures of
two epochs in the store. Left out are determinism, on both sides, and what comes before the first epoch ends and after
the last one: the group `fixed` measures that.
"""

import contextlib
import io
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.table import Row, take_turns
from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.process import import_tensorflow

LINE = ["experiment=baseline", "trainer.deterministic=false"]
EPOCHS = 4  # the first compiles, and does not count


def rows(photos: Path, repetitions: int) -> list[Row]:
    """An epoch of `baseline`: 100 steps of 20 photos and the validation."""
    import_tensorflow()
    quick = repetitions < 3
    line = [*LINE, "dataset=folder", f"dataset.path={photos}", f"trainer.epochs={EPOCHS}"]
    line += ["trainer.steps_per_epoch=2", "dataset.image_size=64"] if quick else []
    ours_s, peer_s = take_turns("an epoch", min(repetitions, 3), lambda: ours(line), lambda: bare(line))
    return [Row("overhead/baseline", "a bare fit of the same network", ours_s, peer_s)]


def ours(line: list[str]) -> float:
    """Seconds of an epoch of `cnnexp train`."""
    from cnnexp.cli import main
    from cnnexp.runs.tracker import open_tracker

    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        given = [*line, f"paths.root={root}"]
        assert main(["train", *given]) == 0
        tracker: Any = open_tracker(load_config(given).tracking)
        (run,) = tracker.find_runs()
        ends = sorted(figure.timestamp for figure in tracker.client().get_metric_history(run.run_id, "val/acc"))
    return median(end - start for start, end in pairwise(ends)) / 1000


def bare(line: list[str]) -> float:
    """Seconds of an epoch of a bare `fit`."""
    import keras
    import tensorflow as tf

    config = load_config(line)
    model, train, validate = compiled(config)
    photos = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[1]))
    batches = photos.repeat().batch(config.trainer.batch_size).prefetch(2)
    checks = tf.data.Dataset.from_tensor_slices(validate).batch(config.trainer.evaluation_batch_size)
    ends: list[float] = []
    model.fit(
        batches,
        epochs=EPOCHS,
        steps_per_epoch=config.trainer.steps_per_epoch,
        validation_data=checks,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))],
        shuffle=False,  # they are shuffled already
        verbose=0,
    )
    return median(end - start for start, end in pairwise(ends))


Part = tuple[np.ndarray, np.ndarray]


def compiled(config: Config) -> tuple[Any, Part, Part]:
    """The network, compiled as the trainer does it, and the images and labels to train and to validate with."""
    from cnnexp.runs import build
    from cnnexp.runs.job import load_dataset
    from cnnexp.training.checkpoint import TrainState
    from cnnexp.training.inputs import PhaseData, Training
    from cnnexp.training.phases import PhaseTrainer
    from cnnexp.training.recipe import targets
    from cnnexp.training.runtime import prepare_tensorflow

    prepare_tensorflow(config.seed, deterministic=False)
    dataset = load_dataset(config)
    data = build.training_data(config, dataset)
    network = build.build_network(config, dataset.channels, data.num_classes)
    (phase,) = build.phases(config, network)
    inputs = PhaseData(Training(network.model, data, config.trainer, config.seed))
    run = PhaseTrainer(phase, inputs, TrainState(), {})
    train, validate = (
        (part.images.take(np.arange(len(part.labels))), targets(part.labels, 2))
        for part in (data.train, data.validation)
    )
    return run.train_model, train, validate
