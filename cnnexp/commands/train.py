"""`cnnexp train`: Hydra's command line in front of the trainer."""

import argparse
import logging
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cnnexp import config
from cnnexp.commands import sweep
from cnnexp.commands.completion import check_action
from cnnexp.commands.quiet import import_tensorflow
from cnnexp.composition import compose_config, conf_dir, hydra_context, plan_jobs
from cnnexp.config import typed
from cnnexp.errors import UserError, nearest

log = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Check every job's configuration, then let Hydra run them.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        UserError: a mistake in the line or in the input of a single run.
    """
    parsed = _parse(arguments)
    asks_hydra = parsed.help or parsed.hydra_help or parsed.shell_completion
    if not asks_hydra:
        check_line(parsed.overrides, bool(parsed.multirun), parsed.config_dir, parsed.config_name or "config")
    flags = [argument for argument in arguments if argument not in parsed.overrides]
    sys.argv = [sys.argv[0], *flags, *parsed.overrides]  # Hydra reads no flag between overrides
    failure.clear()
    with sweep.finishing() as finished:
        hydra_main()
    if failure:
        raise failure[0]
    return 1 if finished.failed else 0


def check_line(overrides: list[str], multirun: bool, config_dir: str | None, config_name: str) -> None:
    """Compose and check every job of the line, so that a mistake shows before the first one starts."""
    with hydra_context(config_dir):
        plan = plan_jobs(overrides, multirun, config_name)
        for job in plan.jobs:
            typed(plan.composed or compose_config(job, name=config_name))


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Hydra's flags and overrides, in any order."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; `cnnexp train --hydra-help` lists the flags")

    parser.error = refuse  # type: ignore[method-assign]
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UserError(f"{unknown[0]}: no such flag; allowed: {', '.join(nearest(unknown[0], flags))}")
    _check_flags(parsed)
    return parsed


def _check_flags(parsed: argparse.Namespace) -> None:
    """Refuse flags that Hydra would answer with a traceback, or would leave aside without a word."""
    modes = {
        "--run": parsed.run,
        "--multirun": parsed.multirun,
        "--cfg": parsed.cfg,
        "--info": parsed.info,
        "--shell-completion": parsed.shell_completion,
    }
    given = [flag for flag, value in modes.items() if value]
    if len(given) > 1:
        raise UserError(f"{' '.join(given)}: these exclude each other; give one of them")
    for flag, value in (("--resolve", parsed.resolve), ("--package", parsed.package)):
        if value and not (parsed.cfg or parsed.help):
            raise UserError(f"{flag}: says how to show the config; add --cfg job")
    if parsed.shell_completion:
        check_action(parsed.overrides)
    if parsed.config_path:
        raise UserError("--config-path: would replace the files of cnnexp; add yours with --config-dir=FOLDER")


failure: list[UserError] = []  # of the single run of this process; Hydra returns no results to its caller


def train_task(composed: DictConfig) -> float:
    """What Hydra calls for each job, here or in a process of a launcher.

    Returns:
        The monitored figure at the end, for the sweeper; NaN for a failed job of a sweep.
    """
    import_tensorflow()
    from cnnexp.commands.job import Job, run_in_sweep, run_job

    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    job = Job.from_hydra(composed, folder, list(settings.overrides.task))
    if settings.mode == RunMode.MULTIRUN:
        return run_in_sweep(job, sweep.parent_run(folder.parent), int(settings.job.num))
    try:
        return run_job(job)
    except UserError as error:
        failure.append(error)
        if (folder / "result.json").is_file():  # the run itself is done, and recorded
            return float("nan")
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # what else lies there stays
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
        return float("nan")


def hydra_main() -> None:
    """Hand `sys.argv` to Hydra."""
    config.register()
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(train_task)()
