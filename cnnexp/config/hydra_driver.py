"""Drives Hydra: the only file that reaches into it.

Hydra 1.3 offers `hydra.main`, which reads `sys.argv`, ends the process where a job fails and returns nothing, and
`compose`. What is needed beside them, its own classes do; `tests/test_hydra_driver.py` says which of them broke.
"""

import argparse
import copy
import io
import itertools
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import astuple, fields, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal import config_loader_impl
from hydra._internal import utils as hydra_utils
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import _run_hydra, create_config_search_path, get_args_parser
from hydra.conf import HydraConf
from hydra.core import utils as hydra_core
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import InstantiationException
from hydra.experimental.callback import Callback
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cnnexp import config
from cnnexp.config.limits import check_place
from cnnexp.console import redact, trace_of
from cnnexp.errors import UserError, first_line
from cnnexp.formats import parse_yaml, read_text

# Our launchers and sweepers bear the names of the plugins' own, on purpose; each of our files is complete
warnings.filterwarnings("ignore", r"\s*'hydra/(launcher|sweeper)/[\w/]+' is validated against ConfigStore schema")

ROOT_GROUPS = ("experiment", "sweep", "debug")  # whose files change any key
STAYS = "hydra.job.chdir=false"  # relative paths of the config count from where the command was given
MOST_KEPT = 64  # choices of options that are kept merged in a process
MOST_OF_HEADER = 512  # characters in which `# @package` is looked for, as Hydra does
RECORDS = ("run.json", "result.json", "multirun.yaml")  # beside the config.yaml of a run, or of a sweep

Task = Callable[[DictConfig], float]  # trains the job of a composed config, and returns its monitored figure


def conf_dir() -> Path:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"{package / 'conf'}: the YAML files are missing; install cnnexp again")


class OwnFiles(FileConfigSource):
    """A folder of YAML files; what a file of the user's own leaves to say is completed, see `complete_leaf`.

    A launcher hands its sources on to its processes, so that a job is composed there as it is here.
    """

    def load_config(self, config_path: str) -> ConfigResult:
        """Called by Hydra for each file that it composes.

        Raises:
            UserError: it is no YAML, or a key of it is wrong; named with the file.
        """
        if self.path == str(conf_dir()):
            return copy.deepcopy(self._delivered(config_path))
        file = Path(self.path).resolve() / self._normalize_file_name(config_path)
        if not file.is_file():
            return super().load_config(config_path)  # which says so
        text = read_text(file)
        parse_yaml(text, str(file), merges=True)  # with bounds, which Hydra's own reading does not have
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        try:
            header = self._get_header_dict(text[:MOST_OF_HEADER])
            values = OmegaConf.load(io.StringIO(text))
            if not isinstance(values, DictConfig) or not text.strip():
                raise UserError("is empty or no mapping; write KEY: VALUE in it")
            if header.get("package") in (None, group, "_group_"):
                _check_package(group, values)
                complete_leaf(group, name.rpartition("/")[2], values)
        except yaml.MarkedYAMLError as error:  # a key that stands there twice
            line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
            raise UserError(f"{file}: {line}{error.problem}") from error
        except (UserError, ValueError, OSError) as error:  # the latter two of a header, and of text for a mapping
            raise UserError(f"{file}: {error}") from error
        return ConfigResult(config=values, path=self.full_path(), provider=self.provider, header=header)

    def _delivered(self, config_path: str) -> ConfigResult:
        """A file of the package, read once in a process: reading them is a third of composing."""
        place = self.path, config_path
        if place not in _delivered:
            _delivered[place] = super().load_config(config_path)
        return _delivered[place]


_delivered: dict[tuple[str, str], ConfigResult] = {}


def _check_package(group: str, values: DictConfig) -> None:
    """Refuse a file of a group that is no part of the config, as `experiment`: its keys are meant for the root."""
    own = {item.name for item in fields(config.SweepConfig)} if group == "sweep" else set()
    if group in ROOT_GROUPS and not (own and own.issuperset(map(str, values))):
        raise UserError(f"its first line must be `# @package _global_`; without it, its keys go below the key {group}")


