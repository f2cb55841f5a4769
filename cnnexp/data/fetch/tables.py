"""A table as data set: a row for each image, with its path, its label and, if wanted, its split."""

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from cnnexp.console import warn_once
from cnnexp.data.folders import IMAGE_ENDINGS, clean_name, is_system, split_of
from cnnexp.data.splits import SPLITS, LabelledFiles
from cnnexp.errors import UserError, nearest
from cnnexp.files import FileRefusedError, read_file

MOST_BYTES = 1_000_000_000
COLUMNS = "path,label or path,label,split"
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
PATH_COLUMNS = (  # as they are usual, the surest first; in small letters, without spaces and signs
    *("path", "filepath", "imagepath", "imgpath", "filename", "file", "imagefile", "imagename", "imgname", "image"),
    *("img", "imageid", "imgid", "imageurl", "imageuri", "url", "uri", "externalid", "id"),
)
LABEL_COLUMNS = (
    *("label", "class", "classname", "labelname", "category", "target", "labels", "choice", "species", "breed"),
    *("diagnosis", "dx", "tag", "tags", "annotation", "labelid", "classid", "y"),
)
GROUP_COLUMNS = (  # which may say what images belong together; they are named, and not taken
    *("group", "groupid", "patient", "patientid", "subject", "subjectid", "person", "personid", "animal", "individual"),
    *("session", "sequence", "burst", "video", "videoid", "lesionid", "slide", "slideid"),
)
TRIED = 20  # rows by which it is found out where the images lie
MOST_FOLDERS = 50  # in which they are looked for
NAMED = 12  # lines that a message names


@dataclass(frozen=True)
class TableRules:
    """How a table is read: the keys of the config group `dataset`; `trains` as in `folders.labelled_images`."""

    path_column: str | None = None
    label_column: str | None = None
    group: str | None = None
    on_bad: str = "error"
    trains: bool = True


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    split: str
    group: str | None
    line: int


@dataclass(frozen=True)
class _Place:
    """Where images lie, seen from the table: without so many leading parts of the path, in a folder, with an ending."""

    dropped: int = 0
    folder: str = ""
    ending: str = ""

    def of(self, path: str) -> str:
        parts = PurePosixPath(path).parts[self.dropped :]
        return str(PurePosixPath(self.folder, *parts)) + self.ending if self != _Place() else path


def read_table(file: Path, rules: TableRules = TableRules()) -> tuple[tuple[str, ...], dict[str, LabelledFiles]]:
    """The images that a table lists; columns that are none of path, label, split and group are left alone.

    Fields are separated by commas, semicolons, tabs or bars, as the header is; a first line `sep=;` says so, too. The
    columns are those of `PATH_COLUMNS` and `LABEL_COLUMNS`, whatever else was found than the plain path and label is
    said. In place of a label there may be a column of 0 and 1 for each class. A path is absolute or starts from the
    file's folder, with `/` or `\\`; if none is there, folders beside the table, endings and shorter paths are tried.
    Whether each file can be read is not looked at here.

    Args:
        file: CSV in UTF-8 (UTF-16 with its mark) with a header. A column `split` names train, validation (val, valid)
            or test.
        rules: names of columns; what to do about rows without a path, label or group.

    Returns:
        The class names, sorted, and the images of each split, in the order of the rows; without the column `split`,
        all are train, or test where nothing is trained.

    Raises:
        UserError: it cannot be read; a column, or with `on_bad="error"` a label, is missing; a path is there twice; an
            unknown split; fewer than two classes; a class without images in a split.
    """
    columns, rows, delimiter = _parsed(file)
    path_column = _column(file, "path_column", rules.path_column, columns, PATH_COLUMNS)
    split_column = _split_column(columns, rows)
    group_column = _column(file, "group", rules.group, columns, ()) if rules.group else None
    others = [name for name in columns if name not in (path_column, split_column, group_column)]
    if group_column is None:
        _name_groups(file, others, rows)
    one_hot = [] if rules.label_column else _one_hot(rows, others)
    label_column = "" if one_hot else _column(file, "label_column", rules.label_column, columns, LABEL_COLUMNS)
    found, blank = [], []
    for line, row in rows:
        labels = [name for name in one_hot if row[name] == "1"] if one_hot else _choices(row[label_column])
        group = None if group_column is None else row[group_column]
        if not row[path_column] or len(labels) != 1 or group == "":
            missing = "no path" if not row[path_column] else "no group" if len(labels) == 1 else _not_one(labels)
            blank.append((line, missing))
            continue
        split: str | None = "train" if rules.trains else "test"
        if split_column is not None:
            split = split_of(row[split_column])
        if split is None:
            raise UserError(
                f"dataset.path={file}, line {line}: split '{row[split_column or '']}' is none of {', '.join(SPLITS)}"
            )
        found.append(_Row(_existing(file.parent, row[path_column]), clean_name(labels[0]), split, group, line))
    _judge_blank(file, blank, len(rows), rules)
    place = _place(file, [row.path for row in found[:TRIED]])
    of_label = f"the columns {', '.join(one_hot[:4])}{', ...' if len(one_hot) > 4 else ''}" if one_hot else label_column
    if (path_column, of_label, delimiter, place) != ("path", "label", ",", _Place()):
        where = f", images in {place.folder or '.'}/" if place.folder or place.dropped else ""
        ending = f" with {place.ending}" if place.ending else ""
        warn_once(
            f"dataset.path={file}: {len(rows):,} rows, separated by {DELIMITERS.get(delimiter, repr(delimiter))}; path "
            f"from {path_column}, label from {of_label}{where}{ending}"
        )
    if place != _Place():
        found = [replace(row, path=_existing(file.parent, place.of(row.path))) for row in found]
    return _listings(file, found, rules.trains)


