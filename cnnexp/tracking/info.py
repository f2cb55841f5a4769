"""What a run in a store is."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cnnexp.errors import UserError
from cnnexp.metrics.names import current_figures

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunInfo:
    """A run as it is read back; `metrics` holds the last value of each by its name of now, times are in UTC."""

    run_id: str
    name: str
    status: str  # RUNNING, SCHEDULED, FINISHED, FAILED or KILLED
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    start_time: datetime
    end_time: datetime | None
    artifact_uri: str
    parent_run_id: str | None

    @classmethod
    def from_mlflow(cls, run: Any, resolve: Callable[[str], str] = str) -> "RunInfo":
        """From an `mlflow.entities.Run`; `resolve` says where places lie now."""
        info, tags = run.info, dict(run.data.tags)
        if not re.fullmatch(r"[0-9a-f]{32}", run.info.run_id):  # it becomes the name of a folder
            raise UserError(f"the store answers with the run id {run.info.run_id[:80]!r}; refused")
        if "run_dir" in tags:
            tags["run_dir"] = resolve(tags["run_dir"])
        return cls(
            run_id=info.run_id,
            name=info.run_name or "",
            status=info.status,
            params=dict(run.data.params),
            metrics=current_figures(run.data.metrics),
            tags=tags,
            start_time=datetime.fromtimestamp(info.start_time / 1000, UTC),
            end_time=datetime.fromtimestamp(info.end_time / 1000, UTC) if info.end_time else None,
            artifact_uri=resolve(info.artifact_uri),
            parent_run_id=tags.get("mlflow.parentRunId"),
        )
