"""What runs leave when their process is killed or their store goes away, and how it is mended."""

import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnexp.config import Config
from cnnexp.data.array_store import GIB
from cnnexp.errors import UserError
from cnnexp.files import is_locked
from cnnexp.runs.folder import (
    JOURNAL,
    SWEEP,
    RunFolder,
    SweepFolder,
    is_reproducing,
    single_runs,
    unfinished_reproductions,
)
from cnnexp.runs.paths import check_paths
from cnnexp.runs.recorded_line import resuming_line
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.faults import fault_of
from cnnexp.tracking.locations import local_folder
from cnnexp.tracking.protocols import RunTracker
from cnnexp.tracking.stores import check_whole, is_missing, resolve_uri, sqlite_file
from cnnexp.training.feature_store import FeatureStore

DIED = "its process died"
OLD_S = 3600.0  # from this age on, a half-written file of no known process is a leftover


@dataclass(frozen=True)
class Finding:
    """One line of the table; `wrong` says what is to be done by hand, or would be done without --check; `line` is what
    goes on with a run."""

    what: str
    found: str
    done: str = ""
    wrong: str | None = None
    line: str | None = None


def examine(config: Config, check: bool) -> Iterator[Finding]:
    """All findings; things are mended on the way, unless `check`.

    Raises:
        UserError: a place in `paths` is no folder.
    """
    check_paths(config.paths)
    tracker = open_tracker(config.tracking)
    if tracker.uri:
        store = look_at_store(tracker)
        yield store
        if not store.wrong and store.found != "not there yet":
            yield from find_moved(tracker, check)
            yield from find_artifacts(tracker)
            yield from close_dead_runs(tracker, check)
            yield from send_journals(tracker, Path(config.paths.runs), check)
    yield from name_unfinished(Path(config.paths.runs))
    yield from mend_features(config, check)
    yield from remove_leftovers(config, check)


def look_at_store(tracker: RunTracker) -> Finding:
    """Open the store; a SQLite file is read through."""
    uri = resolve_uri(tracker.uri)
    file = sqlite_file(uri)
    try:
        if file is not None:
            if is_missing(file):
                return Finding("store", "not there yet")
            check_whole(uri, file)
        tracker.connect()
    except UserError as error:
        fault = fault_of(error)
        return Finding("store", fault.value if fault else "cannot be opened", wrong=str(error))
    return Finding("store", "well")


def find_moved(tracker: RunTracker, check: bool) -> Iterator[Finding]:
    """A store whose folder was renamed, copied or mounted elsewhere; MLflow itself would look where it was."""
    if move := tracker.move:
        found = f"named below {move.old}, are below {move.new}"
        if check:
            yield Finding("places", found, wrong=f"places in the store are {found}; `cnnexp doctor` mends them")
        else:
            tracker.prepare()
            yield Finding("places", found, "mended")


def find_artifacts(tracker: RunTracker) -> Iterator[Finding]:
    """Finished runs whose recorded files are not where the store says."""
    runs = [run for run in tracker.find_runs(status="FINISHED") if "config_hash" in run.tags]
    folders = {run.run_id: folder for run in runs if (folder := local_folder(run.artifact_uri))}
    missing = [run_id for run_id, folder in folders.items() if not folder.is_dir()]
    if missing:
        found = f"those of {len(missing)} of {len(runs)} finished runs are not there"
        first = f"run {missing[0]}: {folders[missing[0]]}"
        yield Finding("artifacts", found, wrong=f"artifacts: {found}; mount or put back their folder ({first})")


def close_dead_runs(tracker: RunTracker, check: bool) -> Iterator[Finding]:
    """Runs that stand as RUNNING: those whose folder nobody holds are closed."""
    for found in tracker.find_runs(status="RUNNING"):
        folder = Path(found.tags.get("run_dir", ""))
        what = f"run {found.run_id}"
        if not found.tags.get("run_dir") or not folder.is_dir():
            yield Finding(what, f"RUNNING, in a folder that is not here: {folder}", "left alone")
        elif RunFolder(folder).is_held:
            yield Finding(what, "in training", "left alone")
        elif check:
            yield Finding(what, DIED, wrong=f"{what}: {DIED}; `cnnexp doctor` closes it")
        else:
            tracker.resume_run(found.run_id)
            tracker.end_run("KILLED", error=DIED)
            yield Finding(what, DIED, "closed as KILLED")


