"""Training on cached features equals training on images, and a network cut in two equals the whole one.

Every network has random weights and is treated as a pretrained one: its batch normalization knows the statistics of
the images and stays frozen, and its dropout is off.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from cnnexp.config.training import TrainerConfig
from cnnexp.data.dataset import Split
from cnnexp.data.loading import ImageLoader
from cnnexp.errors import RunError
from cnnexp.models.applications import application
from cnnexp.models.build import Network, build_model
from cnnexp.models.efficientnet_lite import efficientnet_lite
from cnnexp.models.freeze import apply_freeze_policy
from cnnexp.models.heads import pooled
from cnnexp.models.names import APPLICATIONS
from cnnexp.training.feature_store import FeatureStore
from cnnexp.training.features import cut_model
from cnnexp.training.inputs import SplitData, Training, TrainingData
from cnnexp.training.optimizers import OptimizerPlan
from cnnexp.training.phases import Phase
from cnnexp.training.runtime import prepare_tensorflow
from cnnexp.training.trainer import check_agreement, train

pytestmark = [pytest.mark.trains, pytest.mark.slow]


def network(name: str, image_size: int) -> Network:
    """With random weights, the same every time, and a linear head for three classes."""
    prepare_tensorflow(seed=0, deterministic=False)
    if name.startswith("efficientnet_lite"):
        builder: Callable = partial(efficientnet_lite, name=name, weights=None)
    else:
        builder = partial(application, name=name, weights=None, preprocessing=APPLICATIONS[name].preprocessing)
    built = build_model((image_size, image_size, 3), 3, builder, partial(pooled, units=0), name)
    for layer in built.backbone_layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    built.model(pictures(8, image_size).astype(np.float32), training=True)  # sets the statistics
    built.pretrained = True
    return built


def pictures(count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8, coarse blocks in random colours."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    return np.repeat(np.repeat(blocks, -(-size // 4), axis=1), -(-size // 4), axis=2)[:, :size, :size]


# ---------------------------------------------------------------------------------------------------- training

TRAINED = {
    ("vgg16", 32): "block5_conv1",
    ("mobilenet", 32): "conv_dw_12",
    ("efficientnet_lite0", 32): "block6a_expand_conv",
    ("resnet50", 32): "conv5_block1_1_conv",
    ("inception_v3", 75): "mixed7",
}
LONG = ("resnet50", "inception_v3", "efficientnet_lite0", "vgg16")
SETTINGS = TrainerConfig(batch_size=4, evaluation_batch_size=8)


def data(image_size: int) -> TrainingData:
    """8, 4 and 4 images in three classes."""
    pixels = pictures(16, image_size)

    def part(name: str, rows: slice) -> SplitData:
        labels = np.arange(len(pixels[rows])) % 3
        ids = tuple(f"{name}/{number}" for number in range(len(labels)))
        split = Split(name, labels, None, pixels[rows], ids, digest=name)
        return SplitData(ImageLoader(split, image_size, 3, threads=1), labels, split.digest)

    parts = [part("train", slice(8)), part("validation", slice(8, 12)), part("test", slice(12, 16))]
    return TrainingData(*parts, num_classes=3, image_size=image_size)


def loss_curve(
    built: Network, freeze: Callable[[], None], given: TrainingData, store: FeatureStore | None
) -> np.ndarray:
    """Training and validation loss of three epochs, and the test loss: (7,)."""
    phase = Phase("all", 3, freeze, OptimizerPlan(keras.optimizers.Adam, 1e-3))
    training = Training(built.model, given, SETTINGS, store=store)
    result = train(training, [phase], lambda epoch, metrics: None)
    curve = [epoch[name] for epoch in result.history for name in ("train/loss", "val/loss")]
    return np.array([*curve, result.test_loss])


@pytest.mark.parametrize("mode", ["full", "until_layer"])
@pytest.mark.parametrize(
    ("name", "image_size"),
    [pytest.param(*key, id=key[0], marks=pytest.mark.long if key[0] in LONG else ()) for key in TRAINED],
)
def test_training_on_features_equals_training_on_images(
    name: str, image_size: int, mode: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    built = network(name, image_size)
    freeze = partial(apply_freeze_policy, built, mode, TRAINED[name, image_size])
    given = data(image_size)
    initial = built.model.get_weights()
    uncached = loss_curve(built, freeze, given, None)
    built.model.set_weights(initial)
    store = FeatureStore(tmp_path)
    cached = loss_curve(built, freeze, given, store)
    assert len(store.entries()) == 3  # the three splits were cached
    assert abs(uncached[4] / uncached[0] - 1) > 2e-3, "nothing was learned"
    difference = np.abs(cached / uncached - 1).max()
    record_property("relative_difference", float(difference))
    assert difference <= 1e-4


# --------------------------------------------------------------------------------------------------- the parts

CUT = {
    "resnet50": 32,
    "inception_v3": 75,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "mobilenet_v3_small": 32,
    "nasnet_mobile": 32,
}


@pytest.mark.parametrize(
    ("name", "image_size"),
    [pytest.param(*key, id=key[0], marks=() if key[0] == "resnet50" else pytest.mark.long) for key in CUT.items()],
)
def test_the_parts_give_what_the_whole_gives(name: str, image_size: int) -> None:
    """Cut after a quarter, half and three quarters of the layers, mostly in the middle of branches."""
    built = network(name, image_size)
    x = pictures(3, image_size).astype(np.float32)
    whole = np.asarray(built.model(x))
    assert whole.std(axis=0).min() > 1e-3, "all images give the same"
    layers = built.backbone_layers
    for share in (0.25, 0.5, 0.75):
        first = layers[int(len(layers) * share)]
        apply_freeze_policy(built, "until_layer", first.name)
        cut = cut_model(built.model)
        assert cut is not None
        features = cut.frozen([x])
        np.testing.assert_allclose(cut.trained(features), whole, rtol=0, atol=1e-5, err_msg=first.name)


@pytest.mark.parametrize(
    ("whole", "cached", "difference", "said"),
    [
        ([[0.9], [0.2]], [[0.9], [0.2]], 0.0, ""),
        ([[0.9], [0.2]], [[0.90005], [0.2]], 5e-5, ""),
        ([[0.50004], [0.2]], [[0.49999], [0.2]], 5e-5, ""),  # a tie, as it were
        ([[0.9], [0.2]], [[0.901], [0.2]], 1e-3, "differ by 0.001 in a probability, more than 0.0001"),
        ([[0.6, 0.3, 0.1]], [[0.5, 0.4, 0.1]], 0.1, "differ by 0.1 in a probability, more than 0.0001"),
    ],
)
def test_a_difference_is_measured_and_a_larger_one_said(
    whole: list[list[float]],
    cached: list[list[float]],
    difference: float,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = SimpleNamespace(predict_on_batch=lambda images: np.array(whole, np.float32)[: len(images)])
    images = SimpleNamespace(take_few=lambda indices: np.zeros((len(indices), 4, 4, 3), np.uint8))
    found = check_agreement(model, images, np.array(cached, np.float32), 1e-4)  # type: ignore[arg-type]
    assert found == pytest.approx(difference, abs=1e-7)
    assert said in capsys.readouterr().err and (not said) == (difference <= 1e-4)


@pytest.mark.parametrize(
    ("whole", "cached"), [([[0.6]], [[0.4]]), ([[0.2, 0.8]], [[0.7, 0.3]]), ([[float("nan")]], [[0.9]])]
)
def test_another_class_beyond_the_tolerance_is_a_failure(whole: list[list[float]], cached: list[list[float]]) -> None:
    model = SimpleNamespace(predict_on_batch=lambda images: np.array(whole, np.float32))
    images = SimpleNamespace(take_few=lambda indices: np.zeros((len(indices), 4, 4, 3), np.uint8))
    with pytest.raises(RunError, match=r"weights are kept in the run's checkpoint.*trainer\.feature_cache=false"):
        check_agreement(model, images, np.array(cached, np.float32), 1e-4)  # type: ignore[arg-type]
