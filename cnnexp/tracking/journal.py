"""What a run records, and the file that keeps it while the store does not answer.

A line of the file is one write as JSON (NaN and Infinity as Python writes them), the oldest first; before them
stands a line with the run id. To send a write twice does no harm: a figure has the time at which it was first
recorded, so that the store knows it again, and all else replaces itself.
"""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cnnexp.console import warn
from cnnexp.errors import UserError
from cnnexp.files import write_whole
from cnnexp.tracking.record import dataset_entries, redact, storable_name, storable_tags
from cnnexp.tracking.runs import Status

T = TypeVar("T")
Record = dict[str, Any]  # "kind" and what belongs to it; see RunWriter
Send = Callable[[str, Record], None]  # run id, record

RETRY_SECONDS = 30.0  # for how long the end of a run tries to send what is kept
MODEL_SECONDS = 300.0  # for how long a model waits: it is not kept
PAUSE = 10  # an attempt that failed after t seconds is followed by PAUSE * t without one: training goes on
OUTAGES = {  # by name, for none of these packages is imported here
    "builtins.ConnectionError",
    "builtins.TimeoutError",
    "requests.exceptions.ChunkedEncodingError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.RetryError",  # the server answers, and can do nothing: 429, 500, 502, 503, 504
    "requests.exceptions.Timeout",
    "sqlalchemy.exc.InterfaceError",
    "sqlalchemy.exc.OperationalError",  # no connection; SQLite: locked
    "sqlalchemy.exc.TimeoutError",
}
UNAVAILABLE = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "REQUEST_LIMIT_EXCEEDED"}


def is_outage(error: BaseException | None) -> bool:
    """Whether the store could not be reached or could not work, so that the same write may succeed later."""
    while error is not None:
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
        if names & OUTAGES or getattr(error, "error_code", None) in UNAVAILABLE:
            return True
        from_mlflow = type(error).__module__.startswith("mlflow.")  # which raises without `from`
        error = error.__cause__ or (error.__context__ if from_mlflow else None)
    return False


def _reason(error: BaseException) -> str:
    return (redact(str(error)).strip() or type(error).__name__).splitlines()[0][:200]


# ------------------------------------------------------------------------------------------------- the file


def _lines(run_id: str, records: list[Record]) -> str:
    return "".join(json.dumps(line) + "\n" for line in [{"run_id": run_id}, *records])


def _read(file: Path) -> tuple[str, list[Record]]:
    """The run id and the writes; a last line that a kill cut off is left out."""
    lines = file.read_text().split("\n")[:-1]
    try:
        head, *records = map(json.loads, lines)
        return str(head["run_id"]), records
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file}: not a journal of a run; remove it") from error


def _send_kept(file: Path, send: Send) -> tuple[int, Exception | None]:
    """Send what the file keeps, up to the first outage. What is sent, or refused for good, leaves the file.

    Returns:
        How many were sent, and what stopped it.
    """
    run_id, records = _read(file)
    refused = 0
    for number, record in enumerate(records):
        try:
            send(run_id, record)
        except Exception as error:
            if is_outage(error):
                if number:
                    write_whole(file, _lines(run_id, records[number:]).encode())
                return number - refused, error
            refused += 1
            warn(f"cnnexp: run {run_id}: the store does not take {_named(record)}: {_reason(error)}")
    file.unlink()
    return len(records) - refused, None


def _named(record: Record) -> str:
    return " ".join([record["kind"], *(str(record[key]) for key in ("name", "path", "status") if key in record)])


