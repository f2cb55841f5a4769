"""A tracker that does nothing."""

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

from cnnexp.errors import UserError
from cnnexp.tracking.protocols import RunTracker

Method = TypeVar("Method", bound=Callable[..., Any])


def _do_nothing() -> None: ...


def _refuse() -> NoReturn:
    raise UserError("tracking.uri=null: nothing is recorded; choose a store, as tracking=mlflow")


def _answering(method: Method, answer: Callable[[], Any]) -> Method:
    """A method with the signature of `method` that returns, or raises, what `answer` does."""

    @wraps(method)
    def answering(*arguments: Any, **named: Any) -> Any:
        return answer()

    return answering  # type: ignore[return-value]


class NullTracker(RunTracker):
    """The tracker where `tracking.uri` is null: nothing is written, nothing is there to read."""

    uri = ""
    move = None
    lost = ""

    start_run = _answering(RunTracker.start_run, lambda: uuid.uuid4().hex)  # an id that no other run has

    prepare = _answering(RunTracker.prepare, _do_nothing)
    connect = _answering(RunTracker.connect, _do_nothing)
    look = _answering(RunTracker.look, _do_nothing)
    resume_run = _answering(RunTracker.resume_run, _do_nothing)
    log_metrics = _answering(RunTracker.log_metrics, _do_nothing)
    set_tags = _answering(RunTracker.set_tags, _do_nothing)
    log_artifact = _answering(RunTracker.log_artifact, _do_nothing)
    log_text = _answering(RunTracker.log_text, _do_nothing)
    log_input = _answering(RunTracker.log_input, _do_nothing)
    system_metrics = _answering(RunTracker.system_metrics, dict)
    log_model = _answering(RunTracker.log_model, _do_nothing)
    end_run = _answering(RunTracker.end_run, _do_nothing)
    add_metrics = _answering(RunTracker.add_metrics, _do_nothing)
    add_tags = _answering(RunTracker.add_tags, _do_nothing)
    add_artifact = _answering(RunTracker.add_artifact, _do_nothing)

    children = _answering(RunTracker.children, list)
    sweeps = _answering(RunTracker.sweeps, list)
    find_runs = _answering(RunTracker.find_runs, list)
    has_model = _answering(RunTracker.has_model, bool)
    runs_without_whole_model = _answering(RunTracker.runs_without_whole_model, list)
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
