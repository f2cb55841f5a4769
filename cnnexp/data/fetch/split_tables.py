"""A table for each split as data set: `train/_classes.csv` beside its images, or `train.csv` and `val.csv`."""

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from cnnexp.console import warn_once
from cnnexp.data.fetch.tables import TableRules, is_labelled, read_table
from cnnexp.data.folders import TABLE_ENDINGS, is_system, split_of
from cnnexp.data.splits import SPLITS, LabelledFiles
from cnnexp.errors import UserError


def tables_of_splits(root: Path, rules: TableRules) -> dict[str, Path]:
    """The table of each split: the only one in the folder of the split, or one in `root` that is called after it.

    A table without labels, as of a test set, is none. Fewer than train and one other are none at all.
    """
    found: dict[str, list[Path]] = {}
    try:
        for path in sorted(root.iterdir()):
            split = None if is_system(path.name) else split_of(path.stem if path.is_file() else path.name)
            if split is not None:
                found.setdefault(split, []).extend(_tables_in(path))
    except OSError:  # whoever may not read it was told so
        return {}
    tables = {split: paths[0] for split, paths in found.items() if len(paths) == 1 and is_labelled(paths[0], rules)}
    return (
        {split: tables[split] for split in SPLITS if split in tables} if "train" in tables and len(tables) > 1 else {}
    )


def _tables_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.lower().endswith(TABLE_ENDINGS) else []
    return [path / name for name in os.listdir(path) if name.lower().endswith(TABLE_ENDINGS) and not is_system(name)]


def read_tables_of_splits(
    root: Path, tables: dict[str, Path], rules: TableRules
) -> tuple[tuple[str, ...], dict[str, LabelledFiles]]:
    """The images that the table of each split lists; each is read as `read_table` reads one.

    Args:
        root: the folder that the names of images start from.
        tables: of `tables_of_splits`.
        rules: as of one table.

    Returns:
        The class names, sorted, and the images of each split.

    Raises:
        UserError: as `read_table`; an image stands in two of them; another class in one than in another.
    """
    read = {split: read_table(file, replace(rules, trains=False)) for split, file in tables.items()}
    names = tuple(sorted({name for of_table, _ in read.values() for name in of_table}))
    listings, seen = {}, dict[str, Path]()
    for split, (of_table, parts) in read.items():
        file = tables[split]
        below = PurePosixPath(file.parent.relative_to(root))
        ids = tuple(os.path.normpath(below / name) for part in parts.values() for name in part.ids)
        labels = np.concatenate([part.labels for part in parts.values()])
        for name in ids:
            if seen.setdefault(name, file) != file:
                raise UserError(
                    f"dataset.path={file}: {name} is in {seen[name].relative_to(root)}, too; keep one of them"
                )
        for name in sorted(set(names) - set(of_table)) if rules.trains else ():
            raise UserError(f"dataset.path={file}: has no {split} image of class '{name}'; add one")
        groups = tuple(group for part in parts.values() for group in part.groups or ())
        numbers = np.array([names.index(of_table[label]) for label in labels], np.int64)
        listings[split] = LabelledFiles(ids, numbers, groups or None)
    files = ", ".join(f"{split} from {file.relative_to(root)}" for split, file in tables.items())
    warn_once(f"dataset.path={root}: a table for each split: {files}")
    return names, listings
