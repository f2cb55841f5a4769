"""The config groups `dataset` and `augmentation`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from cnnexp.config.limits import option
from cnnexp.errors import UserError


@dataclass
class DatasetConfig:
    """Where images come from. `_target_` may name a function of your own; `arguments` are keywords."""

    channels_and_classes: ClassVar[Optional[tuple[int, int]]] = None  # where they are known without reading the images

    _target_: str = option(
        doc="The function that returns the cnnexp.data.dataset.Dataset; one of your own goes with dataset=custom."
    )
    name: str = option(doc="The data set's name, in tables and in MLflow.")
    image_size: int = option(
        150, minimum=8, maximum=4096, doc="Height and width, in pixels, to which images are scaled for the network."
    )
    limit: Optional[int] = option(
        None, minimum=2, doc="At most so many images of each split, evenly over the classes; null: all."
    )
    arguments: dict[str, Any] = option({}, doc="Keywords for a function of your own.")


@dataclass
class ImageFilesConfig(DatasetConfig):
    """A data set that lies on disk as image files."""

    path: Optional[str] = option(
        None, place=True, doc="The folder of the images, an archive of it, its URL, or a CSV file of path,label."
    )
    on_bad: str = option(
        "error",
        choices=("error", "skip"),
        doc="What happens where a file cannot be used: error names it and ends the command, skip goes on without it.",
    )
    on_leak: str = option(
        "warn",
        choices=("warn", "error", "ignore"),
        doc="What happens where an image, or a group of them, is in two splits: warn says so, error ends the command.",
    )
    manifests: Optional[str] = option(
        "${paths.data}/manifests",
        place=True,
        doc="The folder for tables of what was found in the files; null: not kept.",
    )


@dataclass
class FetchedFilesConfig(ImageFilesConfig):
    """Image files that may come in an archive, or by a URL."""

    downloads: str = option("${paths.data}/downloads", place=True, doc="The folder for what is downloaded or unpacked.")
    sha256: Optional[str] = option(
        None, doc="The SHA-256 of the archive at a URL, in hex, that is checked after the download; null: not checked."
    )


@dataclass
class FolderConfig(FetchedFilesConfig):
    """Class subfolders, with or without train/validation/test folders above them."""

    validation_fraction: float = option(
        0.25,
        above=0,
        below=1,
        doc="The share of each class that is kept for validation, where the folder is not divided already.",
    )
    test_fraction: float = option(
        0.25,
        above=0,
        below=1,
        doc="The share of each class that is kept for the test, where the folder is not divided already.",
    )
    split_seed: int = option(0, minimum=0, doc="Decides which images go into which split.")
    path_column: Optional[str] = option(
        None, doc="The column of a CSV file in which the paths of the images stand; null: known by its usual names."
    )
    label_column: Optional[str] = option(
        None, doc="The column of a CSV file in which the classes stand; null: known by its usual names."
    )
    group: Optional[str] = option(
        None,
        doc="Which images belong together, as those of one patient: a column of a CSV file, or in a folder a regular "
        "expression on the path, with parentheses around the group's name. They are kept in one split, and intervals "
        "and tests are over groups; null: each image stands for itself.",
    )

    def check(self) -> None:
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError(
                f"dataset.validation_fraction={self.validation_fraction}: must be less than 1 together with "
                f"dataset.test_fraction={self.test_fraction}, so that images to train on remain"
            )


@dataclass
class DogsVsCatsConfig(FetchedFilesConfig):
    """The Kaggle photos, split by number as in the tutorial."""

    channels_and_classes = (3, 2)

    source: Optional[str] = option(
        None,
        place=True,
        doc="Kaggle's train/ folder, its archive, or the archive's URL; the split is prepared in dataset.path.",
    )
    download: bool = option(False, doc="Without a source: download Microsoft's archive of the same photos, 825 MB.")


@dataclass
class MnistConfig(DatasetConfig):
    """MNIST from `keras.datasets.mnist`, or from a local `mnist.npz`."""

    channels_and_classes = (1, 10)

    path: Optional[str] = option(None, place=True, doc="A local mnist.npz; null: Keras downloads it.")
    validation_size: int = option(
        5000, minimum=10, maximum=50000, doc="Images that are taken from the 60,000 training images for validation."
    )
    split_seed: int = option(0, minimum=0, doc="Decides which images are for validation.")


@dataclass
class DigitsConfig(DatasetConfig):
    """scikit-learn's 1797 handwritten digits, 8x8."""

    channels_and_classes = (1, 10)

    validation_fraction: float = option(
        0.2, above=0, below=1, doc="The share of each class that is kept for validation."
    )
    test_fraction: float = option(0.2, above=0, below=1, doc="The share of each class that is kept for the test.")
    split_seed: int = option(0, minimum=0, doc="Decides which images go into which split.")

    check = FolderConfig.check


