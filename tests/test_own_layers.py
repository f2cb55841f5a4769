"""A network with layers of the user's own: said before training, and loaded where the user vouches for them."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError
from cnnexp.runs.recorded_model import check_model_file, warn_of_own_parts

Run = Callable[..., tuple[int, str, str]]

MINE = """
import keras
from cnnexp.models.backbone import Backbone, layers_between


class Scale(keras.layers.Layer):
    def __init__(self, by=0.01, **keywords):
        super().__init__(**keywords)
        self.by = by

    def call(self, x):
        return x * self.by

    def get_config(self):
        return super().get_config() | {"by": self.by}


class Unwritten(keras.layers.Layer):
    def __init__(self, by, **keywords):
        super().__init__(**keywords)

    def call(self, x):
        return x

    def get_config(self):
        raise NotImplementedError("Unwritten has no get_config")


def halved(x):
    return x / 2


def net(inputs, unwritten=False):
    start = x = Scale()(inputs)
    x = Unwritten(1)(x) if unwritten else x
    x = keras.layers.Conv2D(4, 3, strides=4, activation=halved)(x)
    return Backbone(start, x, layers_between(start, x))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a backbone, its own in each test."""
    name = f"layers_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.usefixtures("no_training")
def test_own_layers_are_said_before_training_and_vouched_for(cnnexp: Run, tmp_path: Path, mine: str) -> None:
    line = ["debug=smoke", "dataset=digits", "dataset.image_size=32", "tracking.explain=false"]
    own = ["backbone=custom", f"backbone._target_={mine}.net"]
    code, _, err = cnnexp("train", *line, *own, "+backbone.arguments.unwritten=true")
    assert code == 2 and "cannot be recorded: Unwritten has no get_config; give the layer a get_config" in err
    assert not list(tmp_path.glob("outputs/runs/*"))
    code, _, err = cnnexp("train", *line, *own)
    vouched = ["--allow-target", f"{mine}.Scale", "--allow-target", f"{mine}.halved"]
    assert code == 0 and "parts that are not Keras' own" in err and f"`{' '.join(vouched)}`" in err
    image = tmp_path / "image.png"
    image.write_bytes(cv2.imencode(".png", np.full((32, 32, 3), 90, np.uint8))[1].tobytes())
    for command in (["predict", "latest", str(image)], ["explain", "latest", str(image)], ["evaluate", "latest"]):
        code, _, err = cnnexp(*command)
        assert code == 2 and len(err.splitlines()) == 1
        assert f"names {mine}.Scale, MODULE.halved; " in err and f"add --allow-target {mine}.Scale --allow-t" in err
        code, _, err = cnnexp(*command, *vouched[:2])
        assert code == 2 and "the model names MODULE.halved" in err
        code, _, err = cnnexp(*command, *vouched)
        assert code == 0, err


def test_a_lambda_is_said_and_vouched_for_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Flatten()]
    model = keras.Sequential(layers)
    warn_of_own_parts(model, ["mine"])
    assert "only with `--allow-target keras.layers.Lambda`" in capsys.readouterr().err
    model.save(tmp_path / "model.keras")
    with pytest.raises(
        UserError, match=r"has a Lambda, .*; refused; if you trust it, add --allow-target keras.layers.Lambda"
    ):
        check_model_file(tmp_path / "model.keras")
    check_model_file(tmp_path / "model.keras", ["keras.layers.Lambda"])


def test_keras_own_layers_need_no_word(capsys: pytest.CaptureFixture[str]) -> None:
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, activation="relu"), keras.layers.Flatten()]
    warn_of_own_parts(keras.Sequential([*layers, keras.layers.Dense(1, keras.activations.sigmoid)]), [])
    assert capsys.readouterr().err == ""
