"""What runs leave when their process is killed or their store goes away, and how it is mended."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnexp.config import Config
from cnnexp.data.array_store import GIB
from cnnexp.errors import UserError
from cnnexp.files import find_left, find_left_sockets, is_locked, remove
from cnnexp.runs.folder import (
    HYDRAS_FILES,
    JOURNAL,
    LOCK,
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
from cnnexp.tracking.record import REUSED_FROM
from cnnexp.tracking.stores import check_whole, is_missing, resolve_uri, sqlite_file
from cnnexp.training.feature_store import FeatureStore

DIED = "its process died"


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
            yield from find_models(tracker)
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
    """Finished runs whose recorded files are not where the store says; a job that was taken leads to the original's."""
    runs = [run for run in tracker.find_runs(status="FINISHED") if "config_hash" in run.tags]
    by_id = {run.run_id: run for run in runs}
    origins = [by_id.get(run.tags.get(REUSED_FROM) or run.run_id) for run in runs]  # None: it was deleted
    folders = {run.run_id: folder for run in origins if run and (folder := local_folder(run.artifact_uri))}
    missing = [run.run_id for run in origins if run and run.run_id in folders and not folders[run.run_id].is_dir()]
    if missing:
        found = f"those of {len(missing)} of {len(runs)} finished runs are not there"
        first = f"run {missing[0]}: {folders[missing[0]]}"
        yield Finding("artifacts", found, wrong=f"artifacts: {found}; mount or put back their folder ({first})")


def find_models(tracker: RunTracker) -> Iterator[Finding]:
    """Finished runs that began to record a model, and have none that is whole."""
    finished = {run.run_id for run in tracker.find_runs(status="FINISHED")}
    for run_id in tracker.runs_without_whole_model():
        if run_id in finished:
            found = "FINISHED, and its model is not whole"
            yield Finding(f"run {run_id}", found, wrong=f"run {run_id}: {found}; `cnnexp reproduce {run_id}` makes it")


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
    """Work of processes that are no more, and the folders of runs that were stopped before they began."""
    places = dict.fromkeys(
        Path(place).resolve() for place in (config.paths.root, config.paths.data, config.paths.cache)
    )
    left = [path for place in places for path in find_left(place)]
    for path in dict.fromkeys([*left, *find_left_sockets(), *_never_begun(Path(config.paths.runs))]):
        if check:
            yield Finding("leftover", str(path), wrong=f"{path}: left by a stopped process; `cnnexp doctor` removes it")
            continue
        remove(path)
        yield Finding("leftover", str(path), "removed")


def _never_begun(runs: Path) -> list[Path]:
    """Folders in which there is nothing but what Hydra writes before a run, and the lock, which nobody holds."""
    first = {Path(name).parts[0] for name in (*HYDRAS_FILES, LOCK)}
    found = [place for place in sorted(runs.glob("*")) if place.is_dir() and not place.is_symlink()]
    names = {place: {entry.name for entry in place.iterdir()} for place in found}
    return [place for place in found if LOCK in names[place] <= first and not RunFolder(place).is_held]
