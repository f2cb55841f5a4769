"""One run: assemble, train, record."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import yaml

from cnnexp.console import say, warn_once
from cnnexp.data.balance import unbalanced_line
from cnnexp.data.dataset import Dataset
from cnnexp.drawing import drawing
from cnnexp.errors import UserError
from cnnexp.explain.localisation import localisation_metrics
from cnnexp.metrics.names import TOTAL_SECONDS, is_better
from cnnexp.models.build import Network
from cnnexp.models.counts import totals
from cnnexp.runs import artifacts
from cnnexp.runs.build import RunParts, assemble, check_parts, fit
from cnnexp.runs.code import record_code
from cnnexp.runs.decision import decide, show_decision
from cnnexp.runs.folder import RunManifest
from cnnexp.runs.job import Job, explains, load_dataset
from cnnexp.runs.memory import check_batch
from cnnexp.runs.recording import closing_run, log_input, note, open_run
from cnnexp.runs.result import (
    at_chance,
    final_metrics,
    make_result,
    monitored,
    phases_in_words,
    show,
    show_classes,
)
from cnnexp.runs.reuse import made_by
from cnnexp.runs.tracker import open_tracker, register_model
from cnnexp.tracking.notes import NOTE_TAG
from cnnexp.tracking.protocols import RunTracker
from cnnexp.tracking.record import REUSED_FROM, config_hash
from cnnexp.training.devices import chosen_strategy
from cnnexp.training.runtime import check_precision, configure_devices, prepare_tensorflow
from cnnexp.training.trainer import FitResult

log = logging.getLogger(__name__)


def run_job(job: Job, parent: str | None = None, order: int = 0) -> float:
    """Train, evaluate, record; a run that was stopped in this folder goes on where its last epoch ended.

    The folder is held by the caller, see `LockedFolder.lock`.

    Args:
        parent: the run id of the sweep this job belongs to.
        order: its number there.

    Returns:
        The monitored figure, `trainer.monitor`, of the weights that were kept.

    Raises:
        UserError: bad input.
    """
    config = job.config
    tracker = open_tracker(config.tracking)
    configure_devices(config.trainer.threads, config.trainer.virtual_cpus)
    with job.naming_files():
        check_parts(config)
    prepare_tensorflow(config.seed, config.trainer.deterministic)
    check_precision(config.trainer.dtype_policy)
    strategy = chosen_strategy(config.trainer.strategy)
    with job.naming_files():
        dataset = load_dataset(config)
        check_batch(config, dataset.channels)
        parts = assemble(config, dataset, strategy, share=parent is not None)  # a run of its own has none to share with
        _check_own_parts(parts)
    counts = totals(parts.network)
    tracker.prepare()
    unbalanced = unbalanced_line(dataset.class_names, dataset.train.labels)
    if unbalanced and not (config.loss.class_weight or config.trainer.balanced_sampling):
        warn_once(f"cnnexp: {unbalanced}")
    say(f"{config.name}: {counts.trainable:,} of {counts.total:,} parameters are trained")
    if planned := phases_in_words(config):
        say(planned)
    earlier = _earlier(job, dataset)
    manifest = RunManifest(
        earlier.run_id if earlier else "",
        config_hash(job.resolved),
        dataset.digest,
        made_by=made_by(config),
        explained=explains(config, job.sweep),
    )
    job.folder.write_manifest(manifest)  # before there is a run: from here on a kill leaves a folder that can go on
    run_id = open_run(tracker, job, dataset, parent, earlier)
    manifest = replace(manifest, run_id=run_id)
    job.folder.write_manifest(manifest)
    job.folder.reopen()
    if earlier and earlier.reused_from:
        tracker.set_tags({REUSED_FROM: ""})
    with closing_run(tracker, job, run_id, order):
        began = time.perf_counter()
        tracker.log_text(yaml.safe_dump(job.overrides), "overrides.yaml")  # a place that takes no file shows now
        log_input(tracker, dataset, config)
        record_code(tracker, job, anew=earlier is None)

        told: set[int] = set()

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            told.add(epoch)
            log.info("epoch %d: %s", epoch + 1, metrics)
            tracker.log_metrics(metrics | tracker.system_metrics(), step=epoch + 1)

        fitted = fit(parts, on_epoch, job.folder.checkpoint, resume=earlier is not None)
        for epoch in set(range(len(fitted.history))) - told:  # a kill may have kept them from the store
            tracker.log_metrics(fitted.history[epoch], step=epoch + 1)
        fitted, decided = decide(parts.decision, fitted, dataset)
        metrics = final_metrics(parts, fitted) | decided | {TOTAL_SECONDS: time.perf_counter() - began}
        tracker.log_metrics(metrics, step=0)
        tracker.set_tags({f"frozen_digest.{phase.name}": phase.frozen_digest for phase in fitted.phases})
        objective = monitored(config.trainer.monitor, fitted, metrics)
        metrics |= _record_files(tracker, job, parts, fitted, objective)
        result = make_result(job, run_id, order, metrics)
        tracker.set_tags({NOTE_TAG: note(job, result)})
    job.folder.write_manifest(replace(manifest, objective=objective))
    job.folder.write_result(replace(result, objective=objective))  # from here on the run is finished
    job.folder.checkpoint.unlink(missing_ok=True)
    show(config, result, job.folder)
    show_decision(config, fitted.decision, dataset.class_names, metrics)
    if said := at_chance(result, dataset.test.labels):
        say(said)
    if unbalanced:
        show_classes(result, job.folder)
    if config.tracking.register and parent is None:
        register_model(tracker, run_id, config.tracking.register)
    return objective


def _check_own_parts(parts: RunParts) -> None:
    config = parts.config
    targets = [
        target for target in (config.backbone._target_, config.head._target_) if not target.startswith("cnnexp.")
    ]
    if targets and config.tracking.uri and config.tracking.log_model:
        from cnnexp.runs.recorded_model import warn_of_own_parts

        warn_of_own_parts(parts.network.model, [target.rpartition(".")[0] for target in targets])


def _earlier(job: Job, dataset: Dataset) -> RunManifest | None:
    """The run that was stopped in this folder, if it computed the same; files of another one are removed."""
    manifest = job.folder.manifest
    if manifest is None or job.folder.status == "FINISHED":
        return None
    if manifest.config_hash == config_hash(job.resolved) and manifest.data_digest == dataset.digest:
        return manifest
    if job.config.trainer.resume and manifest.data_digest != dataset.digest:
        raise UserError(
            f"trainer.resume=true: the images are no longer those of the run in {job.folder}; "
            "leave it out to train from the start"
        )
    job.folder.checkpoint.unlink(missing_ok=True)
    return None


def _record_files(
    tracker: RunTracker, job: Job, parts: RunParts, fitted: FitResult, objective: float
) -> dict[str, float]:
    """Write the files of the run, and record them with the figures that come from them, which are returned."""
    tracking, folder = job.config.tracking, job.folder.path
    explain = explains(job.config, job.sweep)
    chosen_later = bool(tracking.explain) and not explain
    with drawing() as draw:
        scores = artifacts.write(job, parts, fitted, explain, draw)
        if explain:
            scores |= localisation_metrics(parts.network.model, parts.dataset, parts.data.test.images)
        tracker.log_metrics(scores, step=0)
        if tracking.log_model:
            image = parts.data.test.images.take_few(np.arange(1))
            names = parts.dataset.class_names
            tracker.log_model(fitted.model, image, names, fitted.decision.described(names))
    for file in artifacts.FILES:
        if (folder / file).is_file():
            tracker.log_artifact(folder / file, folder=str(Path(file).parent) if "/" in file else None)
    if chosen_later and not (tracking.log_model and tracking.uri):
        _keep_model_of_best(job, parts.network, objective)
    return scores


def _keep_model_of_best(job: Job, network: Network, objective: float) -> None:
    """Keep the network of the best job of a grid so far in its folder, so that it can be explained at the end."""
    monitor = job.config.trainer.monitor
    if job.sweep and job.sweep.has_several_data:
        return  # of which none is the best
    before = job.sweep.best_job(monitor) if job.sweep else None
    manifest = before.manifest if before else None
    if manifest and manifest.objective is not None and not is_better(monitor, objective, manifest.objective):
        return
    keras.Model(network.model.inputs, network.model.outputs, name=network.model.name).save(job.folder.network)
    if before:
        before.network.unlink(missing_ok=True)