def send_journals(tracker: RunTracker, runs: Path, check: bool) -> Iterator[Finding]:
    """What could not be sent when it was recorded."""
    for file in sorted(runs.rglob(f"{Path(JOURNAL).stem}*.jsonl")):
        if RunFolder(file.parent).is_held:
            continue
        if check:
            yield Finding("journal", str(file), wrong=f"{file}: not sent yet; `cnnexp doctor` sends it")
            continue
        try:
            yield Finding("journal", str(file), f"{tracker.send_journal(file)} writes sent")
        except UserError as error:
            yield Finding("journal", str(file), "kept", wrong=str(error))


def name_unfinished(runs: Path) -> Iterator[Finding]:
    """Runs, sweeps and reproductions that can go on, each with the line that does it."""
    again = dict(unfinished_reproductions(runs))
    for place, words in again.items():
        if not is_reproducing(place):
            yield Finding("unfinished", str(place), "can go on", line=shlex.join(["cnnexp", *words]))
    for folder in single_runs(runs):
        if folder.path not in again and folder.status != "FINISHED" and not folder.is_held:
            line = resuming_line(folder) or "the same line with trainer.resume=true"
            yield Finding("unfinished", str(folder), "can go on", line=line)
    for file in sorted(runs.glob(f"*/{SWEEP}")):
        sweep = SweepFolder(file.parent)
        first = next((job for job in sweep.jobs().values() if job.status != "FINISHED"), None)
        if first and not sweep.is_held and not first.is_held:
            yield Finding("unfinished", str(sweep), "can go on", line=resuming_line(first, sweep) or "the same line")


def mend_features(config: Config, check: bool) -> Iterator[Finding]:
    """Entries of the feature cache that were not written to their end, or whose files have other sizes."""
    limit = config.trainer.feature_cache_limit
    store = FeatureStore(Path(config.paths.cache) / "features", config.trainer.feature_dtype)
    size = sum(entry.size_bytes for entry in store.entries())
    yield Finding("features", f"{size / GIB:.2f} of {'any number of' if limit is None else f'{limit:g}'} GiB")
    unfinished = [path.stem for path in store.folder.glob("*.tmp")]
    for key in dict.fromkeys([*unfinished, *(entry.key for entry in store.entries() if not store.has(entry.key))]):
        if is_locked(store.folder / f"{key}.lock"):
            continue
        if check:
            yield Finding("features", f"{key}: damaged", wrong=f"features {key}: damaged; `cnnexp doctor` removes them")
        elif store.remove(key):
            yield Finding("features", f"{key}: damaged", "removed")


def remove_leftovers(config: Config, check: bool) -> Iterator[Finding]:
    """Hidden folders and files of work that was stopped half-way."""
    for path in [*_half_drawn(Path(config.paths.data)), *_half_written(Path(config.paths.runs))]:
        if check:
            yield Finding("leftover", str(path), wrong=f"{path}: left by a stopped process; `cnnexp doctor` removes it")
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        yield Finding("leftover", str(path), "removed")


def _half_drawn(data: Path) -> list[Path]:
    """`.NAME.RANDOM` and `.NAME.unfinished` beside the data set NAME, while nobody holds NAME.lock."""
    names = re.compile(r"\.(.+)\.(?:[a-z0-9_]{8}|unfinished)")
    found = [(path, names.fullmatch(path.name)) for path in sorted(data.rglob(".*")) if path.is_dir()]
    return [path for path, name in found if name and not is_locked(path.with_name(f"{name[1]}.lock"))]


def _half_written(runs: Path) -> list[Path]:
    """`.NAME.PID` of a process that is no more, or that are old."""
    found = []
    for path in runs.rglob(".*"):
        number = re.fullmatch(r"\..+\.(\d+)", path.name)
        if number and path.is_file() and (not _lives(int(number[1])) or time.time() - path.stat().st_mtime > OLD_S):
            found.append(path)
    return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
