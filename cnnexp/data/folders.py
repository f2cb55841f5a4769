"""Which images a folder has, in which split and class: by the names of folders, and what the files begin with."""

import os
import re
import shlex
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cnnexp.console import warn_once
from cnnexp.data.headers import image_kind
from cnnexp.data.splits import LabelledFiles
from cnnexp.errors import UserError
from cnnexp.files import open_file

IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"),
    *(".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
)
TABLE_ENDINGS = (".csv", ".tsv", ".tab")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "validate", "dev"),
    "test": ("test", "testing"),
}
LAYOUTS = "give a folder with one subfolder a class, or with train/, validation/ and test/ that have them"
SYSTEM = {  # what Synology, QNAP, Windows, macOS, Linux, Jupyter and Python put beside files, in small letters
    *("@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information", "thumbs.db"),
    *("desktop.ini", "__macosx", "icon\r", "lost+found", "ipynb_checkpoints", "__pycache__"),
}
NAMED = 12  # kinds of files that a line names
HEADER = 64  # bytes that tell an image


@dataclass
class LeftAside:
    """Files that are no images, or lie where no photos are expected: how many of each kind in each folder."""

    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, place: str) -> None:
        """One more: `kind` is an ending, or a system's folder with `/`; `place` a class."""
        self.kinds[kind, place] += 1

    def __len__(self) -> int:
        return sum(self.kinds.values())

    def say(self, where: str) -> None:
        """Name them in one line; none, no line."""
        if not self.kinds:
            return
        shown = [f"{count:,} {kind} in {place}" for (kind, place), count in sorted(self.kinds.items())]
        more = f" and {len(shown) - NAMED} more kinds" if len(shown) > NAMED else ""
        heif = [kind for kind, _ in self.kinds if kind.lower() in (".heic", ".heif", ".hif")]
        mend = "; `pip install 'cnnexp[heif]'` lets HEIC photos be read" if heif and not reads_heif() else ""
        warn_once(f"{where}: left aside, being no images that can be read: {', '.join(shown[:NAMED])}{more}{mend}")


def reads_heif() -> bool:
    """Whether Pillow's plugin for HEIC is installed, the extra `heif`."""
    return find_spec("pillow_heif") is not None


def is_system(name: str) -> bool:
    """Whether a system made a file or folder of this name, or hides it."""
    return name.startswith(".") or name.lower() in SYSTEM


def clean_name(name: str) -> str:
    """A class name in one form (NFC): macOS writes `é` in two letters, as other systems do not."""
    return unicodedata.normalize("NFC", name)


def split_of(name: str) -> str | None:
    """The split that a folder is called after: `training_set`, `Valid data`, `seg-test`, `TrainImages`, `test2`."""
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    found = [split for split, known in SPLIT_FOLDERS.items() if words & set(known)]
    return found[0] if len(found) == 1 else None


