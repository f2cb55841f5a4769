"""The folder of a run, and that of a sweep: what they keep, so that work can go on after it was stopped.

Their files are named, read and written here only; what shows a run's results is in `artifacts`.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cnnexp.console import warn_once
from cnnexp.errors import UserError
from cnnexp.files import is_locked, locked_if_free, write_atomic
from cnnexp.formats import read_json, read_yaml
from cnnexp.metrics.names import rises
from cnnexp.report.compare import Result

MANIFEST, RESULT = "run.json", "result.json"
LOCK = "run.lock"
JOURNAL = "unsent.jsonl"
SWEEP = "sweep.json"
NETWORK = "model.keras"
ERRORS, HEAT_MAPS = "errors.png", "explain/heatmaps.png"
CONTROLS = (
    "trainer.resume=",
    "sweep.resume=",
    "sweep.on_failure=",
    "sweep.fresh_process=",
)  # do not change what is computed


@dataclass(frozen=True)
class RunManifest:
    """Which run a folder belongs to. `objective` is `trainer.monitor` of a run that is finished."""

    run_id: str
    config_hash: str
    data_digest: str
    objective: float | None = None


@dataclass(frozen=True)
class LockedFolder:
    """A folder that one process at a time works in."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out; the lock ends with this process, however it ends.

        Raises:
            UserError: another process works there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / LOCK
        with locked_if_free(file) as held:
            if not held:
                raise UserError(f"{self.path}: another process is at work on this run; wait for its end, or stop it")
            try:
                yield
            finally:
                file.unlink(missing_ok=True)

    @property
    def is_held(self) -> bool:
        """Whether another process, or another part of this one, works there."""
        return is_locked(self.path / LOCK)


@dataclass(frozen=True)
class RunFolder(LockedFolder):
    """The folder of one run."""

    @property
    def checkpoint(self) -> Path:
        """The state of a training that is not finished."""
        return self.path / "checkpoint.npz"

    @property
    def journal(self) -> Path:
        """What the store has not taken yet."""
        return self.path / JOURNAL

    @property
    def network(self) -> Path:
        """Of the best job of a grid so far, where the store has no model: it is explained at the end."""
        return self.path / NETWORK

    @property
    def config(self) -> Path:
        """The resolved configuration of a finished run."""
        return self.path / "config.yaml"

    @property
    def predictions(self) -> Path:
        """The answers to the test images, see `cnnexp.report.predictions`."""
        return self.path / "predictions.csv"

    @property
    def overrides(self) -> list[str]:
        """Those of the job, as Hydra wrote them down.

        Raises:
            UserError: they are not there.
        """
        file = self.path / ".hydra" / "overrides.yaml"
        found = read_yaml(file)
        if not isinstance(found, list):
            raise UserError(f"{file}: is no list of overrides")
        return [str(override) for override in found]

    def read_config(self) -> Any:
        """The configuration of the run as plain values: what was recorded, or what Hydra wrote down at its start.

        Raises:
            UserError, OSError: there is none.
            UserError, OmegaConfBaseException, YAMLError: it cannot be read.
        """
        if self.status == "FINISHED":
            return read_yaml(self.config)
        return OmegaConf.to_container(OmegaConf.load(self.path / ".hydra" / "config.yaml"), resolve=True)

    @property
    def sweep(self) -> "SweepFolder":
        """That of the sweep, if the run is a job of one."""
        return SweepFolder(self.path.parent)

    @property
    def manifest(self) -> RunManifest | None:
        """None where it is missing, or not ours."""
        try:
            return read_json(self.path / MANIFEST, RunManifest)
        except UserError:
            return None

    def write_manifest(self, manifest: RunManifest) -> None:
        """From here on a kill leaves a folder that can go on."""
        write_atomic(self.path / MANIFEST, json.dumps(asdict(manifest), indent=2).encode())

    @property
    def status(self) -> str | None:
        """FINISHED, FAILED or KILLED; None where the run did not get so far."""
        try:
            found = read_json(self.path / RESULT, dict[str, Any]).get("status")
        except UserError:
            return None
        return found if isinstance(found, str) else None

    @property
    def is_recorded(self) -> bool:
        """Whether a run has begun here."""
        return any((self.path / name).is_file() for name in (RESULT, MANIFEST))

    def read_result(self) -> Result:
        """What the run came to; its answers are looked for beside it, wherever it lies now.

        Raises:
            UserError: there is no result, or that of another version.
        """
        found = read_json(self.path / RESULT, Result)
        return replace(found, predictions_path=str(self.predictions)) if found.predictions_path else found

    def write_result(self, result: Result) -> None:
        """From here on the run is finished, or failed, or killed."""
        self.path.mkdir(parents=True, exist_ok=True)
        kept = replace(result, predictions_path=self.predictions.name if result.predictions_path else None)
        write_atomic(self.path / RESULT, json.dumps(asdict(kept), indent=2).encode())

    def reopen(self) -> None:
        """From here on it is neither: it is at work."""
        (self.path / RESULT).unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepManifest:
    """What every job of a sweep needs to know of it."""

    parent_run_id: str | None  # None where it is not tracked
    overrides: list[str]  # of the line, without passwords
    name: str = ""
    kind: str = ""  # progression, grid or search


