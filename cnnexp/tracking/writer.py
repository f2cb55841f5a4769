"""Writes a run into a store, by way of its journal."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnexp.console import warn
from cnnexp.errors import UserError
from cnnexp.tracking.faults import OUTAGES, described, fault_of, reason
from cnnexp.tracking.info import Status
from cnnexp.tracking.journal import Journal, Record, read_records, send_kept
from cnnexp.tracking.record import dataset_entries, storable_name, storable_tags

MISSING = "RESOURCE_DOES_NOT_EXIST"  # MLflow's error code
RETRY_SECONDS = 30.0  # for how long the end of a run tries to send what is kept


class RunWriter(ABC):
    """Records one run."""

    uri: str
    experiment: str

    def __init__(self) -> None:
        self._run_id: str | None = None
        self._logged: set[tuple[str, int]] = set()  # of a run that was opened again: what it has already
        self._journal = Journal(None, self._send, self._why_lost)

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
        self._run_id, self._logged = run_id, logged
        self._journal = Journal(journal, self._send, self._why_lost)

    @property
    def lost(self) -> str:
        """Why the store takes nothing more of the run; "" while it does."""
        return self._journal.lost

    def _why_lost(self, run_id: str, error: Exception) -> str:
        """Why a write was refused, if all that follow will be."""
        fault = fault_of(error)
        if fault is not None:
            return "" if fault in OUTAGES else described(error, self.uri, self.experiment, "write to")
        gone = self._gone(run_id)
        return f"run {run_id} {gone}" if gone else ""

    def _gone(self, run_id: str) -> str:
        """Whether a run can no longer be written to, in words; "" where it can, or the store does not say."""
        try:
            run = self.client().get_run(run_id)
            if run.info.lifecycle_stage == "deleted":
                return "was deleted in the store"
            experiment = self.client().get_experiment(run.info.experiment_id)
        except Exception as error:  # of MLflow, the network
            return "is no longer in the store" if getattr(error, "error_code", "") == MISSING else ""
        return "cannot go on: its experiment was deleted in the store" * (experiment.lifecycle_stage == "deleted")

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

    def log_input(
        self,
        name: str,
        digest: str,
        source: str,
        splits: Mapping[str, int | Mapping[str, int]],
        channels: int | None = None,
    ) -> None:
        """Record the data set: for each split an MLflow data set `name/SPLIT`, with the split as its context.

        Args:
            digest: of the whole data set in hex; MLflow keeps the first 36 characters.
            source: its folder or URL.
            splits: by the split's name its images, or those of each class by the class's name.
            channels: of the images, for the data sets' schema.
        """
        self._write("inputs", splits=dataset_entries(name, digest, source, splits, channels))

    def send_journal(self, file: Path) -> int:
        """See `replay`."""
        return replay(self, file)

    def end_run(self, status: Status, error: str | None = None) -> None:
        """Close the run, with the error as a tag. What waits is sent for RETRY_SECONDS; KILLED does not wait."""
        if error is not None:
            self.set_tags({"error": error})
        self._write("end", status=status, time=time.time_ns() // 1_000_000)
        self._journal.flush(0.0 if status == "KILLED" else RETRY_SECONDS)


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
    run_id, records = read_records(file)
    client = tracker.client()
    try:
        client.get_run(run_id)
    except Exception as error:
        raise UserError(f"{file}: its run {run_id} cannot be read from the store: {reason(error)}") from error
    if gone := tracker._gone(run_id):
        raise UserError(f"{file}: its run {run_id} {gone}; restore it there, or remove this file")
    sent, outage = send_kept(file, tracker._send, tracker._why_lost)
    if outage is not None:
        raise UserError(f"{file}: {sent} of {len(records)} writes sent, then: {reason(outage)}") from outage
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
