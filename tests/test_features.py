"""Where a network is cut before its first trainable layer, and by what name its features are kept."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from cnnexp.training.features import cut_model, features_key

IMAGES = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)


def small_model(freeze: int = 2, dropout: float = 0.0) -> keras.Model:
    """conv1 -> conv2 -> conv3 -> flatten -> [dropout] -> dense; the first `freeze` convolutions are frozen."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3), name="image")
    for number in range(3):
        layer = layers.Conv2D(4, 3, activation="relu", name=f"conv{number + 1}")
        layer.trainable = number >= freeze
        x = layer(x)
    x = layers.Flatten()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(x))


def residual_model() -> keras.Model:
    """A frozen stem whose output goes into a trained branch and around it: the cut is one tensor used twice,
    and a frozen side branch from further up makes it two."""
    image = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 3, padding="same", name="stem", trainable=False)
    early = layers.Conv2D(4, 3, padding="same", name="early", trainable=False)
    first = early(image)
    second = stem(first)
    x = layers.Conv2D(4, 3, padding="same", name="branch")(second)
    x = layers.Add()([x, second, layers.Activation("relu")(x)])
    x = layers.Concatenate()([x, first])
    return keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))


def chain(*parts: layers.Layer) -> keras.Model:
    """These layers one after the other, and a trained dense layer; what can be frozen among them is."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))
    for part in parts:
        x = part(x)
    return keras.Model(image, layers.Dense(1)(layers.Flatten()(x)))


def fixed_names(model: keras.Model) -> list[str]:
    """The kinds of layers before the cut."""
    cut = cut_model(model)
    return [type(layer).__name__ for layer in cut.frozen.layers[1:]] if cut else []


# ----------------------------------------------------------------------------------------------------- the cut


def test_cut_lies_at_the_last_frozen_layer() -> None:
    cut = cut_model(small_model(freeze=2))
    assert cut is not None
    assert [layer.name for layer in cut.frozen.layers if layer.weights] == ["conv1", "conv2"]
    assert next(layer.name for layer in cut.trained.layers if layer.weights) == "conv3"
    assert len(cut.trained.trainable_variables) == 4


def test_both_parts_give_what_the_whole_gives() -> None:
    for model in (small_model(1), small_model(3, dropout=0.5), residual_model()):
        cut = cut_model(model)
        assert cut is not None
        np.testing.assert_allclose(
            cut.trained(cut.frozen(IMAGES)), model(IMAGES.astype("float32")), rtol=1e-5, atol=1e-5
        )


def test_a_cut_may_be_several_tensors() -> None:
    cut = cut_model(residual_model())
    assert cut is not None
    assert len(cut.frozen.outputs) == 2


def test_nothing_frozen_nothing_cut() -> None:
    assert cut_model(small_model(freeze=0)) is None


def test_active_dropout_is_never_in_the_fixed_part() -> None:
    frozen = layers.Conv2D(4, 3, trainable=False)
    assert fixed_names(chain(frozen, layers.Dropout(0.5))) == ["Conv2D"]
    assert fixed_names(chain(frozen, layers.GaussianNoise(0.5))) == ["Conv2D"]
    nested = keras.Sequential([layers.Conv2D(4, 3), layers.Dropout(0.5)])
    nested.trainable = False
    assert fixed_names(chain(frozen, nested)) == ["Conv2D"]


def test_dropout_that_was_turned_off_is_fixed() -> None:
    dropout = layers.Dropout(0.5)  # as `application` does with dropout inside a pretrained backbone
    dropout.rate = 0.0
    frozen = layers.Conv2D(4, 3, trainable=False)
    assert fixed_names(chain(frozen, dropout, layers.Activation("relu"))) == [
        "Conv2D",
        "Dropout",
        "Activation",
        "Flatten",
    ]


def test_batch_normalization_is_fixed_only_when_frozen() -> None:
    frozen = layers.Conv2D(4, 3, trainable=False)
    without_weights_to_train = {"center": False, "scale": False}  # it still follows the batch
    assert "BatchNormalization" not in fixed_names(chain(frozen, layers.BatchNormalization(**without_weights_to_train)))
    assert "BatchNormalization" in fixed_names(chain(frozen, layers.BatchNormalization(trainable=False)))


# ----------------------------------------------------------------------------------------------------- the key


def key_of(model: keras.Model, digest: str = "d", size: int = 8, dtype: str = "float32", stream: str = "") -> str:
    cut = cut_model(model)
    assert cut is not None
    return features_key(cut, digest, size, dtype, stream)


def test_key_depends_on_images_cut_weights_and_storage() -> None:
    same = key_of(small_model())
    nudged = small_model()
    kernel = nudged.get_layer("conv1").kernel
    kernel.assign(kernel + 1e-3)
    others = [
        key_of(small_model(freeze=1)),
        key_of(small_model(), digest="e"),
        key_of(small_model(), size=9),
        key_of(small_model(), dtype="float16"),
        key_of(small_model(), stream="pass 1"),
        key_of(nudged),
    ]
    assert len({same, *others}) == 7


def test_key_does_not_depend_on_names_seeds_or_the_head() -> None:
    """Names come from a counter of the process: the second model's convolution is `conv2d_1`."""

    def model(units: int, **options: Any) -> keras.Model:
        image = keras.Input((8, 8, 3))
        conv = layers.Conv2D(4, 3, trainable=False, **options)
        x = layers.Dense(units)(layers.Flatten()(conv(image)))
        conv.kernel.assign(np.ones(conv.kernel.shape))
        return keras.Model(image, x)

    first, second = model(1), model(2, kernel_initializer=keras.initializers.HeNormal(seed=7), kernel_regularizer="l2")
    assert first.layers[1].name != second.layers[1].name
    assert key_of(first) == key_of(second)


