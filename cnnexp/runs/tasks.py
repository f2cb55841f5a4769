"""What Hydra calls for each job: here, or in a process of a launcher."""

import math
from dataclasses import replace
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cnnexp.config import Config
from cnnexp.config.hydra_driver import as_written, own_files, own_flags
from cnnexp.console import say
from cnnexp.errors import RunError, UserError
from cnnexp.process import begin_worker, import_tensorflow, quiet_libraries
from cnnexp.runs.folder import SweepFolder
from cnnexp.runs.job import Job
from cnnexp.runs.parent import show_progress
from cnnexp.runs.recording import keep_trace
from cnnexp.runs.search import is_search
from cnnexp.runs.sweep_job import run_in_sweep, train_here, train_in_fresh_process
from cnnexp.runs.tracker import open_tracker

ENDS_WITH_COMMAND = ("joblib", "submitit_local")  # launchers; what a cluster was given goes on without it


def train_single(composed: DictConfig) -> float:
    """A run of its own, in a folder that the caller holds, see `LockedFolder.lock`.

    Returns:
        The monitored figure.

    Raises:
        UserError: bad input.
        RunError: what a library raised; the trace lies in the run's folder.
    """
    job = _job(composed)
    import_tensorflow()
    from cnnexp.runs.run import run_job

    try:
        return run_job(job)
    except UserError:
        raise
    except Exception as error:
        raise RunError(keep_trace(job.folder.path, error)) from error


def train_in_sweep(composed: DictConfig) -> float:
    """A job of a sweep.

    Returns:
        The monitored figure, for the sweeper; NaN for a failed job.

    Raises:
        UserError: a job of a search failed, so that the search takes it as failed.
    """
    quiet_libraries()  # in the process of a launcher, too
    settings = HydraConfig.get()
    launcher = settings.runtime.choices["hydra/launcher"]
    if launcher in ENDS_WITH_COMMAND:
        begin_worker()
    job = _job(composed, SweepFolder(Path(settings.sweep.dir).resolve()))
    if launcher != "basic":  # which says itself when a job begins
        say(f"[{settings.job.num}] {' '.join(job.overrides)}")
    train = train_in_fresh_process if _wants_fresh_process(job.config, settings) else train_here
    objective = run_in_sweep(job, int(settings.job.num), train)
    assert job.sweep is not None
    if not job.folder.journal.exists():  # the store answers
        show_progress(open_tracker(job.config.tracking), job.sweep, job.config.trainer.monitor)
    if math.isnan(objective) and is_search(settings):
        raise UserError(f"job {settings.job.num} has no figure")
    return objective


def _job(composed: DictConfig, sweep: SweepFolder | None = None) -> Job:
    settings = HydraConfig.get()
    job = Job.from_hydra(composed, Path(settings.runtime.output_dir), as_written(settings.overrides.task), sweep)
    return replace(job, flags=own_flags(settings), config_files=own_files(settings))


def _wants_fresh_process(config: Config, settings: HydraConf) -> bool:
    """Whether a job of a sweep is to have a process of its own, which some launchers give it anyway."""
    wanted = config.sweep.fresh_process
    return settings.runtime.choices["hydra/launcher"] == "joblib" if wanted is None else wanted
