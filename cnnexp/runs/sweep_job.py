"""A job of a sweep: what is done is not done again, and a failure is no end; without TensorFlow until it trains."""

import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from cnnexp.console import redact, say, trace_of, warn
from cnnexp.errors import UserError
from cnnexp.files import name_sockets
from cnnexp.process import begin_worker, import_tensorflow, is_orphan
from cnnexp.runs.folder import RunFolder, RunManifest
from cnnexp.runs.job import Job, explains, load_dataset
from cnnexp.runs.recording import keep_trace, start_run
from cnnexp.runs.result import make_result
from cnnexp.runs.reuse import Wanted, find_equal, is_whole, take
from cnnexp.runs.tracker import open_tracker
from cnnexp.tracking.faults import is_outage
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import config_hash

log = logging.getLogger(__name__)
Train = Callable[[Job, str | None, int], float]

PRELOADED = "cnnexp.runs.preloaded"


def run_in_sweep(job: Job, order: int, train: Train | None = None) -> float:
    """One job of a sweep. One that is done is skipped; one that equals a finished job is taken from there.

    With `sweep.on_failure=stop` none starts after a failure.

    Args:
        job: with `sweep`.
        order: the job's number there.
        train: how to train it; None: `train_here`.

    Returns:
        The job's monitored figure; NaN where it failed or was not started.
    """
    assert job.sweep is not None
    if job.sweep.stopped.exists():
        say(f"[{order}] is not started: a job failed, and sweep.on_failure=stop")
        return float("nan")
    with _alone(job, order):
        if (found := _found(job, order)) is not None:
            return _figure(found)
    return (train or train_here)(job, job.sweep.parent_run_id, order)


def _alone(job: Job, order: int) -> AbstractContextManager[None]:
    """Hold the job's folder. Whoever works there comes first: what a killed command left, or a cluster began twice."""
    return job.folder.lock_when_free(f"[{order}]")


def _found(job: Job, order: int) -> RunManifest | None:
    """What makes training the job needless, if there is something; its folder is held, so that this stays true."""
    assert job.sweep is not None
    before = job.sweep.jobs().get(order, job.folder)  # elsewhere where `hydra.sweep.subdir` has changed
    tracker = open_tracker(job.config.tracking)
    for folder in dict.fromkeys((before, job.folder)):
        done = _done(job, folder, tracker)
        if done is not None:
            say(f"[{order}] is done already, run {done.run_id}")
            job.sweep.record_job(order, folder, job.overrides)
            return done
    job.sweep.record_job(order, job.folder, job.overrides)
    taken = None if job.sweep.is_search else _taken(job, order, tracker)
    if taken is not None:
        say(f"[{order}] equals run {taken.reused_from}, which is taken for it; sweep.reuse=false trains it")
    return taken


def _taken(job: Job, order: int, tracker: RunStore) -> RunManifest | None:
    """What stands for the job now, if a finished run that equals it could be taken."""
    wanted = Wanted(job.config, config_hash(job.resolved), explains(job.config, job.sweep), lambda: _digest(job))
    equal = find_equal(tracker, wanted)
    try:
        return take(job, order, equal) if equal else None
    except Exception as error:  # of the store: training the job says it again, and goes on with its run
        warn(f"cnnexp: job {order} is trained, for {equal} cannot be taken for it: {redact(str(error))}")
        return None


def train_here(job: Job, parent: str | None, order: int) -> float:
    """`run_job` in this process; a failure is recorded and said in one line, and is no end."""
    with _alone(job, order):
        done = _done(job, job.folder, open_tracker(job.config.tracking))  # meanwhile, by whoever held the folder
        if done is not None:
            return _figure(done)
        job.folder.reopen()
        try:
            import_tensorflow()
            from cnnexp.runs.run import run_job

            return run_job(job, parent, order)
        except Exception as error:  # one failing job must not end the others
            reason = str(error) if isinstance(error, UserError) else keep_trace(job.folder.path, error)
            record_failure(job, parent, order, reason, trace_of(error))
            return float("nan")


def _figure(manifest: RunManifest) -> float:
    """What a sweeper is told of a job that is done."""
    return float("nan") if manifest.objective is None else manifest.objective


def _digest(job: Job) -> str | None:
    try:
        return load_dataset(job.config).digest
    except UserError:
        return None  # training it says why


def _done(job: Job, folder: RunFolder, tracker: RunStore) -> RunManifest | None:
    """The finished run in a folder, if it computed what this job is to compute, and was not deleted since."""
    manifest = folder.manifest
    if manifest is None or folder.status != "FINISHED" or manifest.config_hash != config_hash(job.resolved):
        return None
    if manifest.reused_from and not job.config.sweep.reuse:
        return None
    return manifest if manifest.data_digest == _digest(job) and is_whole(tracker, folder) else None


def record_failure(job: Job, parent: str | None, order: int, reason: str, trace: str | None = None) -> None:
    """Say that a job failed, and see to it that there is a run which says so too."""
    warn(f"cnnexp: job {order} failed: {redact(reason)}")
    if job.config.sweep.on_failure == "stop":
        assert job.sweep is not None
        job.sweep.stopped.touch()
    if job.folder.status:  # the run was closed when it failed
        return
    run_id = ""
    try:
        run_id = _failed_run(job, parent, reason, trace)
    except UserError as error:
        if is_outage(error):  # the next job would fail as this one did
            raise
        if str(error) != reason:
            warn(f"cnnexp: job {order} is not recorded: {error}")
    job.folder.write_result(make_result(job, run_id, order, status="FAILED"))


def _failed_run(job: Job, parent: str | None, reason: str, trace: str | None) -> str:
    """The id of the run that says why a job failed: its own, if it had one when its process died, or a new one."""
    manifest, tracker = job.folder.manifest, open_tracker(job.config.tracking)
    tracker.prepare()
    if trace is None and manifest is not None and manifest.run_id:
        run_id = manifest.run_id
        tracker.resume_run(run_id, job.folder.journal)
    else:
        run_id = start_run(tracker, job, None, parent)
    if trace:
        tracker.log_text(trace, "traceback.txt")
    tracker.end_run("FAILED", error=redact(reason))
    return run_id


def train_in_fresh_process(job: Job, parent: str | None, order: int) -> float:
    """`train_here` in a new process; a job whose process dies is recorded as failed, and is no end."""
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, job, parent, order, _logging()))  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        objective = float(receiver.recv())
        process.join()
        return objective
    except EOFError:
        process.join()
    except BaseException:
        process.terminate()  # its run is closed as KILLED
        process.join()
        raise
    if is_orphan():  # the job's process saw it first
        raise KeyboardInterrupt
    with _alone(job, order):
        record_failure(job, parent, order, f"its process {_ending(process.exitcode)}")
    return float("nan")


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    name_sockets()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def _logging() -> DictConfig:
    """Hydra's settings of a job's log, with the file's name filled in."""
    settings = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    return OmegaConf.create(settings)  # type: ignore[return-value]


def _work(sender: Connection, job: Job, parent: str | None, order: int, logging: DictConfig) -> None:
    begin_worker()
    configure_log(logging)
    try:
        sender.send(train_here(job, parent, order))
    except KeyboardInterrupt:
        sys.exit(130)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}; if it was not you, was there memory enough?"
    return f"ended with exit code {code}"
