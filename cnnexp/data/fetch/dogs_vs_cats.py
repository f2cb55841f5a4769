"""Kaggle's photos of cats and dogs, split by number: from its archive, or from Microsoft's, which has the same."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from cnnexp.console import progress, warn
from cnnexp.data.fetch.archive import file_names, is_archive, unpack
from cnnexp.data.fetch.download import ExpectedFile, download, file_name, file_sha256, is_url, shown
from cnnexp.data.images import ImageError, read_image
from cnnexp.data.splits import combined_digest, file_digests
from cnnexp.errors import UserError
from cnnexp.files import FileRefusedError, atomic_folder, exclusive, open_file
from cnnexp.formats import read_json

ANIMALS = ("cat", "dog")
NUMBERS = {"train": range(1000), "validation": range(1000, 1500), "test": range(1500, 2000)}  # of each animal
NAME = re.compile(r"(?:.*/)?(cat|dog)[./](\d+)\.jpe?g", re.IGNORECASE)  # train/cat.0.jpg, PetImages/Cat/0.jpg
MANIFEST = "dataset.json"
PREPARED_BY = "cnnexp.data.prepare"
KAGGLE = "train.zip of https://www.kaggle.com/c/dogs-vs-cats/data"
MICROSOFT = (
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
)
MICROSOFT_PROMISE = ExpectedFile(824_887_076, "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9")
NAMED = 10  # replaced photos that get a line of their own

Photos = dict[tuple[str, int], str]  # animal and number -> name in the folder or archive


def prepare_dogs_vs_cats(source: str, path: Path, downloads: Path, promise: ExpectedFile = ExpectedFile()) -> None:  # noqa: B008
    """Copy 4000 of the Kaggle photos into `path/{train,validation,test}/{cat,dog}/`, split by their numbers.

    Of each animal, 0-999 are for training, 1000-1499 for validation, 1500-1999 for testing (Chollet, Deep
    Learning with Python, 5.2). A photo that is missing, or is no whole image, is replaced by the next one from 2000
    on that no other has replaced. `path` appears when everything is in it; `path/dataset.json` says what it was
    made from, and what was replaced. Where it was made from the same photos before, nothing is done. Of two
    processes, one waits for the other.

    Args:
        source: a folder, or a zip or tar archive, with `cat.0.jpg`, ..., `dog.0.jpg`, ... or `Cat/0.jpg`, ...,
            `Dog/0.jpg`, ...; or the URL of such an archive, which is deleted when the photos are out of it.
        path: where to; it must not exist, or be empty.
        downloads: folder for the archive.
        promise: what is known of the archive at the URL.

    Raises:
        UserError: photos are missing; `path` holds something else, or other photos; the download fails; the archive
            cannot be read, or must not be; the disk is full.
    """
    path = path.expanduser().absolute()
    url = source if is_url(source) else None
    place = downloads / file_name(source, promise) if url else Path(source).expanduser().absolute()
    origin = shown(source) if url else str(place)
    if _is_prepared(origin, place, path):
        return
    with exclusive(path):
        if _is_prepared(origin, place, path):
            return
        if url:
            download(url, place, promise)
        try:
            _check_source(place)
            _copy_photos(origin, place, path)
        except UserError:
            if url:
                place.unlink()  # there is no use in it
            raise
        if url:
            place.unlink()


# --------------------------------------------------------------------------------------------- what is there


def _is_prepared(origin: str, place: Path, path: Path) -> bool:
    """Whether `path` was made from these photos; False where there is nothing yet."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    try:
        manifest = read_json(path / MANIFEST, dict[str, Any])
    except UserError:
        manifest = {}
    if manifest.get("prepared_by") != PREPARED_BY or not {"source", "digest"} <= set(manifest):
        raise UserError(
            f"dataset.path={path}: holds something that was not made from dataset.source={origin}; leave "
            "dataset.source out to use it as it is, or give another dataset.path"
        )
    if manifest["source"] == origin and not place.exists():  # the raw photos may be thrown away
        return True
    if not _is_same(manifest, place):
        raise UserError(
            f"dataset.path={path}: was made from other photos (of {manifest['source']}) than those of "
            f"dataset.source={origin}; delete it, or give another dataset.path"
        )
    return True


def _is_same(manifest: dict[str, Any], place: Path) -> bool:
    if not place.exists():
        return False
    if place.is_file():
        return bool(manifest.get("archive") == _archive_stamp(place) or manifest.get("sha256") == file_sha256(place))
    _check_source(place)
    photos = _photos_in(_names(place))
    used = {slot: manifest.get("replaced", {}).get(_name(slot), {}).get("number", slot.number) for slot in _slots()}
    if any((slot.animal, number) not in photos for slot, number in used.items()):
        return False
    names = {_target(slot, number): photos[slot.animal, number] for slot, number in used.items()}
    return _digest(place, names) == manifest["digest"]


def _archive_stamp(archive: Path) -> list[Any]:
    status = archive.stat()
    return [str(archive), status.st_size, status.st_mtime_ns]


