"""Drives Hydra: the only file that reaches into it.

Hydra 1.3 offers `hydra.main`, which reads `sys.argv`, ends the process where a job fails and returns nothing, and
`compose`. What is needed beside them, its own classes do; `tests/test_hydra_driver.py` says which of them broke.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import _run_hydra, create_config_search_path, get_args_parser, run_and_report
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

from cnnexp import config
from cnnexp.config.limits import check_place
from cnnexp.errors import UserError
from cnnexp.formats import read_yaml

# Our launchers and sweepers bear the names of the plugins' own, on purpose; each of our files is complete
warnings.filterwarnings("ignore", r"\s*'hydra/(launcher|sweeper)/[\w/]+' is validated against ConfigStore schema")

Task = Callable[[DictConfig], float]  # trains the job of a composed config, and returns its monitored figure


def conf_dir() -> Path:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"{package / 'conf'}: the YAML files are missing; install cnnexp again")


@contextmanager
def hydra_context(config_dir: str | None = None) -> Iterator[Hydra]:
    """Hydra initialised on `conf/`, for composing and running; afterwards it is as it was.

    Args:
        config_dir: a further folder of YAML files, as Hydra's `--config-dir`.

    Raises:
        UserError: no such folder.
    """
    search_path = create_config_search_path(str(conf_dir()))
    if config_dir:
        check_place("--config-dir", config_dir)
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir={config_dir}: there is no such folder")
        folder = f"file://{Path(config_dir).resolve()}"
        search_path.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    config.register()
    version.setbase("1.3")
    before = get_gh_backup()
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2(task_name="train", config_search_path=search_path)
    try:
        with _files_checked():
            yield hydra
    finally:
        restore_gh_from_backup(before)


@contextmanager
def _files_checked() -> Iterator[None]:
    """Each YAML file that is not ours is first read with bounds: Hydra's own reading has none."""
    source = SourcesRegistry.instance().resolve("file")
    real = source.load_config

    def load_config(self: ConfigSource, config_path: str) -> ConfigResult:
        folder = Path(self.path).resolve()
        if folder != conf_dir():
            file = folder / self._normalize_file_name(config_path)
            if file.is_file():
                read_yaml(file, merges=True)
        return real(self, config_path)

    source.load_config = load_config  # type: ignore[method-assign]
    try:
        yield
    finally:
        source.load_config = real  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------------------- running


def run_single(task: Task, overrides: Sequence[str], config_dir: str | None, config_name: str) -> float:
    """Let Hydra run one job: it makes the folder, sets logging up, and calls `task`.

    Returns:
        What `task` returned.

    Raises:
        UserError: `task` raised it. Any other error Hydra prints, shortened, and ends the process.
    """
    refused: list[UserError] = []

    def caught(composed: DictConfig) -> float:
        try:
            return task(composed)
        except UserError as error:  # Hydra would print a line of its own about it
            refused.append(error)
            return float("nan")

    with hydra_context(config_dir) as hydra:
        line = [*overrides, "hydra.mode=RUN"]
        done = run_and_report(lambda: hydra.run(config_name=config_name, task_function=caught, overrides=line))
    if refused:
        raise refused[0]
    return float(done.return_value)


def run_sweep(task: Task, overrides: Sequence[str], config_dir: str | None, config_name: str) -> None:
    """Let Hydra run the jobs of a sweep by its sweeper and launcher; `task` is called for each, maybe elsewhere."""
    line = [*overrides, "hydra.mode=MULTIRUN"]
    with hydra_context(config_dir) as hydra, _jobs_checked():
        run_and_report(lambda: hydra.multirun(config_name=config_name, task_function=task, overrides=line))


@contextmanager
def _jobs_checked() -> Iterator[None]:
    """While Hydra's basic sweeper runs jobs that were composed and checked before: it would compose each once more."""
    real = Sweeper.validate_batch_is_legal

    def validate(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
        if type(sweeper).__name__ != "BasicSweeper":  # Hydra's plugin loader makes a class of its own of it
            real(sweeper, batch)

    Sweeper.validate_batch_is_legal = validate  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = real  # type: ignore[method-assign]


class LightResults(Callback):
    """Lets go of the config of each job that has ended.

    Hydra would keep it until the end of the sweep: megabytes of small objects a job.
    """

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Called by Hydra, in the process of the job."""
        job_return.cfg = job_return.hydra_cfg = None


# ------------------------------------------------------------------------------------------------- the command line


def arguments_parser() -> argparse.ArgumentParser:
    """Hydra's parser of a command line: its flags, and the overrides."""
    return get_args_parser()


def answer(arguments: Sequence[str]) -> None:
    """Let Hydra answer `--help`, `--cfg`, `--info`, `--hydra-help` or `--shell-completion`; no job is run.

    Args:
        arguments: flags before overrides, for Hydra reads no flag between these.
    """
    config.register()
    version.setbase("1.3")
    parser = arguments_parser()
    _run_hydra(
        args=parser.parse_args(list(arguments)),
        args_parser=parser,
        task_function=_no_task,
        config_path=str(conf_dir()),
        config_name="config",
    )


def _no_task(composed: DictConfig) -> None:
    raise AssertionError("Hydra was asked a question, and runs a job")


# ------------------------------------------------------------------------------------------------------- questions


def split_jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """The jobs of Hydra's basic sweeper: one list of overrides each.

    Raises:
        HydraException: an override that this sweeper cannot sweep, as an interval.
    """
    (batch,) = BasicSweeper.split_arguments(list(overrides), None)
    return [list(job) for job in batch]


def is_group(name: str) -> bool:
    """Whether `name` is a config group, inside `hydra_context`."""
    return bool(_repository().group_exists(name))


def groups() -> list[str]:
    """The config groups; of Hydra's own those of launchers and sweepers."""
    found = _repository().get_group_options("", results_filter=ObjectType.GROUP)
    return [*(name for name in found if name not in ("hydra", "schema")), "hydra/launcher", "hydra/sweeper"]


def group_options(group: str) -> list[str]:
    """The options of a config group, those of its subfolders as `folder/name`; empty where it is no group."""
    if not is_group(group):
        return []
    repository = _repository()
    options = list(repository.get_group_options(group, results_filter=ObjectType.CONFIG))
    for folder in repository.get_group_options(group, results_filter=ObjectType.GROUP):
        options += [f"{folder}/{name}" for name in group_options(f"{group}/{folder}")]
    return options


def _repository() -> Any:
    loader: Any = GlobalHydra.instance().config_loader()
    return loader.repository
