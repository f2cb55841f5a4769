"""The networks of the design's list, built from `conf/backbone/`: what they compute, against NumPy written from their
papers, and what their cut for fine-tuning leaves to train, against numbers counted by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from cnnexp.composition import load_config
from cnnexp.config import Config
from cnnexp.models.build import Network, build_model
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.heads import pooled
from cnnexp.targets import bind
from cnnexp.training.features import cut_model

RNG = np.random.default_rng(0)


# ------------------------------------------------------------------------------------- layers, in NumPy


def windows(x: np.ndarray, size: tuple[int, int], stride: int, padding: str, fill: float = 0.0) -> np.ndarray:
    """(B, H, W, C) -> (B, h, w, C, size). "same" as in TensorFlow: the odd pixel goes to the bottom and the right."""
    pads = [(0, 0)] * 4
    for axis in (0, 1):
        if padding == "same":
            length = x.shape[axis + 1]
            total = max((-(-length // stride) - 1) * stride + size[axis] - length, 0)
            pads[axis + 1] = (total // 2, total - total // 2)
    padded = np.pad(x, pads, constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))[:, ::stride, ::stride]


def max_pool(x: np.ndarray, size: int, stride: int, padding: str = "valid") -> np.ndarray:
    return windows(x, (size, size), stride, padding, fill=-np.inf).max(axis=(-2, -1))


def average_pool_3(x: np.ndarray) -> np.ndarray:
    """3x3 with stride 1; outside the image there is nothing, not zero."""
    inside = windows(np.ones_like(x), (3, 3), 1, "same").sum(axis=(-2, -1))
    return windows(x, (3, 3), 1, "same").sum(axis=(-2, -1)) / inside


def pad(x: np.ndarray, before: int, after: int) -> np.ndarray:
    return np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def swish(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf  # the exact form, not the approximation by tanh

    return x * (1 + erf(x / np.sqrt(2))) / 2


class Weights:
    """Layers by their names, in float64, with the weights of a Keras model."""

    def __init__(self, model: keras.Model, epsilon: float) -> None:
        self.epsilon = epsilon  # of batch normalization
        self.arrays: dict[str, list[np.ndarray]] = {}
        for layer in model.layers:
            for part in layer.layers if isinstance(layer, keras.Sequential) else [layer]:
                self.arrays[part.name] = part.get_weights()
        self.number = (f"_{n}" if n else "" for n in itertools.count())  # conv2d, conv2d_1, ...

    def conv(self, x: np.ndarray, name: str, stride: int = 1, padding: str = "same") -> np.ndarray:
        kernel, *bias = self.arrays[name]  # (h, w, in, out)
        patches = windows(x, kernel.shape[:2], stride, padding)
        return np.tensordot(patches, kernel.astype(float), ([4, 5, 3], [0, 1, 2])) + sum(bias)

    def depthwise(self, x: np.ndarray, name: str, stride: int = 1, padding: str = "same") -> np.ndarray:
        kernel, *more = self.arrays[name]
        per_channel = kernel[..., 0] if kernel.shape[3] == 1 else kernel[:, :, 0]  # (h, w, channel)
        y = np.einsum("bhwcij,ijc->bhwc", windows(x, kernel.shape[:2], stride, padding), per_channel.astype(float))
        if more and more[0].ndim == 4:  # a separable convolution: 1x1 over the channels
            return y @ more[0][0, 0].astype(float)
        return y + sum(more)

    def bn(self, x: np.ndarray, name: str) -> np.ndarray:
        *scale, beta, mean, variance = self.arrays[name]
        return (x - mean) / np.sqrt(variance + self.epsilon) * (scale[0] if scale else 1) + beta

    def layer_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        gamma, beta = self.arrays[name]
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * gamma + beta

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = self.arrays[name]
        return x @ kernel.astype(float) + bias

    def unit(self, x: np.ndarray, stride: int = 1, padding: str = "same") -> np.ndarray:
        """Convolution, batch normalization, ReLU of the Inceptions; Keras numbers them as they are made."""
        n = next(self.number)
        return relu(self.bn(self.conv(x, f"conv2d{n}", stride, padding), f"batch_normalization{n}"))

    def units(self, x: np.ndarray, count: int) -> np.ndarray:
        for _ in range(count):
            x = self.unit(x)
        return x


# ----------------------------------------------------------------------------------- networks, in NumPy


def caffe(x: np.ndarray) -> np.ndarray:
    return x[..., ::-1] - np.array([103.939, 116.779, 123.68])


def vgg(x: np.ndarray, w: Weights, convolutions: tuple[int, ...]) -> np.ndarray:
    """Simonyan and Zisserman 2014, arXiv 1409.1556, table 1, columns D and E."""
    x = caffe(x)
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            x = relu(w.conv(x, f"block{block}_conv{number}"))
        x = max_pool(x, 2, 2)
    return x


def resnet50(x: np.ndarray, w: Weights) -> np.ndarray:
    """He et al. 2015, arXiv 1512.03385, table 1; the first 1x1 convolution of a stage has the stride."""
    x = relu(w.bn(w.conv(pad(caffe(x), 3, 3), "conv1_conv", 2, "valid"), "conv1_bn"))
    x = max_pool(pad(x, 1, 1), 3, 2)
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(1, blocks + 1):
            name, stride = f"conv{stage}_block{block}", 2 if block == 1 and stage > 2 else 1
            shortcut = w.bn(w.conv(x, f"{name}_0_conv", stride), f"{name}_0_bn") if block == 1 else x
            y = relu(w.bn(w.conv(x, f"{name}_1_conv", stride), f"{name}_1_bn"))
            y = relu(w.bn(w.conv(y, f"{name}_2_conv"), f"{name}_2_bn"))
            x = relu(shortcut + w.bn(w.conv(y, f"{name}_3_conv"), f"{name}_3_bn"))
    return x


def inception_stem(x: np.ndarray, w: Weights) -> np.ndarray:
    x = w.unit(w.unit(w.unit(x / 127.5 - 1, 2, "valid"), 1, "valid"))
    return max_pool(w.unit(w.unit(max_pool(x, 3, 2), 1, "valid"), 1, "valid"), 3, 2)


def inception_v3(x: np.ndarray, w: Weights) -> np.ndarray:
    """Szegedy et al. 2015, arXiv 1512.00567, table 1 and figures 5 to 7 and 10."""
    join = lambda *branches: np.concatenate(branches, axis=-1)  # noqa: E731
    x = inception_stem(x, w)
    for _ in range(3):
        x = join(w.unit(x), w.units(x, 2), w.units(x, 3), w.unit(average_pool_3(x)))
    x = join(w.unit(x, 2, "valid"), w.unit(w.units(x, 2), 2, "valid"), max_pool(x, 3, 2))
    for _ in range(4):
        x = join(w.unit(x), w.units(x, 3), w.units(x, 5), w.unit(average_pool_3(x)))
    x = join(w.unit(w.unit(x), 2, "valid"), w.unit(w.units(x, 3), 2, "valid"), max_pool(x, 3, 2))
    for _ in range(2):
        first, y = w.unit(x), w.unit(x)
        second = join(w.unit(y), w.unit(y))
        y = w.units(x, 2)
        x = join(first, second, join(w.unit(y), w.unit(y)), w.unit(average_pool_3(x)))
    return x


def inception_resnet_v2(x: np.ndarray, w: Weights) -> np.ndarray:
    """Szegedy et al. 2016, arXiv 1602.07261, figures 15 to 19 and section 3.3 for the scaling of the residuals."""
    join = lambda *branches: np.concatenate(branches, axis=-1)  # noqa: E731

    def residual(x: np.ndarray, kind: str, number: int, depths: tuple[int, ...], scale: float) -> np.ndarray:
        return x + scale * w.conv(join(*(w.units(x, depth) for depth in depths)), f"{kind}_{number}_conv")

    x = inception_stem(x, w)
    x = join(w.unit(x), w.units(x, 2), w.units(x, 3), w.unit(average_pool_3(x)))
    for number in range(1, 11):
        x = relu(residual(x, "block35", number, (1, 2, 3), 0.17))
    x = join(w.unit(x, 2, "valid"), w.unit(w.units(x, 2), 2, "valid"), max_pool(x, 3, 2))
    for number in range(1, 21):
        x = relu(residual(x, "block17", number, (1, 3), 0.1))
    shrunk = [w.unit(w.units(x, depth), 2, "valid") for depth in (1, 1, 2)]
    x = join(*shrunk, max_pool(x, 3, 2))
    for number in range(1, 10):
        x = relu(residual(x, "block8", number, (1, 3), 0.2))
    return relu(w.bn(w.conv(residual(x, "block8", 10, (1, 3), 1.0), "conv_7b"), "conv_7b_bn"))


def xception(x: np.ndarray, w: Weights) -> np.ndarray:
    """Chollet 2016, arXiv 1610.02357, figure 5."""

    def separable(x: np.ndarray, name: str) -> np.ndarray:
        return w.bn(w.depthwise(x, name), f"{name}_bn")

    x = relu(w.bn(w.conv(x / 127.5 - 1, "block1_conv1", 2, "valid"), "block1_conv1_bn"))
    x = relu(w.bn(w.conv(x, "block1_conv2", 1, "valid"), "block1_conv2_bn"))
    for block in range(2, 14):
        shrinks = block in (2, 3, 4, 13)
        n = next(w.number) if shrinks else ""
        shortcut = w.bn(w.conv(x, f"conv2d{n}", 2), f"batch_normalization{n}") if shrinks else x
        y = x
        for number in (1, 2) if shrinks else (1, 2, 3):
            y = separable(y if (block, number) == (2, 1) else relu(y), f"block{block}_sepconv{number}")
        x = shortcut + (max_pool(y, 3, 2, "same") if shrinks else y)
    return relu(separable(relu(separable(x, "block14_sepconv1")), "block14_sepconv2"))


def mobilenet(x: np.ndarray, w: Weights) -> np.ndarray:
    """Howard et al. 2017, arXiv 1704.04861, table 1."""

    def relu6(x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, 6)

    x = relu6(w.bn(w.conv(x / 127.5 - 1, "conv1", 2), "conv1_bn"))
    for block in range(1, 14):
        shrinks = block in (2, 4, 6, 12)
        y = w.depthwise(pad(x, 0, 1), f"conv_dw_{block}", 2, "valid") if shrinks else w.depthwise(x, f"conv_dw_{block}")
        x = relu6(w.bn(y, f"conv_dw_{block}_bn"))
        x = relu6(w.bn(w.conv(x, f"conv_pw_{block}"), f"conv_pw_{block}_bn"))
    return x


def efficientnet_v2_b0(x: np.ndarray, w: Weights) -> np.ndarray:
    """Tan and Le 2021, arXiv 2104.00298, figure 2 and table 4 with the repeats of B0."""
    x = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = swish(w.bn(w.conv(x, "stem_conv", 2), "stem_bn"))
    stages = ((1, 1, True), (2, 2, True), (2, 2, True), (3, 2, False), (5, 1, False), (8, 2, False))
    for stage, (repeats, first_stride, fused) in enumerate(stages, start=1):
        for block in "abcdefgh"[:repeats]:
            name, stride = f"block{stage}{block}_", first_stride if block == "a" else 1
            y = x
            if stage == 1:
                x = swish(w.bn(w.conv(y, f"{name}project_conv"), f"{name}project_bn"))
                continue
            y = swish(w.bn(w.conv(y, f"{name}expand_conv", stride if fused else 1), f"{name}expand_bn"))
            if not fused:
                y = swish(w.bn(w.depthwise(y, f"{name}dwconv2", stride), f"{name}bn"))
                gate = swish(w.conv(y.mean(axis=(1, 2), keepdims=True), f"{name}se_reduce"))
                y = y * sigmoid(w.conv(gate, f"{name}se_expand"))
            y = w.bn(w.conv(y, f"{name}project_conv"), f"{name}project_bn")
            x = y if block == "a" else x + y
    return swish(w.bn(w.conv(x, "top_conv"), "top_bn"))


def convnext_tiny(x: np.ndarray, w: Weights) -> np.ndarray:
    """Liu et al. 2022, arXiv 2201.03545, figure 4 and appendix A; Keras normalizes before it pools."""
    x = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = w.layer_norm(w.conv(x, "convnext_tiny_stem_conv", 4, "valid"), "convnext_tiny_stem_layernorm")
    for stage, blocks in enumerate((3, 3, 9, 3)):
        if stage:
            x = w.layer_norm(x, f"convnext_tiny_downsampling_layernorm_{stage - 1}")
            x = w.conv(x, f"convnext_tiny_downsampling_conv_{stage - 1}", 2, "valid")
        for block in range(blocks):
            name = f"convnext_tiny_stage_{stage}_block_{block}"
            y = w.layer_norm(w.depthwise(x, f"{name}_depthwise_conv"), f"{name}_layernorm")
            y = w.dense(gelu(w.dense(y, f"{name}_pointwise_conv_1")), f"{name}_pointwise_conv_2")
            x = x + y * w.arrays[f"{name}_layer_scale"][0]
    return w.layer_norm(x, "layer_normalization")


# --------------------------------------------------------------------------------------------- the table


class Case(NamedTuple):
    """A network at its smallest image size, in pixels, and its cut for fine-tuning.

    trained: tensors of the backbone that are trained behind the cut; batch normalization is frozen.
    stored:  the (h, w, c) of each array that the feature cache keeps of an image. What lies behind the cut but depends
             on no trained layer is fixed, too: a pool, a border, an activation.
    """

    numpy: Callable[[np.ndarray, Weights], np.ndarray]
    size: int
    epsilon: float
    first: str
    trained: int
    stored: list[tuple[int, int, int]]


def vgg16(x: np.ndarray, w: Weights) -> np.ndarray:
    return vgg(x, w, (2, 2, 3, 3, 3))


def vgg19(x: np.ndarray, w: Weights) -> np.ndarray:
    return vgg(x, w, (2, 2, 4, 4, 4))


V2_BLOCK = 3 + 2 * 2  # expansion, depthwise, projection without a bias; two convolutions with one that gate
CONVNEXT_BLOCK = 2 + 2 + 2 + 2 + 1  # depthwise, normalization, two dense layers, the scale of the layer
RESIDUAL_C = 1 + 3 + 2  # a branch of one and one of three convolutions; one with a bias joins them

CASES = {
    "vgg16": Case(vgg16, 32, 0.0, "block5_conv1", 3 * 2, [(2, 2, 512)]),
    "vgg19": Case(vgg19, 32, 0.0, "block5_conv1", 4 * 2, [(2, 2, 512)]),
    "resnet50": Case(resnet50, 32, 1.001e-5, "conv5_block1_1_conv", (3 * 3 + 1) * 2, [(2, 2, 1024)]),
    "inception_v3": Case(inception_v3, 75, 1e-3, "mixed7", (2 + 4) + 2 * (1 + 3 + 4 + 1), [(3, 3, 768), (1, 1, 768)]),
    "inception_resnet_v2": Case(
        inception_resnet_v2, 75, 1e-3, "block17_20_ac", (2 + 2 + 3) + 10 * RESIDUAL_C + 1, [(3, 3, 1088), (1, 1, 1088)]
    ),
    "xception": Case(xception, 71, 1e-3, "block13_sepconv1_act", 1 + 4 * 2, [(5, 5, 728)] * 2),
    "mobilenet": Case(mobilenet, 32, 1e-3, "conv_dw_12", 2 * 2, [(3, 3, 512)]),
    "efficientnet_v2_b0": Case(efficientnet_v2_b0, 32, 1e-3, "block6a_expand_conv", 8 * V2_BLOCK + 1, [(2, 2, 112)]),
    "convnext_tiny": Case(
        convnext_tiny, 32, 0.0, "convnext_tiny_downsampling_block_2", 4 + 3 * CONVNEXT_BLOCK + 2, [(2, 2, 384)]
    ),
}


class Built(NamedTuple):
    name: str
    config: Config
    network: Network


LARGE = pytest.param("inception_resnet_v2", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[LARGE if name == "inception_resnet_v2" else name for name in CASES])
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    """The network of `backbone=NAME` with random weights, under the layer names of a fresh process."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    size, config = CASES[request.param].size, load_config([f"backbone={request.param}"])
    builder = bind("backbone", config.backbone, omit=("finetune_from",), weights=None)
    network = build_model((size, size, 3), 2, builder, pooled, request.param)
    for weight in network.model.weights:
        if len(weight.shape) == 1:  # kernels keep what Keras has drawn
            about_zero = weight.name in ("beta", "bias", "moving_mean")
            drawn = RNG.normal(0, 0.1, weight.shape) if about_zero else RNG.uniform(0.5, 1.5, weight.shape)
            weight.assign(drawn)
    network.pretrained = True  # as with the weights that the file names: without dropout, too
    for layer in network.backbone_layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    yield Built(request.param, config, network)
    keras.utils.clear_session(free_memory=False)


