"""Where the artifacts of a SQLite store lie, also after its folder was renamed, copied or mounted elsewhere.

MLflow notes absolute places. Those below the folder of the database file move with it; the tag HOME_TAG of the store's
first experiment says where that folder was when they were noted. A place outside of it is never changed.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cnnexp.files import locked
from cnnexp.tracking.stores import PATIENCE_S, read_sqlite

HOME_TAG = "cnnexp.home"
COLUMNS = (  # of MLflow's tables, that hold places
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


@dataclass(frozen=True)
class Move:
    """The folder of a store was at `old` when its places were noted, and is at `new`."""

    old: Path
    new: Path

    @property
    def beginnings(self) -> list[tuple[str, str]]:
        """What places begin with, then and now: as URI, and as path."""
        return [(self.old.as_uri(), self.new.as_uri()), (str(self.old), str(self.new))]

    def resolve(self, place: str) -> str:
        """A URI or path as it is now."""
        for then, now in self.beginnings:
            if f"{place}/".startswith(f"{then}/"):
                inside = self.new.is_relative_to(self.old) and f"{place}/".startswith(f"{now}/")
                return place if inside else now + place[len(then) :]
        return place


def local_folder(place: str) -> Path | None:
    """The folder of a `file:` URI or a plain path; None where it is another kind of place."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in place or place.startswith("mlflow-artifacts:") else Path(place)


def find_move(file: Path, artifact_root: str) -> Move | None:
    """How the folder of a store was moved since its places were noted; None where it was not.

    Args:
        file: the database.
        artifact_root: URI of the folder for artifacts, for stores of earlier versions, which say nothing of their
            folder: it is then where artifacts of theirs are found below the folder of the same name.
    """
    here = file.parent.resolve()
    with closing(read_sqlite(file, PATIENCE_S)) as connection:
        homes = _homes(connection) or _guessed_homes(connection, here, artifact_root)
        places = [place for (place,) in connection.execute("SELECT artifact_location FROM experiments") if place]
    moves = (Move(Path(home), here) for home in sorted(homes) if Path(home) != here)
    return next((move for move in moves if _took_along(move, places)), None)


def _took_along(move: Move, places: Iterable[str]) -> bool:
    """Whether the artifacts are where the database is; whoever moves its file alone leaves them where they are."""
    changed = [(local_folder(then), local_folder(now)) for then, now in _changed(places, move)]
    there = os.path.exists  # and not `Path.exists`, which raises where it may not look: of a colleague's folder
    return any(now and there(now) for _, now in changed) or not any(then and there(then) for then, _ in changed)


def mend(file: Path, artifact_root: str) -> Move | None:
    """Write down where everything lies now, and return how it was moved; one process at a time does so."""
    here = file.parent.resolve()
    with closing(read_sqlite(file, PATIENCE_S)) as connection:
        if _homes(connection) == {str(here)}:
            return None
    with locked(Path(f"{file}.lock")), closing(sqlite3.connect(file, timeout=PATIENCE_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        if _homes(connection) == {str(here)}:  # another process was faster
            return None
        move = find_move(file, artifact_root)
        if move:
            _rewrite(connection, move)
        connection.execute("DELETE FROM experiment_tags WHERE key = ?", (HOME_TAG,))
        connection.execute(
            "INSERT INTO experiment_tags (key, value, experiment_id) SELECT ?, ?, min(experiment_id) FROM experiments",
            (HOME_TAG, str(here)),
        )
        connection.commit()
    return move


def _rewrite(connection: sqlite3.Connection, move: Move) -> None:
    for table, column in COLUMNS:
        rows = connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
        for then, now in _changed([place for (place,) in rows], move):
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (now, then))
    rows = connection.execute("SELECT DISTINCT value FROM tags WHERE key = 'run_dir'").fetchall()
    for then, now in _changed([folder for (folder,) in rows], move):
        connection.execute("UPDATE tags SET value = ? WHERE key = 'run_dir' AND value = ?", (now, then))


def _changed(places: Iterable[str], move: Move) -> Iterator[tuple[str, str]]:
    return ((then, now) for then in places if (now := move.resolve(then)) != then)


def _homes(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT value FROM experiment_tags WHERE key = ?", (HOME_TAG,)).fetchall()
    return {value for (value,) in rows if Path(value).is_absolute() and Path(value).name}


def _guessed_homes(connection: sqlite3.Connection, here: Path, artifact_root: str) -> set[str]:
    root = local_folder(artifact_root)
    if root is None or not root.is_relative_to(here):
        return set()
    below, found = root.relative_to(here).as_posix(), set()
    for number, place in connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
        folder = (local_folder(place or "") or Path()).as_posix()
        if folder.endswith(f"/{below}") and Path(folder) != root:
            runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (number,))
            if any((root / run).is_dir() for (run,) in runs):
                found.add(folder.removesuffix(f"/{below}"))
    return found
