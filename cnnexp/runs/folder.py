"""The folder of a run, and that of a sweep: what they keep, so that work can go on after it was stopped.

Their files are named, read and written here only; what shows a run's results is in `artifacts`.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnexp.console import warn_once
from cnnexp.errors import RunError, UserError, first_line
from cnnexp.files import is_locked, locked, locked_if_free, write_atomic
from cnnexp.formats import bare_key, read_json, read_yaml
from cnnexp.metrics.names import rises
from cnnexp.report.compare import Result
from cnnexp.report.predictions import PREDICTIONS

T = TypeVar("T")

MANIFEST, RESULT = "run.json", "result.json"
LOCK = "run.lock"
HYDRAS_FILES = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "train.log")
JOURNAL = "unsent.jsonl"
SWEEP, JOBS = "sweep.json", ".jobs"
REPRODUCTION = "reproduction.json"
MOST_KEPT = 20_000  # small files of jobs, of which this process remembers what is in them
NETWORK = "model.keras"
ERRORS, HEAT_MAPS = "errors.png", "explain/heatmaps.png"
CONTROLS = (
    "trainer.resume=",
    "sweep.resume=",
    "sweep.reuse=",
    "sweep.on_failure=",
    "sweep.fresh_process=",
    "sweep.report=",
)  # do not change what is computed


@dataclass(frozen=True)
class RunManifest:
    """Which run a folder belongs to.

    objective:   `trainer.monitor` of a run that is finished.
    made_by:     see `reuse.made_by`; "" for a run of a version that did not keep it.
    explained:   whether its heat maps were drawn, as far as its network has some.
    reused_from: the run that was taken for this one, and in `source` its folder, as seen from this one.
    begun:       see `_begun`.
    """

    run_id: str
    config_hash: str
    data_digest: str
    objective: float | None = None
    made_by: str = ""
    explained: bool = False
    reused_from: str | None = None
    source: str | None = None
    begun: float = field(default_factory=time.time, compare=False)


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """What is refused leaves no folder that was not there before."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # what lies there stays
            for place in new:
                place.rmdir()


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
        with locked_if_free(self.path / LOCK) as held:
            if not held:
                raise UserError(f"{self.path}: {self.holder} is at work on this run; wait for its end, or stop it")
            with self._named_holder():
                yield

    @contextmanager
    def lock_when_free(self, what: str) -> Iterator[None]:
        """The same, but wait for another process that works there, and say so.

        Args:
            what: is waited for, at the beginning of the line.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        waiting = f"{what} {self.holder} is at work on it, in {self.path}; waits for its end"
        with locked(self.path / LOCK, waiting), self._named_holder():
            yield

    @contextmanager
    def _named_holder(self) -> Iterator[None]:
        file = self.path / LOCK
        with suppress(OSError):  # on a full disk the lock holds all the same
            file.write_text(str(os.getpid()))
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    @property
    def holder(self) -> str:
        """Who works there, in words."""
        try:
            return f"another process ({int((self.path / LOCK).read_text())})"
        except (OSError, ValueError):  # it has only just begun
            return "another process"

    @property
    def is_held(self) -> bool:
        """Whether another process, or another part of this one, works there."""
        return is_locked(self.path / LOCK)


def _kept(read: Callable[[Path, tuple[int, ...]], T | None], file: Path) -> T | None:
    """What `read` found in a file, which is read again only when another has taken its place: each job of a sweep asks
    for all jobs of all sweeps. None where there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return read(file, (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=MOST_KEPT)
def _read_manifest(file: Path, stamp: tuple[int, ...]) -> "RunManifest | None":
    try:
        return read_json(file, RunManifest)
    except UserError:
        return None


@lru_cache(maxsize=MOST_KEPT)
def _read_job(file: Path, stamp: tuple[int, ...]) -> str | None:
    """The folder of a job, below that of its sweep."""
    try:
        return str(json.loads(file.read_text())["folder"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True)
class RunFolder(LockedFolder):
    """The folder of one run."""

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """`lock`, around a run of its own. Where that is refused, or interrupted, before it is recorded, nothing of it
        is left: neither what Hydra wrote nor a folder that was made for it. All else that lies there stays.

        Raises:
            UserError: another process works there.
        """
        with removed_if_empty(self.path), self.lock():
            new = [file for name in HYDRAS_FILES if not (file := self.path / name).exists()]
            try:
                yield
            except (UserError, KeyboardInterrupt) as error:
                if not self.is_recorded and not isinstance(error, RunError):
                    for file in new:
                        file.unlink(missing_ok=True)
                    with suppress(OSError):  # something else lies there
                        (self.path / HYDRAS_FILES[0]).parent.rmdir()
                raise

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
        return self.path / PREDICTIONS

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
            UserError: there is none, or it cannot be read.
        """
        if self.status == "FINISHED":
            return read_yaml(self.origin.config)
        file = self.path / ".hydra" / "config.yaml"
        values = read_yaml(file)
        if not isinstance(values, dict):
            raise UserError(f"{file}: is no mapping of keys")
        try:
            return OmegaConf.to_container(OmegaConf.create(values), resolve=True)
        except OmegaConfBaseException as error:
            raise UserError(f"{file}: cannot be read: {first_line(error)}") from error

    @property
    def manifest(self) -> RunManifest | None:
        """None where it is missing, or not ours."""
        return _kept(_read_manifest, self.path / MANIFEST)

    def write_manifest(self, manifest: RunManifest) -> None:
        """From here on a kill leaves a folder that can go on."""
        write_atomic(self.path / MANIFEST, json.dumps(asdict(manifest), indent=2).encode())

    @property
    def origin(self) -> "RunFolder":
        """Where the files of the run are: here, or in the folder of the run that was taken for it."""
        manifest = self.manifest
        return RunFolder(self.path / manifest.source) if manifest and manifest.source else self

    @property
    def is_explained(self) -> bool:
        """Whether there are heat maps of the run, or it has none to show."""
        manifest = self.manifest
        return (self.path / HEAT_MAPS).is_file() or bool(manifest and manifest.explained)

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

    @property
    def has_ended(self) -> bool:
        """Whether there is a result, readable or not."""
        return (self.path / RESULT).is_file()

    def read_result(self) -> Result:
        """What the run came to; its answers are looked for beside it, wherever it lies now.

        Raises:
            UserError: there is no result, or that of another version.
        """
        found = read_json(self.path / RESULT, Result)
        return replace(found, predictions_path=str(self.origin.predictions)) if found.predictions_path else found

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
    swept: list[str] | None = None  # overrides with several values; None: a version before did not keep them
    begun: float = field(default_factory=time.time, compare=False)  # see `_begun`


@dataclass(frozen=True)
class SweepFolder(LockedFolder):
    """The folder of a sweep, below which its jobs have theirs, wherever `hydra.sweep.subdir` puts them."""

    def begin(self, manifest: SweepManifest) -> None:
        """Leave there what every job needs to know of its sweep."""
        (self.path / JOBS).mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / SWEEP, json.dumps(asdict(manifest)).encode())

    @property
    def manifest(self) -> SweepManifest | None:
        """None where this is no sweep.

        Raises:
            UserError: its file is damaged.
        """
        file = self.path / SWEEP
        return read_json(file, SweepManifest) if file.is_file() else None

    @property
    def parent_run_id(self) -> str | None:
        """None where this is no sweep."""
        manifest = self.manifest
        return manifest.parent_run_id if manifest else None

    @property
    def shared_overrides(self) -> list[str]:
        """The line, as far as all jobs share it; empty where this is no sweep."""
        manifest = self.manifest
        return manifest.overrides if manifest else []

    @property
    def chooses(self) -> bool:
        """Whether this is a grid or a search, of which one job is chosen."""
        manifest = self.manifest
        return manifest is not None and manifest.kind in ("grid", "search")

    @property
    def is_search(self) -> bool:
        """Whether a sweeper chooses the jobs as it goes."""
        manifest = self.manifest
        return manifest is not None and manifest.kind == "search"

    def was_begun_with(self, line: Sequence[str], swept: Sequence[str]) -> bool:
        """Whether this is the sweep of a line, in whatever order its overrides stand; one that is damaged is none.

        Args:
            line: the overrides, without passwords.
            swept: those with several values; not compared with a sweep of a version that did not keep them.
        """
        try:
            manifest = self.manifest
        except UserError as error:
            warn_once(f"cnnexp: {error}; this sweep is passed over")
            return False
        if manifest is None or in_one_order(manifest.overrides) != in_one_order(line):
            return False
        return manifest.swept is None or sorted(manifest.swept) == sorted(swept)

    @property
    def stopped(self) -> Path:
        """Where it is, no further job is to start."""
        return self.path / "stopped.json"

    def record_job(self, number: int, folder: RunFolder, overrides: Sequence[str]) -> None:
        """Keep where a job is, and its overrides, without passwords: from here on it belongs to the sweep."""
        content = {"folder": Path(os.path.relpath(folder.path, self.path)).as_posix(), "overrides": list(overrides)}
        write_atomic(self.path / JOBS / f"{number}.json", json.dumps(content).encode())

    def overrides_of(self, number: int, folder: RunFolder) -> list[str]:
        """Those of a job: as they were kept, or where they were not, as Hydra wrote them down."""
        try:
            return list(json.loads((self.path / JOBS / f"{number}.json").read_text())["overrides"])
        except (OSError, ValueError, TypeError, KeyError):
            return folder.overrides

    def jobs(self) -> dict[int, RunFolder]:
        """The folders of the jobs that were begun, by their numbers, in this order; no folder stands there twice.

        The jobs of a sweep of an earlier version lie in folders that are called like their numbers.
        """
        found: dict[int, RunFolder] = {}
        manifest = self.manifest
        if manifest is None or manifest.swept is None:
            found = {int(path.name): RunFolder(path) for path in self.path.glob("[0-9]*") if path.name.isdecimal()}
        for file in self.path.glob(f"{JOBS}/*.json"):
            folder = _kept(_read_job, file) if file.stem.isdecimal() else None
            if folder is not None:
                found[int(file.stem)] = RunFolder(self.path / folder)
        first: dict[RunFolder, int] = {}
        for number in sorted(found):
            first.setdefault(found[number], number)
        return {number: folder for folder, number in first.items()}

    def ended_jobs(self) -> list[RunFolder]:
        """Those that have a result, in their order."""
        return [folder for folder in self.jobs().values() if folder.has_ended]

    def best_job(self, monitor: str) -> RunFolder | None:
        """The finished job with the best figure `monitor`; None where no job has one, or `has_several_data`."""
        figures = [(made.objective or 0.0, folder) for made, folder in self._made()]
        finite = [job for job in figures if math.isfinite(job[0]) and not self.has_several_data]
        return max(finite, key=lambda job: (1 if rises(monitor) else -1) * job[0], default=(0.0, None))[1]

    @property
    def has_several_data(self) -> bool:
        """Whether its finished jobs are of different images, which are never compared."""
        return len({made.data_digest for made, _ in self._made()}) > 1

    def _made(self) -> list[tuple[RunManifest, RunFolder]]:
        """The jobs that have a figure."""
        found = [(folder.manifest, folder) for folder in self.jobs().values()]
        return [(made, folder) for made, folder in found if made is not None and made.objective is not None]

    def remove_networks(self) -> None:
        """Those that jobs kept for the end of the sweep."""
        for folder in self.jobs().values():
            folder.network.unlink(missing_ok=True)


def unfinished_reproductions(runs: Path) -> list[tuple[Path, list[str]]]:
    """The folders below `runs` in which a run or a sweep is trained again, or was until that was stopped, the newest
    first, each with the arguments of `cnnexp` that began it."""
    found = []
    for file in _oldest_first(runs, REPRODUCTION)[::-1]:
        try:
            found.append((file.parent, [str(word) for word in json.loads(file.read_text())["line"]]))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return found


def is_reproducing(folder: Path) -> bool:
    """Whether a process is at work on the reproduction in this folder."""
    return is_locked(folder / f"{REPRODUCTION}.lock")


@contextmanager
def reproduction_folder(runs: Path, line: Sequence[str]) -> Iterator[Path]:
    """The newest folder in which this line was stopped and nobody works, or a new one; held, and done at the end.

    Args:
        runs: `paths.runs`.
        line: the arguments of `cnnexp`, without passwords.
    """
    stopped = [folder for folder, begun in unfinished_reproductions(runs) if sorted(begun) == sorted(line)]
    for folder in [*stopped, runs / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"]:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f"{REPRODUCTION}.lock"
        with locked_if_free(lock) as held:
            if not held:
                continue
            try:
                write_atomic(folder / REPRODUCTION, json.dumps({"line": [*line], "begun": time.time()}).encode())
                yield folder
                (folder / REPRODUCTION).unlink()
            finally:
                lock.unlink(missing_ok=True)
                if not any(folder.rglob(MANIFEST)):  # refused: no run was begun
                    shutil.rmtree(folder, ignore_errors=True)
            return


def single_runs(runs: Path) -> list[RunFolder]:
    """The folders of single runs below `runs`, the oldest first."""
    return [RunFolder(file.parent) for file in _oldest_first(runs, MANIFEST)]


def find_sweeps(runs: Path) -> list[SweepFolder]:
    """The sweeps right below `runs`, the newest first."""
    return [SweepFolder(file.parent) for file in _oldest_first(runs, SWEEP)[::-1]]


def _oldest_first(runs: Path, name: str) -> list[Path]:
    """The files of this name in the folders below `runs`, in the order in which what they belong to was begun."""
    return sorted(runs.glob(f"*/{name}"), key=lambda file: (_begun(file), file))


def _begun(file: Path) -> float:
    """When what a file of a folder belongs to was begun, in seconds of UTC: as the file says, whatever time zone was
    set then. Of a version that did not keep it, as the folder's name says in local time, or as the file is dated."""
    with suppress(UserError, OSError, ValueError):
        kept = read_json(file, dict[str, Any]).get("begun")
        if isinstance(kept, float) and math.isfinite(kept):
            return kept
    with suppress(ValueError, OverflowError):
        return datetime.strptime(file.parent.name[:19], "%Y-%m-%d_%H-%M-%S").timestamp()
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def result_affecting(line: Sequence[str]) -> list[str]:
    """The overrides that say what is computed."""
    return [override for override in line if not override.startswith((*CONTROLS, "hydra.", "hydra/", "+hydra"))]


def in_one_order(line: Sequence[str]) -> list[str]:
    """`result_affecting`, sorted by their keys: of two values of one key, the later one counts."""
    return sorted(result_affecting(line), key=bare_key)
