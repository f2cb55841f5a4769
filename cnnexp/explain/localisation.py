"""Whether a network's heat maps lie on what tells drawn pictures apart: figures for the record of a run."""

import math

import keras
import numpy as np

from cnnexp.data.dataset import Dataset
from cnnexp.data.loading import ImageLoader
from cnnexp.errors import UserError
from cnnexp.explain.cam import gradient_heatmaps
from cnnexp.explain.measure import Localisation, localisation, randomised, read_masks, spearman
from cnnexp.explain.methods import COMBINATIONS, METHODS
from cnnexp.explain.placement import cell_grid
from cnnexp.explain.target import flattened, logit_model
from cnnexp.models.kept import once_for

MOST = 64  # images
LEAST = 16  # images that the gradient methods explain, whatever it costs
BUDGET = 1e11  # multiply-adds for the gradient methods: 16 images of 150x150 by VGG16, two seconds on two cores
SCORE_CAM_LEAST, SCORE_CAM_MOST = 8, 16  # images; fewer tell nothing
SCORE_CAM_BUDGET = 2.5e11  # multiply-adds: 8 images of 150x150 by the small convnet
SANITY = "gradcam"  # the method whose maps are compared with those of the randomised network


def localisation_metrics(
    model: keras.Model, dataset: Dataset, images: ImageLoader, limit: int = MOST
) -> dict[str, float]:
    """How well the heat maps of the true classes find the evidence in test pictures, at the default layer.

    For every CAM method `explain/pointing_game/METHOD` and `explain/energy_inside/METHOD` (see
    `cnnexp.explain.measure`), to be compared with `explain/chance`, the mean share of a picture that is evidence. For
    Grad-CAM also, from a twin with random weights (Adebayo et al. 2018, arXiv 1810.03292), its
    `explain/pointing_game_randomised/gradcam`, and as `explain/randomised_similarity/gradcam` the mean rank
    correlation of its maps with those of `model`: near 1, the maps show edges and not what was learned.

    The pictures are spread evenly over the test split. How many there are depends on what the network costs, so that
    it takes a few seconds: 64 of a small network, 16 of VGG16. Score-CAM needs a forward pass for each feature map:
    it gets 8 to 16 of the pictures where 8 are affordable, and no figures with VGG16 or EfficientNet-Lite0.

    Args:
        model: trained; takes raw images 0..255.
        dataset: with masks.
        images: its test split, `take_few` gives (B, H, W, C) uint8.
        limit: at most so many pictures.

    Returns:
        Name -> value: shares in 0..1, the similarity in -1..1. Empty where the data set has no masks, or the network
        no feature maps.

    Raises:
        UserError: a picture has no mask.
    """
    channels = _map_channels(model)
    if dataset.masks is None or not channels:
        return {}
    cost = multiply_adds(model)
    chosen = spread(len(images), min(max(int(BUDGET / cost), LEAST), limit))
    pictures, labels = images.take_few(chosen), dataset.test.labels[chosen]
    masks = read_masks(dataset.masks, [dataset.test.ids[index] for index in chosen], pictures.shape[1])
    maps = gradient_heatmaps(model, pictures, labels, None, COMBINATIONS)
    grid = cell_grid(model)
    found = {method: localisation(maps[method], masks, grid) for method in maps}
    few = min(int(SCORE_CAM_BUDGET / cost / channels), SCORE_CAM_MOST, len(chosen))
    if few >= SCORE_CAM_LEAST:
        some = spread(len(chosen), few)
        found["scorecam"] = localisation(METHODS["scorecam"](model, pictures[some], labels[some]), masks[some], grid)
    twin = once_for(model, "random twin", lambda: randomised(model, seed=0))
    same = dataset.digest, dataset.masks, chosen.tobytes(), pictures.shape
    random = once_for(twin, same, lambda: METHODS[SANITY](twin, pictures, labels))
    similarity = [spearman(a, b) for a, b in zip(maps[SANITY], random, strict=True)]
    return {
        **_named(found),
        "explain/chance": found[SANITY].chance,
        f"explain/pointing_game_randomised/{SANITY}": localisation(random, masks, grid).pointing,
        f"explain/randomised_similarity/{SANITY}": float(np.mean(similarity)),
    }


def _named(found: dict[str, Localisation]) -> dict[str, float]:
    pointing = {f"explain/pointing_game/{method}": figures.pointing for method, figures in found.items()}
    return pointing | {f"explain/energy_inside/{method}": figures.energy for method, figures in found.items()}


def _map_channels(model: keras.Model) -> int:
    """The number of feature maps of the default layer, 0 if there is none."""
    try:
        return int(logit_model(model).outputs[0].shape[-1])
    except UserError:  # one's own network; the sheet of heat maps says why
        return 0


def multiply_adds(model: keras.Model) -> int:
    """What an image costs in the convolutions and dense layers: each weight, at each pixel of the output."""
    return sum(
        math.prod(weight.shape) * math.prod(layer.output.shape[1:-1])
        for layer in flattened(model).layers
        for weight in layer.weights
        if len(weight.shape) > 1
    )


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` of the positions 0 to `total` - 1, evenly spread, the first and the last among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)