class CachingLoader(ConfigLoaderImpl):
    """Hydra's loader, which merges the files of the same options once in a process; values are set anew each time.

    That is most of composing. Files of the user's own are taken to stay as they are within one `hydra_context`.
    """

    contexts = itertools.count()

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository.context = next(self.contexts)  # type: ignore[attr-defined]

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: Any) -> DictConfig:
        place = (_sources_of(repo), *map(astuple, defaults))
        if place not in _merged:
            _keep(_merged, place, super()._compose_config_from_defaults_list(defaults, repo))
        return copy.deepcopy(_merged[place])


_merged: dict[Any, DictConfig] = {}
_listed: dict[Any, DefaultsList] = {}


def _listed_once(
    repo: Any, config_name: str | None, overrides_list: list[Override], prepend_hydra: bool, skip_missing: bool
) -> DefaultsList:
    """Hydra's `create_defaults_list`, which follows the same choices of options once in a process."""
    given = Overrides(repo=repo, overrides_list=overrides_list)
    values = set(map(id, given.config_overrides))
    choices = tuple(override.input_line for override in overrides_list if id(override) not in values)
    place = (_sources_of(repo), config_name, choices, prepend_hydra, skip_missing)
    if place not in _listed:
        _keep(_listed, place, create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing))
    return replace(_listed[place], config_overrides=given.config_overrides)


config_loader_impl.create_defaults_list = _listed_once  # in a launcher's processes too


def _sources_of(repo: Any) -> tuple[Any, ...]:
    """What the files come from; those of the user's own are told apart by the context in which they are read."""
    sources = [(source.scheme(), source.path) for source in repo.get_sources()]
    own = any(scheme == "file" and path != str(conf_dir()) for scheme, path in sources)
    context = getattr(repo.delegate, "context", None)  # none where Hydra itself answers, as for --cfg: read anew
    if own and context is None:
        context = next(CachingLoader.contexts)
    return (context if own else None, *sources)


def _keep(cache: dict[Any, Any], place: Any, made: Any) -> None:
    if len(cache) >= MOST_KEPT:  # of a search over many options
        cache.clear()
    cache[place] = made


OwnFiles.__name__ = FileConfigSource.__name__  # Hydra takes two classes of one name for one, and keeps the first


def complete_leaf(group: str, name: str, node: DictConfig) -> None:
    """Complete what a file of the user's own says of a leaf by `_target_` and values.

    It gets the schema of its target, if it has keys of that one; where the target has none, keys that no leaf of the
    group has are keywords of the target, so they go into `arguments`. It is called like its file, if it has no name.

    Args:
        group: of the file.
        name: of the file.
        node: what is in it. One that builds on another option in its defaults list has all that from there.

    Raises:
        UserError: a key that is nearly one of the group's.
    """
    written = OmegaConf.to_container(node, resolve=False)
    if group not in config.SCHEMAS or not isinstance(written, dict) or not isinstance(written.get("_target_"), str):
        return
    generic = (f"/schema/{group}/custom@_here_", "custom", "_self_")
    if any(base not in generic for base in written.get("defaults", ())):
        return
    common = [item.name for item in fields(config.SCHEMAS[group]["custom"])]
    own = {str(key): value for key, value in written.items() if key not in (*common, "defaults")}
    known = config.schema_of(group, written["_target_"])
    with open_dict(node):
        if "defaults" not in written:
            node.setdefault("name", name)
        if own and known is not None and "defaults" not in written:
            option = written["_target_"].rpartition(".")[2].lower()
            node.defaults = [f"/schema/{group}/{option}@_here_", "_self_"]
        elif own and known is None:
            for key, value in own.items():
                if near := get_close_matches(key, common, n=1, cutoff=0.85):
                    wanted = f"write {near[0]}, or arguments.{key} for a keyword of {written['_target_']}"
                    raise UserError(f"{group}.{key}={value}: no such key; {wanted}")
                del node[key]
            node.arguments = {**own, **(written.get("arguments") or {})}


def own_file(path: str) -> Path | None:
    """The file of the user's own, inside `hydra_context`, that gives an option, as `optimizer/mine`; None for ours."""
    for source in _repository().get_sources():
        if isinstance(source, OwnFiles) and source.path != str(conf_dir()) and source.is_config(path):
            return Path(source.path) / source._normalize_file_name(path)
    return None


def _read_own_files() -> None:
    """From here on, Hydra reads folders by `OwnFiles`."""
    Plugins.instance()  # registers Hydra's own first
    SourcesRegistry.instance().types["file"] = OwnFiles


