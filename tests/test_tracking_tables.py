"""A new store without MLflow's migrations is the store that they make. `python tests/test_tracking_tables.py` writes
the tables of the installed MLflow anew."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest

from cnnexp.tracking import mlflow as tracking

ROWS = ("alembic_version", "workspaces")  # tables that the migrations fill
EVERYTHING = "SELECT type, name, sql FROM sqlite_master ORDER BY type <> 'table', type, name"  # tables first


def migrated(file: Path) -> Path:
    """A store as MLflow makes it, or opens it."""
    tracking.quiet_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{file}", "file:///artifacts").engine.dispose()
    return file


def read(file: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()


def shape(kind: str, name: str, sql: str | None) -> Any:
    """A table or an index, its constraints in any order: MLflow's migrations take them from sets."""
    return kind, name, sorted(line.strip().rstrip(",") for line in (sql or "").splitlines())


def tables(file: Path) -> str:
    """All tables and indices, and the rows of ROWS, as SQL."""
    made = [sql for _, name, sql in read(file, EVERYTHING) if sql and not name.startswith("sqlite_")]
    with closing(sqlite3.connect(file)) as connection:
        filled = [line for line in connection.iterdump() if line.startswith(tuple(f'INSERT INTO "{n}"' for n in ROWS))]
    return "\n".join([f"-- MLflow {mlflow.__version__}", *(f"{sql};" for sql in made), *filled]) + "\n"


def test_a_store_without_migrations_equals_a_migrated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = migrated(tmp_path / "migrated.db"), tmp_path / "made.db"
    tracking.create_tables(new)
    migrated(new)
    assert [shape(*row) for row in read(new, EVERYTHING)] == [shape(*row) for row in read(old, EVERYTHING)]
    for (name,) in read(old, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        assert read(new, f"PRAGMA table_info({name})") == read(old, f"PRAGMA table_info({name})")
        columns = ", ".join(row[1] for row in read(old, f"PRAGMA table_info({name})") if "time" not in row[1])
        assert read(new, f"SELECT {columns} FROM {name}") == read(old, f"SELECT {columns} FROM {name}"), name
    # of another MLflow nothing is made, and MLflow does it all
    other = tmp_path / "other.db"
    monkeypatch.setattr(mlflow, "__version__", "9.9.9")
    tracking.create_tables(other)
    assert not other.exists()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tracking.TABLES.write_text(tables(migrated(Path(folder) / "new.db")), encoding="utf-8")
