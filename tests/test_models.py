"""Backbones, heads, freeze policies and parameter counts, against Keras and numbers worked out by hand."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.config.network import PREPROCESSING
from cnnexp.errors import UserError
from cnnexp.models.applications import MINIMUM_SIZES, application
from cnnexp.models.backbone import Backbone, layers_between
from cnnexp.models.build import Network, build_model
from cnnexp.models.cnn import convnet
from cnnexp.models.counts import layer_rows, parameter_formula, totals
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.heads import flatten_dense, pooled
from cnnexp.models.names import APPLICATIONS
from cnnexp.models.preprocessing import preprocess, to_rgb

RGB = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(autouse=True)
def _fresh_names() -> None:
    """Each test sees the layer names of a fresh process, and the same random weights."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def keras_backbone(name: str, weights: str | None = None, **arguments: Any) -> Callable[..., Backbone]:
    mode = APPLICATIONS[name].preprocessing
    return partial(application, name=name, weights=weights, preprocessing=mode, arguments=arguments)


def network_of(name: str, size: int = 32, weights: str | None = None, **arguments: Any) -> Network:
    return build_model((size, size, 3), 2, keras_backbone(name, weights, **arguments), pooled, name)


def branching(inputs: keras.KerasTensor, pretrained: bool = False) -> Backbone:
    """stem -> (left1 -> left2 | right) -> join -> last."""
    stem = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    left = keras.layers.Conv2D(4, 1, name="left1")(stem)
    left = keras.layers.Conv2D(4, 1, name="left2")(left)
    right = keras.layers.Conv2D(4, 1, name="right")(stem)
    x = keras.layers.Add(name="join")([left, right])
    x = keras.layers.Conv2D(4, 1, name="last")(x)
    return Backbone(inputs, x, layers_between(inputs, x), pretrained)


def normalizing(inputs: keras.KerasTensor, pretrained: bool) -> Backbone:
    """conv -> batch normalization, on one channel; the convolution passes a grey value on as it is."""
    x = keras.layers.Conv2D(1, 1, name="conv", kernel_initializer="ones")(inputs)
    x = keras.layers.BatchNormalization(name="bn", epsilon=0.0)(x)
    return Backbone(inputs, x, layers_between(inputs, x), pretrained)


# ---------------------------------------------------------------------------------------------- preprocessing


def run(graph: Callable[[keras.KerasTensor], keras.KerasTensor], images: np.ndarray) -> np.ndarray:
    inputs = keras.Input(images.shape[1:])
    return np.asarray(keras.Model(inputs, graph(inputs))(images))


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_preprocessing_equals_keras(mode: str) -> None:
    expected = keras.applications.imagenet_utils.preprocess_input(RGB.copy(), mode=mode)
    np.testing.assert_allclose(run(partial(preprocess, mode=mode), RGB), expected, atol=1e-5)


def test_preprocessing_by_hand() -> None:
    pixel = np.array([[[[0, 51, 255]]]], "float32")
    assert run(partial(preprocess, mode="rescale"), pixel) == pytest.approx(np.array([[[[0, 0.2, 1]]]]))
    assert run(partial(preprocess, mode="tf"), pixel) == pytest.approx(np.array([[[[-1, -0.6, 1]]]]))
    lite = np.array([[[[-127 / 128, -76 / 128, 1]]]])
    assert run(partial(preprocess, mode="lite"), pixel) == pytest.approx(lite)
    caffe = np.array([[[[255 - 103.939, 51 - 116.779, 0 - 123.68]]]])
    assert run(partial(preprocess, mode="caffe"), pixel) == pytest.approx(caffe, abs=1e-4)
    assert np.array_equal(run(partial(preprocess, mode="none"), pixel), pixel)


def test_every_application_names_the_preprocessing_of_its_keras_module() -> None:
    ours = {mode: run(partial(preprocess, mode=mode), RGB) for mode in PREPROCESSING}
    for name, (attribute, mode) in APPLICATIONS.items():
        module = sys.modules[getattr(keras.applications, attribute).__module__]
        expected = module.preprocess_input(RGB.copy())
        np.testing.assert_allclose(ours[mode], expected, atol=1e-5, err_msg=name)


