"""A tracker that does nothing."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from cnnexp.errors import UserError
from cnnexp.tracking.info import RunInfo, Status
from cnnexp.tracking.registry import Registered


class NullTracker:
    """The methods of `Tracker` where `tracking.uri` is null: nothing is written, nothing is there to read."""

    uri = ""

    def prepare(self) -> None: ...

    def connect(self) -> None: ...

    def start_run(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        description: str | None = None,
        journal: Path | None = None,
    ) -> str:
        """An id that no other run has."""
        return uuid.uuid4().hex

    def resume_run(self, run_id: str, journal: Path | None = None, params: Mapping[str, str] | None = None) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None: ...

    def log_text(self, text: str, name: str) -> None: ...

    def log_input(self, name: str, digest: str, source: str, split_counts: Mapping[str, int]) -> None: ...

    def log_model(self, model: Any, example: Any, class_names: Any) -> None: ...

    def send_journal(self, file: Path) -> int:
        """Raises a UserError."""
        _nothing_recorded()

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

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Nothing."""
        return []

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """None."""
        return []

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None: ...

    def add_tags(self, run_id: str, tags: Mapping[str, str]) -> None: ...

    def add_artifact(self, run_id: str, path: Path | str, folder: str | None = None) -> None: ...

    def run_link(self, run_id: str) -> str:
        """Empty."""
        return ""

    def get_run(self, run_id: str) -> RunInfo:
        """Raises a UserError."""
        _nothing_recorded()

    def find_run(self, text: str) -> RunInfo:
        """Raises a UserError."""
        _nothing_recorded()

    def download(self, run_id: str, artifact_path: str, folder: Path | str) -> Path:
        """Raises a UserError."""
        _nothing_recorded()

    def register(self, run_id: str, name: str) -> Registered:
        """Raises a UserError."""
        _nothing_recorded()

    def view_links(self, address: str) -> dict[str, str]:
        """Raises a UserError."""
        _nothing_recorded()

    def ui_command(self) -> list[str]:
        """Raises a UserError."""
        _nothing_recorded()


def _nothing_recorded() -> NoReturn:
    raise UserError("tracking.uri=null: nothing is recorded; choose a store, as tracking=mlflow")
