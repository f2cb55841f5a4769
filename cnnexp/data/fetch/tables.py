"""A CSV file as data set: a row for each image, with its path, its label and, if wanted, its split."""

import csv
import io
import os
from pathlib import Path

import numpy as np

from cnnexp.data.folders import SPLIT_FOLDERS
from cnnexp.data.splits import LabelledFiles
from cnnexp.errors import UserError
from cnnexp.files import FileRefusedError, read_file

MOST_BYTES = 1_000_000_000
COLUMNS = "path,label or path,label,split"
SPLIT_NAMES = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


def read_table(file: Path) -> tuple[tuple[str, ...], dict[str, LabelledFiles]]:
    """The images that a CSV file lists; other columns are left alone.

    Args:
        file: CSV in UTF-8 with a header; `path` is absolute or starts from the file's folder; `split`, where there
            is such a column, is train, validation (val, valid) or test.

    Returns:
        The class names, sorted, and the images of each split, in the order of the rows; without the column `split`,
        all are train.

    Raises:
        UserError: it cannot be read; a column, a label or a file is missing; a path is there twice; an unknown split;
            fewer than two classes; a class without images in a split.
    """
    try:
        text = io.StringIO(read_file(file, MOST_BYTES).decode("utf-8-sig"), newline="")
        rows = csv.DictReader(text, strict=True)
        columns = [name.strip().lower() for name in rows.fieldnames or ()]
        rows.fieldnames = columns
        for needed in ("path", "label"):
            if columns.count(needed) != 1:
                raise UserError(f"dataset.path={file}: has no column '{needed}'; its first line must be {COLUMNS}")
        found = [(rows.line_num, row) for row in rows]
    except FileRefusedError as error:
        raise UserError(f"dataset.path={file}: {error.strerror}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"dataset.path={file}: is no CSV file in UTF-8 ({error}); write {COLUMNS}") from error
    return _listings(file, [_row(file, line, row) for line, row in found])


def _row(file: Path, line: int, row: dict[str, str | None]) -> tuple[str, str, str, int]:
    """Path, label and split of a row, checked, and its line."""
    where = f"dataset.path={file}, line {line}"
    path, label, split = (str(row.get(name) or "").strip() for name in ("path", "label", "split"))
    for name, value in (("path", path), ("label", label)):
        if not value:
            raise UserError(f"{where}: has no {name}; give one, or take the line away")
    if "split" in row and split.lower() not in SPLIT_NAMES:
        raise UserError(f"{where}: split '{split}' is none of {', '.join(SPLIT_NAMES)}")
    if not (file.parent / path).is_file():
        raise UserError(f"{where}: there is no file {file.parent / path}")
    return path, label, SPLIT_NAMES.get(split.lower(), "train"), line


def _listings(file: Path, rows: list[tuple[str, str, str, int]]) -> tuple[tuple[str, ...], dict[str, LabelledFiles]]:
    lines: dict[str, int] = {}
    for path, _, _, line in rows:
        earlier = lines.setdefault(os.path.normpath(file.parent / path), line)
        if earlier != line:
            raise UserError(f"dataset.path={file}, line {line}: {path} is in line {earlier} already; keep one")
    names = tuple(sorted({label for _, label, _, _ in rows}))
    if len(names) < 2:
        raise UserError(f"dataset.path={file}: has {len(names)} labels; give images of two classes at least")
    listings = {}
    for split in SPLIT_FOLDERS:
        of_split = [(path, names.index(label)) for path, label, given, _ in rows if given == split]
        if not of_split and split != "train":
            continue
        for label in sorted(set(range(len(names))) - {label for _, label in of_split}):
            raise UserError(f"dataset.path={file}: has no {split} image of class '{names[label]}'; add one")
        listings[split] = LabelledFiles(
            tuple(path for path, _ in of_split), np.array([label for _, label in of_split], np.int64)
        )
    return names, listings
