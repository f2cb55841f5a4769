"""Where images come from: a function for each kind of data set, named by `dataset._target_` in the config."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnexp.console import warn
from cnnexp.data.prepare import DOWNLOAD, draw_synthetic, prepare_dogs_vs_cats, read_mnist
from cnnexp.data.splits import (
    SPLITS,
    Listing,
    array_digests,
    combined_digest,
    divide,
    file_digests,
    find_images,
    limit_evenly,
    without_bad_files,
)
from cnnexp.data.synthetic import drawing
from cnnexp.errors import UserError

DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in files or in memory: exactly one of `paths` and `arrays` is set."""

    name: str  # train, validation or test
    labels: np.ndarray  # (N,) int64 class numbers
    paths: tuple[str, ...] | None  # absolute file names
    arrays: np.ndarray | None  # (N, H, W, C) uint8 in 0..255, C = 3 (RGB) or 1 (grey)
    ids: tuple[str, ...]  # for each image: its path in the data set's folder, or as `test/17`
    digest: str  # SHA-256 in hex over ids, labels and bytes


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits with the same classes."""

    name: str
    class_names: tuple[str, ...]
    channels: int  # 3 for RGB, 1 for grey
    train: Split
    validation: Split
    test: Split
    digest: str  # SHA-256 in hex over the class names and the splits' digests
    masks: str | None = None  # folder of the evidence masks of drawn pictures: the same ids, but .png


# ------------------------------------------------------------------------------------------------- sources


def folder(
    *,
    path: str | None,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
    limit: int | None = None,
    on_bad: str = "error",
    name: str = "folder",
) -> Dataset:
    """Images of one's own in class folders, `path/CLASS/` or `path/{train,validation,test}/CLASS/`.

    What has no folder of its own is taken from train. So without split folders, validation and test are
    fractions of all images; beside train/ and validation/ alone, test is a fraction of train (not of
    validation, which chooses the variant), and a line says so; likewise beside train/ and test/ alone.

    Args:
        path: the folder; `splits.find_images` says what is read in it.
        validation_fraction: of each class, one image at least.
        test_fraction: likewise; the same images whatever `validation_fraction` is.
        split_seed: decides which images these are.
        limit: at most so many images of each split, evenly of each class.
        on_bad: for files that are no images: `skip` looks for them, names them and leaves them out; with
            `error`, the reading of the images refuses the first (`ImageError`).

    Raises:
        UserError: there is no such folder, or not with this layout; a class is too small to be divided.
    """
    if path is None:
        raise UserError("dataset.path=null: give the folder of your images, as dataset.path=FOLDER")
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"dataset.path={path}: {what}; give the folder of your images")
    class_names, parts = find_images(root)
    images = parts["train"]
    fractions = {"test": test_fraction, "validation": validation_fraction}
    sizes = {split: round(part * len(images.ids)) for split, part in fractions.items() if split not in parts}
    if sizes:
        divided = divide(images.labels, sizes, split_seed, class_names)
        if len(sizes) == 1:
            (split,) = sizes
            warn(
                f"dataset.path={root}: has no {split} folder; {len(divided[split])} of its {len(images.ids)} "
                f"training images are set aside (dataset.{split}_fraction={fractions[split]:g})"
            )
        parts |= {split: images.take(indices) for split, indices in divided.items()}
    return _from_files(name, root, class_names, parts, limit, on_bad)


def dogs_vs_cats(
    *,
    path: str | None,
    source: str | None,
    limit: int | None = None,
    on_bad: str = "error",
    name: str = "dogs_vs_cats",
) -> Dataset:
    """The tutorial's 2000 / 1000 / 1000 Kaggle photos.

    Args:
        path: the prepared folder, `path/{train,validation,test}/{cat,dog}/`.
        source: the Kaggle folder with cat.0.jpg, dog.0.jpg, ...; `path` is made from it if it is not there.
        limit, on_bad: as in `folder`.

    Raises:
        UserError: neither lies ready; `path` was made from other photos than those of `source`.
    """
    if path is None:
        raise UserError("dataset.path=null: give the folder in which the split photos are to lie")
    if source is not None:
        prepare_dogs_vs_cats(Path(source), Path(path))
    elif not Path(path).expanduser().is_dir():
        raise UserError(
            f"dataset.path={path}: the photos are not there yet; download {DOWNLOAD}, unpack it, and give "
            "dataset.source=FOLDER of cat.0.jpg, dog.0.jpg, ...; dataset=synthetic works without a download"
        )
    return _from_split_folders(name, Path(path).expanduser().absolute(), limit, on_bad)


def mnist(
    *,
    path: str | None,
    validation_size: int,
    split_seed: int,
    limit: int | None = None,
    name: str = "mnist",
) -> Dataset:
    """Handwritten digits, (28, 28, 1): 60,000 to train and validate, 10,000 to test (LeCun et al. 1998).

    Args:
        path: Keras' mnist.npz (x_train y_train x_test y_test), or None to let Keras download it.
        validation_size: so many training images, in the proportions of the digits, are for validation.
        split_seed: decides which.
        limit: as in `folder`.

    Raises:
        UserError: the file cannot be read or downloaded, or has other contents.
    """
    arrays = _keras_mnist() if path is None else read_mnist(Path(path).expanduser())
    x_train, y_train, x_test, y_test = arrays
    parts = divide(y_train, {"validation": validation_size}, split_seed, DIGIT_NAMES)
    splits = _array_splits("train", x_train, y_train, parts, limit)
    splits |= _array_splits("test", x_test, y_test, {"test": np.arange(len(y_test))}, limit)
    return _dataset(name, DIGIT_NAMES, 1, splits)


def digits(
    *,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
    limit: int | None = None,
    name: str = "digits",
) -> Dataset:
    """scikit-learn's 1797 handwritten digits, (8, 8, 1), their 17 grey levels spread over 0..255.

    Args:
        validation_fraction, test_fraction, split_seed, limit: as in `folder`.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    sizes = {split: round(fraction * len(labels)) for split, fraction in fractions.items()}
    parts = divide(labels, sizes, split_seed, DIGIT_NAMES)
    return _dataset(name, DIGIT_NAMES, 1, _array_splits("digits", images, labels, parts, limit))