def test_preprocessing_refuses_an_unknown_mode_and_grey_images() -> None:
    with pytest.raises(UserError, match=r"backbone\.preprocessing: .*'cafe'.*caffe, .*torch"):
        preprocess(keras.Input((8, 8, 3)), "cafe")
    with pytest.raises(UserError, match=r"backbone\.preprocessing=torch .*three channels, not 1"):
        preprocess(keras.Input((8, 8, 1)), "torch")


def test_grey_becomes_rgb() -> None:
    grey = RGB[..., :1]
    assert np.array_equal(run(to_rgb, grey), np.repeat(grey, 3, axis=-1))
    assert np.array_equal(run(to_rgb, RGB), RGB)


@pytest.mark.parametrize("mode", PREPROCESSING)
def test_a_saved_model_is_plain_keras(mode: str, tmp_path: Path) -> None:
    backbone = partial(convnet, filters=[4, 4], preprocessing=mode)
    model = build_model((32, 32, 3), 3, backbone, pooled, "saved").model
    assert "cnnexp" not in model.to_json()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(loaded(RGB), model(RGB))


# --------------------------------------------------------------------------------------------- convnet, heads


def test_the_tutorials_networks_have_its_parameter_counts() -> None:
    baseline = build_model((150, 150, 3), 2, convnet, partial(flatten_dense, units=512), "baseline")
    assert baseline.model.count_params() == 3_453_121
    small = partial(convnet, filters=[32, 64, 64], pool_last=False)
    mnist = build_model((28, 28, 1), 10, small, partial(flatten_dense, units=64), "mnist")
    assert mnist.model.count_params() == 93_322
    names = [layer.name for layer in mnist.backbone_layers]
    assert names == ["block1_conv", "block1_pool", "block2_conv", "block2_pool", "block3_conv"]
    assert mnist.backbone_layers[-1].output.shape == (None, 3, 3, 64)
    assert mnist.model.input.name == "image" and mnist.model.input.dtype == "float32"


@pytest.mark.parametrize(("pool_last", "minimum"), [(True, 22), (False, 18)])
def test_convnet_names_the_smallest_image_it_takes(pool_last: bool, minimum: int) -> None:
    """Backwards through three blocks: 1 -> 2 -> 4 -> 8 -> 10 -> 20 -> 22, or 1 -> 3 -> 6 -> 8 -> 16 -> 18."""
    build = partial(convnet, filters=[4, 4, 4], pool_last=pool_last)
    assert build(keras.Input((minimum, minimum, 3))).outputs.shape == (None, 1, 1, 4)
    with pytest.raises(UserError, match=rf"dataset\.image_size: .* {minimum}x{minimum} pixels, not 40x{minimum - 1}"):
        build(keras.Input((40, minimum - 1, 3)))


def test_convnet_kernel_size_and_weight_file(tmp_path: Path) -> None:
    image = keras.Input((32, 32, 3))
    first = convnet(image, filters=[4, 4], kernel_size=5)
    assert first.outputs.shape == (None, 5, 5, 4) and not first.pretrained  # 32 -> 28 -> 14 -> 10 -> 5
    file = tmp_path / "convnet.weights.h5"
    keras.Model(image, first.outputs).save_weights(file)
    second = convnet(image, filters=[4, 4], kernel_size=5, weights=str(file))
    assert second.pretrained
    for before, after in zip(first.layers, second.layers, strict=True):
        assert all(map(np.array_equal, before.get_weights(), after.get_weights()))


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (partial(flatten_dense, units=5), "flatten head_dense predictions"),
        (
            partial(flatten_dense, units=5, input_dropout=0.5),
            "flatten head_input_dropout head_dense predictions",
        ),
        (partial(flatten_dense, units=5, dropout=0.5), "flatten head_dense head_dropout predictions"),
        (pooled, "head_pool predictions"),
        (partial(pooled, units=5), "head_pool head_dense predictions"),
        (partial(pooled, dropout=0.25), "head_pool head_dropout predictions"),
    ],
)
def test_head_layers(head: Callable[..., keras.KerasTensor], names: str) -> None:
    network = build_model((32, 32, 3), 2, partial(convnet, filters=[4]), head, "head")
    assert " ".join(layer.name for layer in network.head_layers) == names
    assert network.model.layers[-1].activation is keras.activations.sigmoid
    assert network.model.output.shape == (None, 1)


