"""Where images come from: a function for each kind of data set, named by `dataset._target_` in the config.

Each takes the keys of its schema in `cnnexp.config.data` as keywords, with the defaults that stand there.
"""

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np

from cnnexp.config.data import (
    DatasetConfig,
    DigitsConfig,
    DogsVsCatsConfig,
    FetchedFilesConfig,
    FolderConfig,
    ImageFilesConfig,
    MnistConfig,
    SyntheticConfig,
)
from cnnexp.console import warn
from cnnexp.data.check.preflight import PreflightPolicy
from cnnexp.data.dataset import Dataset, Listing, array_splits, from_files, joined, split_folders
from cnnexp.data.drawing.synthetic import draw_synthetic, drawing_folder, is_drawn, limited
from cnnexp.data.fetch.archive import ArchiveError, innermost, is_archive, unpack_all
from cnnexp.data.fetch.dogs_vs_cats import KAGGLE, MICROSOFT, MICROSOFT_PROMISE, prepare_dogs_vs_cats
from cnnexp.data.fetch.download import ExpectedFile, download, file_name, is_url
from cnnexp.data.fetch.mnist import read_mnist
from cnnexp.data.fetch.split_tables import read_tables_of_splits, tables_of_splits
from cnnexp.data.fetch.tables import TableRules, read_table
from cnnexp.data.folders import TABLE_ENDINGS, labelled_images
from cnnexp.data.splits import divide, grouped
from cnnexp.errors import UserError, first_line

DIGIT_NAMES = tuple("0123456789")
NO_CONFIG = {"downloads": "downloads", "manifests": None}  # without one there is no `paths.data` to name


# ------------------------------------------------------------------------------------------------- sources


def _keywords_of(schema: type[Any]) -> Callable[[Callable[[Any], Dataset]], Callable[..., Dataset]]:
    """Lets a source that takes its options whole be called with their keywords, as a `_target_` is."""

    def decorate(source: Callable[[Any], Dataset]) -> Callable[..., Dataset]:
        names = [item.name for item in fields(schema) if item.name not in ("_target_", "image_size", "arguments")]
        own = {"name": source.__name__, **NO_CONFIG}
        defaults = schema(**{name: own[name] for name in names if name in own})

        @wraps(source)
        def called(**keywords: Any) -> Dataset:
            return source(replace(defaults, **keywords))

        called.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(defaults, name)) for name in names]
        )
        return called

    return decorate


@_keywords_of(FolderConfig)
def folder(options: FolderConfig) -> Dataset:
    """Images of one's own in class folders, `path/CLASS/` or `path/{train,validation,test}/CLASS/`.

    What has no folder of its own is taken from train. So without split folders, validation and test are
    fractions of all images; beside train/ and validation/ alone, test is a fraction of train (not of
    validation, which chooses the variant), and a line says so; likewise beside train/ and test/ alone.

    Args:
        path: the folder; `folders.labelled_images` says what is read in it. Or a zip or tar archive of such a folder,
            or the URL of one, which is unpacked once; or a CSV file with the columns `path`, `label` and, if wanted,
            `split` (`tables.read_table`); or a folder with such a file for each split (`split_tables`).
        path_column, label_column: what these columns are called; None: known by their usual names.
        group: the column of the groups, or for folders a regular expression on the path, `(...)` in it the group's
            name; they are not divided. None: each image stands for itself.
        validation_fraction: of each class, one image at least.
        test_fraction: likewise; the same images whatever `validation_fraction` is.
        split_seed: decides which images these are.
        downloads: folder for what is downloaded or unpacked.
        sha256: of the archive at the URL, in hex.
        limit: at most so many images of each split, evenly of each class.
        on_bad: files that cannot be used are all named; then `error` refuses the data set, and `skip` goes on
            without them.
        on_leak: images that are also in an earlier split, as the same file or to look at, are named with both
            names; then `error` refuses the data set, and `warn` goes on with them. `ignore` says nothing. So it is
            with groups that have images in several splits.
        manifests: folder in which what was found in the files is kept, so that only new ones are looked at.

    Raises:
        UserError: there is no such folder, or not with this layout; a class is too small to be divided.
        PreflightError: bad files, or leaks, that are to be refused.
    """
    listing = list_images(options)
    images = listing.parts["train"]
    fractions = {"test": options.test_fraction, "validation": options.validation_fraction}
    sizes = {split: round(part * len(images.ids)) for split, part in fractions.items() if split not in listing.parts}
    if sizes:
        divided = divide(images.labels, sizes, options.split_seed, listing.class_names, images.groups)
        if len(sizes) == 1:
            (split,) = sizes
            warn(
                f"dataset.path={listing.source or listing.root}: has no {split} images; {len(divided[split])} of its "
                f"{len(images.ids)} training images are set aside (dataset.{split}_fraction={fractions[split]:g})"
            )
        parts = listing.parts | {split: images.take(indices) for split, indices in divided.items()}
        listing = replace(listing, parts=parts)
    return from_files(options.name, listing, options.limit, _rules(options))