def images_below(folder: str, prefix: str, place: str, left: LeftAside) -> list[str]:
    """The names of all images in a folder and its folders, each with `prefix`, sorted.

    A file counts by its ending, or where that is none of `IMAGE_ENDINGS`, by what it begins with. Links to folders are
    not followed; what is hidden is passed over, what else is no image is counted.

    Args:
        folder: where to look.
        prefix: before each name.
        place: its class, to be named with what is left aside.
        left: gets what is left aside.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system(entry.name):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    left.kinds[f"{entry.name}/", place] += sum(len(files) for _, _, files in os.walk(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                found += images_below(entry.path, f"{prefix}{entry.name}/", place, left)
            elif entry.is_dir():
                continue
            elif entry.name.lower().endswith(IMAGE_ENDINGS) or _begins_as_image(entry):
                found.append(prefix + entry.name)
            else:
                left.add(os.path.splitext(entry.name)[1] or "without an ending", place)
    return sorted(found)


def _begins_as_image(entry: "os.DirEntry[str]") -> bool:
    try:
        with open_file(entry.path) as file:
            kind = image_kind(file.read(HEADER))
    except OSError:
        return False
    return kind is not None and (kind != "HEIC" or reads_heif())


def labelled_images(root: Path, trains: bool = True) -> tuple[tuple[str, ...], dict[str, LabelledFiles], LeftAside]:
    """List the images of `root/SPLIT/CLASS/` or, where there are no split folders, of `root/CLASS/`.

    A split folder is called after its split (`split_of`); folders beside these do not count. Class folders may have
    folders of their own (`images_below`). All is sorted by name.

    Args:
        root: the folder.
        trains: the images are to be trained on: there are two classes at least, the same in every split. Otherwise
            they are to be tested: one class will do, which may be `root` itself, and any of the splits.

    Returns:
        The class names; a listing for each split that has a folder, or else of train, or of test where none is trained
        on; and what was left aside.

    Raises:
        UserError: `root` cannot be read; too few classes; a class without images; other classes in one split than in
            another; its "classes" all hold the same folders.
    """
    left = LeftAside()
    try:
        folders = _split_folders(root, trains)
        found = {split: _class_images(root, folder, left) for split, folder in folders.items()}
        if list(folders.values()) == [""]:
            _check_layout(root, sorted(*found.values()), trains)
        if not trains and not any(found.values()) and not _subfolders(root):
            found = {"test": {root.name: images_below(str(root), "", root.name, left)}}
    except OSError as error:
        raise UserError(f"dataset.path={root}: {error.filename} cannot be read ({error.strerror})") from error
    left.say(f"dataset.path={root}")
    if not trains:
        return _to_test(root, found, left)
    names = tuple(sorted({name for images in found.values() for name in images}))
    for split, images in found.items():
        _check_classes(root, folders[split], images, left)
        for name in set(found["train"]) ^ set(images):
            has, lacks = (split, "train") if name in images else ("train", split)
            raise UserError(
                f"dataset.path={root}: class '{name}' has a folder in {folders[has]}/, but none in "
                f"{folders[lacks]}/; every split needs the same class folders"
            )
    if tables := _tables(root):
        warn_once(
            f"dataset.path={root}: the folders say the classes; beside them, not read: {', '.join(tables[:4])}; if "
            f"{tables[0]} names the images: dataset.path={root / tables[0]}"
        )
    return names, {split: _listing(names, images) for split, images in found.items()}, left


def _to_test(
    root: Path, found: dict[str, dict[str, list[str]]], left: LeftAside
) -> tuple[tuple[str, ...], dict[str, LabelledFiles], LeftAside]:
    """`labelled_images` where nothing is trained: a class or a split without images is none."""
    found = {split: {name: ids for name, ids in images.items() if ids} for split, images in found.items()}
    names = tuple(sorted({name for images in found.values() for name in images}))
    if not names:
        raise UserError(f"dataset.path={root}: has no images to test in class folders; {LAYOUTS}")
    return names, {split: _listing(names, images) for split, images in found.items() if images}, left


def _split_folders(root: Path, trains: bool) -> dict[str, str]:
    """The folder of each split; it is "", of train or test, where the class folders lie in `root` itself."""
    names = _subfolders(root)
    found = {}
    for split in SPLIT_FOLDERS:
        if like := _called_after(root, names, split):
            found[split] = like
    whole = len(found) == len(names)
    if "train" in found and "test" in found and not _has_classes(root, found["test"], found["train"]):
        warn_once(
            f"dataset.path={root}: {found['test']}/ has no class folders, as {found['train']}/ has, and is left aside; "
            "`cnnexp predict latest FOLDER` answers for it"
        )
        del found["test"]
        if len(found) == 1:
            return {"train": _innermost(root, found["train"], "train")}
    if ("train" in found and len(found) > 1) or (found and whole and not trains):
        return {split: _innermost(root, folder, split) for split, folder in found.items()}
    if found and whole and any(_subfolders(root / folder) for folder in found.values()):
        raise UserError(
            f"dataset.path={root}: {', '.join(names)}: are no classes, and there is no train/; to train, {LAYOUTS}; to "
            f"test a run on its photos: cnnexp evaluate RUN dataset=folder dataset.path={shlex.quote(str(root))}"
        )
    called = {split_of(name) for name in names}  # train_images/ and test_images/, without classes in them
    is_split = len(called) > 1 and "train" in called and None not in called
    if len(found) > 1 or is_split or ("train" in found and len(names) <= 2):  # among more classes, a train is a vehicle
        raise UserError(f"dataset.path={root}: {', '.join(names)}: are no classes; {LAYOUTS}{_beside(root)}")
    return {"train" if trains else "test": ""}


def _called_after(root: Path, names: list[str], split: str) -> str | None:
    """The folder of a split: its plain name, or else the one name that is made from it and is no class."""
    plain = [name for name in names if name.lower() in SPLIT_FOLDERS[split]]
    made = [name for name in names if split_of(name) == split and name not in plain]
    like = plain or [name for name in made if _subfolders(root / name)]  # a class, as train_station, has photos
    if len(like) > 1:
        raise UserError(f"dataset.path={root}: has both {like[0]}/ and {like[1]}/; keep one of them")
    if not like and split == "test" and len(made) == 1 and any(split_of(name) == "train" for name in names):
        trained = [name for name in names if split_of(name) == "train" and _subfolders(root / name)]
        return made[0] if trained else None
    return like[0] if like else None


def _has_classes(root: Path, test: str, train: str) -> bool:
    """Whether test/ has class folders: any, or where it has but one, one that is a class of train/."""
    here, there = (
        _subfolders(root / _innermost(root, name, split)) for name, split in ((test, "test"), (train, "train"))
    )
    return not there or len(here) > 1 or bool(set(here) & set(there))


def _innermost(root: Path, folder: str, split: str) -> str:
    """Down through seg_train/seg_train/, as some archives have it."""
    while len(inside := _subfolders(root / folder)) == 1 and split_of(inside[0]) == split:
        folder = f"{folder}/{inside[0]}"
    return folder


def _check_layout(root: Path, names: list[str], trains: bool) -> None:
    """Refuse "classes" that all hold the same folders, and no photos beside them: they are splits, or sources.

    Folders that differ may be data sets of their own, or the persons of a class: that is said.
    """
    inside = [_subfolders(root / name) for name in names]
    if len(names) < 2 or any(len(below) < 2 for below in inside):
        return
    if any(entry.name.lower().endswith(IMAGE_ENDINGS) for name in names for entry in os.scandir(root / name)):
        return
    if any(below != inside[0] for below in inside):
        if trains:
            warn_once(
                f"dataset.path={root}: the classes are {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}, with "
                f"all photos in folders of theirs ({names[0]}/{inside[0][0]}, {names[0]}/{inside[0][1]}, ...); if "
                f"these are the classes, give one folder: dataset.path={root / names[0]}"
            )
        return
    each = f"{', '.join(names[:4])} each hold the folders {', '.join(inside[0][:4])}"
    raise UserError(
        f"dataset.path={root}: {each}: which of them are the classes? If the inner ones, name the outer folders train, "
        f"validation and test, or give dataset.path={root / names[0]} alone; if the outer ones, take the inner folders "
        "away or list the images in a CSV file of path,label"
    )


def _class_images(root: Path, folder: str, left: LeftAside) -> dict[str, list[str]]:
    """The images of each class folder, all sorted."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, list[str]] = {}
    for name in _subfolders(root / folder):
        images = images_below(os.path.join(root, folder, name), f"{prefix}{name}/", clean_name(name), left)
        if clean_name(name) in found:
            raise UserError(
                f"dataset.path={root / folder}: has two class folders '{clean_name(name)}', which differ only in how "
                "Unicode writes the name (NFC and NFD); move the photos into one of them"
            )
        found[clean_name(name)] = images
    return dict(sorted(found.items()))


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_system(entry.name))


