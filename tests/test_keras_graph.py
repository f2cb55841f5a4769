"""Keras' private attributes are read through one file, and so are MLflow's: what is needed of them is there."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from cnnexp.models.keras_graph import calls, origin, run_through, seed_of, with_sublayers

CNNEXP = Path(__file__).resolve().parents[1] / "cnnexp"
KERAS = re.compile(r"\._(keras_history|inbound_nodes|nodes_by_depth|flatten_layers|run_through_graph|initial_seed)\b")


@pytest.fixture
def model() -> keras.Model:
    """Two branches that are added."""
    image = keras.Input((4, 4, 3), name="image")
    left, right = layers.Conv2D(2, 1, name="left")(image), layers.Conv2D(2, 1, name="right")(image)
    return keras.Model(image, layers.Add(name="sum")([left, right]))


def test_calls_come_after_those_that_they_take(model: keras.Model) -> None:
    names = [call.operation.name for call in calls(model)]
    assert names[0] == "image" and set(names[1:3]) == {"left", "right"} and names[3:] == ["sum"]
    assert [tensor.shape for tensor in calls(model)[-1].input_tensors] == [(None, 4, 4, 2)] * 2


def test_the_origin_of_a_tensor(model: keras.Model) -> None:
    operation, inputs = origin(model.outputs[0])
    assert operation.name == "sum" and {origin(tensor)[0].name for tensor in inputs} == {"left", "right"}
    assert origin(model.inputs[0])[1] == []


def test_layers_inside_of_layers_are_found(model: keras.Model) -> None:
    outer = keras.Sequential([keras.Input((4, 4, 3)), model, layers.Flatten(name="flat")])
    assert {"left", "right", "sum", "flat"} <= {layer.name for layer in with_sublayers(outer)}


def test_a_graph_is_run_anew_with_other_operations(model: keras.Model) -> None:
    called = []
    images = np.ones((1, 4, 4, 3), np.float32)
    again = run_through(model, images, lambda operation: called.append(operation.name) or operation)
    np.testing.assert_array_equal(again, model(images))
    assert sorted(called) == ["left", "right", "sum"]


def test_a_seed_that_was_drawn_is_known_and_a_given_one_is_not() -> None:
    drawn, given = layers.Dropout(0.5), layers.Dropout(0.5, seed=3)
    assert seed_of(drawn.seed_generator) is not None and seed_of(given.seed_generator) is None
    assert seed_of(keras.initializers.GlorotUniform()) is not None
    assert seed_of(keras.initializers.GlorotUniform(seed=3)) is None
    assert seed_of(keras.initializers.Zeros()) is None and seed_of("text") is None


def test_no_other_file_reads_private_attributes_of_keras() -> None:
    assert {file.name for file in CNNEXP.rglob("*.py") if KERAS.search(file.read_text())} == {"keras_graph.py"}


def test_mlflow_has_what_is_taken_from_behind_its_front() -> None:
    """The check of requirements that a model is recorded without, and the store that is made without migrations."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils import environment

    assert callable(environment.warn_dependency_requirement_mismatches)
    assert callable(get_artifact_repository) and isinstance(SqlAlchemyStore, type)
