"""Which images are in which split: divided by a seed, limited in number; and the digests that tell them from others."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from cnnexp.console import progress
from cnnexp.errors import UserError
from cnnexp.files import open_file

SPLITS = ("train", "validation", "test")
THREADS = min(os.cpu_count() or 1, 8)  # for reading files


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Image files: `ids` are their names relative to the data set's folder, with `/`; `labels` (N,) int64; `groups` of
    each the name of the group that it belongs to, or None: each stands for itself."""

    ids: tuple[str, ...]
    labels: np.ndarray
    groups: tuple[str, ...] | None = None

    def take(self, indices: np.ndarray) -> "LabelledFiles":
        """Those with these positions, in this order."""
        groups = None if self.groups is None else tuple(self.groups[index] for index in indices)
        return LabelledFiles(tuple(self.ids[index] for index in indices), self.labels[indices], groups)


# ---------------------------------------------------------------------------------------- division and limit


def grouped(images: LabelledFiles, pattern: str) -> LabelledFiles:
    """The images with their groups, by `dataset.group` as a regular expression that is found in the path of each.

    The name of the group is what its first parentheses match, or the whole.

    Raises:
        UserError: it is none, or gives an image no group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"dataset.group={pattern}: is no regular expression: {error}") from error
    part = min(compiled.groups, 1)
    found = [match and match[part] for match in map(compiled.search, images.ids)]
    missing = [name for name, group in zip(images.ids, found, strict=True) if not group]
    if missing:
        raise UserError(
            f"dataset.group={pattern}: finds no group in the paths of {len(missing)} of {len(found)} images, as "
            f"{missing[0]}; a folder takes a regular expression on the path, as '([^/]*)_', a CSV file the name of a "
            "column"
        )
    return replace(images, groups=tuple(map(str, found)))


def divide(
    labels: np.ndarray,
    sizes: dict[str, int],
    seed: int,
    class_names: Sequence[str],
    groups: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Set images aside for other splits; the rest is train.

    Each split gets of every class the same proportion (by largest remainders), but one image at least; of groups, which
    stay whole, as near to it as they go.

    Args:
        labels: (N,) class numbers.
        sizes: how many images each of the other splits gets; they are taken in this order.
        seed: decides which.
        class_names: for messages.
        groups: of each image the name of its group; None: each stands for itself.

    Returns:
        For train and each of `sizes`, the positions of its images in ascending order.

    Raises:
        UserError: a class has too few images or groups for all splits.
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
    if groups is not None:
        return _divide_groups(labels, groups, shares, seed, class_names)
    parts: dict[str, list[np.ndarray]] = {split: [] for split in ("train", *sizes)}
    for label in range(len(class_names)):
        shuffled = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))
        for split, share in shares.items():
            parts[split].append(shuffled[: share[label]])
            shuffled = shuffled[share[label] :]
        parts["train"].append(shuffled)
    return {split: np.sort(np.concatenate(part)) for split, part in parts.items()}


def _divide_groups(
    labels: np.ndarray, groups: Sequence[str], shares: dict[str, np.ndarray], seed: int, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Whole groups, in an order that is drawn: each goes to the first split whose numbers of images of the classes come
    nearer to its `shares`, (K,), with it, else to train."""
    names, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(class_names)), np.int64)  # of each group the images of each class
    np.add.at(counts, (members, labels), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    split_of = np.full(len(names), "train", dtype=object)
    for split, share in shares.items():
        need = share.copy()
        for group in (*order, *order):  # the second time some go back
            goes = {"train": split, split: "train"}.get(split_of[group])
            moved = counts[group] if goes == split else -counts[group]
            if goes and 2 * need @ moved > moved @ moved:
                split_of[group] = goes
                need -= moved
        for label in np.flatnonzero(need == share):  # it has none: the group with which it comes nearest
            holders = np.flatnonzero((split_of == "train") & (counts[:, label] > 0))
            if len(holders) and need[label] == share[label]:
                nearest = holders[((need - counts[holders]) ** 2).sum(axis=1).argmin()]
                split_of[nearest] = split
                need -= counts[nearest]
    for split in ("train", *shares):
        lacking = np.flatnonzero(counts[split_of == split].sum(axis=0) == 0)
        if len(lacking):
            number = int((counts[:, lacking[0]] > 0).sum())
            raise UserError(
                f"dataset.group: the images of class '{class_names[lacking[0]]}' are of {number} groups, which stay "
                f"whole: {split} gets none of them; add images of other groups, give a column split, or try "
                "another dataset.split_seed"
            )
    return {split: np.flatnonzero(split_of[members] == split) for split in ("train", *shares)}


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
