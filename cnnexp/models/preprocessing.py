"""From raw RGB 0..255 to what a network was trained on, inside the model and with built-in Keras parts only.

A saved model therefore carries its preprocessing and loads in plain Keras. The statistics are those of
`keras.applications.imagenet_utils.preprocess_input`.
"""

from __future__ import annotations

from keras import KerasTensor, config, layers, ops

from cnnexp.config.network import PREPROCESSING
from cnnexp.errors import UserError, nearest

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet, 0..255
TORCH_MEAN_RGB = (0.485, 0.456, 0.406)  # of ImageNet, 0..1
TORCH_STD_RGB = (0.229, 0.224, 0.225)


def preprocess(inputs: KerasTensor, mode: str) -> KerasTensor:
    """Scale raw images for a network.

    Args:
        inputs: (B, H, W, C) float32 RGB 0..255; "caffe" and "torch" need C = 3.
        mode: "rescale" (x / 255), "tf" (x / 127.5 - 1), "lite" ((x - 127) / 128), "caffe" (BGR minus the
            ImageNet mean), "torch" (x / 255, minus the ImageNet mean, divided by its standard deviation), or
            "none" (the network scales for itself).

    Returns:
        (B, H, W, C) float32.

    Raises:
        UserError: unknown mode, or a mode for three channels on images that have not three.
    """
    if mode not in PREPROCESSING:
        allowed = ", ".join(nearest(str(mode), list(PREPROCESSING)))
        raise UserError(f"backbone.preprocessing: there is no mode {mode!r}; choose one of {allowed}")
    channels = inputs.shape[-1]
    if mode in ("caffe", "torch") and channels != 3:
        raise UserError(f"backbone.preprocessing={mode} is for three channels, not {channels}; use rescale")
    dtype = config.floatx()  # in full precision, whatever the layers that follow have
    if mode == "rescale":
        return layers.Rescaling(1 / 255, dtype=dtype, name="preprocess_rescale")(inputs)
    if mode == "tf":
        return layers.Rescaling(1 / 127.5, offset=-1.0, dtype=dtype, name="preprocess_tf")(inputs)
    if mode == "lite":
        return layers.Rescaling(1 / 128, offset=-127 / 128, dtype=dtype, name="preprocess_lite")(inputs)
    if mode == "caffe":
        negative_mean = [-mean for mean in CAFFE_MEAN_BGR]
        scaled = layers.Rescaling(1.0, offset=negative_mean, dtype=dtype, name="preprocess_caffe")
        return scaled(ops.flip(inputs, axis=-1))
    if mode == "torch":
        scale = [1 / (255 * std) for std in TORCH_STD_RGB]
        offset = [-mean / std for mean, std in zip(TORCH_MEAN_RGB, TORCH_STD_RGB, strict=True)]
        return layers.Rescaling(scale, offset=offset, dtype=dtype, name="preprocess_torch")(inputs)
    return inputs


def to_rgb(inputs: KerasTensor) -> KerasTensor:
    """(B, H, W, 1) grey -> (B, H, W, 3) with the grey value in each channel; RGB is passed on as it is."""
    if inputs.shape[-1] == 1:
        return layers.Concatenate(axis=-1, dtype=config.floatx(), name="preprocess_rgb")([inputs, inputs, inputs])
    return inputs
