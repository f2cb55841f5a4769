"""Grad-CAM of a trained network finds the evidence in drawn pictures, that of a network with random weights does not.

Ten minutes on two cores: not a part of `make test`; `make test ARGS="-m long"` runs it.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import pytest

from cnnexp.commands.assemble import build_network, fit, training_data
from cnnexp.commands.datasets import load_dataset
from cnnexp.composition import load_config
from cnnexp.explain import gradcam, hirescam
from cnnexp.explain.measure import Localisation, localisation, randomisation_check, randomised, read_masks
from cnnexp.explain.methods import Heatmap
from cnnexp.explain.placement import cell_grid
from cnnexp.training.runtime import prepare_tensorflow

pytestmark = pytest.mark.long

TWINS = 10
PART = 100  # pictures explained at a time


class Trained(NamedTuple):
    """A network, twins of it with random weights, and test pictures with their classes and masks."""

    model: keras.Model
    twins: list[keras.Model]
    accuracy: float
    pictures: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`experiment=baseline` on 6000 drawings with decoys: bright, sharp things that tell nothing."""
    root = tmp_path_factory.mktemp("localisation")
    drawn = [
        "dataset=synthetic",
        "dataset.train=6000",
        "dataset.validation=200",
        "dataset.test=600",
        "dataset.decoys=8",
    ]
    schedule = ["trainer.epochs=7", "trainer.steps_per_epoch=null", "trainer.batch_size=32"]
    rate = ["optimizer.learning_rate=1e-3", "optimizer.schedule.name=cosine"]
    config = load_config(["experiment=baseline", *drawn, *schedule, *rate, "seed=1", f"paths.root={root}"])
    prepare_tensorflow(config.seed, deterministic=False)
    dataset = load_dataset(config)
    data = training_data(config, dataset)
    network = build_network(config, dataset.channels, len(dataset.class_names))
    fitted = fit(config, network, data, lambda epoch, metrics: None)
    assert dataset.masks is not None
    return Trained(
        network.model,
        [randomised(network.model, seed) for seed in range(TWINS)],
        fitted.test_accuracy,
        data.test.images.take(np.arange(len(dataset.test.labels))),
        dataset.test.labels,
        read_masks(dataset.masks, dataset.test.ids, config.dataset.image_size),
    )


def measured(heatmap: Heatmap, model: keras.Model, trained: Trained) -> Localisation:
    """At the default layer, the last convolution."""
    parts = [slice(start, start + PART) for start in range(0, len(trained.labels), PART)]
    maps = [heatmap(model, trained.pictures[part], trained.labels[part]) for part in parts]
    return localisation(np.concatenate(maps), trained.masks, cell_grid(model))


def test_the_network_has_learned(trained: Trained) -> None:
    assert trained.accuracy >= 0.9  # with seeds 0, 1, 2: 0.91, 0.95, 0.96


def test_grad_cam_points_at_the_evidence(trained: Trained) -> None:
    found = measured(gradcam.heatmap, trained.model, trained)
    assert found.pointing >= 3 * found.chance  # with seeds 0, 1, 2: 6.0, 7.1, 3.6 times
    assert found.energy >= 2 * found.chance  # 3.5, 3.7, 2.6 times


def test_grad_cam_of_random_weights_falls_to_chance(trained: Trained) -> None:
    """On the mean of several networks: each has a corner of its own that it likes, whatever the picture."""
    found = [measured(gradcam.heatmap, twin, trained) for twin in trained.twins]
    times = np.array([(each.pointing / each.chance, each.energy / each.chance) for each in found])
    assert (times.mean(axis=0) <= 1.25).all()  # measured: 0.86, 0.82
    assert (times <= 2).all()  # at most 1.64, 1.23


def test_hirescam_lies_on_the_evidence(trained: Trained) -> None:
    ours, *twins = (measured(hirescam.heatmap, model, trained) for model in (trained.model, *trained.twins[:3]))
    assert ours.pointing >= 5 * ours.chance and ours.energy >= 3 * ours.chance
    assert max(twin.pointing for twin in twins) <= ours.pointing / 2


def test_the_maps_are_unlike_those_of_random_weights(trained: Trained) -> None:
    """Adebayo et al. 2018, arXiv 1810.03292."""
    similarity = randomisation_check(gradcam.heatmap, trained.model, trained.pictures[:PART], trained.labels[:PART])
    assert abs(similarity.mean()) < 0.4
