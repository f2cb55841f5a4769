"""Freeze policies: which layers of the backbone are trained. The head always is."""

from __future__ import annotations

from keras import layers

from cnnexp.config.network import FREEZE_MODES
from cnnexp.errors import UserError, nearest
from cnnexp.models.build import Network


def apply_freeze_policy(network: Network, mode: str, first_trainable_layer: str | None = None) -> None:
    """Set `trainable` on every backbone layer. Call it before `compile`: afterwards it silently does nothing.

    "none" trains the whole backbone and "full" freezes it. "until_layer" trains `first_trainable_layer` and
    every backbone layer listed after it in `model.layers` (the order of `cnnexp summary`), and freezes those
    listed before. The order is topological, so no layer before the first trained one takes its input from a
    trained one, also where branches run in parallel.

    Batch normalization of a pretrained backbone stays frozen under every mode. That is what keeps its moving
    statistics in use while its neighbours are fine-tuned: in `fit`, a flat graph overrules the
    `training=False` a layer was called with (keras-team/keras issue 20285), but not a frozen layer.

    Args:
        network: not compiled yet; a policy may follow another.
        mode: "none", "full" or "until_layer".
        first_trainable_layer: a layer of the backbone, for "until_layer".

    Raises:
        UserError: unknown mode; no such layer in the backbone.
    """
    if mode not in FREEZE_MODES:
        raise UserError(f"freeze_policy.mode: there is no mode {mode!r}; choose one of {', '.join(FREEZE_MODES)}")
    backbone = network.backbone_layers
    start = {"none": 0, "full": len(backbone)}.get(mode)
    if start is None:
        start = _position(network, first_trainable_layer)
    for position, layer in enumerate(backbone):
        keeps_statistics = network.pretrained and isinstance(layer, layers.BatchNormalization)
        layer.trainable = position >= start and not keeps_statistics


def _position(network: Network, first_trainable_layer: str | None) -> int:
    names = [layer.name for layer in network.backbone_layers]
    if first_trainable_layer is None:
        raise UserError("freeze_policy.first_trainable_layer: mode until_layer needs the name of a layer")
    if first_trainable_layer not in names:
        close = ", ".join(nearest(first_trainable_layer, names)[:5])
        raise UserError(
            f"freeze_policy.first_trainable_layer: the backbone has no layer {first_trainable_layer!r}; "
            f"nearest of its {len(names)} layers: {close}"
        )
    return names.index(first_trainable_layer)


def layer_factors(network: Network, decay: float) -> dict[str, float]:
    """Factors on the learning rate that fall with the distance from the head (Howard & Ruder 2018, arXiv 1801.06146,
    section 3.2: discriminative fine-tuning).

    Args:
        network: with its backbone's layers in topological order.
        decay: of each layer with weights, counted from the head down; the head has 1.

    Returns:
        `variable.path` of the backbone's weights -> decay ** 1 for the topmost layer, ** 2 below it, and so on;
        {} for a decay of 1.
    """
    if decay == 1:
        return {}
    weighted = [layer for layer in network.backbone_layers if layer.weights]
    return {
        weight.path: decay**distance
        for distance, layer in enumerate(reversed(weighted), start=1)
        for weight in layer.weights
    }