@contextmanager
def hydra_context(config_dir: str | None = None) -> Iterator[Hydra]:
    """Hydra initialised on `conf/`, for composing and running; afterwards it is as it was.

    Args:
        config_dir: a further folder of YAML files, as Hydra's `--config-dir`.

    Raises:
        UserError: no such folder, or `check_own_files` refuses it.
    """
    search_path = create_config_search_path(str(conf_dir()))
    if config_dir:
        check_place("--config-dir", config_dir)
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir={config_dir}: there is no such folder")
        check_own_files("--config-dir", config_dir)
        folder = f"file://{Path(config_dir).resolve()}"
        search_path.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    config.register()
    _read_own_files()
    version.setbase("1.3")
    before = get_gh_backup()
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="train", config_loader=CachingLoader(search_path))
    GlobalHydra.instance().initialize(hydra)
    try:
        yield hydra
    finally:
        restore_gh_from_backup(before)


def check_own_files(key: str, config_dir: str) -> None:
    """Refuse a further folder of YAML files of which one bears the name of a file of ours: Hydra would read ours.

    Args:
        key: how it was given, for messages.
        config_dir: the folder.

    Raises:
        UserError: there is such a file, and it says something else; or the folder is the record of a run.
    """
    ours, folder = conf_dir(), Path(config_dir).resolve()
    for file in sorted(ours.rglob("*.yaml")):
        own = folder / file.relative_to(ours)
        if not own.is_file() or own.read_bytes() == file.read_bytes():
            continue
        if folder.name == ".hydra" or any((folder / name).is_file() for name in RECORDS):
            run = shlex.quote(os.path.relpath(folder.parent if folder.name == ".hydra" else folder))
            raise UserError(
                f"{key}={config_dir}: is the record of a run and no folder of options; `cnnexp reproduce {run}` trains "
                f"it again, `cnnexp reproduce {run} KEY=VALUE` varies it"
            )
        name = file.relative_to(ours)
        hint = "--config-name=NEW reads it" if name.parent == Path() else f"{name.parent}=NEW chooses it"
        raise UserError(
            f"{key}={config_dir}: {name} has the name of a file of cnnexp, which would be read in its place; "
            f"rename it to NEW.yaml: {hint}"
        )


def rerun_of(pickle: str) -> str:
    """The line that runs again what `--experimental-rerun=PICKLE` means; the file is not opened."""
    folder = Path(pickle).resolve().parent
    run = shlex.quote(os.path.relpath(folder.parent)) if folder.name == ".hydra" else "RUN"
    return f"cnnexp reproduce {run}"


def _published(dataset: str, accuracy: float, *, _root_: Any) -> float | None:
    """`${published:DATASET,ACCURACY}`: a published figure, which is of these images alone; None for others."""
    return float(accuracy) if OmegaConf.select(_root_, "dataset.name") == dataset else None


OmegaConf.register_new_resolver("published", _published, replace=True)  # in a launcher's processes too, as below


# ------------------------------------------------------------------------------------------------------- records


def redacted_yaml(composed: DictConfig) -> str:
    """A config as YAML, as it was written: its interpolations stay, its addresses are `redact`ed."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(below) for key, below in value.items()}
        if isinstance(value, list):
            return [clean(below) for below in value]
        return redact(value) if isinstance(value, str) else value

    return OmegaConf.to_yaml(OmegaConf.create(clean(OmegaConf.to_container(composed, resolve=False))))


def _save_config(composed: DictConfig, name: str, folder: Path) -> None:
    """What Hydra writes into `.hydra`, in its place and form."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(redacted_yaml(composed), encoding="utf-8")


hydra_core._save_config = _save_config  # type: ignore[assignment]  # in a launcher's processes too, which import this file for `OwnFiles`


@contextmanager
def _redacted() -> Iterator[None]:
    """While Hydra runs: no line of a log, and no config that a sweeper saves, holds a secret of an address."""
    factory, save = logging.getLogRecordFactory(), OmegaConf.save

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = factory(*args, **kwargs)
        if "://" in (text := made.getMessage()):
            made.msg, made.args = redact(text), ()
        if made.exc_info and made.exc_info[1]:
            made.exc_text = trace_of(made.exc_info[1]).rstrip()
        return made

    def save_redacted(composed: Any, f: Any, resolve: bool = False) -> None:
        if isinstance(f, str | Path) and isinstance(composed, DictConfig) and not resolve:
            Path(f).write_text(redacted_yaml(composed), encoding="utf-8")
        else:
            save(composed, f, resolve)

    logging.setLogRecordFactory(record)
    OmegaConf.save = staticmethod(save_redacted)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        OmegaConf.save = staticmethod(save)  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------------------- running


