"""What a run records, and the file that keeps it while the store does not answer.

A line of the file is one write as JSON (NaN and Infinity as Python writes them), the oldest first; before them
stands a line with the run id. To send a write twice does no harm: a figure has the time at which it was first
recorded, so that the store knows it again, and all else replaces itself.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cnnexp.console import say, warn, warn_once
from cnnexp.errors import UserError
from cnnexp.files import read_file, write_atomic
from cnnexp.tracking.faults import is_outage, reason

T = TypeVar("T")
Record = dict[str, Any]  # "kind" and what belongs to it; see RunWriter
Send = Callable[[str, Record], None]  # run id, record
WhyLost = Callable[[str, Exception], str]  # run id, what was raised: why the store takes nothing more; "" if it does

MOST_BYTES = 1_000_000_000  # of a journal
MODEL_SECONDS = 300.0  # for how long a model waits: it is not kept
PAUSE = 10  # an attempt that failed after t seconds is followed by PAUSE * t without one: training goes on


def never_lost(run_id: str, error: Exception) -> str:
    """Of a store that says nothing of its runs."""
    return ""


# ------------------------------------------------------------------------------------------------- the file


def _lines(run_id: str, records: list[Record]) -> str:
    return "".join(json.dumps(line) + "\n" for line in [{"run_id": run_id}, *records])


def read_records(file: Path) -> tuple[str, list[Record]]:
    """The run id and the writes; a last line that a kill cut off is left out, and one that is no write is named.

    Raises:
        UserError: its first line names no run.
        OSError: it cannot be read.
    """
    lines = read_file(file, MOST_BYTES).decode("utf-8", "replace").split("\n")[:-1]
    head, *records = [_parsed(line) for line in lines] or [{}]
    if not isinstance(head.get("run_id"), str):
        raise UserError(f"{file}: not a journal of a run; remove it")
    for number, record in enumerate(records, 2):
        if not isinstance(record.get("kind"), str):
            warn_once(f"cnnexp: {file}: line {number} is no record; it is left out")
    return head["run_id"], [record for record in records if isinstance(record.get("kind"), str)]


def _parsed(line: str) -> Record:
    """Empty where the line is no mapping."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def send_kept(file: Path, send: Send, why_lost: WhyLost = never_lost) -> tuple[int, Exception | None]:
    """Send what the file keeps, up to the first outage, or until the store takes nothing more of the run.

    What is sent, or refused for good, leaves the file.

    Returns:
        How many were sent, and what stopped it.
    """
    run_id, records = read_records(file)
    refused = 0
    for number, record in enumerate(records):
        try:
            send(run_id, record)
        except Exception as error:
            if is_outage(error) or why_lost(run_id, error):
                if number:
                    write_atomic(file, _lines(run_id, records[number:]).encode())
                return number - refused, error
            refused += 1
            warn(f"cnnexp: run {run_id}: the store does not take {_named(record)}: {reason(error)}")
    file.unlink()
    return len(records) - refused, None


def _named(record: Record) -> str:
    return " ".join([record["kind"], *(str(record[key]) for key in ("name", "path", "status") if key in record)])


class Journal:
    """Hands the writes of a run to `send`, in their order; those that meet an outage wait in `file`.

    Without a file nothing is kept: an outage is raised. Once the store takes nothing more of the run, since that was
    deleted there or the store is damaged, `lost` says why, and what follows is not sent: the run's folder has it.
    """

    def __init__(self, file: Path | None, send: Send, why_lost: WhyLost = never_lost) -> None:
        self.file = file and file.resolve()
        self.send = send
        self.why_lost = why_lost
        self.lost = ""
        self._pause_until = 0.0

    def write(self, run_id: str, record: Record) -> None:
        """Send a write after those that wait, or keep it.

        Raises:
            Exception: the store refuses it, for another reason than an outage.
        """
        if self.lost:
            return
        if self._waits() and time.monotonic() >= self._pause_until:
            assert self.file is not None
            began = time.monotonic()
            _, stopped = send_kept(self.file, self.send, self.why_lost)
            if stopped and self.lose(run_id, stopped):
                return
            self._pause(began, stopped)
        if self._waits():
            self._keep(run_id, record)
            return
        began = time.monotonic()
        try:
            self.send(run_id, record)
        except Exception as error:
            if self.file is not None and is_outage(error):
                self._keep(run_id, record)
                self._pause(began, error)
                warn(f"cnnexp: the tracking store does not answer; the run is kept in {self.file} ({reason(error)})")
            elif not self.lose(run_id, error):
                raise

    def lose(self, run_id: str, error: Exception) -> bool:
        """Whether the store takes nothing more of the run, by what it raised; it is sent nothing from here on."""
        self.lost = self.why_lost(run_id, error)
        if self.lost:
            say(f"{self.lost}; the run goes on, and is recorded in its folder alone")
        return bool(self.lost)

    def _waits(self) -> bool:
        return self.file is not None and self.file.exists()

    def flush(self, seconds: float) -> None:
        """Send what is kept, and try again for so long; say where the rest lies."""
        deadline = time.monotonic() + seconds
        while self.file is not None and self.file.exists() and not self.lost:
            run_id, _ = read_records(self.file)
            _, outage = send_kept(self.file, self.send, self.why_lost)
            if outage is None or self.lose(run_id, outage):
                return
            if time.monotonic() >= deadline:
                warn(f"cnnexp: not all of the run is in the tracking store; `cnnexp doctor` sends {self.file}")
                return
            time.sleep(min(1.0, seconds))

    def retry(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
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
                        "start again with trainer.resume=true when it does, or as `cnnexp doctor` says "
                        f"({reason(error)})"
                    ) from error
            time.sleep(1.0)

    def _keep(self, run_id: str, record: Record) -> None:
        assert self.file is not None
        if not self.file.exists():
            write_atomic(self.file, _lines(run_id, [record]).encode())
            return
        with self.file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def _pause(self, began: float, outage: Exception | None) -> None:
        now = time.monotonic()
        self._pause_until = now + PAUSE * (now - began) if outage else 0.0
