"""What a tracker needs beside MLflow: the addresses of stores, safe folders, and the tracker that does nothing."""

import os
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cnnexp.errors import UserError
from cnnexp.tracking.record import redact

Status = Literal["FINISHED", "FAILED", "KILLED"]
PARENT_TAG = ("sweep", "parent")  # what marks the parent run of a sweep
RUNS_PER_PAGE = 200
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
REACH_SECONDS = 10.0

# ---------------------------------------------------------------------------------------------------- stores


def resolve_uri(uri: str) -> str:
    """`uri` with the absolute path of its SQLite file.

    Raises:
        UserError: no store of this kind exists.
    """
    scheme = uri.partition(":")[0].split("+")[0] if "://" in uri else ""
    name, mark, query = uri.removeprefix("sqlite:///").partition("?")
    if uri.startswith("sqlite:///") and name not in ("", ":memory:"):
        return f"sqlite:///{Path(name).resolve().as_posix()}{mark}{query}"
    if scheme in PORTS and re.match(r"[^:]+://[^/?#]", uri):
        return uri
    hint = "MLflow no longer records to plain folders; " if scheme in ("", "file") else ""
    raise UserError(
        f"tracking.uri={redact(uri)}: {hint}allowed: sqlite:///FOLDER/mlflow.db, http://HOST:PORT, https://HOST, "
        "postgresql://USER@HOST/NAME (mysql, mssql), or null to record nothing"
    )


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store, or None for other stores."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def check_store(uri: str) -> None:
    """Look once whether the store answers; MLflow itself would try again and again, for minutes.

    Raises:
        OSError, sqlite3.Error: there is no such host, it does not answer, or the file is no database.
    """
    file = sqlite_file(uri)
    if file is None:
        _connect(uri)
    elif file.exists():
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("PRAGMA schema_version")


def _connect(uri: str) -> None:
    parts = urlsplit(uri)
    scheme, host = parts.scheme.split("+")[0], parts.hostname or ""
    if scheme.startswith("http") and scheme in getproxies() and not proxy_bypass(host):
        return  # the proxy answers, whatever is behind it
    socket.create_connection((host, parts.port or PORTS[scheme]), timeout=REACH_SECONDS).close()


@contextmanager
def naming_uri(uri: str) -> Iterator[None]:
    """Turns whatever goes wrong while a store is opened into a UserError that names `tracking.uri`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of MLflow, SQLAlchemy, a database driver, the network, the file system
        text = redact(str(error)).strip() or type(error).__name__
        raise UserError(f"tracking.uri={redact(uri)}: cannot be opened: {text.splitlines()[0]}") from error


@contextmanager
def replacing(folder: Path, path: str) -> Iterator[Path]:
    """A temporary folder inside `folder`, from which `path` moves to `folder/path` once it is complete.

    Raises:
        UserError: `path` is absolute, or leads out of the folder.
    """
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive
    if not PurePosixPath(path).parts or absolute or "\\" in path or ".." in PurePosixPath(path).parts:
        raise UserError(f"{path or '(empty)'}: not an artifact; give a path inside the run, as explain/a.png")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        yield Path(temporary)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(Path(temporary) / path, target)


# ----------------------------------------------------------------------------------------------- no tracking


class NullTracker:
    """The methods of `Tracker` where `tracking.uri` is null: nothing is written, and there is nothing to read."""

    def prepare(self) -> None: ...

    def start_run(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        description: str | None = None,
    ) -> str:
        """An id that no other run has."""
        return uuid.uuid4().hex

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None: ...

    def log_text(self, text: str, name: str) -> None: ...

    def log_input(self, name: str, digest: str, source: str, split_counts: Mapping[str, int]) -> None: ...

    def log_model(self, model: Any, example: Any, class_names: Any) -> None: ...

    def end_run(self, status: Status, error: str | None = None) -> None: ...

    def children(self, parent_run_id: str) -> list[RunInfo]:
        """None."""
        return []

    def sweeps(self, limit: int) -> list[RunInfo]:
        """None."""
        return []

    def find_runs(
        self, tags: Mapping[str, str] | None = None, status: str | None = None, limit: int | None = None
    ) -> list[RunInfo]:
        """None."""
        return []

    def find_run(self, text: str) -> RunInfo:
        """Raises a UserError."""
        _nothing_recorded()

    def download(self, run_id: str, artifact_path: str, folder: Path | str) -> Path:
        """Raises a UserError."""
        _nothing_recorded()

    def ui_command(self) -> list[str]:
        """Raises a UserError."""
        _nothing_recorded()


def _nothing_recorded() -> NoReturn:
    raise UserError("tracking.uri=null: nothing is recorded; choose a store, as tracking=mlflow")
