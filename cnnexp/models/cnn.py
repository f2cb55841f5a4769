"""Small convnets trained from scratch: blocks of convolution and max-pooling."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from cnnexp.models.backbone import Backbone, check_image_size, layers_between, load_weight_file
from cnnexp.models.preprocessing import preprocess


def convnet(  # noqa: PLR0913 - a `_target_`: its keywords are the keys of the config
    inputs: KerasTensor,
    filters: Sequence[int] = (32, 64, 128, 128),
    kernel_size: int = 3,
    pool_last: bool = True,
    weights: str | None = None,
    preprocessing: str = "rescale",
) -> Backbone:
    """Blocks of Conv2D (valid, ReLU) and 2x2 max-pooling, as in the first two networks of the tutorial.

    The defaults, with `flatten_dense(units=512)` on 150x150x3 and two classes: 3,453,121 parameters. With
    filters (32, 64, 64), `pool_last=False` and `flatten_dense(units=64)` on 28x28x1 and ten classes: 93,322.

    Args:
        inputs: (B, H, W, C) float32 0..255.
        filters: of each block's convolution; the layers are `block1_conv`, `block1_pool`, `block2_conv`, ...
        kernel_size: side of each kernel, in pixels.
        pool_last: whether the last block ends in max-pooling too.
        weights: a local weight file, or None for random weights.
        preprocessing: see `preprocess`.

    Raises:
        UserError: images too small for so many blocks, or a weight file that does not fit.
    """
    minimum = smallest_image(len(filters), kernel_size, pool_last)
    check_image_size(inputs, minimum, f"a convnet of {len(filters)} blocks")
    start = x = preprocess(inputs, preprocessing)
    for block, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, kernel_size, activation="relu", name=f"block{block}_conv")(x)
        if block < len(filters) or pool_last:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    if weights is not None:
        load_weight_file(start, x, weights, "this convnet")
    return Backbone(inputs=start, outputs=x, layers=layers_between(start, x), pretrained=weights is not None)


def smallest_image(blocks: int, kernel_size: int, pool_last: bool) -> int:
    """The side in pixels of the smallest image that leaves one pixel after the last block."""
    side = 1
    for block in range(blocks, 0, -1):
        if block < blocks or pool_last:
            side *= 2
        side += kernel_size - 1
    return side
