"""A data set: three splits of images, in files or in memory, with the digests that tell them from others."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cnnexp.console import warn_once
from cnnexp.data.check.preflight import PreflightError, PreflightPolicy, Report, preflight
from cnnexp.data.folders import LeftAside, labelled_images
from cnnexp.data.splits import SPLITS, LabelledFiles, array_digests, combined_digest, limit_evenly
from cnnexp.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in files or in memory: exactly one of `paths` and `arrays` is set."""

    name: str  # train, validation or test
    labels: np.ndarray  # (N,) int64 class numbers
    paths: tuple[str, ...] | None  # absolute file names
    arrays: np.ndarray | None  # (N, H, W, C) uint8 in 0..255, C = 3 (RGB) or 1 (grey)
    ids: tuple[str, ...]  # for each image: its path in the data set's folder, or as `test/17`
    digest: str  # SHA-256 in hex over ids, labels and bytes
    groups: tuple[str, ...] | None = None  # of each image the group it belongs to, as its patient; None: there are none

    @property
    def group_count(self) -> int | None:
        """How many groups the images come in; None where there are none."""
        return len(set(self.groups)) if self.groups else None

    @property
    def folder(self) -> str | None:
        """In which the files lie, from where their ids count; None for images in memory and for ids of other forms."""
        first = f"{os.sep}{self.ids[0]}" if self.paths else ""
        return self.paths[0].removesuffix(first) if self.paths and self.paths[0].endswith(first) else None


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
    report: Report | None = None  # what was found in the files

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, validation, test."""
        return self.train, self.validation, self.test


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files that were found, and not looked at yet.

    root:        the folder that their names start from.
    class_names: of the labels 0, 1, ...
    parts:       the images of each split.
    left:        what lies beside them and is no image.
    source:      what was given: the folder, or a table in it.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: dict[str, LabelledFiles]
    left: LeftAside = field(default_factory=LeftAside)
    source: Path | None = None


def split_folders(root: Path) -> Listing:
    """The images of `root/{train,validation,test}/CLASS/`, none of which may be missing."""
    listing = Listing(root, *labelled_images(root))
    for split in SPLITS:
        if split not in listing.parts:
            raise UserError(
                f"dataset.path={root}: is no prepared data set, having no {split}/; delete it or give another"
            )
    return listing


def from_files(
    name: str, listing: Listing, limit: int | None, rules: PreflightPolicy, masks: str | None = None
) -> Dataset:
    """The images of a listing, every one of which is looked at.

    Args:
        name: of the data set.
        listing: all of its images.
        limit: at most so many of each split, evenly of each class.
        rules: what to do about bad files and leaks.
        masks: folder of the evidence masks.

    Raises:
        UserError: as `preflight`.
    """
    root, class_names = listing.root, listing.class_names
    chosen = {split: images.take(limit_evenly(images.labels, limit)) for split, images in listing.parts.items()}
    checked = preflight(root, class_names, chosen, rules, listing.source)
    report = replace(checked.report, left_aside=len(listing.left))
    splits = {}
    for split, images in checked.listings.items():
        paths = tuple(str(root / image) for image in images.ids)
        digest = combined_digest(images.ids, images.labels, checked.contents[split])
        splits[split] = Split(split, images.labels, paths, None, images.ids, digest, images.groups)
    if rules.trains and rules.on_leak != "ignore":
        _judge_divided_groups(listing, splits.values(), rules)
    return replace(joined(name, class_names, 3, splits), masks=masks, report=report)


def _judge_divided_groups(listing: Listing, splits: Iterable[Split], rules: PreflightPolicy) -> None:
    """Groups that have images in several splits leak: the test is then no word on groups that are new."""
    places = Counter(group for split in splits for group in set(split.groups or ()))
    if divided := sorted(group for group, count in places.items() if count > 1):
        found = (
            f"dataset.path={listing.source or listing.root}: {len(divided):,} of {len(places):,} groups have images in "
            f"several splits, as {divided[0]}, so that figures say too much of groups that are new; a column split can "
            "keep them whole"
        )
        if rules.on_leak == "error":
            raise PreflightError(f"{found}, or dataset.on_leak=warn goes on with them")
        warn_once(found)


def array_splits(
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


def joined(name: str, class_names: tuple[str, ...], channels: int, splits: dict[str, Split]) -> Dataset:
    """The data set of three splits, with its digest; one that is not given has no images."""
    none = np.empty(0, np.int64)
    train, validation, test = (
        splits.get(split) or Split(split, none, (), None, (), combined_digest((), (), ())) for split in SPLITS
    )
    facts = json.dumps([class_names, train.digest, validation.digest, test.digest])
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return Dataset(name, class_names, channels, train, validation, test, digest)