def _check_source(source: Path) -> None:
    """There is a folder or archive with enough photos in it."""
    if source.is_file() and is_archive(source):
        found, below = _photos_in(file_names(source)), None
    elif source.is_dir():
        found, below = _photos_in(_names(source)), source / "train"
    else:
        what = "is neither a folder nor an archive" if source.exists() else "does not exist"
        raise UserError(f"dataset.source={source}: {what}; give the folder with the photos of {KAGGLE}")
    last = max(max(numbers) for numbers in NUMBERS.values())
    missing = [slot for slot in _slots() if (slot.animal, slot.number) not in found]
    spare = Counter(animal for animal, number in found if number > last)
    if all(spare[animal] >= count for animal, count in Counter(slot.animal for slot in missing).items()):
        return
    first = _name(missing[0])
    advice = f"the folder with the photos of {KAGGLE}"
    raise UserError(
        f"dataset.source={source}: {first} and {len(missing) - 1} more are missing of the {len(_slots())} photos "
        f"{{cat,dog}}.{{0..{last}}}.jpg; give {below if below and (below / first).is_file() else advice}"
    )


def _names(folder: Path) -> Iterator[str]:
    """The files in a folder of Kaggle's form, or of Microsoft's."""
    yield from os.listdir(folder)
    for below in chain(folder.glob("[CcDd]*/"), folder.glob("PetImages/*/")):
        if below.is_dir() and below.name.lower() in ANIMALS:
            yield from (f"{below.relative_to(folder)}/{name}" for name in os.listdir(below))


def _photos_in(names: Iterator[str] | list[str]) -> Photos:
    photos: Photos = {}
    for name in names:
        if match := NAME.fullmatch(name):
            photos.setdefault((match[1].lower(), int(match[2])), name)
    return photos


# ------------------------------------------------------------------------------------------------- splitting


class Slot(NamedTuple):
    """A place in the prepared folder, and the number of the photo that belongs there."""

    split: str
    animal: str
    number: int


def _slots() -> list[Slot]:
    return [
        Slot(split, animal, number) for split, numbers in NUMBERS.items() for animal in ANIMALS for number in numbers
    ]


def _name(slot: Slot) -> str:
    """In Kaggle's folder."""
    return f"{slot.animal}.{slot.number}.jpg"


def _target(slot: Slot, number: int) -> str:
    """In the prepared folder, of the photo with this number."""
    return f"{slot.split}/{slot.animal}/{slot.animal}.{number}.jpg"


def _copy_photos(origin: str, place: Path, path: Path) -> None:
    in_archive = place.is_file()
    photos = _photos_in(file_names(place) if in_archive else _names(place))
    with atomic_folder(path) as unfinished:
        for split in NUMBERS:
            for animal in ANIMALS:
                (unfinished / split / animal).mkdir(parents=True)
        used, replaced = _fetch(photos, place, unfinished)
        names = [_target(slot, used[slot]) for slot in _slots()]
        manifest: dict[str, Any] = {
            "prepared_by": PREPARED_BY,
            "source": origin,
            "digest": _digest(unfinished, {name: name for name in names}),
            "replaced": replaced,
        }
        if in_archive:
            manifest |= {"archive": _archive_stamp(place), "sha256": file_sha256(place)}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for name, by in list(replaced.items())[:NAMED]:
        warn(f"{name} {by['because']}: {name.partition('.')[0]}.{by['number']}.jpg takes its place")
    if len(replaced) > NAMED:
        warn(f"... and {len(replaced) - NAMED} more; all are in {path / MANIFEST}")


def _fetch(photos: Photos, place: Path, folder: Path) -> tuple[dict[Slot, int], dict[str, dict[str, Any]]]:
    """Copy the photos, and those that replace others; returns the number that is used in each place.

    The second result names the photos that were replaced, each with the number of the other, and the reason.
    """
    last = max(slot.number for slot in _slots())
    spare = {
        animal: iter(sorted(number for kind, number in photos if kind == animal and number > last))
        for animal in ANIMALS
    }
    used = {slot: slot.number for slot in _slots()}
    replaced: dict[str, dict[str, Any]] = {}
    untried = list(used)
    while untried:
        there = [slot for slot in untried if (slot.animal, used[slot]) in photos]
        _copy(place, {photos[slot.animal, used[slot]]: folder / _target(slot, used[slot]) for slot in there})
        faults = [_fault(folder / _target(slot, used[slot])) for slot in progress(untried, "trying photos")]
        again = []
        for slot, fault in zip(untried, faults, strict=True):
            if not fault:
                continue
            (folder / _target(slot, used[slot])).unlink(missing_ok=True)
            number = next(spare[slot.animal], None)
            if number is None:
                raise UserError(f"dataset.source={place}: {_name(slot)} {fault}, and no other photo is left for it")
            replaced.setdefault(_name(slot), {"because": fault})["number"] = used[slot] = number
            again.append(slot)
        untried = again
    return used, replaced


def _fault(file: Path) -> str:
    if not file.exists():
        return "is missing"
    try:
        read_image(str(file))
    except ImageError as error:
        return f"cannot be read ({error.reason})"
    return ""


def _copy(place: Path, targets: dict[str, Path]) -> None:
    if place.is_file():
        unpack(place, targets)
        return
    for name, target in progress(list(targets.items()), "copying photos"):
        with suppress(FileRefusedError), open_file(place / name):  # a pipe or device is as if it were missing
            shutil.copyfile(place / name, target)


def _digest(folder: Path, names: dict[str, str]) -> str:
    """Over the photos that lie in `folder` under the values of `names`, whatever they are called there."""
    contents = file_digests([str(folder / name) for name in names.values()], "comparing photos")
    return combined_digest(names, [0] * len(names), contents)
