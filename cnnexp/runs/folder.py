"""What a run keeps in its folder so that it can go on after it was stopped, and finding such folders again."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cnnexp.errors import UserError
from cnnexp.files import write_atomic
from cnnexp.report.compare import Result

STATE = "run.json"
CHECKPOINT = "checkpoint.npz"
LOCK = "run.lock"
JOURNAL = "unsent.jsonl"  # what the store has not taken yet
SWEEP_FILE = "sweep.json"
MODEL = "model.keras"  # of the best job of a grid so far, where the store has none: it is explained at the end
STOPPED = "stopped.json"  # no further job of the sweep is to start
CONTROLS = (
    "trainer.resume=",
    "sweep.resume=",
    "sweep.on_failure=",
    "sweep.fresh_process=",
)  # do not change what is computed

RESULT = "result.json"


@dataclass(frozen=True)
class RunManifest:
    """Which run a folder belongs to. `objective` is `trainer.monitor` of a run that is finished."""

    run_id: str
    config_hash: str
    data_digest: str
    objective: float | None = None


def write_state(folder: Path, state: RunManifest) -> None:
    """Write `run.json`."""
    write_atomic(folder / STATE, json.dumps(asdict(state), indent=2).encode())


def read_state(folder: Path) -> RunManifest | None:
    """What `run.json` says; None where it is missing, or not ours."""
    try:
        return RunManifest(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def status(folder: Path) -> str | None:
    """FINISHED, FAILED or KILLED, as `result.json` says; None where the run did not get so far."""
    try:
        return str(json.loads((folder / "result.json").read_text())["status"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's or a sweep's folder; the lock ends with this process, however it ends.

    Raises:
        UserError: another process works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder}: another process is at work on this run; wait for its end, or stop it") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether another process, or another part of this one, works there."""
    return is_locked(folder / LOCK)


def is_locked(file: Path) -> bool:
    """Whether a lock file is held."""
    if not file.is_file():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def find_unfinished(runs: Path, config_hash: str) -> Path | None:
    """The newest folder below `runs` of a single run with this config that is not finished."""
    for folder in sorted((file.parent for file in runs.glob(f"*/{STATE}")), reverse=True):
        state = read_state(folder)
        if state and state.config_hash == config_hash and status(folder) != "FINISHED":
            return folder
    return None


def find_sweep(runs: Path, line: Sequence[str]) -> Path | None:
    """The folder of the newest sweep below `runs` that was started with this line."""
    for file in sorted(runs.glob(f"*/{SWEEP_FILE}"), reverse=True):
        try:
            found = json.loads(file.read_text())["overrides"]
        except (OSError, ValueError, KeyError):
            continue
        if result_affecting(found) == result_affecting(line):
            return file.parent
    return None


def result_affecting(line: Sequence[str]) -> list[str]:
    """The overrides that say what is computed."""
    return [override for override in line if not override.startswith((*CONTROLS, "hydra.", "hydra/", "+hydra"))]


def best_job(sweep: Path, monitor: str) -> Path | None:
    """The folder of the finished job of a sweep with the best figure `monitor`; None where no job has one."""
    found = [(state.objective, file.parent) for file in sweep.rglob(STATE) if (state := read_state(file.parent))]
    figures = [(figure, folder) for figure, folder in found if figure is not None and math.isfinite(figure)]
    return max(figures, key=lambda job: (1 if rises(monitor) else -1) * job[0], default=(0.0, None))[1]


def rises(monitor: str) -> bool:
    """Whether a figure is the better the higher it is."""
    return not monitor.endswith("loss")


def is_better(monitor: str, one: float, other: float) -> bool:
    """Whether one value of a figure is better than another."""
    return one > other if rises(monitor) else one < other


def parent_run(folder: Path) -> str | None:
    """The parent run's id, as a job finds it in the sweep's folder."""
    file = folder / SWEEP_FILE
    return json.loads(file.read_text())["parent_run_id"] if file.is_file() else None


def shared_overrides(folder: Path) -> list[str]:
    """The line of the sweep whose folder this is, as far as all its jobs share it; empty where it is none."""
    file = folder / SWEEP_FILE
    return list(json.loads(file.read_text())["overrides"]) if file.is_file() else []


def write_result(folder: Path, result: Result) -> None:
    """Write `result.json`, from which a sweep reads its jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / RESULT, json.dumps(asdict(result), indent=2).encode())


def chooses(folder: Path) -> bool:
    """Whether this is the folder of a grid or a search, of which one job is chosen."""
    file = folder / SWEEP_FILE
    return file.is_file() and json.loads(file.read_text()).get("kind") in ("grid", "search")
