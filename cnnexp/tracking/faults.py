"""What can go wrong with a store, sorted in one place; told by names and numbers, so that no library is imported."""

import os
from collections.abc import Iterator
from enum import Enum
from urllib.parse import urlsplit

from cnnexp.console import redact
from cnnexp.errors import first_line


class Fault(Enum):
    """What is wrong with a store, in words for a table."""

    AWAY = "does not answer"
    IN_USE = "in use by another process (locked)"
    FULL = "its disk is full"
    DAMAGED = "damaged"
    FOREIGN = "no store of MLflow"
    NO_RIGHT = "no right to use it"
    REPLACED = "its file was replaced"


OUTAGES = {Fault.AWAY, Fault.IN_USE, Fault.FULL}  # the same write may succeed later
AWAY = {
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "requests.exceptions.ChunkedEncodingError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.RetryError",  # the server answers, and can do nothing: 429, 500, 502, 503, 504
    "requests.exceptions.Timeout",
    "socket.gaierror",
    "sqlalchemy.exc.InterfaceError",
    "sqlalchemy.exc.OperationalError",  # unless its cause says more
    "sqlalchemy.exc.TimeoutError",
}
SQLITE = {  # https://sqlite.org/rescode.html
    3: Fault.NO_RIGHT,
    5: Fault.IN_USE,
    6: Fault.IN_USE,
    8: Fault.NO_RIGHT,  # to write
    10: Fault.AWAY,  # its disk or network
    11: Fault.DAMAGED,
    13: Fault.FULL,
    14: Fault.AWAY,
    15: Fault.IN_USE,
    23: Fault.NO_RIGHT,
    26: Fault.DAMAGED,
}
SQLITE_MOVED = 1032  # the open file is no longer the one of that name
POSTGRESQL = {  # SQLSTATE
    "25006": Fault.NO_RIGHT,
    "28000": Fault.NO_RIGHT,
    "28P01": Fault.NO_RIGHT,
    "42501": Fault.NO_RIGHT,
    "42P01": Fault.FOREIGN,
    "53100": Fault.FULL,
    "55P03": Fault.IN_USE,
}
MLFLOW = {
    "CUSTOMER_UNAUTHORIZED": Fault.NO_RIGHT,
    "DEADLINE_EXCEEDED": Fault.AWAY,
    "PERMISSION_DENIED": Fault.NO_RIGHT,
    "REQUEST_LIMIT_EXCEEDED": Fault.AWAY,
    "RESOURCE_EXHAUSTED": Fault.AWAY,
    "TEMPORARILY_UNAVAILABLE": Fault.AWAY,
    "UNAUTHENTICATED": Fault.NO_RIGHT,
}
WHO = {"CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"}  # 401: the server does not know who asks


class DamagedError(Exception):
    """A file of SQLite was read through, and is not whole."""


def fault_of(error: BaseException | None) -> Fault | None:
    """What an error says of the store: the deepest of its causes knows best. None: it says nothing of the store."""
    return next((found for cause in reversed(list(_causes(error))) if (found := _fault(cause))), None)


def is_outage(error: BaseException | None) -> bool:
    """Whether the store could not be reached or could not work, so that the same write may succeed later."""
    return fault_of(error) in OUTAGES


def reason(error: BaseException) -> str:
    """The first line of what an error says, without passwords."""
    return redact(first_line(error))[:200]


def described(error: BaseException, uri: str, experiment: str, doing: str) -> str:
    """One line for the user: the key, what is wrong, how it is mended.

    Args:
        error: what was raised.
        uri: of the store.
        experiment: of MLflow, for which a server gives rights.
        doing: what was tried: read, or write to.
    """
    store = f"tracking.uri={redact(uri)}"
    match fault_of(error):
        case Fault.AWAY:
            return f"{store}: cannot be opened: {reason(error)}; see that it is there, or choose another store"
        case Fault.IN_USE:
            return f"{store}: is in use by another process (locked); wait for its end, or stop it"
        case Fault.FULL:
            return f"{store}: its disk is full; make room"
        case Fault.DAMAGED:
            return f"{store}: is damaged ({reason(_deepest(error))}); put a copy of it in its place"
        case Fault.FOREIGN:
            return f"{store}: is no store of MLflow ({reason(_deepest(error))}); give another one"
        case Fault.REPLACED:
            return f"{store}: its file was replaced while it was in use; put it back"
        case Fault.NO_RIGHT:
            return _missing_right(error, uri, experiment, doing)
    return f"{store}: cannot be opened: {reason(error)}"


def _missing_right(error: BaseException, uri: str, experiment: str, doing: str) -> str:
    if not uri.startswith("http"):
        return f"tracking.uri={redact(uri)}: no right to {doing} it ({reason(_deepest(error))}); ask its owner for it"
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urlsplit(uri).username or ""
    names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if any(_status(cause) == 401 for cause in _causes(error)):
        said = f"does not take the name {user} with its password; correct" if user else "asks who you are; set"
        return f"tracking.uri={redact(uri)}: the server {said} {names}"
    who = f"user {user}" if user else f"whoever gives no {names}"
    right = "READ" if doing == "read" else "EDIT"
    return (
        f"tracking.experiment={experiment}: {who} has no right to {doing} it on {redact(uri)}; ask for {right}, or "
        "choose another experiment"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        from_mlflow = type(error).__module__.startswith("mlflow.")  # which raises without `from`
        error = error.__cause__ or (error.__context__ if from_mlflow else None)


def _deepest(error: BaseException) -> BaseException:
    """The cause that `fault_of` goes by."""
    return next((cause for cause in reversed(list(_causes(error))) if _fault(cause)), error)


def _fault(error: BaseException) -> Fault | None:
    """Of one error, without its causes."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        if "no such table" in str(error):
            return Fault.FOREIGN
        return Fault.REPLACED if code == SQLITE_MOVED else SQLITE.get(code & 0xFF)
    if isinstance(error, DamagedError):
        return Fault.DAMAGED
    if isinstance(error, PermissionError):
        return Fault.NO_RIGHT
    if type(error).__module__.startswith("psycopg") and (state := _sqlstate(error)):
        return POSTGRESQL.get(state)
    if found := MLFLOW.get(getattr(error, "error_code", None) or ""):
        return found
    if _status(error) in (401, 403):
        return Fault.NO_RIGHT
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return Fault.AWAY if names & AWAY else None


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _status(error: BaseException) -> int | None:
    """What a server answered: 401 asks who it is, 403 refuses."""
    code = getattr(error, "error_code", None)
    if code in WHO:
        return 401
    status = getattr(getattr(error, "response", None), "status_code", None)  # of requests
    return status if isinstance(status, int) else None