def test_dropout_rates_reach_their_layers() -> None:
    head = partial(flatten_dense, units=5, input_dropout=0.25, dropout=0.75)
    rates = {layer.name: getattr(layer, "rate", None) for layer in small_network(head).head_layers}
    assert rates["head_input_dropout"] == 0.25 and rates["head_dropout"] == 0.75


def small_network(head: Callable[..., keras.KerasTensor], num_classes: int = 2) -> Network:
    return build_model((32, 32, 3), num_classes, partial(convnet, filters=[4]), head, "small")


def test_more_than_two_classes_give_probabilities_that_sum_to_one() -> None:
    probabilities = np.asarray(small_network(pooled, num_classes=4).model(RGB))
    assert probabilities.shape == (2, 4)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


def test_a_builder_that_returns_something_else_is_refused() -> None:
    with pytest.raises(UserError, match=r"backbone\._target_: .*KerasTensor.*Backbone"):
        build_model((32, 32, 3), 2, lambda inputs: inputs, pooled, "wrong")


# ----------------------------------------------------------------------------------------------- applications


def test_the_names_are_all_of_keras_applications_and_need_no_keras() -> None:
    functions = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {attribute for attribute, _ in APPLICATIONS.values()} == functions
    code = "import sys, cnnexp.models.names; assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_application_is_part_of_one_flat_graph() -> None:
    """Its layers stand in the model under their own names and compute what the Keras network computes."""
    network = network_of("mobilenet", alpha=0.25)
    reference = keras.applications.MobileNet(alpha=0.25, weights=None, include_top=False, input_shape=(32, 32, 3))
    body = reference.layers[1:]
    assert [layer.name for layer in network.backbone_layers] == [layer.name for layer in body]
    names = [layer.name for layer in network.model.layers]
    assert names[:2] == ["image", "preprocess_tf"] and names[-2:] == ["head_pool", "predictions"]
    assert len(names) == len(body) + 4
    for ours, theirs in zip(network.backbone_layers, body, strict=True):
        ours.set_weights(theirs.get_weights())
    features = keras.Model(network.model.input, network.backbone_layers[-1].output)(RGB)
    expected = reference(keras.applications.mobilenet.preprocess_input(RGB.copy()))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_each_layer_gets_its_weights_from_the_file(suffix: str, tmp_path: Path) -> None:
    """Also in a network with branches, and behind preprocessing layers that the file does not know."""
    reference = keras.applications.MobileNetV2(alpha=0.35, weights=None, include_top=False, input_shape=(32, 32, 3))
    file = tmp_path / f"mobilenet{suffix}"
    reference.save_weights(file) if suffix == ".weights.h5" else reference.save(file)
    backbone = keras_backbone("mobilenet_v2", str(file), alpha=0.35)(keras.Input((32, 32, 1)))
    assert backbone.pretrained
    for layer in backbone.layers:
        expected = reference.get_layer(layer.name).get_weights()
        assert all(map(np.array_equal, layer.get_weights(), expected)), layer.name


def test_a_grey_image_passes_through_an_rgb_network() -> None:
    network = build_model((32, 32, 1), 2, keras_backbone("mobilenet", alpha=0.25), pooled, "grey")
    assert network.model(RGB[..., :1]).shape == (2, 1)
    assert network.model.get_layer("conv1").input.shape[-1] == 3


def test_a_pretrained_efficientnet_has_no_dropout_and_normalizes_as_it_was_trained(tmp_path: Path) -> None:
    """Its ImageNet file holds the standard deviation where the layer expects the variance."""
    reference = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    reference.get_layer("normalization").set_weights(
        [np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)]
    )
    reference.save_weights(tmp_path / "b0.weights.h5")
    keras.utils.clear_session(free_memory=False)
    network = network_of("efficientnet_b0", weights=str(tmp_path / "b0.weights.h5"))
    normalized = keras.Model(network.model.input, network.model.get_layer("normalization").output)(RGB)
    expected = keras.applications.imagenet_utils.preprocess_input(RGB.copy(), mode="torch")
    np.testing.assert_allclose(normalized, expected, atol=1e-4)
    rates = [layer.rate for layer in network.backbone_layers if isinstance(layer, keras.layers.Dropout)]
    assert len(rates) == 9 and set(rates) == {0.0}  # one in each of the 16 blocks that has a shortcut


