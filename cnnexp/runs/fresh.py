"""A job of a sweep in a process of its own: it gives all its memory back, and when it is killed it fails alone.

The processes are forked from a server that has imported TensorFlow but started nothing of it, so that each begins
at once and none sees what another did. Where there is no such server, on Windows, each imports TensorFlow itself.
"""

import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from cnnexp.process import interrupt
from cnnexp.runs.folder import held
from cnnexp.runs.recording import Job
from cnnexp.runs.sweep_job import record_failure, train_here

PRELOADED = "cnnexp.runs.preloaded"


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
    with held(job.folder):
        record_failure(job, parent, order, f"its process {_ending(process.exitcode)}")
    return float("nan")


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def _logging() -> DictConfig:
    """Hydra's settings of a job's log, with the file's name filled in."""
    settings = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    return OmegaConf.create(settings)  # type: ignore[return-value]


def _work(sender: Connection, job: Job, parent: str | None, order: int, logging: DictConfig) -> None:
    signal.signal(signal.SIGTERM, interrupt)
    configure_log(logging)
    try:
        sender.send(train_here(job, parent, order))
    except KeyboardInterrupt:
        sys.exit(130)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}; if it was not you, was there memory enough?"
    return f"ended with exit code {code}"