def list_images(options: FolderConfig, trains: bool = True) -> Listing:
    """The images that `folder` reads, before they are divided or looked at; `trains` as in `folders.labelled_images`.

    Raises:
        UserError: as `folder`.
    """
    if options.path is None:
        raise UserError("dataset.path=null: give the folder of your images, as dataset.path=FOLDER")
    path, downloads, promise = options.path, _downloads(options), _promise(options)
    rules = TableRules(options.path_column, options.label_column, options.group, options.on_bad, trains)
    root, source = Path(path).expanduser().absolute(), None
    if is_url(path):
        root = _downloaded(path, downloads, promise)
    elif root.is_file() and root.suffix.lower() in TABLE_ENDINGS:
        return Listing(root.parent, *read_table(root, rules), source=root)
    elif root.is_file() and is_archive(root):
        status = root.stat()
        facts = hashlib.sha256(repr((str(root), status.st_size, status.st_mtime_ns)).encode()).hexdigest()
        unpacked = downloads / f"{root.stem}-{facts[:8]}.unpacked"
        unpack_all(root, unpacked)
        root, source = innermost(unpacked), root
    elif not root.is_dir():
        what = "is not a folder, archive or CSV file" if root.exists() else "does not exist"
        raise UserError(
            f"dataset.path={path}: {what}; give the folder of your images, an archive of it, or a CSV file of "
            "path,label"
        )
    try:
        found = labelled_images(root, trains)
    except UserError as error:
        if tables := tables_of_splits(root, rules):
            return Listing(root, *read_tables_of_splits(root, tables, rules), source=source)
        _check_is_table(options)
        if source or is_url(path):  # the line names a folder that the user has not made
            raise UserError(f"{error}; {root} is what was unpacked of {path}") from error
        raise
    _check_is_table(options)
    names, parts, left = found
    if options.group is not None:
        parts = {split: grouped(images, options.group) for split, images in parts.items()}
    return Listing(root, names, parts, left, source)


def _check_is_table(options: FolderConfig) -> None:
    """Refuse names of columns: there is no table."""
    for key in ("path_column", "label_column"):
        if (name := getattr(options, key)) is not None:
            raise UserError(
                f"dataset.{key}={name}: dataset.path={options.path} is no table of images; leave the key out"
            )


def images_to_test(options: FolderConfig, listing: Listing) -> Dataset:
    """Every image that `list_images` found to be tested: nothing is divided, and nothing can leak into a training."""
    return from_files(options.name, listing, options.limit, replace(_rules(options), trains=False))


@_keywords_of(DogsVsCatsConfig)
def dogs_vs_cats(options: DogsVsCatsConfig) -> Dataset:
    """The tutorial's 2000 / 1000 / 1000 Kaggle photos.

    Args:
        path: the prepared folder, `path/{train,validation,test}/{cat,dog}/`.
        source: the Kaggle folder with cat.0.jpg, dog.0.jpg, ..., or an archive of it or Microsoft's, or the URL of
            one; `path` is made from it if it is not there.
        download: without a `source`, get Microsoft's archive of the same photos (825 MB) if `path` is not there.
        downloads, sha256: as in `folder`.
        limit, on_bad, on_leak, manifests: as in `folder`.

    Raises:
        UserError: neither lies ready; `path` was made from other photos than those of `source`.
    """
    path, downloads = options.path, _downloads(options)
    if path is None:
        raise UserError("dataset.path=null: give the folder in which the split photos are to lie")
    if options.source is not None:
        prepare_dogs_vs_cats(options.source, Path(path), downloads, _promise(options))
    elif not Path(path).expanduser().is_dir():
        if not options.download:
            raise UserError(
                f"dataset.path={path}: the photos are not there yet; `cnnexp prepare dogs_vs_cats` downloads them "
                f"(825 MB); or get {KAGGLE} and give dataset.source=FOLDER of cat.0.jpg, dog.0.jpg, ... or the "
                "archive; dataset=synthetic works without a download"
            )
        prepare_dogs_vs_cats(MICROSOFT, Path(path), downloads, MICROSOFT_PROMISE)
    listing = split_folders(Path(path).expanduser().absolute())
    return from_files(options.name, listing, options.limit, _rules(options))


