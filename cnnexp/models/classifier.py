"""A recorded network with what it needs to answer."""

from dataclasses import dataclass

import keras
import numpy as np

from cnnexp.metrics.decision import ARGMAX, Decision


@dataclass(frozen=True)
class LoadedModel:
    """`model` takes (B, H, W, C) raw 0..255; `image_size` and `channels` are what it wants; `decision` makes answers of
    what it puts out."""

    run_id: str
    name: str
    model: keras.Model
    class_names: tuple[str, ...]
    image_size: int
    channels: int
    decision: Decision = ARGMAX


def class_probabilities(outputs: np.ndarray) -> np.ndarray:
    """(B, classes), also of a model whose one output is the probability of class 1."""
    return np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs
