"""What a data set of the user's own function must be like, checked before anything is done with it."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np

from cnnexp.data.dataset import Dataset, Split
from cnnexp.data.splits import SPLITS
from cnnexp.errors import UserError

IMAGES = "images are (N, height, width, channels) uint8 in 0..255"
LABELS = "labels are (N,) class numbers, whole ones from 0 on"


def checked(dataset: Dataset) -> Dataset:
    """The data set, its labels as int64.

    Raises:
        UserError: what is not as `Dataset` and `Split` say, and how it is mended.
    """
    names = dataset.class_names
    if not isinstance(names, (tuple, list)) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise UserError(f"class_names is {names!r:.80}; give two texts at least, one for each class")
    if len(set(names)) < len(names):
        raise UserError(f"class_names has {Counter(names).most_common(1)[0][0]!r} twice; give each class its own name")
    if dataset.channels not in (1, 3):
        raise UserError(f"channels is {dataset.channels!r}; give 1 for grey, or 3 for RGB")
    parts: dict[str, Split] = {}
    for name, split in zip(SPLITS, dataset.splits, strict=True):
        try:
            if not isinstance(split, Split):
                raise UserError(f"is {type(split).__name__}, not cnnexp.data.dataset.Split")
            if split.name != name:
                raise UserError(f"is called {split.name!r}; call it {name!r}")
            _check_lengths(split)
            _check_labels(split, names)
            _check_images(split, dataset.channels)
        except (UserError, TypeError) as error:  # labels=None has no length
            raise UserError(f"its {name} split {error}") from error
        parts[name] = replace(split, labels=np.asarray(split.labels, np.int64))
    train, validation, test = parts.values()
    return replace(dataset, class_names=tuple(names), train=train, validation=validation, test=test)


def _check_lengths(split: Split) -> None:
    if (split.paths is None) == (split.arrays is None):
        raise UserError("has both paths and arrays, or none of them; give one of the two, and None for the other")
    images = split.paths if split.paths is not None else split.arrays
    counts = {"paths" if split.paths is not None else "arrays": len(images)}  # type: ignore[arg-type]
    counts |= {"labels": len(split.labels), "ids": len(split.ids)}
    if not all(counts.values()):
        raise UserError("has no images; each of train, validation and test needs one at least")
    if len(set(counts.values())) > 1:
        raise UserError(f"has {', '.join(f'{count} {what}' for what, count in counts.items())}; give as many of each")
    if not all(isinstance(name, str) for name in split.ids) or len(set(split.ids)) < len(split.ids):
        raise UserError("has ids that are no texts, or the same for two images; name each image, as 'train/17'")
    groups = split.groups
    if groups is not None and (len(groups) != len(split.ids) or not all(isinstance(name, str) for name in groups)):
        raise UserError("has groups that are no texts, or not as many as ids; name each image's, or give None")
    if not isinstance(split.digest, str) or not split.digest:
        raise UserError("has no digest; give a text that changes with the images, as their SHA-256")


def _check_labels(split: Split, names: tuple[str, ...]) -> None:
    labels = np.asarray(split.labels)
    if labels.ndim == 2 and labels.shape[1] == len(names):
        raise UserError(f"has one-hot labels {labels.shape}; {LABELS}: give labels.argmax(axis=1)")
    if labels.ndim != 1:
        raise UserError(f"has labels of shape {labels.shape}; {LABELS}")
    if labels.dtype.kind in "USO":
        raise UserError(f"has labels as {labels[0]!r:.40}; {LABELS}: give [class_names.index(label), ...]")
    if labels.dtype.kind not in "iu":
        raise UserError(f"has labels of type {labels.dtype}; {LABELS}: give labels.astype(int)")
    if labels.min() < 0 or labels.max() >= len(names):
        known = f"{len(names)} class_names they are 0 to {len(names) - 1}"
        raise UserError(f"has labels from {labels.min()} to {labels.max()}; with {known}")


def _check_images(split: Split, channels: int) -> None:
    if split.paths is not None:
        missing = [path for path in split.paths if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path)]
        if missing:
            raise UserError(f"has {len(missing):,} paths at which there is no file, as {missing[0]!s:.200}")
        return
    images = split.arrays
    if not isinstance(images, np.ndarray):
        raise UserError(f"has arrays of type {type(images).__name__}; {IMAGES}: give one NumPy array")
    if images.ndim == 3 and channels == 1:
        raise UserError(f"has images of shape {images.shape}; {IMAGES}: give images[..., None]")
    if images.ndim != 4:
        raise UserError(f"has images of shape {images.shape}; {IMAGES}")
    if images.shape[3] != channels:
        mend = f"channels is {channels}, the images have {images.shape[3]}"
        rgba = ": give images[..., :3], without the transparency" if images.shape[3] == 4 and channels == 3 else ""
        first = ": give images.transpose(0, 2, 3, 1)" if images.shape[1] == channels and not rgba else ""
        raise UserError(f"has images of shape {images.shape}; {IMAGES}; {mend}{rgba or first}")
    if images.dtype != np.uint8:
        raise UserError(f"has images of type {images.dtype}, {_range(images)}; {IMAGES}: give {_as_bytes(images)}")


def _range(images: np.ndarray) -> str:
    return f"from {float(np.nanmin(images)):.4g} to {float(np.nanmax(images)):.4g}"


def _as_bytes(images: np.ndarray) -> str:
    least, most = float(np.nanmin(images)), float(np.nanmax(images))
    if images.dtype.kind in "iub" and least >= 0 and most <= 255:
        return "images.astype(np.uint8)" if images.dtype.kind != "b" else "images.astype(np.uint8) * 255"
    if least >= 0 and most <= 1:
        return "(images * 255).round().astype(np.uint8)"
    if least >= -1 and most <= 1:
        return "((images + 1) * 127.5).round().astype(np.uint8)"
    if least >= 0 and most <= 255:
        return "images.round().astype(np.uint8)"
    return "them scaled to 0..255, then .astype(np.uint8)"