@dataclass
class SyntheticConfig(ImageFilesConfig):
    """Cats and dogs drawn with OpenCV."""

    channels_and_classes = (3, 2)

    train: int = option(2000, minimum=2, doc="Pictures that are drawn to train on; even, half cats and half dogs.")
    validation: int = option(1000, minimum=2, doc="Pictures that are drawn for validation; even.")
    test: int = option(1000, minimum=2, doc="Pictures that are drawn for the test; even.")
    size: int = option(
        180,
        minimum=32,
        maximum=1024,
        doc="Height and width of a drawn picture, in pixels, before it is scaled to dataset.image_size.",
    )
    seed: int = option(0, minimum=0, doc="Decides what is drawn.")
    decoys: int = option(
        0, minimum=0, maximum=100, doc="Bright, sharp things in each picture that tell nothing about its class."
    )

    def check(self) -> None:
        for name in ("train", "validation", "test"):
            count = getattr(self, name)
            if count < 2 or count % 2:
                raise UserError(f"dataset.{name}={count}: must be even and at least 2, half cats and half dogs")


DATASETS: dict[str, type] = {
    "custom": DatasetConfig,
    "folder": FolderConfig,
    "dogs_vs_cats": DogsVsCatsConfig,
    "mnist": MnistConfig,
    "digits": DigitsConfig,
    "synthetic": SyntheticConfig,
}

# ------------------------------------------------------------------------------------------ augmentation


@dataclass
class AugmentationConfig:
    """Random changes of the training images; `_target_: null` is none."""

    _target_: Optional[str] = option(
        doc="The class that changes images, with a method augment; null: images are not changed."
    )
    name: str = option(doc="The augmentation's name.")
    seed: Optional[int] = option(
        None, minimum=0, maximum=2**31 - 1, doc="Of the random numbers of the augmentation; null: that of the run."
    )
    mixup: float = option(
        0.0, minimum=0, doc="Alpha of mixup (arXiv 1710.09412), which trains on mixtures of two images; 0: none."
    )
    arguments: dict[str, Any] = option({}, doc="Keywords for a class of your own.")


@dataclass
class GeometricConfig(AugmentationConfig):
    """The parameters of Keras' ImageDataGenerator, with its meaning."""

    rotation_range: float = option(
        0.0, minimum=0, maximum=180, doc="Images are turned by up to so many degrees, either way."
    )
    width_shift_range: float = option(
        0.0, minimum=0, doc="Images are shifted sideways by up to this fraction of their width, or pixels from 1 on."
    )
    height_shift_range: float = option(
        0.0, minimum=0, doc="Images are shifted up or down by up to this fraction of their height, or pixels from 1 on."
    )
    shear_range: float = option(
        0.0, minimum=0, below=90, doc="Images are sheared by up to so many degrees, either way."
    )
    zoom_range: float = option(
        0.0,
        minimum=0,
        below=1,
        doc="Width and height are each scaled by a factor from 1 - zoom_range to 1 + zoom_range.",
    )
    horizontal_flip: bool = option(False, doc="Every second image, by chance, is exchanged left for right.")
    vertical_flip: bool = option(False, doc="Every second image, by chance, is turned upside down.")
    fill_mode: str = option(
        "nearest",
        choices=("nearest", "reflect", "constant"),
        doc="What stands where an image was moved away: its nearest pixel, its reflection, or black (constant).",
    )


@dataclass
class StrongConfig(GeometricConfig):
    """Geometric, then colour jitter, then random erasing."""

    brightness: float = option(
        0.0, minimum=0, maximum=1, doc="Brightness changes by a factor from 1 - brightness to 1 + brightness."
    )
    contrast: float = option(
        0.0, minimum=0, maximum=1, doc="Contrast changes by a factor from 1 - contrast to 1 + contrast."
    )
    saturation: float = option(
        0.0, minimum=0, maximum=1, doc="Saturation changes by a factor from 1 - saturation to 1 + saturation."
    )
    erasing_probability: float = option(
        0.0, minimum=0, maximum=1, doc="The share of images of which a rectangle is erased (arXiv 1708.04896)."
    )
    erasing_min_area: float = option(0.02, above=0, below=1, doc="The smallest share of an image that is erased.")
    erasing_max_area: float = option(0.2, above=0, below=1, doc="The largest share of an image that is erased.")
    erasing_min_aspect: float = option(
        0.3, above=0, maximum=1, doc="The smallest ratio of the erased rectangle's sides; the largest is 1 over it."
    )

    def check(self) -> None:
        if self.erasing_min_area > self.erasing_max_area:
            raise UserError(
                f"augmentation.erasing_min_area={self.erasing_min_area}: must be at most "
                f"augmentation.erasing_max_area={self.erasing_max_area}"
            )


AUGMENTATIONS: dict[str, type] = {
    "custom": AugmentationConfig,
    "none": AugmentationConfig,
    "geometric": GeometricConfig,
    "strong": StrongConfig,
}
