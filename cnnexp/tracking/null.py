"""A tracker that does nothing."""

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

from cnnexp.errors import UserError
from cnnexp.tracking.protocols import RunTracker

Method = TypeVar("Method", bound=Callable[..., Any])


def _refuse() -> NoReturn:
    raise UserError("tracking.uri=null: nothing is recorded; choose a store, as tracking=mlflow")


def _answering(method: Method, answer: Callable[[], Any]) -> Method:
    """A method with the signature of `method` that returns, or raises, what `answer` does."""

    @wraps(method)
    def answering(*arguments: Any, **named: Any) -> Any:
        return answer()

    return answering  # type: ignore[return-value]


class NullTracker(RunTracker):
    """The tracker where `tracking.uri` is null: nothing is written, nothing is there to read.

    What is not named here does nothing, as a protocol's methods do.
    """

    uri = ""

    start_run = _answering(RunTracker.start_run, lambda: uuid.uuid4().hex)  # an id that no other run has

    children = _answering(RunTracker.children, list)
    sweeps = _answering(RunTracker.sweeps, list)
    find_runs = _answering(RunTracker.find_runs, list)
    history = _answering(RunTracker.history, list)
    artifacts = _answering(RunTracker.artifacts, list)
    run_link = _answering(RunTracker.run_link, str)

    send_journal = _answering(RunTracker.send_journal, _refuse)
    get_run = _answering(RunTracker.get_run, _refuse)
    find_run = _answering(RunTracker.find_run, _refuse)
    download = _answering(RunTracker.download, _refuse)
    register = _answering(RunTracker.register, _refuse)
    view_links = _answering(RunTracker.view_links, _refuse)
    ui_command = _answering(RunTracker.ui_command, _refuse)
