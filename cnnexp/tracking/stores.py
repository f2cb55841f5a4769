"""Where a store is, and whether it can be reached."""

import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cnnexp.console import redact
from cnnexp.errors import UserError

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
REACH_SECONDS = 10.0
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


def check_store(uri: str) -> None:
    """Look once whether there is a store that answers; MLflow itself would try for minutes.

    Raises:
        UserError: the SQLite file is not there.
        OSError, sqlite3.Error: there is no such host, it does not answer, or the file is no database.
    """
    file = sqlite_file(uri)
    if file is None:
        _connect(uri)
    elif not file.exists():
        raise UserError(f"tracking.uri={uri}: nothing was recorded there yet")
    else:
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


def check_inside(path: str) -> None:
    """Refuse the path of an artifact that is absolute, or leads out of the folder that it is fetched to.

    Raises:
        UserError: it is.
    """
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive
    if not PurePosixPath(path).parts or absolute or "\\" in path or ".." in PurePosixPath(path).parts:
        raise UserError(f"{path or '(empty)'}: not an artifact; give a path inside the run, as explain/a.png")
