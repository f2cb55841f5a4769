"""Which images a data set has, and in which split: found in folders, divided by a seed, limited in number."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnexp.console import progress
from cnnexp.errors import UserError
from cnnexp.files import open_file

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SPLITS = ("train", "validation", "test")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
LAYOUTS = "give a folder with one subfolder a class, or with train/, validation/ and test/ that have them"
THREADS = min(os.cpu_count() or 1, 8)  # for reading files


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Image files: `ids` are their names relative to the data set's folder, with `/`; `labels` (N,) int64."""

    ids: tuple[str, ...]
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> "LabelledFiles":
        """Those with these positions, in this order."""
        return LabelledFiles(tuple(self.ids[index] for index in indices), self.labels[indices])


# ------------------------------------------------------------------------------------------------- folders


def find_images(root: Path) -> tuple[tuple[str, ...], dict[str, LabelledFiles]]:
    """List the images of `root/SPLIT/CLASS/` or, where there are no split folders, of `root/CLASS/` as train.

    A split folder is train, validation (or val, valid) or test, in small or capital letters; folders beside
    these do not count. Class folders may have folders of their own, in which links to folders are not
    followed. Hidden files, and those without one of the `IMAGE_ENDINGS`, are left out. All is sorted by name.

    Returns:
        The class names, and a listing for each split that has a folder; train is always among them.

    Raises:
        UserError: `root` cannot be read; fewer than two classes; a class without images; other classes in one
            split than in another.
    """
    try:
        folders = _split_folders(root)
        found = {split: _class_images(root, folder) for split, folder in folders.items()}
    except OSError as error:
        raise UserError(f"dataset.path={root}: {error.filename} cannot be read ({error.strerror})") from error
    names = tuple(found["train"])
    for split, images in found.items():
        _check_classes(f"dataset.path={root / folders[split]}", images)
        for name in set(names) ^ set(images):
            has, lacks = (split, "train") if name in images else ("train", split)
            raise UserError(
                f"dataset.path={root}: class '{name}' has a folder in {folders[has]}/, but none in "
                f"{folders[lacks]}/; every split needs the same class folders"
            )
    return names, {split: _listing(images) for split, images in found.items()}


def _split_folders(root: Path) -> dict[str, str]:
    """The folder of each split; `{"train": ""}` where the class folders lie in `root` itself."""
    names = _subfolders(root)
    found = {}
    for split, known in SPLIT_FOLDERS.items():
        like = [name for name in names if name.lower() in known]
        if len(like) > 1:
            raise UserError(f"dataset.path={root}: has both {like[0]}/ and {like[1]}/; keep one of them")
        if like:
            found[split] = like[0]
    if "train" in found and len(found) > 1:
        return found
    if len(found) > 1 or ("train" in found and len(names) <= 2):  # among more classes, a train is a vehicle
        raise UserError(f"dataset.path={root}: {', '.join(names)}: are no classes; {LAYOUTS}")
    return {"train": ""}


def _class_images(root: Path, folder: str) -> dict[str, list[str]]:
    """The images of each class folder, all sorted."""
    prefix = f"{folder}/" if folder else ""
    return {
        name: sorted(_images_below(os.path.join(root, folder, name), f"{prefix}{name}/"))
        for name in _subfolders(root / folder)
    }


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")


def _images_below(folder: str, prefix: str) -> list[str]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                found += _images_below(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(IMAGE_ENDINGS) and not entry.is_dir():
                found.append(prefix + entry.name)
    return found


def _check_classes(where: str, images: dict[str, list[str]]) -> None:
    if not images:
        raise UserError(f"{where}: has no class folders; {LAYOUTS}")
    if len(images) == 1:
        raise UserError(f"{where}: has one class only, '{next(iter(images))}'; {LAYOUTS}")
    for name, ids in images.items():
        if not ids:
            raise UserError(
                f"{where}: class folder '{name}' has no images ({' '.join(IMAGE_ENDINGS)}); "
                "put some into it or take it away"
            )


def _listing(images: dict[str, list[str]]) -> LabelledFiles:
    labels = np.repeat(np.arange(len(images)), [len(ids) for ids in images.values()])
    return LabelledFiles(tuple(name for ids in images.values() for name in ids), labels.astype(np.int64))


# ---------------------------------------------------------------------------------------- division and limit


def divide(labels: np.ndarray, sizes: dict[str, int], seed: int, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """Set images aside for other splits; the rest is train.

    Each split gets of every class the same proportion (by largest remainders), but one image at least.

    Args:
        labels: (N,) class numbers.
        sizes: how many images each of the other splits gets; they are taken in this order.
        seed: decides which.
        class_names: for messages.

    Returns:
        For train and each of `sizes`, the positions of its images in ascending order.

    Raises:
        UserError: a class has too few images to leave one to train on.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    shares = {split: _shares(counts, size) for split, size in sizes.items()}
    rest = counts - sum(shares.values())
    if rest.min() < 1:
        scarce = int(rest.argmin())
        wanted = " and ".join(f"{share[scarce]} for {split}" for split, share in shares.items())
        raise UserError(
            f"dataset: class '{class_names[scarce]}' has {counts[scarce]} images: {wanted} leave none "
            "to train on; add images, or make these splits smaller"
        )
    parts: dict[str, list[np.ndarray]] = {split: [] for split in ("train", *sizes)}
    for label in range(len(class_names)):
        shuffled = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))
        for split, share in shares.items():
            parts[split].append(shuffled[: share[label]])
            shuffled = shuffled[share[label] :]
        parts["train"].append(shuffled)
    return {split: np.sort(np.concatenate(part)) for split, part in parts.items()}


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """`total` divided in proportion to `counts`, by largest remainders; at least 1 each."""
    exact = counts * total / counts.sum()
    shares = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(shares - exact, kind="stable")
    shares[by_remainder[: total - shares.sum()]] += 1
    return np.maximum(shares, 1)


def limit_evenly(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """At most `limit` positions in ascending order, of each class as many as of any other, as far as they go.

    The choice is always the same, and a smaller one is part of a larger one. With fewer images than classes,
    the first classes have one.
    """
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.random.default_rng((0, label)).permutation(len(members))
    return np.sort(np.lexsort((labels, rank))[:limit])  # one of every class, a second of every class, ...


# ------------------------------------------------------------------------------------------------- digests


def file_digests(paths: Sequence[str], description: str) -> list[bytes]:
    """The SHA-256 of each file's bytes, with a progress bar.

    Raises:
        UserError: a file cannot be read.
    """

    def digest(path: str) -> bytes:
        try:
            with open_file(path) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}; repair or delete it") from error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(progress(pool.map(digest, paths), description, total=len(paths)))


def array_digests(arrays: np.ndarray) -> list[bytes]:
    """The SHA-256 of shape and bytes of each image in (N, H, W, C) uint8."""
    shape = str(arrays.shape[1:]).encode()
    return [hashlib.sha256(shape + image.tobytes()).digest() for image in arrays]


def combined_digest(ids: Iterable[str], labels: Iterable[int], contents: Iterable[bytes]) -> str:
    """SHA-256, in hex, over the name, label and content digest of every image."""
    whole = hashlib.sha256()
    for name, label, content in zip(ids, labels, contents, strict=True):
        whole.update(hashlib.sha256(os.fsencode(name)).digest() + int(label).to_bytes(8, "big") + content)
    return whole.hexdigest()
