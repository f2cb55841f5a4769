"""What lies before the first trainable layer is a fixed function of the image.

`cut_model` divides a model there, and `features_key` names what comes out of the fixed part, so that
`FeatureStore` computes it once for all runs with the same images and the same fixed part.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np

from cnnexp.models.kept import once_for, trainable_flags
from cnnexp.models.keras_graph import calls, with_sublayers


@dataclass(frozen=True)
class FrozenSplit:
    """A model divided in two: `frozen` (image -> features), and `trained` (features -> probabilities)."""

    frozen: keras.Model
    trained: keras.Model

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256, 64 hex digits, over the weights of the frozen part, which do not change while it is frozen."""
        digest = hashlib.sha256()
        for weight in self.frozen.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
        return digest.hexdigest()


def cut_model(model: keras.Model) -> FrozenSplit | None:
    """Divide `model` at the last frozen layer of every path from the image to its trainable part.

    Both parts share their layers with `model`: training the second trains the model. A layer is in the first if it has
    no trainable weights, draws no random numbers in training, and so has everything before it.

    Args:
        model: a flat functional model with one input; `trainable` of its layers is already set.

    Returns:
        None where nothing with weights is frozen, so that a cache would gain nothing. The parts are the same objects
        each time, with what was traced on them, while the same layers are trained.
    """
    cut = once_for(model, ("cut", trainable_flags(model)), lambda: _divided(model))
    return replace(cut) if cut else None


def _divided(model: keras.Model) -> FrozenSplit | None:
    fixed_tensors: set[int] = set()
    crossing: dict[int, Any] = {}
    saves_work = False
    for node in calls(model):
        inputs = node.input_tensors
        if all(id(tensor) in fixed_tensors for tensor in inputs) and _is_fixed(node.operation):
            fixed_tensors.update(id(tensor) for tensor in node.output_tensors)
            saves_work = saves_work or bool(getattr(node.operation, "weights", None))
        else:
            crossing.update((id(tensor), tensor) for tensor in inputs if id(tensor) in fixed_tensors)
    if not saves_work:
        return None
    features = list(crossing.values())
    return FrozenSplit(
        frozen=keras.Model(model.inputs, features, name="frozen"),
        trained=keras.Model(features, model.outputs[0], name="trained"),
    )


def _is_fixed(operation: keras.Operation) -> bool:
    """Whether a layer gives the same result in training as in inference, whatever has been learned.

    Frozen batch normalization uses its moving statistics (Keras 3), so it is fixed; active dropout is not.
    """
    parts = with_sublayers(operation) if isinstance(operation, keras.layers.Layer) else ()
    return not any(part.trainable_variables or _follows_batch(part) or _is_random(part) for part in parts)


def _follows_batch(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _is_random(layer: keras.layers.Layer) -> bool:
    """Dropout whose rate was set to 0 draws nothing, though it could."""
    return hasattr(layer, "seed_generator") and getattr(layer, "rate", None) != 0


# -------------------------------------------------------------------------------------------------- the key


def features_key(cut: FrozenSplit, split_digest: str, image_size: int, dtype: str, stream: str = "") -> str:
    """The name of a cache entry: a digest of the images, of what the fixed part does with them, and of its weights.

    Names, `trainable`, seeds and initializers do not enter it: they change no feature.

    Args:
        cut: the graph of its fixed part carries preprocessing, architecture and where it is cut.
        split_digest: of the images' names and bytes.
        image_size: pixels the images are resized to.
        dtype: of the stored features.
        stream: tells one augmented pass over the images from every other; "" for the images as they are.
    """
    graph = once_for(cut.frozen, "graph", lambda: _graph(cut.frozen))
    facts = [split_digest, image_size, dtype, stream, graph, cut.weights_digest]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_plain).encode()).hexdigest()[:32]


def _graph(model: keras.Model) -> list[Any]:
    """The model's calls, each with class, config and arguments, and its outputs; tensors and layers are numbered.

    Not by name, which may carry a counter of the process.
    """
    tensors: dict[int, str] = {}
    layers: dict[int, int] = {}
    described = []
    for node in calls(model):
        layer = layers.setdefault(id(node.operation), len(layers))  # a layer that is called twice has one number
        arguments = [node.arguments.args, node.arguments.kwargs]
        numbered = keras.tree.map_structure(lambda value: tensors.get(id(value), value), arguments)
        described.append([layer, type(node.operation).__name__, _config(node.operation), numbered])
        for tensor in node.output_tensors:
            tensors[id(tensor)] = f"tensor {len(tensors)}"
    return [described, [tensors[id(tensor)] for tensor in model.outputs]]


def _config(operation: keras.Operation) -> dict[str, Any]:
    """A layer's options, as far as they decide what it computes."""
    return {
        key: value
        for key, value in operation.get_config().items()
        if key not in ("name", "trainable", "seed")
        and not key.endswith(("_initializer", "_regularizer", "_constraint"))
    }


def _plain(value: Any) -> Any:
    """An array as lists, whole; anything else that JSON has no form for as text."""
    return np.asarray(value).tolist() if hasattr(value, "__array__") else str(value)