def synthetic(
    *,
    path: str | None,
    train: int,
    validation: int,
    test: int,
    size: int,
    seed: int,
    decoys: int = 0,
    limit: int | None = None,
    on_bad: str = "error",
    name: str = "synthetic",
) -> Dataset:
    """Drawn cats and dogs with the masks of their evidence (see `synthetic.draw_dataset`).

    Args:
        path: where to draw them at the first use; each choice of the following has its own folder in it,
            as `path/2000-1000-1000-180-0/`.
        train, validation, test: pictures in each split, even: half cats, half dogs.
        size: height and width of a picture, in pixels.
        seed: decides everything about them.
        decoys: black and white objects in each picture, which stand out more than the evidence, and mean nothing.
        limit: no more pictures of each split are drawn than this, rounded down to an even number.
        on_bad: as in `folder`.

    Raises:
        UserError: something else lies there; the disk is full.
    """
    if path is None:
        raise UserError("dataset.path=null: give the folder into which the pictures are to be drawn")
    root, counts = drawing(path, (train, validation, test), size, seed, limit, decoys)
    draw_synthetic(root, *counts)
    return _from_split_folders(name, root, None, on_bad, masks=str(root / "masks"))


# --------------------------------------------------------------------------------------------------- files


def _from_split_folders(name: str, root: Path, limit: int | None, on_bad: str, masks: str | None = None) -> Dataset:
    class_names, parts = find_images(root)
    for split in SPLITS:
        if split not in parts:
            raise UserError(
                f"dataset.path={root}: is no prepared data set, having no {split}/; delete it or give another"
            )
    return _from_files(name, root, class_names, parts, limit, on_bad, masks)


def _from_files(
    name: str,
    root: Path,
    class_names: tuple[str, ...],
    parts: dict[str, Listing],
    limit: int | None,
    on_bad: str,
    masks: str | None = None,
) -> Dataset:
    assert on_bad in ("error", "skip"), on_bad
    splits = {}
    for split, images in parts.items():
        images = images.take(limit_evenly(images.labels, limit))
        if on_bad == "skip":
            images = without_bad_files(root, images, split, class_names)
        paths = tuple(str(root / image) for image in images.ids)
        contents = file_digests(paths, f"checking {split} images")
        digest = combined_digest(images.ids, images.labels, contents)
        splits[split] = Split(split, images.labels, paths, None, images.ids, digest)
    return _dataset(name, class_names, 3, splits, masks)


def _dataset(
    name: str, class_names: tuple[str, ...], channels: int, splits: dict[str, Split], masks: str | None = None
) -> Dataset:
    train, validation, test = (splits[split] for split in SPLITS)
    facts = json.dumps([class_names, train.digest, validation.digest, test.digest])
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return Dataset(name, class_names, channels, train, validation, test, digest, masks)


# -------------------------------------------------------------------------------------------------- arrays


def _array_splits(
    prefix: str, images: np.ndarray, labels: np.ndarray, parts: dict[str, np.ndarray], limit: int | None
) -> dict[str, Split]:
    """Splits of images (N, H, W) uint8, given the indices of each; an id is the prefix and the index."""
    splits = {}
    for split, indices in parts.items():
        indices = indices[limit_evenly(labels[indices], limit)]
        arrays, chosen = images[indices][..., np.newaxis], labels[indices]
        ids = tuple(f"{prefix}/{index}" for index in indices)
        digest = combined_digest(ids, chosen, array_digests(arrays))
        splits[split] = Split(split, chosen, None, arrays, ids, digest)
    return splits


def _keras_mnist() -> tuple[np.ndarray, ...]:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # whatever the network does
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"dataset.path=null: Keras cannot download MNIST ({reason}); get mnist.npz in another way and "
            "give dataset.path=FILE, or use dataset=digits, which needs no download"
        ) from error
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)