def is_labelled(file: Path, rules: TableRules) -> bool:
    """Whether a table has a label for its images, in one column or in one for each class.

    Raises:
        UserError: it cannot be read.
    """
    columns, rows, _ = _parsed(file)
    known = [name for name in columns if _plain(name) in LABEL_COLUMNS or name == (rules.label_column or "").lower()]
    return bool(known or _one_hot(rows, columns))


def _parsed(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]], str]:
    """The columns in small letters, the rows with their lines, and what separates fields."""
    try:
        data = read_file(file, MOST_BYTES)
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        said = re.match(r'"?sep=(.)"?\r?\n', text)
        if said:
            text = text[said.end() :]
        header = text.partition("\n")[0]
        delimiter = said[1] if said else max(DELIMITERS, key=lambda mark: (header.count(mark), mark == ","))
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = [name.strip().lower() for name in rows.fieldnames or ()]
        rows.fieldnames = columns
        skipped = 1 if said else 0
        found = [(rows.line_num + skipped, {name: (row.get(name) or "").strip() for name in columns}) for row in rows]
    except FileRefusedError as error:
        raise UserError(f"dataset.path={file}: {error.strerror}") from error
    except (OSError, UnicodeDecodeError, csv.Error, TypeError) as error:
        raise UserError(f"dataset.path={file}: is no CSV file in UTF-8 ({error}); write {COLUMNS}") from error
    return columns, found, delimiter


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name)


def _column(file: Path, key: str, wanted: str | None, columns: Sequence[str], usual: Sequence[str]) -> str:
    """The column that was asked for by a key of the data set, or else the surest of the usual ones."""
    what = key.removesuffix("_column")
    has = f"its first line has {', '.join(nearest(wanted or what, [*filter(None, columns)])[:NAMED]) or 'none'}"
    if wanted is not None:
        name = wanted.strip().lower()
        if columns.count(name) != 1:
            raise UserError(f"dataset.{key}={wanted}: dataset.path={file} has no such column, or twice; {has}")
        return name
    found = next((name for known in usual for name in columns if _plain(name) == known), None)
    if found is not None and columns.count(found) == 1:
        return found
    if any(column.endswith(IMAGE_ENDINGS) for column in columns):
        raise UserError(
            f"dataset.path={file}: its first line is an image already ({', '.join(columns[:4])}); write {COLUMNS} "
            "above it"
        )
    raise UserError(
        f"dataset.path={file}: has no column '{what}', or twice; {has}; write {COLUMNS}, or say which it is: "
        f"dataset.{key}=NAME"
    )


def _split_column(columns: Sequence[str], rows: Sequence[tuple[int, dict[str, str]]]) -> str | None:
    """`split`; or `set`, `subset` or `partition`, if what stands there are splits."""
    if "split" in columns:
        return "split"
    others = (name for name in columns if _plain(name) in ("set", "subset", "partition", "datasplit"))
    return next((name for name in others if rows and all(split_of(row[name]) for _, row in rows)), None)


def _name_groups(file: Path, columns: Sequence[str], rows: Sequence[tuple[int, dict[str, str]]]) -> None:
    """A line about a column that may be that of the groups: which of its values several rows have, but not all."""
    known = [name for name in columns if _plain(name) in GROUP_COLUMNS]
    for name in [name for name in known if 1 < len({row[name] for _, row in rows}) < len(rows)][:1]:
        warn_once(
            f"dataset.path={file}: column {name} is not used; if images of one {name} belong together: "
            f"dataset.group={name}"
        )


def _one_hot(rows: Sequence[tuple[int, dict[str, str]]], columns: Sequence[str]) -> list[str]:
    """The columns that together are the label: 0 and 1, one 1 in most rows; none where one is called like a label."""
    if not rows or any(_plain(name) in LABEL_COLUMNS for name in columns):
        return []
    marks = [name for name in columns if all(row[name] in ("0", "1") for _, row in rows)]
    single = sum(sum(row[name] == "1" for name in marks) == 1 for _, row in rows)
    return marks if len(marks) > 1 and 2 * single > len(rows) else []


