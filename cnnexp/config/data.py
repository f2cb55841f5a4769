"""The config groups `dataset` and `augmentation`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from omegaconf import MISSING

from cnnexp.config.limits import option
from cnnexp.errors import UserError


@dataclass
class DatasetConfig:
    """Where images come from. `_target_` may name a function of your own; `arguments` are keywords."""

    channels_and_classes: ClassVar[Optional[tuple[int, int]]] = None  # where they are known without reading the images

    _target_: str = MISSING
    name: str = MISSING
    image_size: int = option(150, minimum=8, maximum=4096)  # pixels, height and width
    limit: Optional[int] = option(None, minimum=2)  # at most so many images of each split
    arguments: dict[str, Any] = option({})


@dataclass
class ImageFilesConfig(DatasetConfig):
    """A data set that lies on disk as image files."""

    path: Optional[str] = None
    on_bad: str = option("error", choices=("error", "skip"))  # about files that cannot be used
    on_leak: str = option("warn", choices=("warn", "error", "ignore"))  # about images that are in two splits
    manifests: Optional[str] = "${paths.data}/manifests"  # folder: what was found in the files; null: not kept


@dataclass
class FetchedFilesConfig(ImageFilesConfig):
    """Image files that may come in an archive, or by a URL."""

    downloads: str = "${paths.data}/downloads"  # folder of what is downloaded or unpacked
    sha256: Optional[str] = None  # of the archive at a URL, in hex; null: whatever comes


@dataclass
class FolderConfig(FetchedFilesConfig):
    """Class subfolders, with or without train/validation/test folders above them."""

    validation_fraction: float = option(0.25, above=0, below=1)  # where the folder is not split already
    test_fraction: float = option(0.25, above=0, below=1)
    split_seed: int = option(0, minimum=0)

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

    source: Optional[str] = None  # Kaggle's `train/`, or an archive, or its URL; `path` is where the split is prepared
    download: bool = False  # without a source: Microsoft's archive of the same photos, 825 MB


@dataclass
class MnistConfig(DatasetConfig):
    """MNIST from `keras.datasets.mnist`, or from a local `mnist.npz`."""

    channels_and_classes = (1, 10)

    path: Optional[str] = None
    validation_size: int = option(5000, minimum=10, maximum=50000)  # taken from the 60,000 training images
    split_seed: int = option(0, minimum=0)


@dataclass
class DigitsConfig(DatasetConfig):
    """scikit-learn's 1797 handwritten digits, 8x8."""

    channels_and_classes = (1, 10)

    validation_fraction: float = option(0.2, above=0, below=1)
    test_fraction: float = option(0.2, above=0, below=1)
    split_seed: int = option(0, minimum=0)

    check = FolderConfig.check


@dataclass
class SyntheticConfig(ImageFilesConfig):
    """Cats and dogs drawn with OpenCV."""

    channels_and_classes = (3, 2)

    train: int = option(2000, minimum=2)
    validation: int = option(1000, minimum=2)
    test: int = option(1000, minimum=2)
    size: int = option(180, minimum=32, maximum=1024)  # pixels of a drawn picture, before resizing
    seed: int = option(0, minimum=0)
    decoys: int = option(0, minimum=0, maximum=100)  # in each picture: what stands out, and tells nothing

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

    _target_: Optional[str] = MISSING
    name: str = MISSING
    seed: Optional[int] = option(None, minimum=0, maximum=2**31 - 1)  # of its random numbers; null: that of the run
    mixup: float = option(0.0, minimum=0)  # alpha of arXiv 1710.09412; 0: images are not mixed
    arguments: dict[str, Any] = option({})


@dataclass
class GeometricConfig(AugmentationConfig):
    """The parameters of Keras' ImageDataGenerator, with its meaning."""

    rotation_range: float = option(0.0, minimum=0, maximum=180)  # degrees
    width_shift_range: float = option(0.0, minimum=0)  # fraction below 1, pixels from 1 on
    height_shift_range: float = option(0.0, minimum=0)
    shear_range: float = option(0.0, minimum=0, below=90)  # degrees
    zoom_range: float = option(0.0, minimum=0, below=1)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill_mode: str = option("nearest", choices=("nearest", "reflect", "constant"))


@dataclass
class StrongConfig(GeometricConfig):
    """Geometric, then colour jitter, then random erasing."""

    brightness: float = option(0.0, minimum=0, maximum=1)
    contrast: float = option(0.0, minimum=0, maximum=1)
    saturation: float = option(0.0, minimum=0, maximum=1)
    erasing_probability: float = option(0.0, minimum=0, maximum=1)
    erasing_min_area: float = option(0.02, above=0, below=1)
    erasing_max_area: float = option(0.2, above=0, below=1)
    erasing_min_aspect: float = option(0.3, above=0, maximum=1)

    def check(self) -> None:
        if self.erasing_min_area > self.erasing_max_area:
            raise UserError(
                f"augmentation.erasing_min_area={self.erasing_min_area}: must be at most "
                f"augmentation.erasing_max_area={self.erasing_max_area}"
            )


AUGMENTATIONS: dict[str, type] = {"none": AugmentationConfig, "geometric": GeometricConfig, "strong": StrongConfig}
