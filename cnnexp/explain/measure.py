"""How good heat maps are: whether they point at the evidence, and whether they depend on what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.explain.overlay import enlarged_heatmap
from cnnexp.explain.placement import Grid, even_grid


@dataclass(frozen=True)
class Localisation:
    """Means over `images` images, in 0..1; `pointing` and `energy` are to be compared with `chance`."""

    pointing: float
    energy: float
    chance: float
    images: int


def localisation(heatmaps: np.ndarray, masks: np.ndarray, grid: Grid | None = None) -> Localisation:
    """How often and how much heat maps lie on the evidence.

    Args:
        heatmaps: (B, h, w) float in 0..1.
        masks: (B, H, W) bool, True = evidence.
        grid: where the cells of the maps lie in the images; None: spread evenly over them.
    """
    return Localisation(
        pointing=float(pointing_game(heatmaps, masks, grid).mean()),
        energy=float(energy_inside(heatmaps, masks, grid).mean()),
        chance=float(chance_level(masks).mean()),
        images=len(masks),
    )


def pointing_game(heatmaps: np.ndarray, masks: np.ndarray, grid: Grid | None = None) -> np.ndarray:
    """Whether the hottest point lies on the evidence (Zhang et al. 2016, arXiv 1608.00507; no tolerance).

    Args:
        heatmaps: (B, h, w) float in 0..1. The centre of the hottest cell counts: there a map that is enlarged linearly
            has its maximum. An empty map is no hit.
        masks: (B, H, W) bool, True = evidence.
        grid: see `localisation`.

    Returns:
        (B,) bool; the mean is the score hits / (hits + misses).
    """
    hits = np.zeros(len(masks), bool)
    for number, (heatmap, evidence) in enumerate(zip(heatmaps, masks, strict=True)):
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        place = (grid or even_grid(heatmap.shape, evidence.shape)).pixel((int(row), int(column)))
        hits[number] = heatmap.max() > 0 and evidence[place]
    return hits


def energy_inside(heatmaps: np.ndarray, masks: np.ndarray, grid: Grid | None = None) -> np.ndarray:
    """The share of a heat map that lies on the evidence: the energy-based pointing game.

    Wang et al. 2020 (arXiv 1910.01279), section 4.3.

    Args:
        heatmaps: (B, h, w) float in 0..1, enlarged linearly to the masks' size. An empty one gets 0.
        masks: (B, H, W) bool, True = evidence.
        grid: see `localisation`.

    Returns:
        (B,) float64 in 0..1; a map that is the same everywhere gets the chance level.
    """
    shares = np.zeros(len(masks))
    for number, (heatmap, evidence) in enumerate(zip(heatmaps, masks, strict=True)):
        large = enlarged_heatmap(heatmap, evidence.shape, grid).astype(np.float64)
        if large.any():
            shares[number] = large[evidence].sum() / large.sum()
    return shares


def chance_level(masks: np.ndarray) -> np.ndarray:
    """(B, H, W) bool -> (B,) share of evidence: what a random point, or a map without information, gets."""
    return masks.mean(axis=(1, 2))


def read_masks(folder: str | Path, ids: Sequence[str], size: int) -> np.ndarray:
    """The evidence of some images.

    Args:
        folder: of masks, in the same tree as the images, as PNG with 255 = evidence.
        ids: paths of the images, relative to the data set.
        size: height and width wanted, in pixels.

    Returns:
        (N, size, size) bool: a pixel is evidence where at least half of its area is.

    Raises:
        UserError: an image has no mask.
    """
    masks = np.empty((len(ids), size, size), bool)
    for number, name in enumerate(ids):
        file = Path(folder, name).with_suffix(".png")
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise UserError(f"{file}: there is no mask of {name}; only drawn data sets (dataset=synthetic) have masks")
        masks[number] = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) >= 127.5
    return masks


# ---------------------------------------------------------------------------------- parameter randomisation


def randomised(model: keras.Model, seed: int) -> keras.Model:
    """A copy of a network with all weights as its layers initialise them, also in networks inside.

    For the model parameter randomisation test of Adebayo et al. 2018 (arXiv 1810.03292), all layers at once: a method
    whose maps stay the same (`spearman` near 1) shows edges of the image, not what the network has learned.

    Neither `model` nor the random state of the process changes. The same seed gives the same weights.
    """
    number = 0

    def fresh(operation: Any) -> Any:
        nonlocal number
        if not isinstance(operation, keras.Layer):
            return operation  # a mere function, without weights
        config = operation.get_config()
        number += 1
        _set_seeds(config, np.random.default_rng([seed, number]))
        return operation.__class__.from_config(config)

    uncompiled = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.models.clone_model(uncompiled, clone_function=fresh, recursive=True)


def _set_seeds(config: Any, rng: np.random.Generator) -> None:
    """Give every initializer in a layer's config a seed of its own."""
    children: Any = ()
    if isinstance(config, dict):
        children = config.values()
    elif isinstance(config, list | tuple):
        children = config
    for child in children:
        _set_seeds(child, rng)
    if isinstance(config, dict) and "seed" in config:
        config["seed"] = int(rng.integers(2**31))


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays; ties get their mean rank, a constant array gives 0."""
    a, b = (_ranks(values.ravel()) for values in (first, second))
    if not np.ptp(a) or not np.ptp(b):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