def test_computes_what_numpy_computes(built: Built) -> None:
    case, model = CASES[built.name], built.network.model
    images = RNG.integers(0, 256, (1, case.size, case.size, 3), np.uint8)
    expected = case.numpy(images.astype(float), Weights(model, case.epsilon))
    features = keras.Model(model.input, model.get_layer("head_pool").input)(images).numpy()
    assert features.shape == expected.shape
    assert np.abs(expected).max() > 0.05 and expected.std() > 0.01  # says something
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


def test_fine_tuning_trains_what_lies_behind_the_cut(built: Built) -> None:
    case, network = CASES[built.name], built.network
    assert built.config.backbone.finetune_from == case.first
    apply_freeze_policy(network, "until_layer", case.first)
    trained = [weight for layer in network.backbone_layers for weight in layer.trainable_weights]
    assert len(trained) == case.trained
    cut = cut_model(network.model)
    assert cut is not None
    assert [output.shape[1:] for output in cut.fixed.outputs] == case.stored
    assert not cut.fixed.trainable_weights


def test_the_graph_is_flat_and_of_keras_own_layers(built: Built) -> None:
    """Stem and down-sampling of ConvNeXt are pairs of layers, which Keras itself keeps in a Sequential each."""
    nested = [layer.name for layer in built.network.model.layers if isinstance(layer, keras.Model)]
    pairs = ["stem", *(f"downsampling_block_{number}" for number in range(3))]
    assert nested == [f"convnext_tiny_{pair}" for pair in pairs if built.name == "convnext_tiny"]
    for layer in {type(layer): layer for layer in built.network.model.layers}.values():
        loaded: Any = keras.layers.deserialize(keras.layers.serialize(layer))  # without being told of any class
        assert type(loaded) is type(layer) and type(layer).__module__.startswith("keras.")