class Journal:
    """Hands the writes of a run to `send`, in their order; those that meet an outage wait in `file`.

    Without a file nothing is kept: every error is raised.
    """

    def __init__(self, file: Path | None, send: Send) -> None:
        self.file = file and file.resolve()
        self.send = send
        self._pause_until = 0.0

    def write(self, run_id: str, record: Record) -> None:
        """Send a write after those that wait, or keep it.

        Raises:
            Exception: the store refuses it, for another reason than an outage.
        """
        if self.file is None:
            self.send(run_id, record)
            return
        if self.file.exists() and time.monotonic() >= self._pause_until:
            began = time.monotonic()
            _, outage = _send_kept(self.file, self.send)
            self._pause(began, outage)
        if self.file.exists():
            self._keep(run_id, record)
            return
        began = time.monotonic()
        try:
            self.send(run_id, record)
        except Exception as error:
            if not is_outage(error):
                raise
            self._keep(run_id, record)
            self._pause(began, error)
            warn(f"cnnexp: the tracking store does not answer; the run is kept in {self.file} ({_reason(error)})")

    def settle(self, seconds: float) -> None:
        """Send what is kept, and try again for so long; say where the rest lies."""
        deadline = time.monotonic() + seconds
        while self.file is not None and self.file.exists():
            _, outage = _send_kept(self.file, self.send)
            if outage is None:
                return
            if time.monotonic() >= deadline:
                warn(f"cnnexp: not all of the run is in the tracking store; `cnnexp doctor` sends {self.file}")
                return
            time.sleep(min(1.0, seconds))

    def insist(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What `call` returns; it is tried again for MODEL_SECONDS while there is an outage.

        Raises:
            UserError: the outage lasts longer.
        """
        deadline = time.monotonic() + MODEL_SECONDS
        while True:
            try:
                return call(*arguments, **named)
            except Exception as error:
                if self.file is None or not is_outage(error):
                    raise
                if time.monotonic() >= deadline:
                    raise UserError(
                        "the tracking store does not answer, so the model is not recorded; "
                        f"start again with trainer.resume=true when it does ({_reason(error)})"
                    ) from error
            time.sleep(1.0)

    def _keep(self, run_id: str, record: Record) -> None:
        assert self.file is not None
        if not self.file.exists():
            write_whole(self.file, _lines(run_id, [record]).encode())
            return
        with self.file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def _pause(self, began: float, outage: Exception | None) -> None:
        now = time.monotonic()
        self._pause_until = now + PAUSE * (now - began) if outage else 0.0


# ----------------------------------------------------------------------------------------------- the writes


class RunWriter(ABC):
    """Records one run."""

    def __init__(self) -> None:
        self._run_id: str | None = None
        self._logged: set[tuple[str, int]] = set()  # of a run that was opened again: what it has already
        self._journal = Journal(None, self._send)

    @abstractmethod
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the store."""

    @abstractmethod
    def _send(self, run_id: str, record: Record) -> None:
        """Give the store one of the records that the methods below write."""

    @property
    def _current(self) -> str:
        assert self._run_id is not None, "start_run comes first"
        return self._run_id

    def _open(self, run_id: str, journal: Path | None, logged: set[tuple[str, int]]) -> None:
        self._run_id, self._logged, self._journal = run_id, logged, Journal(journal, self._send)

    def _write(self, kind: str, **content: Any) -> None:
        self._journal.write(self._current, {"kind": kind, **content})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record figures of a step, all or none. NaN is kept; infinity becomes the largest float."""
        now = time.time_ns() // 1_000_000
        named = {storable_name(name): float(value) for name, value in metrics.items()}
        figures = [(name, value, now, step) for name, value in named.items() if (name, step) not in self._logged]
        self._write("metrics", figures=figures)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        self._write("tags", tags=storable_tags(tags))

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Copy a file, or a folder with all that is in it, to the run's artifacts, into `folder` there."""
        self._write("artifact", path=os.path.abspath(path), folder=folder)

    def log_text(self, text: str, name: str) -> None:
        """Write `text` as the artifact `name`."""
        self._write("text", text=text, name=name)

    def log_input(self, name: str, digest: str, source: str, split_counts: Mapping[str, int]) -> None:
        """Record the data set: for each split an MLflow data set `name/SPLIT`, with the split as its context.

        Args:
            digest: of the whole data set in hex; MLflow keeps the first 36 characters.
            source: its folder or URL.
            split_counts: images a split, by the split's name.
        """
        self._write("inputs", splits=dataset_entries(name, digest, source, split_counts))

    def end_run(self, status: Status, error: str | None = None) -> None:
        """Close the run, with the error as a tag. What waits is sent for RETRY_SECONDS; KILLED does not wait."""
        if error is not None:
            self.set_tags({"error": error})
        self._write("end", status=status, time=time.time_ns() // 1_000_000)
        self._journal.settle(0.0 if status == "KILLED" else RETRY_SECONDS)


def replay(tracker: RunWriter, file: Path) -> int:
    """Send what a run's journal keeps, and remove the file.

    No process may be at work on the run.

    Returns:
        The number of writes that were sent.

    Raises:
        UserError: there is no journal, no such run, or the store does not answer: the file keeps what is not sent.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such journal of a run")
    run_id, records = _read(file)
    client = tracker.client()
    try:
        client.get_run(run_id)
    except Exception as error:
        raise UserError(f"{file}: its run {run_id} cannot be read from the store: {_reason(error)}") from error
    sent, outage = _send_kept(file, tracker._send)
    if outage is not None:
        raise UserError(f"{file}: {sent} of {len(records)} writes sent, then: {_reason(outage)}") from outage
    return sent


def clear(tracker: RunWriter, file: Path) -> None:
    """Send a journal that another run left in this place; where its run is gone, keep the file under its own name."""
    if not file.exists():
        return
    try:
        replay(tracker, file)
    except UserError as error:
        aside = file.with_name(f"{file.stem}-{time.time_ns()}{file.suffix}")
        os.replace(file, aside)
        warn(f"cnnexp: {error}; kept as {aside.name}")