def run_single(task: Task, overrides: Sequence[str], config_dir: str | None, config_name: str) -> float:
    """Let Hydra run one job: it makes the folder, sets logging up, and calls `task`.

    Returns:
        What `task` returned.

    Raises:
        Exception: `task` raised it, or Hydra did.
    """
    refused: list[Exception] = []

    def caught(composed: DictConfig) -> float:
        try:
            return task(composed)
        except Exception as error:  # Hydra would print a line of its own about it
            refused.append(error)
            return float("nan")

    with hydra_context(config_dir) as hydra, _redacted():
        line = [*overrides, "hydra.mode=RUN", STAYS]
        done = hydra.run(config_name=config_name, task_function=caught, overrides=line)
    if refused:
        raise refused[0]
    return float(done.return_value)


def run_sweep(task: Task, overrides: Sequence[str], config_dir: str | None, config_name: str) -> None:
    """Let Hydra run the jobs of a sweep by its sweeper and launcher; `task` is called for each, maybe elsewhere."""
    line = [*overrides, "hydra.mode=MULTIRUN", STAYS]
    with hydra_context(config_dir) as hydra, _jobs_checked(), _redacted():
        hydra.multirun(config_name=config_name, task_function=task, overrides=line)


class _AskedError(Exception):
    """What a sweeper hands to its launcher, in place of a launch."""

    def __init__(self, jobs: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.jobs = [list(job) for job in jobs]


def check_launcher(shared: DictConfig) -> None:
    """Build the launcher of a sweep, inside `hydra_context`: what it refuses shows before anything is opened.

    Args:
        shared: config of the line, with the node `hydra`.

    Raises:
        UserError: it refuses one of its keys.
    """
    choice = f"hydra/launcher={shared.hydra.runtime.choices['hydra/launcher']}"
    with refusals_of(choice):
        launcher: Any = _launcher(shared)
        if type(launcher).__name__ == "JoblibLauncher":
            core: Any = import_module("hydra_plugins.hydra_joblib_launcher._core")  # of an extra, with joblib
            core.process_joblib_cfg(launcher.joblib)
            core.Parallel(**{**launcher.joblib, "backend": "loky"})
            import_module("joblib").effective_n_jobs(launcher.joblib.get("n_jobs"))


def first_jobs(shared: DictConfig, overrides: Sequence[str]) -> list[list[str]]:
    """The jobs that a sweeper which searches chooses at first, inside `hydra_context`; none is run.

    Args:
        shared: config of the line, with the node `hydra`.
        overrides: of the line, without those of Hydra.

    Raises:
        UserError: the sweeper refuses one of its keys, or what is to be searched.
    """
    alone = copy.deepcopy(shared)
    with read_write(alone), open_dict(alone):
        alone.hydra.sweeper.storage = None  # the user's own is not to have a study of this
    plugins = Plugins.instance()
    launcher: Any = _launcher(alone)

    def launch(jobs: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        raise _AskedError(jobs)

    launcher.launch = launch
    with refusals_of(f"hydra/sweeper={shared.hydra.runtime.choices['hydra/sweeper']}"):
        plugins.instantiate_launcher = lambda **given: launcher  # type: ignore[method-assign]
        try:
            sweeper = plugins.instantiate_sweeper(hydra_context=_context(), task_function=_no_task, config=alone)
            sweeper.sweep(list(overrides))
        except _AskedError as asked:
            return asked.jobs
        finally:
            del plugins.instantiate_launcher
    return []


@contextmanager
def refusals_of(choice: str) -> Iterator[None]:
    """What a plugin of Hydra raises while it is built is said in one line."""
    try:
        yield
    except (_AskedError, UserError):
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else None
        said = first_line(cause or error).partition(", set env var HYDRA_FULL_ERROR")[0].rstrip(".:")
        raise UserError(f"{choice}: {said}; `cnnexp train --cfg hydra` shows its keys") from error


def _launcher(shared: DictConfig) -> Launcher:
    return Plugins.instance().instantiate_launcher(hydra_context=_context(), task_function=_no_task, config=shared)


def _context() -> HydraContext:
    return HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())


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
        job_return.overrides = [redact(override) for override in job_return.overrides or ()]


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
    _read_own_files()
    version.setbase("1.3")
    parser, report = arguments_parser(), hydra_utils.run_and_report
    hydra_utils.run_and_report = lambda func: func()  # which would print a traceback, and end the process
    try:
        with redirect_stdout(io.StringIO()) as held, redirect_stderr(io.StringIO()) as said:
            _run_hydra(
                args=parser.parse_args(list(arguments)),
                args_parser=parser,
                task_function=_no_task,
                config_path=str(conf_dir()),
                config_name="config",
            )
    except SystemExit as error:
        if error.code:
            raise UserError(said.getvalue().strip() or f"{' '.join(arguments)}: Hydra refuses it") from error
    finally:
        hydra_utils.run_and_report = report
        sys.stdout.write(redact(held.getvalue()))


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


def chosen_options(override: Override) -> list[str] | None:
    """The options of its group that the `glob` of an override chooses; None where it has none.

    As in a shell, `*` stands for no `/`: `demo/*` are the options of the subfolder.
    """
    glob = override.value()
    if not isinstance(glob, Glob):
        return None

    def is_like(name: str, patterns: Sequence[str]) -> bool:
        return any(name.count("/") == wanted.count("/") and fnmatchcase(name, wanted) for wanted in patterns)

    options = group_options(override.key_or_group)
    return [name for name in options if is_like(name, glob.include) and not is_like(name, glob.exclude)]


def job_subdir(composed: DictConfig, number: int) -> str:
    """`hydra.sweep.subdir` of a job as the launchers resolve it.

    Args:
        composed: the job, with the node `hydra`.
        number: of the job.
    """
    with read_write(composed.hydra), open_dict(composed.hydra):
        composed.hydra.job.num = composed.hydra.job.id = number
    return str(composed.hydra.sweep.subdir)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """As Hydra reads them, inside `hydra_context`.

    Raises:
        OverrideParseException: one that is none.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return parser.parse_overrides(list(overrides))


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


def own_flags(settings: HydraConf) -> dict[str, str]:
    """`config_dir` and `config_name` of a line, as far as they were given.

    Args:
        settings: the node `hydra` of a job, or as Hydra keeps it in `.hydra/hydra.yaml`.
    """
    folder = next((source.path for source in settings.runtime.config_sources if source.provider == "command-line"), "")
    near = os.path.relpath(folder) if folder else ""
    name = str(settings.job.config_name)
    flags = {"config_dir": folder if near.startswith(os.pardir) else near, "config_name": name}
    return {flag: value for flag, value in flags.items() if value not in ("", "config")}


def own_overrides(line: Sequence[str]) -> list[str]:
    """Those of a line that are not of Hydra."""
    return [override for override in line if not override.lstrip("+~").startswith(("hydra.", "hydra/"))]


def as_written(overrides: Any) -> list[str]:
    """Those of a list of the node `hydra`, of which reading one by one would resolve `${oc.env:NAME}`."""
    written: Any = OmegaConf.to_container(overrides, resolve=False)
    return list(map(str, written))


def own_files(settings: HydraConf) -> dict[str, Path]:
    """The files of further folders that the config of a job is composed from, by their names there.

    Args:
        settings: the node `hydra` of the job.
    """
    sources = [source for source in settings.runtime.config_sources if source.schema == "file"]
    folders = [Path(source.path) for source in sources if source.provider != "main"]
    config_dir = next((source.path for source in sources if source.provider == "command-line"), None)
    if not folders:
        return {}
    with hydra_context(config_dir) as hydra:
        line, name = [*settings.overrides.hydra, *settings.overrides.task], settings.job.config_name
        parsed, repository = hydra.config_loader._parse_overrides_and_create_caching_repo(name, line)  # type: ignore[attr-defined]
        listed = create_defaults_list(repository, name, parsed, prepend_hydra=True, skip_missing=True).defaults
    names = dict.fromkeys(f"{item.config_path}.yaml" for item in listed)
    return {name: folder / name for name in names for folder in reversed(folders) if (folder / name).is_file()}


def _repository() -> Any:
    loader: Any = GlobalHydra.instance().config_loader()
    return loader.repository