def _choices(label: str) -> list[str]:
    """The labels in a field: none, one, or those of a list, as labelling tools write several."""
    if label.startswith(("{", "[")):
        try:
            read = json.loads(label)
        except (ValueError, RecursionError):
            return [label]
        several = read.get("choices") if isinstance(read, dict) else read
        if isinstance(several, list) and all(isinstance(name, str) for name in several):
            return several
    return [label] if label else []


def _not_one(labels: Sequence[str]) -> str:
    return f"several labels ({', '.join(labels[:4])}), where an image has one" if labels else "no label"


def _existing(folder: Path, path: str) -> str:
    """The path as a file of this system has it: as Windows or a URL writes it, or in another form of Unicode."""
    slashes = path.replace("\\", "/")
    forms = (path, slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD")), unquote(slashes))
    return next((form for form in dict.fromkeys(forms) if (folder / form).is_file()), slashes)


def _place(file: Path, paths: Sequence[str]) -> _Place:
    """Where the images lie, by some of them; as the paths say, if one is there, or if none is anywhere.

    Of several places, the one with the most of them; of as many, the folder that is called like the table: those of
    `train.csv` lie in `train_images/`, though `test_images/1.jpg` is there as well.
    """
    folder = file.parent
    if not paths or any((folder / path).is_file() for path in paths):
        return _Place()
    try:
        inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_system(entry.name))
    except OSError:
        inside = []

    def likely(place: _Place) -> tuple[int, bool]:
        is_alike = split_of(place.folder) == split_of(file.stem) is not None
        return sum(is_there(place, path) for path in paths), is_alike

    def is_there(place: _Place, path: str) -> bool:
        return (folder / _existing(folder, place.of(path))).is_file()

    for path in paths:
        endings = [""] if path.lower().endswith(IMAGE_ENDINGS) else ["", *IMAGE_ENDINGS, ".JPG", ".JPEG", ".PNG"]
        for dropped in range(min(len(PurePosixPath(path).parts), 8)):
            places = [_Place(dropped, name, end) for name in ["", *inside[:MOST_FOLDERS]] for end in endings]
            if found := [place for place in places if is_there(place, path)]:
                return max(found, key=likely)
    return _Place()


def _judge_blank(file: Path, blank: Sequence[tuple[int, str]], rows: int, rules: TableRules) -> None:
    """Rows without a path, or without exactly one label."""
    if not blank:
        return
    skip = rules.on_bad == "skip"
    if len(blank) == 1:
        line, what = blank[0]
        found = f"dataset.path={file}, line {line}: has {what}"
    else:
        lines = ", ".join(str(line) for line, _ in blank[:NAMED])
        more = f" and {len(blank) - NAMED:,} more" if len(blank) > NAMED else ""
        kinds = " or ".join(sorted({what.partition(" (")[0] for _, what in blank}))
        found = f"dataset.path={file}: {len(blank):,} of {rows:,} rows have {kinds}: lines {lines}{more}"
    if not skip:
        them = "it" if len(blank) == 1 else "them"
        mend = f"fill {them} in" if all(what.startswith("no ") for _, what in blank) else f"give {them} one label"
        raise UserError(f"{found}; {mend}, or dataset.on_bad=skip leaves {them} out")
    warn_once(f"{found}; left out")


def _listings(file: Path, rows: Iterable[_Row], trains: bool) -> tuple[tuple[str, ...], dict[str, LabelledFiles]]:
    rows, lines = list(rows), dict[str, int]()
    for row in rows:
        earlier = lines.setdefault(os.path.normpath(file.parent / row.path), row.line)
        if earlier != row.line:
            raise UserError(f"dataset.path={file}, line {row.line}: {row.path} is in line {earlier} already; keep one")
    names = tuple(sorted({row.label for row in rows}))
    if len(names) < (2 if trains else 1):
        least = "two classes at least" if trains else "one class at least"
        raise UserError(
            f"dataset.path={file}: has {len(names)} label{'' if len(names) == 1 else 's'}; give images of {least}"
        )
    listings = {}
    for split in SPLITS:
        of_split = [row for row in rows if row.split == split]
        if not of_split and (split != "train" or not trains):
            continue
        for label in sorted({*names} - {row.label for row in of_split}) if trains else ():
            raise UserError(f"dataset.path={file}: has no {split} image of class '{label}'; add one")
        labels = np.array([names.index(row.label) for row in of_split], np.int64)
        groups = tuple(row.group for row in of_split if row.group is not None)
        listings[split] = LabelledFiles(tuple(row.path for row in of_split), labels, groups or None)
    return names, listings