def test_minimum_sizes_are_those_of_keras() -> None:
    for name, (attribute, _) in APPLICATIONS.items():
        side = MINIMUM_SIZES.get(name, 32)
        with pytest.raises(UserError, match=rf"dataset\.image_size: {name} .* {side}x{side} pixels, not {side - 1}"):
            keras_backbone(name)(keras.Input((side - 1, side - 1, 3)))
        build = getattr(keras.applications, attribute)
        with pytest.raises(ValueError, match=rf"at least {side}"):
            build(weights=None, include_top=False, input_shape=(side - 1, side - 1, 3))


def test_a_wrong_name_or_argument_is_one_line() -> None:
    inputs = keras.Input((32, 32, 3))
    with pytest.raises(UserError, match=r"backbone\.name: .*'vgg17'; nearest: vgg1[69], vgg1[69],"):
        application(inputs, "vgg17", None, "caffe")
    with pytest.raises(UserError, match=r"backbone\.arguments: mobilenet does not take .*alfa"):
        application(inputs, "mobilenet", None, "tf", {"alfa": 1.0})
    with pytest.raises(UserError, match=r"backbone\.arguments: pooling cannot be given"):
        application(inputs, "mobilenet", None, "tf", {"pooling": "avg"})
    with pytest.raises(UserError, match=r"Keras does not build mobilenet this way .*alpha"):
        application(inputs, "mobilenet", "imagenet", "tf", {"alpha": 0.3})


# ----------------------------------------------------------------------------------------------- weight files


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name in ("vgg16", "mobilenet"):
        build = getattr(keras.applications, APPLICATIONS[name].attribute)
        model = build(weights=None, include_top=False, input_shape=(32, 32, 3))
        files[name], files[f"{name} legacy"] = folder / f"{name}.weights.h5", folder / f"{name}.h5"
        model.save_weights(files[name])
        model.save(files[f"{name} legacy"])
    for name in ("text.weights.h5", "text.h5", "text.keras", "text.pth"):
        files[name] = folder / name
        files[name].write_text("not weights")
    files["missing"] = folder / "missing.h5"
    return files


@pytest.mark.filterwarnings("error:Skipping nested container")
@pytest.mark.parametrize(
    ("network", "file", "message"),
    [
        ("vgg19", "vgg16", "is not of vgg19"),
        ("vgg19", "vgg16 legacy", "is not of vgg19"),
        ("vgg16", "mobilenet", "is not of vgg16"),
        ("vgg16", "mobilenet legacy", "is not of vgg16"),
        ("mobilenet", "vgg16", "is not of mobilenet"),
        ("vgg16", "text.weights.h5", "is not a weight file"),
        ("vgg16", "text.h5", "is not a weight file"),
        ("vgg16", "text.keras", "is not a weight file"),
        ("vgg16", "text.pth", "must end in one of .h5"),
        ("vgg16", "missing", "there is no file"),
    ],
)
def test_a_weight_file_that_does_not_fit_is_one_line(
    network: str, file: str, message: str, weight_files: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        application(keras.Input((32, 32, 3)), network, str(weight_files[file]), "none")
    text = str(caught.value)
    assert text.startswith("backbone.weights: ") and str(weight_files[file]) in text and "\n" not in text


def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))  # an empty cache
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens on the discard port
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UserError, match="needs a download that failed") as caught:
        application(keras.Input((32, 32, 3)), "vgg16", "imagenet", "none")
    text = str(caught.value)
    assert text.startswith("backbone.weights=imagenet: vgg16 ") and "\n" not in text
    assert "put vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 into ~/.keras/models" in text
    assert "backbone=efficientnet_lite0 works offline" in text
    assert capsys.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("connected", [True, False])
