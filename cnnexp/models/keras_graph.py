"""The graph of a Keras model: the only file that reads Keras' private attributes.

Keras 3 shows a model's layers, not how they are connected. `tests/test_keras_graph.py` says which of these broke.
(The optimizers of `cnnexp.training.optimizers` are subclasses of Keras', and use what subclasses may.)
"""

from collections.abc import Callable
from typing import Any

import keras


def calls(graph: keras.Function) -> list[Any]:
    """Every call of a layer or operation, each after those whose results it takes.

    A call has `operation`, `input_tensors` and `output_tensors`.
    """
    by_depth = graph._nodes_by_depth  # depth 0 is the output
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def origin(tensor: keras.KerasTensor) -> tuple[keras.Operation, list[keras.KerasTensor]]:
    """The layer or operation that a symbolic tensor comes from, and what it was called on; nothing for an input."""
    operation, call, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[call].input_tensors)


def with_sublayers(layer: keras.Layer | keras.Model) -> list[keras.Layer]:
    """A layer or model and the layers inside of it, of every level."""
    return list(layer._flatten_layers())


def run_through(graph: keras.Function, inputs: Any, operation_fn: Callable[[Any], Callable[..., Any]]) -> Any:
    """Call a graph anew on `inputs`, with `operation_fn(operation)` in the place of each operation."""
    return graph._run_through_graph(inputs, operation_fn=operation_fn)


def seed_of(part: Any) -> int | None:
    """The seed that a seed generator or an initializer drew when it was made; None where it was given one, or has none.

    Keras draws them from Python's `random`.
    """
    if isinstance(part, keras.random.SeedGenerator) and part._initial_seed is None:
        return int(part.state.numpy()[0])
    if isinstance(part, keras.initializers.Initializer) and getattr(part, "_init_seed", 0) is None:
        return int(part.seed)
    return None
