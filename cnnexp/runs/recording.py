"""A run in the tracking store: opened, described, closed with the truth; without TensorFlow."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import MISSING as NO_FACTORY
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from cnnexp.config import Config
from cnnexp.console import redact, say, trace_of, warn
from cnnexp.errors import RunError, UserError, one_line
from cnnexp.files import is_disk_full, write_atomic
from cnnexp.report.compare import Result
from cnnexp.runs.folder import RunManifest
from cnnexp.runs.job import Job
from cnnexp.runs.result import make_result
from cnnexp.tracking.info import Status
from cnnexp.tracking.notes import NOTE_TAG, describing_tags, run_note
from cnnexp.tracking.protocols import RunLog, RunTracker
from cnnexp.tracking.record import config_hash, environment_tags, flatten, redacted

if TYPE_CHECKING:
    from cnnexp.data.dataset import Dataset

# what differs between a run and its resumption
STEERING = ("trainer.resume", "sweep.resume", "sweep.reuse", "sweep.report")
BELOW_ROOT = ("tracking.uri", "tracking.artifact_root", "dataset.manifests", "dataset.downloads")
EMPTY = ("null", "{}", "[]", "")
EMPTY_DEFAULTS: tuple[Any, ...] = (None, {}, [], "", MISSING)


def open_run(tracker: RunTracker, job: Job, dataset: "Dataset", parent: str | None, earlier: RunManifest | None) -> str:
    """The id of the run that is recorded from here on: the earlier one if there is one, or a new one."""
    run_id, params = earlier.run_id if earlier else "", None
    if earlier and not run_id:  # killed while its run was being opened, maybe before it had all its params
        begun = tracker.find_runs({"run_dir": str(job.folder), "config_hash": earlier.config_hash}, limit=1)
        run_id, params = begun[0].run_id if begun else "", _params(job)
    if not run_id:
        return start_run(tracker, job, dataset, parent)
    try:
        tracker.resume_run(run_id, job.folder.journal, params)
    except UserError as error:
        warn(f"cnnexp: {error}; a new run is recorded")
        return start_run(tracker, job, dataset, parent)
    say(f"goes on with run {run_id}")
    return run_id


def start_run(tracker: RunLog, job: Job, dataset: "Dataset | None", parent: str | None) -> str:
    """Open a new run with the params, tags and note of `job`, and return its id; without `dataset` it has no digest."""
    name = job.run_name
    tags = {NOTE_TAG: run_note(job.shown, job.overrides, job.folder.path), **_tags(job, dataset, parent)}
    return tracker.start_run(name, _params(job), tags, parent, job.folder.journal)


def _params(job: Job) -> dict[str, str]:
    """The config, without what differs between a run and its resumption, and what tells nothing in a comparison.

    That is an empty value which is the default, a place below `paths.root`, and what another key says already.
    The whole config is an artifact.
    """
    root, kept = str(job.shown["paths"]["root"]), {}
    for key, text in flatten(job.shown).items():
        path = key.split(".")
        own_place = key in BELOW_ROOT and text.removeprefix("sqlite:///").startswith(f"{root}/")
        empty = text in EMPTY and _default(job.config, path) in EMPTY_DEFAULTS
        earlier_name = key == "trainer.label_smoothing" and text == "0.0"  # loss.label_smoothing says it
        tells = not (own_place or empty or earlier_name or _is_said(job.shown, path))
        if path[0] != "paths" and key not in STEERING and tells:
            kept[key] = text
    return kept


def _default(config: Config, path: Sequence[str]) -> Any:
    """The default of a key by the schema, maybe OmegaConf's MISSING; `...` where the schema has no such key."""
    node: Any = config
    for name in path[:-1]:
        node = node.get(name) if isinstance(node, Mapping) else getattr(node, name, None)
    found = {item.name: item for item in fields(node)}.get(path[-1]) if is_dataclass(node) else None
    if found is None:
        return ...
    return found.default if found.default_factory is NO_FACTORY else found.default_factory()


def _is_said(values: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether a key is the target of a group that the group's name says: not one of the user's own."""
    if path[-1] != "_target_":
        return False
    for name in path[:-1]:
        values = values[name]
    target = str(values["_target_"])
    known = target.startswith(("cnnexp.", "keras."))
    return known and (path[-2] == "backbone" or target.rpartition(".")[2].lower() == str(values.get("name")).lower())


def _tags(job: Job, dataset: "Dataset | None", parent: str | None) -> dict[str, str]:
    return {
        **describing_tags(job.shown),
        "sweep_id": parent or "",
        "overrides": " ".join(job.overrides),
        **job.flags,
        "config_hash": config_hash(job.resolved),
        "data_digest": dataset.digest if dataset else "",
        "run_dir": str(job.folder),
        **environment_tags(),
        **redacted(job.config.tracking.tags),
    }


def keep_trace(folder: Path, error: Exception) -> str:
    """Write what a library raised to `traceback.txt` in the run's folder; returns one line that says what and where."""
    file = folder / "traceback.txt"
    with suppress(OSError):
        write_atomic(file, trace_of(error).encode())
    return f"{one_line(error)}; the trace is in {file}"


def note(job: Job, result: Result) -> str:
    """The note of a run that is finished."""
    assert result.test_accuracy is not None and result.val_accuracy is not None
    accuracies = result.test_accuracy, result.val_accuracy
    return run_note(job.shown, job.overrides, job.folder.path, accuracies, result.interval)


def log_input(tracker: RunLog, dataset: "Dataset", config: Config) -> None:
    """Record the data set, with the images of each split."""
    names, splits = dataset.class_names, {}
    for split in dataset.splits:
        counts = Counter(int(label) for label in split.labels)
        splits[split.name] = {name: counts[number] for number, name in enumerate(names)}
    source = str(getattr(config.dataset, "path", None) or dataset.name)
    tracker.log_input(dataset.name, dataset.digest, source, splits, dataset.channels)


@contextmanager
def closing_run(tracker: RunLog, job: Job, run_id: str, order: int) -> Iterator[None]:
    """Close the run with the truth: FINISHED, KILLED by an interrupt, or FAILED with the error.

    Raises:
        RunError: the disk is full, or the run was deleted in the store, or cannot be recorded there for another
            reason. What could still be recorded is; a training that was done is not done again.
    """
    try:
        yield
    except BaseException as error:
        ending: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
        full = is_disk_full(error)
        with suppress(Exception):  # the error says more
            tracker.log_text(trace_of(error), "traceback.txt")
        kind = type(error).__name__ if ending == "FAILED" else "interrupted"
        with suppress(Exception) if full else nullcontext():
            tracker.end_run(ending, error=f"{kind}: {redact(str(error))}" if str(error) else kind)
        with suppress(OSError) if full else nullcontext():
            job.folder.write_result(make_result(job, run_id, order, status=ending))
        if full:
            raise RunError(
                f"{job.folder}: the disk is full, so the run is {ending}; make room, and go on with it: the same line "
                "with trainer.resume=true, or what `cnnexp doctor` prints"
            ) from error
        raise
    tracker.end_run("FINISHED")
    if tracker.lost:
        job.folder.write_result(make_result(job, run_id, order, status="FAILED"))
        raise RunError(
            f"{tracker.lost}; its files are in {job.folder}; the same line with trainer.resume=true records it anew"
        )