@dataclass(frozen=True)
class SweepFolder(LockedFolder):
    """The folder of a sweep, with those of its jobs."""

    def begin(self, parent_run_id: str, overrides: list[str], name: str, kind: str) -> None:
        """Leave there what every job needs to know of its sweep; see `SweepManifest`."""
        content = asdict(SweepManifest(parent_run_id, overrides, name, kind))
        write_atomic(self.path / SWEEP, json.dumps(content).encode())

    @property
    def manifest(self) -> SweepManifest:
        """Empty where this is no sweep."""
        file = self.path / SWEEP
        return read_json(file, SweepManifest) if file.is_file() else SweepManifest(None, [])

    @property
    def parent_run_id(self) -> str | None:
        """None where this is no sweep."""
        return self.manifest.parent_run_id

    @property
    def shared_overrides(self) -> list[str]:
        """The line, as far as all jobs share it; empty where this is no sweep."""
        return self.manifest.overrides

    @property
    def chooses(self) -> bool:
        """Whether this is a grid or a search, of which one job is chosen."""
        return self.manifest.kind in ("grid", "search")

    @property
    def stopped(self) -> Path:
        """Where it is, no further job is to start."""
        return self.path / "stopped.json"

    def ended_jobs(self) -> list[RunFolder]:
        """Those that have a result, in their order."""
        files = self.path.glob(f"*/{RESULT}")
        numbered = [file for file in files if file.parent.name.isdecimal()]
        return [RunFolder(file.parent) for file in sorted(numbered, key=lambda file: int(file.parent.name))]

    def best_job(self, monitor: str) -> RunFolder | None:
        """The finished job with the best figure `monitor`; None where no job has one."""
        folders = [RunFolder(file.parent) for file in self.path.rglob(MANIFEST)]
        found = [(folder.manifest, folder) for folder in folders]
        figures = [(made.objective, folder) for made, folder in found if made and made.objective is not None]
        finite = [job for job in figures if math.isfinite(job[0])]
        return max(finite, key=lambda job: (1 if rises(monitor) else -1) * job[0], default=(0.0, None))[1]

    def remove_networks(self) -> None:
        """Those that jobs kept for the end of the sweep."""
        for file in self.path.rglob(NETWORK):
            file.unlink()


def single_runs(runs: Path) -> list[RunFolder]:
    """The folders of single runs below `runs`, the oldest first."""
    return [RunFolder(file.parent) for file in sorted(runs.glob(f"*/{MANIFEST}"))]


def find_sweep(runs: Path, line: Sequence[str]) -> SweepFolder | None:
    """The folder of the newest sweep below `runs` that was started with this line."""
    for file in sorted(runs.glob(f"*/{SWEEP}"), reverse=True):
        try:
            found = read_json(file, SweepManifest)
        except UserError as error:
            warn_once(f"cnnexp: {error}; this sweep is passed over")
            continue
        if result_affecting(found.overrides) == result_affecting(line):
            return SweepFolder(file.parent)
    return None


def result_affecting(line: Sequence[str]) -> list[str]:
    """The overrides that say what is computed."""
    return [override for override in line if not override.startswith((*CONTROLS, "hydra.", "hydra/", "+hydra"))]