def test_a_download_speaks_on_stderr_once_data_arrives(
    connected: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://storage.googleapis.com/nasnet/NASNet-mobile-no-top.h5"

    def download(**_: Any) -> None:
        assert socket.getdefaulttimeout() == 10.0
        print(f"Downloading data from {url}")
        if connected:
            print("1/9 ...")
            print("2/9 ...")
        raise TimeoutError("timed out")

    monkeypatch.setattr(keras.applications, "NASNetMobile", download)
    with pytest.raises(UserError, match=r"\(timed out\); put nasnet_mobile_no_top.h5 into"):
        application(keras.Input((32, 32, 3)), "nasnet_mobile", "imagenet", "tf")
    assert capsys.readouterr() == ("", f"downloading {url}\n" if connected else "")


# ---------------------------------------------------------------------------------------------- freeze policy


def trained(network: Network) -> list[str]:
    return [layer.name for layer in network.backbone_layers if layer.trainable]


def test_freezing_vgg16_leaves_the_tutorials_counts() -> None:
    head = partial(flatten_dense, units=256)
    network = build_model((150, 150, 3), 2, keras_backbone("vgg16"), head, "frozen")
    before = totals(network)
    assert (before.total, before.backbone, before.head) == (16_812_353, 14_714_688, 2_097_665)
    assert (before.trainable, before.trainable_tensors) == (16_812_353, 30)
    apply_freeze_policy(network, "full")
    assert (totals(network).trainable, totals(network).trainable_tensors) == (2_097_665, 4)
    apply_freeze_policy(network, "until_layer", "block5_conv1")
    assert trained(network) == ["block5_conv1", "block5_conv2", "block5_conv3", "block5_pool"]
    after = totals(network)  # three convolutions of 512 3x3 filters over 512 channels, and the head
    assert (after.trainable, after.trainable_tensors) == (2_097_665 + 3 * (9 * 512 * 512 + 512), 10)
    apply_freeze_policy(network, "none")
    assert totals(network) == before
    rows = {row.name: row for row in layer_rows(network)}
    assert rows["block1_conv1"].formula == "(3*3*3 + 1)*64" and rows["head_dense"].formula == "(8192 + 1)*256"
    assert rows["block5_pool"].output_shape == (4, 4, 512) and rows["block5_pool"].type == "MaxPooling2D"


def test_in_a_branching_network_the_listing_decides() -> None:
    network = build_model((8, 8, 3), 2, branching, pooled, "branching")
    names = [layer.name for layer in network.backbone_layers]
    assert names == ["stem", "left1", "left2", "right", "join", "last"]
    for position, first in enumerate(names):
        apply_freeze_policy(network, "until_layer", first)
        assert trained(network) == names[position:]


@pytest.mark.parametrize("name", ["mobilenet_v2", "inception_v3"])
def test_every_layer_is_listed_after_its_inputs(name: str) -> None:
    layers = network_of(name, size=MINIMUM_SIZES.get(name, 32)).backbone_layers
    position = {layer.output.name: number for number, layer in enumerate(layers)}
    for number, layer in enumerate(layers[1:], start=1):
        for tensor in keras.tree.flatten(layer.input):
            assert position[tensor.name] < number, (layer.name, tensor.name)


def test_an_unknown_layer_is_refused_with_the_nearest_names_first() -> None:
    network = build_model((8, 8, 3), 2, branching, pooled, "branching")
    message = r"freeze_policy\.first_trainable_layer: .*no layer 'lef2'; nearest of its 6 layers: left2, left1"
    with pytest.raises(UserError, match=message):
        apply_freeze_policy(network, "until_layer", "lef2")
    with pytest.raises(UserError, match=r"no layer 'predictions'"):
        apply_freeze_policy(network, "until_layer", "predictions")
    with pytest.raises(UserError, match=r"freeze_policy\.first_trainable_layer: .*needs the name"):
        apply_freeze_policy(network, "until_layer")
    with pytest.raises(UserError, match=r"freeze_policy\.mode: .*'all'; choose one of none, full, until_layer"):
        apply_freeze_policy(network, "all")


def run_normalization(pretrained: bool, mode: str, mean: float, variance: float) -> list[float]:
    """What batch normalization makes of the values 4 and 8 when the model is called as `fit` calls it."""
    backbone = partial(normalizing, pretrained=pretrained)
    network = build_model((1, 1, 1), 2, backbone, pooled, "normalizing")
    network.model.get_layer("bn").set_weights([np.array([value]) for value in (1.0, 0.0, mean, variance)])
    apply_freeze_policy(network, mode)
    features = keras.Model(network.model.input, network.model.get_layer("bn").output)
    return np.asarray(features(np.array([4, 8], "float32").reshape(2, 1, 1, 1), training=True)).ravel().tolist()


def test_batch_norm_in_training() -> None:
    """4 and 8 have the mean 6 and the variance 4, which the moving statistics (2, 1) do not."""
    assert run_normalization(True, "full", 2.0, 1.0) == pytest.approx([2.0, 6.0])  # frozen: (4 - 2) / 1
    assert run_normalization(True, "none", 2.0, 1.0) == pytest.approx([2.0, 6.0])  # unfrozen, still moving
    assert run_normalization(False, "full", 2.0, 1.0) == pytest.approx([2.0, 6.0])
    assert run_normalization(False, "none", 2.0, 1.0) == pytest.approx([-1.0, 1.0])  # from scratch: the batch's


@pytest.mark.parametrize("pretrained", [True, False])
def test_fine_tuning_moves_the_statistics_only_from_scratch(pretrained: bool) -> None:
    network = build_model((1, 1, 1), 2, partial(normalizing, pretrained=pretrained), pooled, "normalizing")
    apply_freeze_policy(network, "none")
    before = network.model.get_layer("bn").get_weights()
    network.model.compile("sgd", "binary_crossentropy")
    network.model.fit(np.array([4, 8, 1, 0], "float32").reshape(4, 1, 1, 1), np.array([0, 1, 1, 1]), verbose=0)
    statistics = network.model.get_layer("bn").get_weights()
    assert all(map(np.array_equal, statistics, before)) == pretrained


# ------------------------------------------------------------------------------------------- parameter counts


@pytest.mark.parametrize(
    ("name", "backbone_parameters"),
    [  # as published in the Keras documentation, less the layers of the top
        ("vgg16", 14_714_688),
        ("resnet50", 23_587_712),
        ("mobilenet", 3_228_864),
        ("xception", 20_861_480),
        ("efficientnet_v2_b0", 5_919_312),
        ("convnext_tiny", 27_820_128),
    ],
)
def test_each_formula_gives_the_parameters_keras_counts(name: str, backbone_parameters: int) -> None:
    network = network_of(name, size=MINIMUM_SIZES.get(name, 32))
    rows = layer_rows(network)
    assert [row.name for row in rows] == [layer.name for layer in network.model.layers]
    wrong = [row for row in rows if eval(row.formula or "0") != row.parameters]
    assert wrong == []
    assert sum(row.parameters for row in rows) == network.model.count_params() == totals(network).total
    assert totals(network).backbone == backbone_parameters


@pytest.mark.parametrize(
    ("layer", "formula"),
    [
        (keras.layers.Conv2D(8, (3, 5)), "(3*5*6 + 1)*8"),
        (keras.layers.Conv2D(8, 3, use_bias=False), "3*3*6*8"),
        (keras.layers.Conv2D(8, 3, groups=2), "(3*3*3 + 1)*8"),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), "(3*3 + 1)*12"),
        (keras.layers.DepthwiseConv2D(3, use_bias=False), "3*3*6"),
        (keras.layers.SeparableConv2D(8, 3, depth_multiplier=2), "3*3*12 + (12 + 1)*8"),
        (keras.layers.SeparableConv2D(8, 3, use_bias=False), "3*3*6 + 6*8"),
        (keras.layers.Dense(5), "(6 + 1)*5"),
        (keras.layers.BatchNormalization(), "4*6"),
        (keras.layers.BatchNormalization(scale=False), "3*6"),
        (keras.layers.LayerNormalization(), "2*6"),
        (keras.layers.Normalization(), "6 + 6 + 1"),
        (keras.layers.GroupNormalization(groups=2), "6 + 6"),
        (keras.layers.ReLU(), ""),
    ],
)
def test_formula_of_one_layer(layer: keras.layers.Layer, formula: str) -> None:
    layer(keras.Input((8, 8, 6)))
    assert parameter_formula(layer) == formula
    assert eval(formula or "0") == layer.count_params()


def test_a_frozen_layer_is_marked_in_the_rows() -> None:
    network = build_model((8, 8, 3), 2, partial(normalizing, pretrained=True), pooled, "marked")
    apply_freeze_policy(network, "none")
    assert [row.name for row in layer_rows(network) if row.trainable] == ["conv", "predictions"]
