"""Where a store is, and whether it can be reached."""

import errno
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from cnnexp.console import redact
from cnnexp.errors import UserError
from cnnexp.files import may_use
from cnnexp.tracking.faults import DamagedError, described, reason

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
REACH_SECONDS = 10.0
PATIENCE_S = 60.0  # for how long a command waits for a store that is locked
LOOK_S = 5.0  # for how long `cnnexp doctor` does
QUIET = {  # no telemetry, no progress bars, no links, no word about git; a server that is away holds up for seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def resolve_uri(uri: str) -> str:
    """`uri` with the absolute path of its SQLite file.

    Raises:
        UserError: no store of this kind exists.
    """
    scheme = uri.partition(":")[0].split("+")[0] if "://" in uri else ""
    name, mark, query = uri.removeprefix("sqlite:///").partition("?")
    if uri.startswith("sqlite:///") and name not in ("", ":memory:"):
        path = Path(name).resolve().as_posix()
        if "%" in path or "?" in path:  # a URI gives both another meaning
            raise UserError(f"tracking.uri={redact(uri)}: there is a % or ? in {path}; choose another folder")
        return f"sqlite:///{path}{mark}{query}"
    if scheme in PORTS and re.match(r"[^:]+://[^/?#]", uri):
        return uri
    plain = scheme in ("", "file")
    reason = "MLflow no longer records to plain folders" if plain else "not the address of a store"
    raise UserError(
        f"tracking.uri={redact(uri)}: {reason}; allowed: sqlite:///FOLDER/mlflow.db, http://HOST:PORT, "
        "https://HOST, postgresql://USER@HOST/NAME (mysql, mssql), or null to record nothing"
    )


def artifact_uri(root: str) -> str:
    """The URI of a folder; a URI stays as it is."""
    return root if "://" in root else Path(root).resolve().as_uri()


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store, or None for other stores."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def is_missing(file: Path) -> bool:
    """Whether nothing was recorded in the file of an SQLite store yet: it is not there, or empty."""
    return not file.exists() or file.stat().st_size == 0


def check_store(uri: str) -> None:
    """Look once whether there is a store that answers, without a change; MLflow itself would try for minutes, and make
    its tables in whatever file it is given.

    Raises:
        UserError: nothing was recorded in the SQLite file yet, or it is of another program.
        OSError, sqlite3.Error: there is no such host, it does not answer, or the file cannot be read.
    """
    file = sqlite_file(uri)
    if file is None:
        _connect(uri)
    elif is_missing(file):
        raise UserError(f"tracking.uri={uri}: nothing was recorded there yet")
    else:
        with closing(read_sqlite(file, PATIENCE_S)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"experiments", "runs"} <= tables:
            raise UserError(
                f"tracking.uri={uri}: is no store of MLflow, but the database of another program; give another file"
            )


def check_whole(uri: str, file: Path) -> None:
    """Read the file of an SQLite store through.

    Raises:
        UserError: it is damaged, in use by another process, or may not be read.
    """
    with naming_uri(uri, "", "read"), closing(read_sqlite(file, LOOK_S)) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            raise DamagedError(str(answer).splitlines()[0])


def read_sqlite(file: Path, patience_s: float) -> sqlite3.Connection:
    """A connection that is to read a file, and makes none; what a killed process left half-written is taken back.

    Args:
        file: the database.
        patience_s: for how long it waits for another process.

    Raises:
        PermissionError: it may not be read.
    """
    if not may_use(file, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    mode = "rw" if may_use(file, os.W_OK) else "ro"  # without the right to write nothing could be taken back
    return sqlite3.connect(f"file:{quote(str(file))}?mode={mode}", uri=True, timeout=patience_s)


def schema_revision(file: Path) -> str | None:
    """Which of MLflow's versions the tables of a file are of; None where it does not say."""
    with closing(read_sqlite(file, PATIENCE_S)) as connection:
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:  # there is no such table
            return None
    return str(found[0]) if found else None


def _connect(uri: str) -> None:
    parts = urlsplit(uri)
    scheme, host = parts.scheme.split("+")[0], parts.hostname or ""
    proxy = _proxy(scheme, host) if scheme.startswith("http") else ""
    place = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else parts
    try:
        port = place.port or PORTS.get(place.scheme.split("+")[0], PORTS["http"])
        socket.create_connection((place.hostname or "", port), timeout=REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        if not proxy:
            raise
        raise UserError(
            f"tracking.uri={redact(uri)}: the proxy {redact(proxy)} of the environment (http_proxy, https_proxy, "
            f"all_proxy) does not answer ({reason(error)}); correct it, or set no_proxy={host}"
        ) from error


def _proxy(scheme: str, host: str) -> str:
    """The proxy that the environment sets for a host, as `requests` chooses it; "" for none."""
    proxies = getproxies()
    return "" if proxy_bypass(host) else proxies.get(scheme) or proxies.get("all", "")


@contextmanager
def naming_uri(uri: str, experiment: str, doing: str) -> Iterator[None]:
    """Turns whatever goes wrong while a store is opened into a UserError that names `tracking.uri` and the remedy.

    Args:
        uri: of the store.
        experiment: of MLflow.
        doing: read, or write to: the right that a server may refuse.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of MLflow, SQLAlchemy, a database driver, the network, the file system
        raise UserError(described(error, uri, experiment, doing)) from error


def check_inside(path: str) -> None:
    """Refuse the path of an artifact that is absolute, or leads out of the folder that it is fetched to.

    Raises:
        UserError: it is.
    """
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive
    if not PurePosixPath(path).parts or absolute or "\\" in path or ".." in PurePosixPath(path).parts:
        raise UserError(f"{path or '(empty)'}: not an artifact; give a path inside the run, as explain/a.png")
