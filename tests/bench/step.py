"""The training step of `baseline` on photos in memory: ours beside plain Keras and beside PyTorch.

All three train the tutorial's network in batches of 20 with RMSprop on the same decoded photos. An epoch of ours is a
whole one of the trainer (loader, metrics, report), without validation, determinism and what a run records; the peers'
have nothing but the steps.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from bench.data import split_of
from bench.table import Row, take_turns
from bench.training import train
from cnnexp.console import say
from cnnexp.data.loading import ImageLoader
from cnnexp.process import import_tensorflow

if TYPE_CHECKING:
    import keras

SIZE, BATCH, RATE, EPOCHS = 150, 20, 1e-4, 3
FILTERS, UNITS = (32, 64, 128, 128), 512


def rows(photos: Path, repetitions: int) -> list[Row]:
    """A row for each peer; that of PyTorch where it is installed."""
    import_tensorflow()
    repetitions = min(repetitions, 3)
    split = split_of(photos)
    images = ImageLoader(split, SIZE, 3, threads=2).take(np.arange(len(split.ids)))
    labels = split.labels.astype(np.float32)[:, np.newaxis]
    half = len(images) // 2  # the trainer keeps the others to validate and test with
    peers: dict[str, Callable[[], float]] = {"keras": lambda: keras_epoch(images[:half], labels[:half])}
    if find_spec("torch"):
        file = photos.with_suffix(".npz")
        np.savez(file, images=images[:half], labels=labels[:half])
        peers["torch"] = lambda: torch_epoch(file)
    else:
        say("no torch here: pip install torch, for its row")
    found = []
    for name, peer in peers.items():
        ours_s, peer_s = take_turns(f"a step beside {name}", repetitions, lambda: our_epoch(photos), peer)
        what = {"keras": "plain Keras fit", "torch": "PyTorch"}[name]
        found.append(Row(f"step/baseline_{name}", what, ours_s, peer_s, half))
    return found


def our_epoch(photos: Path) -> float:
    """Seconds of an epoch after the first, which compiles."""
    with tempfile.TemporaryDirectory() as root:
        line = ["experiment=baseline", "tracking=none", f"trainer.epochs={EPOCHS}", "trainer.steps_per_epoch=null"]
        history = train(photos, [*line, f"trainer.batch_size={BATCH}", f"paths.root={root}"])
    return median(epoch["time/epoch_s"] for epoch in history[1:])


def keras_epoch(images: np.ndarray, labels: np.ndarray) -> float:
    """The tutorial's network and loop, fed by tf.data from memory."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Rescaling(1 / 255), *convnet()])
    model.compile(keras.optimizers.RMSprop(RATE), "binary_crossentropy", metrics=["accuracy"])
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).batch(BATCH).prefetch(2)
    seconds = []
    for _ in range(EPOCHS):
        began = time.perf_counter()
        model.fit(batches, shuffle=False, verbose=0)  # they are shuffled already
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def convnet(input_dropout: float = 0.0) -> list["keras.Layer"]:
    """The layers of the tutorial's network behind its input."""
    from keras import layers

    blocks = [layer for n in FILTERS for layer in (layers.Conv2D(n, 3, activation="relu"), layers.MaxPooling2D(2))]
    dropout = [layers.Dropout(input_dropout)] if input_dropout else []
    ends = [layers.Flatten(), *dropout, layers.Dense(UNITS, activation="relu"), layers.Dense(1, activation="sigmoid")]
    return [*blocks, *ends]


def torch_epoch(file: Path) -> float:
    """The same network as PyTorch's users write it; in a process of its own, since the LLVMs of the two collide."""
    line = [sys.executable, Path(__file__).with_name("torch_step.py"), file, str(EPOCHS)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