@_keywords_of(MnistConfig)
def mnist(options: MnistConfig) -> Dataset:
    """Handwritten digits, (28, 28, 1): 60,000 to train and validate, 10,000 to test (LeCun et al. 1998).

    Args:
        path: Keras' mnist.npz (x_train y_train x_test y_test), or None to let Keras download it.
        validation_size: so many training images, in the proportions of the digits, are for validation.
        split_seed: decides which.
        limit: as in `folder`.

    Raises:
        UserError: the file cannot be read or downloaded, or has other contents.
    """
    arrays = _keras_mnist() if options.path is None else read_mnist(Path(options.path).expanduser())
    x_train, y_train, x_test, y_test = arrays
    parts = divide(y_train, {"validation": options.validation_size}, options.split_seed, DIGIT_NAMES)
    splits = array_splits("train", x_train, y_train, parts, options.limit)
    splits |= array_splits("test", x_test, y_test, {"test": np.arange(len(y_test))}, options.limit)
    return joined(options.name, DIGIT_NAMES, 1, splits)


@_keywords_of(DigitsConfig)
def digits(options: DigitsConfig) -> Dataset:
    """scikit-learn's 1797 handwritten digits, (8, 8, 1), their 17 grey levels spread over 0..255.

    Args:
        validation_fraction, test_fraction, split_seed, limit: as in `folder`.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    fractions = {"test": options.test_fraction, "validation": options.validation_fraction}
    sizes = {split: round(fraction * len(labels)) for split, fraction in fractions.items()}
    parts = divide(labels, sizes, options.split_seed, DIGIT_NAMES)
    return joined(options.name, DIGIT_NAMES, 1, array_splits("digits", images, labels, parts, options.limit))


@_keywords_of(SyntheticConfig)
def synthetic(options: SyntheticConfig) -> Dataset:
    """Drawn cats and dogs with the masks of their evidence (see `synthetic.draw_dataset`).

    Args:
        path: where to draw them at the first use; each choice of the following has its own folder in it,
            as `path/2000-1000-1000-180-0/`.
        train, validation, test: pictures in each split, even: half cats, half dogs.
        size: height and width of a picture, in pixels.
        seed: decides everything about them.
        decoys: black and white objects in each picture, which stand out more than the evidence, and mean nothing.
        limit: no more pictures of each split are drawn than this, rounded down to an even number.
        on_bad, on_leak, manifests: as in `folder`.

    Raises:
        UserError: something else lies there; the disk is full.
    """
    if options.path is None:
        raise UserError("dataset.path=null: give the folder into which the pictures are to be drawn")
    options = limited(options)
    root = drawing_folder(options)
    draw_synthetic(root, options)
    return from_files(options.name, split_folders(root), None, _rules(options), masks=str(root / "masks"))


def lies_ready(options: DatasetConfig) -> bool:
    """Whether the images can be read without drawing, preparing or downloading anything."""
    if isinstance(options, SyntheticConfig):
        options = limited(options)
        return is_drawn(drawing_folder(options), options)
    if isinstance(options, DigitsConfig):
        return True
    path = getattr(options, "path", None)
    return path is not None and Path(path).expanduser().exists()


def _downloaded(url: str, downloads: Path, promise: ExpectedFile) -> Path:
    """The folder of an archive at a URL, which is fetched and unpacked once."""
    name = file_name(url, promise)
    root = downloads / f"{name}.unpacked"
    if not root.is_dir():
        download(url, downloads / name, promise)
        try:
            unpack_all(downloads / name, root)
        except ArchiveError:
            (downloads / name).unlink()  # there is no use in it
            raise
        (downloads / name).unlink(missing_ok=True)  # another process may have done it
    return innermost(root)


def _downloads(options: FetchedFilesConfig) -> Path:
    return Path(options.downloads).expanduser().absolute()


def _promise(options: FetchedFilesConfig) -> ExpectedFile:
    return ExpectedFile(sha256=options.sha256.lower() if options.sha256 else None)


def _rules(options: ImageFilesConfig) -> PreflightPolicy:
    manifests = Path(options.manifests).expanduser().absolute() if options.manifests else None
    return PreflightPolicy(options.on_bad, options.on_leak, manifests)


def _keras_mnist() -> tuple[np.ndarray, ...]:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # whatever the network does
        raise UserError(
            f"dataset.path=null: Keras cannot download MNIST ({first_line(error)}); get mnist.npz in another way and "
            "give dataset.path=FILE, or use dataset=digits, which needs no download"
        ) from error
    return x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64)
