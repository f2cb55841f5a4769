"""Every backbone of keras.applications, by name."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import KerasTensor

from cnnexp.console import warn
from cnnexp.errors import UserError, nearest
from cnnexp.models.backbone import Backbone, check_image_size, layers_between, load_weight_file, one_line
from cnnexp.models.names import APPLICATIONS
from cnnexp.models.preprocessing import TORCH_STD_RGB, preprocess, to_rgb

MINIMUM_SIZES = {"inception_v3": 75, "inception_resnet_v2": 75, "xception": 71}  # pixels; the others take 32
OWN_ARGUMENTS = ("include_top", "weights", "input_tensor", "input_shape", "pooling", "classes")
CONNECT_TIMEOUT_S = 10.0


def application(
    inputs: KerasTensor,
    name: str,
    weights: str | None,
    preprocessing: str,
    arguments: Mapping[str, Any] | None = None,
) -> Backbone:
    """A network of keras.applications without its top, layer by layer under its own names in our graph.

    With weights, the network computes the same function in training as in inference: its dropout layers
    get the rate 0 here, and its batch normalization stays frozen (see `cnnexp.models.freeze`).

    Args:
        inputs: (B, H, W, 3) float32 RGB 0..255, or (B, H, W, 1) grey, which is repeated to three channels.
        name: a key of `cnnexp.models.names.APPLICATIONS`.
        weights: "imagenet" (the Keras cache, else a download), a local weight file, or None for random ones.
        preprocessing: see `preprocess`; the ImageNet weights expect `APPLICATIONS[name].preprocessing`.
        arguments: further arguments of the Keras function, such as `alpha` of MobileNet.

    Raises:
        UserError: unknown name or argument, images too small, a weight file that does not fit, or a failed
            download.
    """
    if name not in APPLICATIONS:
        close = ", ".join(nearest(name, list(APPLICATIONS))[:5])
        raise UserError(f"backbone.name: there is no network {name!r}; nearest: {close}")
    refused = [key for key in arguments or {} if key in OWN_ARGUMENTS]
    if refused:
        raise UserError(f"backbone.arguments: {', '.join(refused)} cannot be given here; cnnexp sets it")
    check_image_size(inputs, MINIMUM_SIZES.get(name, 32), name)
    start = preprocess(to_rgb(inputs), preprocessing)
    builtin = weights if weights in (None, "imagenet") else None
    outputs = _keras_network(start, name, builtin, dict(arguments or {}))
    layers = layers_between(start, outputs)
    if weights is not None:
        if builtin is None:
            load_weight_file(start, outputs, weights, name)
            _repair_variance(layers)
        for layer in layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    return Backbone(inputs=start, outputs=outputs, layers=layers, pretrained=weights is not None)


def _keras_network(start: KerasTensor, name: str, weights: str | None, arguments: dict[str, Any]) -> KerasTensor:
    build = getattr(keras.applications, APPLICATIONS[name].attribute)
    download = download_weights(name) if weights == "imagenet" else contextlib.nullcontext()
    fixed = {"include_top": False, "weights": weights, "input_tensor": start, "input_shape": start.shape[1:]}
    try:
        with download, warnings.catch_warnings():
            # What MobileNet says of an image size that its weights were not trained on.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            return build(**fixed, **arguments).output
    except UserError:
        raise
    except TypeError as error:
        message = f"backbone.arguments: {name} does not take {arguments} ({one_line(error)})"
        raise UserError(message) from error
    except ValueError as error:
        raise UserError(f"backbone: Keras does not build {name} this way ({one_line(error)})") from error


@contextlib.contextmanager
def download_weights(name: str) -> Iterator[None]:
    """Around a call that may download: a short time-out, progress on stderr, and one clear error."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    said = _HeldBack()
    try:
        with contextlib.redirect_stdout(said):
            yield
    except Exception as error:
        if not said.url:
            raise
        file = said.url.rsplit("/", 1)[-1]
        if name.startswith("nasnet"):  # its file has another name in the Keras cache than on the server
            file = file.lower().replace("-", "_")
        raise UserError(
            f"backbone.weights=imagenet: {name} needs a download that failed ({one_line(error)}); "
            f"put {file} into ~/.keras/models or set +paths.weights.{name}=FILE; "
            "backbone=efficientnet_lite0 works offline"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


class _HeldBack(io.StringIO):
    """A stdout that is silent until a download's data arrives: then one line, and a bar on a terminal."""

    url = ""
    said = False

    def write(self, text: str) -> int:
        if text.startswith("Downloading data from"):
            self.url = text.split()[-1]
        elif self.url and text.strip():
            if not self.said:
                warn(f"downloading {self.url}")
                self.said = True
            if sys.stderr.isatty():
                sys.stderr.write(text)
        return len(text)


def _repair_variance(layers: tuple[keras.layers.Layer, ...]) -> None:
    """Square the variance that the ImageNet files of EfficientNet B0-B7 state.

    They hold the standard deviation in its place (tensorflow issue 49930). Keras makes up for it with a
    further Rescaling layer, but only for weights="imagenet", not for the same file given by its path.
    """
    for layer in layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            mean, variance, count = layer.get_weights()
            if np.allclose(variance, TORCH_STD_RGB):
                layer.set_weights([mean, variance**2, count])
                layer.finalize_state()