def _check_classes(root: Path, folder: str, images: dict[str, list[str]], left: LeftAside) -> None:
    where = f"dataset.path={root / folder}"
    if not images:
        raise UserError(f"{where}: has no class folders; {LAYOUTS}{_beside(root, folder)}")
    if len(images) == 1:
        hint = _deeper(root / folder) or _beside(root, folder)
        raise UserError(f"{where}: has one class only, '{next(iter(images))}'; {LAYOUTS}{hint}")
    for name, ids in images.items():
        if not ids:
            there = [f"{count} {kind}" for (kind, place), count in sorted(left.kinds.items()) if place == name]
            raise UserError(
                f"{where}: class folder '{name}' has no images that can be read ({' '.join(IMAGE_ENDINGS)})"
                f"{', only ' + ', '.join(there) if there else ''}; put some into it or take it away"
                f"{_deeper(root / folder)}"
            )


def _deeper(where: Path) -> str:
    """A word about the one folder that may hold the class folders, as images/ beside annotations/ does."""
    holds = [name for name in _subfolders(where) if len(_subfolders(where / name)) > 1]
    if len(holds) != 1:
        return ""
    inside = ", ".join(_subfolders(where / holds[0])[:3])
    return f"; if the classes are the folders in {holds[0]}/ ({inside}, ...): dataset.path={where / holds[0]}"


def _beside(root: Path, folder: str = "") -> str:
    """A word about a table that may name the classes: in the folder, or beside it."""
    tables = [os.path.join(folder, name) for name in _tables(root / folder)] or _tables(root)
    return f"; if {tables[0]} names the classes: dataset.path={root / tables[0]}" if tables else ""


def _tables(where: Path) -> list[str]:
    """The tables in a folder, that of the training images first, rather than sample_submission.csv."""
    tables = [name for name in os.listdir(where) if name.lower().endswith(TABLE_ENDINGS) and not is_system(name)]
    return sorted(tables, key=lambda name: (split_of(name) != "train", name))


def _listing(names: tuple[str, ...], images: dict[str, list[str]]) -> LabelledFiles:
    labels = [names.index(name) for name, ids in images.items() for _ in ids]
    return LabelledFiles(tuple(image for ids in images.values() for image in ids), np.array(labels, np.int64))