@pytest.mark.parametrize("option", [{"strides": 2}, {"padding": "same"}, {"activation": "relu"}, {"dtype": "float16"}])
def test_key_depends_on_a_layers_options(option: dict[str, Any]) -> None:
    assert key_of(chain(layers.Conv2D(4, 3, trainable=False))) != key_of(
        chain(layers.Conv2D(4, 3, trainable=False, **option))
    )


def test_key_depends_on_operations_that_are_no_layers() -> None:
    """`caffe` preprocessing begins with a flip of the channels, which is an operation and no layer."""

    def model(change: Any) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3))
        return keras.Model(image, layers.Dense(1)(layers.Conv2D(4, 8, trainable=False)(change(image))))

    changes = [
        lambda x: x,
        lambda x: keras.ops.flip(x, axis=-1),
        lambda x: keras.ops.flip(x, axis=-2),
        lambda x: x[..., ::-1],
        lambda x: x * 2.0,
        lambda x: x * 3.0,
        lambda x: x + np.zeros((8, 8, 3), np.float32),
        lambda x: x + np.eye(8, dtype=np.float32)[..., np.newaxis],
    ]
    assert len({key_of(model(change)) for change in changes}) == len(changes)


def test_key_depends_on_how_layers_are_joined() -> None:
    """The same layers with the same weights: what is added, and what leaves the fixed part, differs."""

    def model(added: tuple[int, int], leaving: int) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3))
        tensors = [layers.Conv2D(4, 3, padding="same", trainable=False)(image)]
        for _ in range(2):
            tensors.append(layers.Activation("relu")(tensors[-1]))
        tensors.append(layers.Add()([tensors[number] for number in added]))
        both = layers.Concatenate()([layers.Conv2D(4, 1)(tensors[3]), layers.Conv2D(4, 1)(tensors[leaving])])
        return keras.Model(image, layers.Dense(1)(layers.Flatten()(both)))

    variants = [((0, 2), 2), ((1, 2), 2), ((0, 2), 0), ((0, 2), 1)]
    assert len({key_of(model(*variant)) for variant in variants}) == len(variants)
