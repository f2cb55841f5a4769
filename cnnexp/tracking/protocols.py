"""What a tracker offers: `RunLog` to the run that is at work, `RunStore` to whoever reads runs and adds to them.

`mlflow.Tracker` and `null.NullTracker` are its two kinds; nobody reaches round them to MLflow's client.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cnnexp.tracking.info import RunInfo, Status
from cnnexp.tracking.locations import Move
from cnnexp.tracking.registry import Registered

if TYPE_CHECKING:
    import keras


class RunLog(Protocol):
    """Records one run: opened by `start_run` or `resume_run`, closed by `end_run`."""

    @property
    def lost(self) -> str:
        """Why the store takes nothing more of the run, as after it was deleted there; "" while it does."""

    def prepare(self) -> None:
        """Make the store and the experiment where they are missing."""

    def start_run(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        journal: Path | None = None,
    ) -> str:
        """Open a run, and return its id; what the store does not take waits in the file `journal`."""

    def resume_run(self, run_id: str, journal: Path | None = None, params: Mapping[str, str] | None = None) -> None:
        """Open a run again; `params` are those that it may lack."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record figures of a step, all or none."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; one that is there already is replaced."""

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Record a file, in a folder of the run's artifacts."""

    def log_text(self, text: str, name: str) -> None:
        """Record a text as the file `name`."""

    def log_input(
        self,
        name: str,
        digest: str,
        source: str,
        splits: Mapping[str, int | Mapping[str, int]],
        channels: int | None = None,
    ) -> None:
        """Record the data set, with the images of each split, or of each class of it."""

    def system_metrics(self) -> dict[str, float]:
        """How busy the machine was since the last call; empty unless MLflow's own switch asks for it."""

    def log_model(
        self,
        model: "keras.Model",
        example: np.ndarray,
        class_names: Sequence[str],
        decision: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the model, see `mlflow.Tracker`."""

    def send_journal(self, file: Path) -> int:
        """Send what the journal of a run that is at work nowhere keeps, and return how many writes that were."""

    def end_run(self, status: Status, error: str | None = None) -> None:
        """Close the run, with the error as a tag."""


class RunStore(Protocol):
    """Finds runs, reads them, and adds to those that are closed."""

    uri: str  # "" where nothing is recorded

    @property
    def move(self) -> Move | None:
        """How the store's folder was moved since places were noted in it."""

    def connect(self) -> None:
        """Open the store; a UserError where that is not possible."""

    def look(self) -> None:
        """See that there is a store that can be read, without opening it; a UserError where there is none."""

    def find_run(self, text: str) -> RunInfo:
        """The run that a run id, a prefix, `latest` or a registered model means; a UserError where there is none."""

    def get_run(self, run_id: str) -> RunInfo:
        """The run with this id, of any experiment."""

    def find_runs(
        self, tags: Mapping[str, str] | None = None, status: str | None = None, limit: int | None = None
    ) -> list[RunInfo]:
        """The runs with all these tags and this status, the newest first."""

    def children(self, parent_run_id: str) -> list[RunInfo]:
        """The runs of a sweep in the order in which they were created."""

    def sweeps(self, limit: int) -> list[RunInfo]:
        """The parent runs of sweeps, the newest first."""

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Step and value of every point of a figure, in the order of the steps."""

    def has_model(self, run_id: str) -> bool:
        """Whether the run recorded its model, and whole."""

    def runs_without_whole_model(self) -> list[str]:
        """The ids of the runs that began to record a model, and of which no model is whole."""

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """The paths of the files in a folder of the run's artifacts."""

    def download(self, run_id: str, artifact_path: str, folder: Path | str) -> Path:
        """Fetch an artifact, or a folder of them, to `folder/artifact_path`; a UserError where the run has none."""

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add figures to a closed run; a RunError where the store does not take them, as of all three."""

    def add_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a closed run; one that is there already is replaced."""

    def add_artifact(self, run_id: str, path: Path | str, folder: str | None = None) -> None:
        """Add a file to a closed run."""

    def register(self, run_id: str, name: str) -> Registered:
        """Register the model of a run as a new version of `name`; a UserError where it has none."""

    def run_link(self, run_id: str) -> str:
        """The address of a run inside MLflow's UI."""

    def view_links(self, address: str) -> dict[str, str]:
        """URLs of the experiment's views by their names, on MLflow's UI at `address`."""

    def ui_command(self) -> list[str]:
        """The command that serves MLflow's UI on this store."""


class RunTracker(RunLog, RunStore, Protocol):
    """Both."""
