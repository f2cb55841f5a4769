"""Grad-CAM of a trained network finds the evidence in pictures, that of a network with random weights does not.

On pictures of stripes among decoys, which a small network learns in half a minute; and on drawn cats and dogs, with
`experiment=baseline` as it is, for half an hour on two cores: `make test ARGS="-m campaign"` runs that.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from explained import randomisation_check

from cnnexp.config import Config
from cnnexp.config.composition import load_config
from cnnexp.data.dataset import Dataset, Split
from cnnexp.explain import gradcam, hirescam
from cnnexp.explain.measure import Localisation, localisation, randomised, read_masks
from cnnexp.explain.methods import Heatmap
from cnnexp.explain.placement import cell_grid
from cnnexp.runs.build import assemble, fit
from cnnexp.runs.job import load_dataset
from cnnexp.training.runtime import prepare_tensorflow

pytestmark = pytest.mark.trains

TWINS = 10
PART = 100  # pictures explained at a time
SCHEDULE = ["trainer.steps_per_epoch=null", "trainer.batch_size=32", "optimizer.learning_rate=1e-3"]
BASELINE = ["experiment=baseline", "optimizer.schedule.name=cosine", "seed=1", *SCHEDULE]

SIDE, PATCH = 48, 10  # pixels, of a picture and of what lies in it
DECOYS = 4


class Trained(NamedTuple):
    """A network, twins of it with random weights, and test pictures with their classes and masks."""

    model: keras.Model
    twins: list[keras.Model]
    accuracy: float
    pictures: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def stripes(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, H, W, 3) uint8, (N,) classes and (N, H, W) masks of the evidence: noise with stripes, level or upright.

    Black and white chequers lie there too: decoys, which stand out more and tell nothing.
    """
    labels = np.arange(count) % 2
    pictures = rng.integers(90, 160, (count, SIDE, SIDE, 3)).astype(np.uint8)
    masks = np.zeros((count, SIDE, SIDE), bool)
    rows, columns = np.indices((PATCH, PATCH)) // 2

    def place() -> tuple[slice, slice]:
        top, left = rng.integers(0, SIDE - PATCH + 1, 2)
        return slice(top, top + PATCH), slice(left, left + PATCH)

    for picture, mask, label in zip(pictures, masks, labels, strict=True):
        for _ in range(DECOYS):
            picture[place()] = 255 * ((rows + columns) % 2)[..., None]
        evidence = place()
        picture[evidence] = 60 + 130 * ((columns if label else rows) % 2)[..., None]
        mask[evidence] = True
    return pictures, labels, masks


def of_stripes(root: Path) -> tuple[Config, Dataset, np.ndarray]:
    """3000 pictures to train on, and `experiment=baseline` with three small convolutions."""
    small = [f"dataset.image_size={SIDE}", "backbone.filters=[16,32,32]", "head.units=64", "trainer.epochs=6"]
    config = load_config([*BASELINE, "dataset=synthetic", *small, f"paths.root={root}"])
    rng, splits, masks = np.random.default_rng(1), [], None
    for name, count in (("train", 3000), ("validation", 200), ("test", 300)):
        pictures, labels, masks = stripes(rng, count)
        splits.append(Split(name, labels, None, pictures, tuple(f"{name}/{i}" for i in range(count)), name))
    assert masks is not None
    return config, Dataset("stripes", ("level", "upright"), 3, *splits, ""), masks


def of_cats_and_dogs(root: Path) -> tuple[Config, Dataset, np.ndarray]:
    """6000 drawings with decoys, bright, sharp things that tell nothing."""
    drawn = ["dataset.train=6000", "dataset.validation=200", "dataset.test=600", "dataset.decoys=8"]
    config = load_config([*BASELINE, "dataset=synthetic", *drawn, "trainer.epochs=7", f"paths.root={root}"])
    dataset = load_dataset(config)
    assert dataset.masks is not None
    return config, dataset, read_masks(dataset.masks, dataset.test.ids, config.dataset.image_size)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(of_stripes, marks=pytest.mark.long),
        pytest.param(of_cats_and_dogs, marks=pytest.mark.campaign),
    ],
)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    config, dataset, masks = request.param(tmp_path_factory.mktemp("localisation"))
    prepare_tensorflow(config.seed, deterministic=False)
    parts = assemble(config, dataset)
    fitted = fit(parts, lambda epoch, metrics: None)
    return Trained(
        parts.network.model,
        [randomised(parts.network.model, seed) for seed in range(TWINS)],
        fitted.test_accuracy,
        parts.data.test.images.take(np.arange(len(dataset.test.labels))),
        dataset.test.labels,
        masks,
    )


def measured(heatmap: Heatmap, model: keras.Model, trained: Trained) -> Localisation:
    """At the default layer, the last convolution."""
    parts = [slice(start, start + PART) for start in range(0, len(trained.labels), PART)]
    maps = [heatmap(model, trained.pictures[part], trained.labels[part]) for part in parts]
    return localisation(np.concatenate(maps), trained.masks, cell_grid(model))


# What was measured stands behind each bound: of stripes with seed 1; of cats and dogs with seeds 0, 1, 2.


def test_the_network_has_learned(trained: Trained) -> None:
    assert trained.accuracy >= 0.9  # 0.96; 0.91, 0.95, 0.96


def test_grad_cam_points_at_the_evidence(trained: Trained) -> None:
    found = measured(gradcam.heatmap, trained.model, trained)
    assert found.pointing >= 3 * found.chance  # 21 times; 6.0, 7.1, 3.6 times
    assert found.energy >= 2 * found.chance  # 4.7 times; 3.5, 3.7, 2.6 times


def test_grad_cam_of_random_weights_falls_to_chance(trained: Trained) -> None:
    """On the mean of several networks: each has a corner of its own that it likes, whatever the picture."""
    found = [measured(gradcam.heatmap, twin, trained) for twin in trained.twins]
    times = np.array([(each.pointing / each.chance, each.energy / each.chance) for each in found])
    assert (times.mean(axis=0) <= 1.25).all()  # 0.70, 0.67; 0.86, 0.82
    assert (times <= 2).all()  # at most 1.77, 1.29; 1.64, 1.23


def test_hirescam_lies_on_the_evidence(trained: Trained) -> None:
    ours, *twins = (measured(hirescam.heatmap, model, trained) for model in (trained.model, *trained.twins[:3]))
    assert ours.pointing >= 5 * ours.chance and ours.energy >= 3 * ours.chance  # 17 and 5.2 times
    assert max(twin.pointing for twin in twins) <= ours.pointing / 2


def test_the_maps_are_unlike_those_of_random_weights(trained: Trained) -> None:
    """Adebayo et al. 2018, arXiv 1810.03292."""
    similarity = randomisation_check(gradcam.heatmap, trained.model, trained.pictures[:PART], trained.labels[:PART])
    assert abs(similarity.mean()) < 0.4
