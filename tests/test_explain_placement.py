"""Where the cells of feature maps lie: beside what the gradient says a cell depends on."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import KerasTensor, layers

from cnnexp.explain.overlay import enlarged_heatmap
from cnnexp.explain.placement import Grid, cell_grid, even_grid

Build = Callable[[KerasTensor], KerasTensor]


def convolution(x: KerasTensor, size: int, name: str | None = None, **options: object) -> KerasTensor:
    """With weights of one and without an activation: a cell depends on all that it sees."""
    return layers.Conv2D(1, size, kernel_initializer="ones", name=name, **options)(x)


def valid(x: KerasTensor) -> KerasTensor:
    x = layers.AveragePooling2D(2)(convolution(x, 3))
    return convolution(x, (3, 5))


def strided_same(x: KerasTensor) -> KerasTensor:
    return convolution(convolution(x, 3, strides=2, padding="same"), 5, strides=2, padding="same")


def padded_and_cropped(x: KerasTensor) -> KerasTensor:
    x = convolution(layers.ZeroPadding2D(((0, 1), (2, 0)))(x), 3, strides=2)
    return convolution(layers.Cropping2D(((2, 0), (1, 3)))(x), 3)


def dilated(x: KerasTensor) -> KerasTensor:
    return layers.DepthwiseConv2D(3, depthwise_initializer="ones")(convolution(x, 3, dilation_rate=2, padding="same"))


def residual(x: KerasTensor) -> KerasTensor:
    x = convolution(x, 2, strides=2)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Multiply()([gate * 0 + 1, x])
    return layers.Add()([convolution(x, 3, padding="same"), x])


def resized(x: KerasTensor) -> KerasTensor:
    return convolution(layers.UpSampling2D(2)(layers.AveragePooling2D(4)(x)), 2)


@pytest.mark.parametrize("build", [valid, strided_same, padded_and_cropped, dilated, residual, resized])
@pytest.mark.parametrize("side", [40, 41])
def test_a_cell_lies_in_the_middle_of_what_it_depends_on(build: Build, side: int) -> None:
    image = keras.Input((side, side + 7, 1))
    x = layers.Activation("linear", name="chosen")(build(image))
    model = keras.Model(image, layers.Dense(1, "sigmoid")(layers.Flatten()(x)))
    grid = cell_grid(model, "chosen")
    maps = keras.Model(image, model.get_layer("chosen").output)
    picture = tf.Variable(tf.ones((1, side, side + 7, 1)))
    for cell in ((4, 4), (5, 3)):
        with tf.GradientTape() as tape:
            value = maps(picture)[0, cell[0], cell[1], 0]
        seen = np.argwhere(tape.gradient(value, picture).numpy()[0, :, :, 0])
        middle = (seen.min(axis=0) + seen.max(axis=0) + 1) / 2
        found = np.array(grid.first) + np.array(grid.stride) * cell
        # what is enlarged sees one and a half source pixels: the middle of the field may be half of one away
        assert np.abs(found - middle).max() <= (1 if build is resized else 0)


def test_the_small_convnet_sees_the_middle_only() -> None:
    """Four valid 3x3 convolutions with 2x2 pooling between: 15 cells, 8 pixels apart, from 18 + 1/2 + 1/2 on."""
    image = x = keras.Input((150, 150, 3))
    for number in range(4):
        x = layers.Conv2D(2, 3, name=f"conv{number}")(x)
        if number < 3:
            x = layers.MaxPooling2D(2)(x)
    model = keras.Model(image, layers.Dense(1, "sigmoid")(layers.Flatten()(x)))
    # to conv0: 1 pixel; each pooling adds half a stride, each further convolution a whole one: 1 + .5+2 + 1+4 + 2+8
    assert cell_grid(model) == Grid((19.0, 19.0), (8.0, 8.0))
    assert cell_grid(model, "conv0") == Grid((1.5, 1.5), (1.0, 1.0))
    nested = keras.Sequential([keras.Input((150, 150, 3)), model])
    assert cell_grid(nested) == cell_grid(model)


def test_a_heat_map_is_laid_where_its_cells_are() -> None:
    grid = Grid((4.5, 10.5), (4.0, 2.0))
    large = enlarged_heatmap(np.array([[0.0, 0.2, 0.4], [1.0, 0.2, 0.4]]), (12, 20), grid)
    assert large[4, [0, 10, 11, 12, 13, 14, 19]] == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert large[[0, 4, 5, 6, 7, 8, 11], 10] == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1])
    assert grid.pixel((1, 2)) == (8, 14)


def test_an_even_grid_is_opencv_s_resize() -> None:
    cv2 = pytest.importorskip("cv2")
    heatmap = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    assert even_grid((5, 7), (40, 42)) == Grid((4.0, 3.0), (8.0, 6.0))
    for size in ((40, 42), (33, 50)):
        resized = cv2.resize(heatmap, size[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(enlarged_heatmap(heatmap, size), resized, atol=1e-5)
