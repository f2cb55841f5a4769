"""Finished jobs of other sweeps that equal a job of this one: they are taken for it, and it is not trained again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cnnexp
from cnnexp.config import Config
from cnnexp.errors import UserError
from cnnexp.runs.code import COMPUTING, own_targets
from cnnexp.runs.folder import RunFolder, RunManifest, find_sweeps
from cnnexp.runs.job import Job, load_dataset
from cnnexp.runs.recording import log_input, note, open_run
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.faults import is_outage
from cnnexp.tracking.notes import NOTE_TAG
from cnnexp.tracking.protocols import RunStore, RunTracker
from cnnexp.tracking.record import PACKAGES, REUSED_FROM, cores, installed_version, processor

# ----------------------------------------------------------------------------------------------- what made a run


def made_by(config: Config) -> str:
    """16 hex digits that name what decides the figures of a run beside its config and its images.

    That is the code of cnnexp, the versions of the packages that compute, the processor and its cores, the code of
    the user's own targets, and the content of a file of weights.
    """
    weights = config.backbone.weights
    facts = {
        "cnnexp": _digest(Path(cnnexp.__file__).parent),
        "packages": {name: _version(name) for name in COMPUTING},
        "processor": [processor(), cores()],
        "targets": {target: _code_of(target.partition(".")[0]) for target in own_targets(asdict(config))},
        "weights": _digest(Path(weights).expanduser()) if weights not in (None, "imagenet") else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _version(name: str) -> str | None:
    return next((found for package in PACKAGES[name] if (found := installed_version(package))), None)


def _code_of(module: str) -> str:
    """The digest of the Python files of a module, or of the package that it stands for."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # building the network says what is wrong with it
        spec = None
    places = [Path(place) for place in spec.submodule_search_locations or []] if spec else []
    if spec and spec.origin and not places:
        places = [Path(spec.origin)]
    return " ".join(_digest(place) for place in places)


@cache
def _digest(path: Path) -> str:
    """Of a file, or of the Python files below a folder; as it was when it was first asked for."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*.py")):
        total.update(f"{file.relative_to(path).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


# ------------------------------------------------------------------------------------------------- which to take


@dataclass(frozen=True)
class Wanted:
    """What a finished job must be, and must have recorded, to be taken.

    config_hash:   see `record.config_hash`.
    is_explained:  whether the line has each of its jobs explained.
    data_digest:   asked for where all else is equal; None where the images are not here.
    """

    config: Config
    config_hash: str
    is_explained: bool
    data_digest: Callable[[], str | None]


def find_equal(tracker: RunStore, wanted: Wanted) -> RunFolder | None:
    """The folder of a finished job of a sweep that is what is wanted; None where there is none, or none is to be taken.

    It has to be in the store of `tracker`, with its model where models are recorded.
    """
    sweep = wanted.config.sweep
    if not (sweep.reuse and sweep.resume and wanted.config.trainer.deterministic):
        return None
    maker, data_digest = made_by(wanted.config), cache(wanted.data_digest)
    for folder in _candidates(tracker, wanted):
        made = folder.manifest
        if made is None or made.config_hash != wanted.config_hash or made.made_by != maker or made.reused_from:
            continue
        whole = folder.status == "FINISHED" and folder.predictions.is_file() and made.objective is not None
        if not whole or (wanted.is_explained and not folder.is_explained):
            continue
        if made.data_digest == data_digest() and _is_recorded(tracker, made.run_id, wanted.config):
            return folder
    return None


def _candidates(tracker: RunStore, wanted: Wanted) -> Iterator[RunFolder]:
    """Jobs of the sweeps below `paths.runs`, and those of this config that the store knows to lie elsewhere."""
    for sweep in find_sweeps(Path(wanted.config.paths.runs)):
        yield from sweep.jobs().values()
    if not tracker.uri:
        return
    try:
        runs = tracker.find_runs({"config_hash": wanted.config_hash}, status="FINISHED")
    except Exception:  # there is no store yet, or it does not answer
        return
    for run in runs:
        folder = RunFolder(Path(run.tags.get("run_dir", "")))
        if run.tags.get("sweep_id") and folder.manifest and folder.manifest.run_id == run.run_id:
            yield folder


def _is_recorded(tracker: RunStore, run_id: str, config: Config) -> bool:
    if not tracker.uri:
        return True
    try:
        finished = tracker.find_run(run_id).status == "FINISHED"
        return finished and (not config.tracking.log_model or tracker.has_model(run_id))
    except Exception:  # it was deleted, or the store does not answer: the job is trained
        return False


def is_whole(tracker: RunStore, folder: RunFolder) -> bool:
    """Whether a finished run, and the one that was taken for it, are still there, and were not deleted in the store."""
    made, origin = folder.manifest, folder.origin.manifest
    assert made is not None
    if made.reused_from and (origin is None or origin.run_id != made.reused_from):
        return False
    return is_kept(tracker, made.run_id)


def is_kept(tracker: RunStore, run_id: str) -> bool:
    """Whether a run, and the one that was taken for it, were not deleted in the store."""
    try:
        return not tracker.uri or bool(tracker.find_run(run_id))
    except UserError as error:
        return is_outage(error)
    except Exception:  # the store does not answer, and may have it
        return True


# --------------------------------------------------------------------------------------------------------- taking


def take(job: Job, order: int, found: RunFolder) -> RunManifest:
    """Let the run in the folder `found` stand for a job: a run of this sweep leads to it, and has its figures.

    The folder of the job is held by the caller.
    """
    tracker, dataset = open_tracker(job.config.tracking), load_dataset(job.config)
    made, result, sweep = found.manifest, found.read_result(), job.sweep
    assert made is not None and sweep is not None
    tracker.prepare()
    begun = job.folder.manifest
    same = begun is not None and (begun.config_hash, begun.data_digest) == (made.config_hash, made.data_digest)
    source = Path(os.path.relpath(found.path.resolve(), job.folder.path)).as_posix()
    manifest = replace(made, run_id="", objective=None, reused_from=made.run_id, source=source)
    job.folder.write_manifest(manifest)  # before there is a run, see `run.py`
    job.folder.reopen()
    run_id = open_run(tracker, job, dataset, sweep.parent_run_id, begun if same else None)
    manifest = replace(manifest, run_id=run_id)
    job.folder.write_manifest(manifest)
    tracker.set_tags({REUSED_FROM: made.run_id})
    log_input(tracker, dataset, job.config)
    _copy_figures(tracker, made.run_id)
    taken = replace(result, run_id=manifest.run_id, order=order)
    tracker.set_tags({NOTE_TAG: f"{note(job, taken)}\n\nTaken from run `{made.run_id}`, which has files and model."})
    tracker.end_run("FINISHED")
    manifest = replace(manifest, objective=made.objective)
    job.folder.write_manifest(manifest)
    job.folder.write_result(taken)
    job.folder.checkpoint.unlink(missing_ok=True)
    return manifest


def _copy_figures(tracker: RunTracker, run_id: str) -> None:
    """Record the figures of a run, and the tags that say what it kept frozen, once more in the run that is open."""
    if not tracker.uri:
        return
    run = tracker.get_run(run_id)
    by_step: dict[int, dict[str, float]] = {}
    for name in run.metrics:
        for step, value in tracker.history(run_id, name):
            by_step.setdefault(step, {})[name] = value
    for step in sorted(by_step):
        tracker.log_metrics(by_step[step], step)
    tracker.set_tags({key: value for key, value in run.tags.items() if key.startswith("frozen_digest.")})
