"""`cnnexp train`: Hydra's command line in front of the trainer."""

import logging
import math
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import hydra
from hydra._internal.utils import run_and_report
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cnnexp.commands.arguments import parse
from cnnexp.config import Config, register
from cnnexp.config.composition import Plan, conf_dir, hydra_context, jobs_checked
from cnnexp.drawing import drawing_process
from cnnexp.errors import UserError
from cnnexp.process import import_tensorflow
from cnnexp.runs import sweep
from cnnexp.runs.folder import STATE, parent_run
from cnnexp.runs.planning import check_line, folder_override, unfinished_folder
from cnnexp.runs.search import is_search, search_overrides

log = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Check every job's configuration, then let Hydra run them.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        UserError: a mistake in the line or in the input of a single run.
    """
    parsed = parse(arguments)
    asks_hydra = parsed.help or parsed.hydra_help or parsed.shell_completion
    place: list[str] = []
    if not asks_hydra:
        line = (parsed.overrides, bool(parsed.multirun), parsed.config_dir, parsed.config_name or "config")
        plan = check_line(*line)
        folder = None if parsed.cfg or parsed.info else unfinished_folder(plan, parsed.overrides)
        place = [] if folder is None else [folder_override(plan, folder)]
        if not plan.jobs and plan.composed and is_search(plan.composed.hydra):
            place += search_overrides(plan.composed, parsed.overrides)
    failure.clear()
    with sweep.finishing() as finished:
        if asks_hydra or parsed.cfg or parsed.info:
            flags = [argument for argument in arguments if argument not in parsed.overrides]
            sys.argv = [sys.argv[0], *flags, *parsed.overrides]  # Hydra reads no flag between overrides
            hydra_main()
        else:
            run_jobs([*parsed.overrides, *place], plan, parsed.config_dir, parsed.config_name or "config")
    if failure:
        raise failure[0]
    return 1 if finished.failed else 0


failure: list[UserError] = []  # of the single run of this process; Hydra returns no results to its caller


def train_task(composed: DictConfig) -> float:
    """What Hydra calls for each job, here or in a process of a launcher.

    Returns:
        The monitored figure at the end, for the sweeper; NaN for a failed job of a sweep.

    Raises:
        UserError: a job of a search failed.
    """
    from cnnexp.runs.job import Job

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    job = Job.from_hydra(composed, folder, list(settings.overrides.task))
    if settings.mode == RunMode.MULTIRUN:
        from cnnexp.runs.sweep_job import run_in_sweep, train_here, train_in_fresh_process

        train = train_in_fresh_process if _wants_fresh_process(job.config, settings) else train_here
        objective = run_in_sweep(job, parent_run(folder.parent), int(settings.job.num), train)
        if math.isnan(objective) and is_search(settings):
            raise UserError(f"job {settings.job.num} has no figure")  # so that the search takes it as failed
        return objective
    import_tensorflow()
    from cnnexp.runs.run import run_job

    try:
        return run_job(job)
    except UserError as error:
        failure.append(error)
        if (folder / "result.json").is_file() or (folder / STATE).is_file():  # the run is recorded
            return float("nan")
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # what else lies there stays
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
        return float("nan")


def _wants_fresh_process(config: Config, settings: HydraConf) -> bool:
    """Whether a job of a sweep is to have a process of its own, which some launchers give it anyway."""
    wanted = config.sweep.fresh_process
    return settings.runtime.choices["hydra/launcher"] == "joblib" if wanted is None else wanted


def run_jobs(overrides: list[str], plan: Plan, config_dir: str | None, config_name: str) -> None:
    """Let Hydra run the jobs of a line, by its sweeper and launcher.

    `hydra.main` does the same, after it has composed the config once more to see whether it is a sweep.
    """
    assert plan.composed is not None
    node = plan.composed.get("hydra")
    if node is None or node.mode is None:  # not said in a file
        overrides = [*overrides, f"hydra.mode={'MULTIRUN' if plan.multirun else 'RUN'}"]
    with hydra_context(config_dir) as hydra, jobs_checked(), drawing_process():
        run_all = hydra.multirun if plan.multirun else hydra.run
        run_and_report(lambda: run_all(config_name=config_name, task_function=train_task, overrides=overrides))


def hydra_main() -> None:
    """Hand `sys.argv` to Hydra, for its answers about a config."""
    register()
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(train_task)()
