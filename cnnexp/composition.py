"""Composes `conf/` with a user's overrides, and turns what Hydra says of a mistake into one line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnexp import config
from cnnexp.errors import UserError, nearest


def conf_dir() -> Path:
    """The folder of YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"{package / 'conf'}: the YAML files are missing; install cnnexp again")


@contextmanager
def hydra_context() -> Iterator[None]:
    """Hydra initialised on `conf/`, for `compose_config` and `sweep_jobs`."""
    config.register()
    with initialize_config_dir(str(conf_dir()), job_name="train", version_base="1.3"):
        yield


def compose_config(
    overrides: Sequence[str], config_dir: str | None = None, with_hydra: bool = False
) -> DictConfig:
    """Compose one job's configuration.

    Args:
        overrides: as on Hydra's command line.
        config_dir: a further folder of YAML files, as Hydra's `--config-dir`.
        with_hydra: keep the `hydra` node.

    Raises:
        UserError: an override that names no group, option, key or value of ours.
    """
    extra = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    try:
        parsed = _parse(overrides)
        _check_options(parsed, extra)
        composed = compose("config", overrides=[*overrides, *extra], return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(_one_line(error, overrides)) from error
    return composed


def load_config(overrides: Sequence[str], config_dir: str | None = None) -> config.Config:
    """Compose, type and check the configuration of one job, without leaving Hydra initialised."""
    with hydra_context():
        return config.typed(compose_config(overrides, config_dir))


@dataclass
class Plan:
    """What a command line would run: one list of overrides a job."""

    multirun: bool
    jobs: list[list[str]] = field(default_factory=list)


def plan_jobs(overrides: Sequence[str], multirun: bool, config_dir: str | None = None) -> Plan:
    """The jobs of a line for Hydra's basic sweeper; other sweepers choose theirs as they go, and give no jobs here."""
    plain = [o for o in overrides if not _is_sweep(o)]
    composed = compose_config(plain, config_dir, with_hydra=True)
    if not multirun and str(composed.hydra.mode or "") != "RunMode.MULTIRUN":
        if len(plain) < len(overrides):
            raise UserError(
                f"{next(o for o in overrides if _is_sweep(o))}: several values run as a sweep; add -m to train all of them"
            )
        return Plan(multirun=False, jobs=[list(overrides)])
    if not str(composed.hydra.sweeper._target_).endswith("BasicSweeper"):
        return Plan(multirun=True)
    params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items()]
    batches = BasicSweeper.split_arguments(_parse([*params, *overrides]), None)
    return Plan(multirun=True, jobs=[list(job) for job in batches[0]])


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        return parser.parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError(f"{error.override}: not an override; write KEY=VALUE, with quotes around special characters") from error


def _is_sweep(override: str) -> bool:
    try:
        return bool(_parse([override])[0].is_sweep_override())
    except UserError:
        return False


def _check_options(overrides: Sequence[Override], extra: list[str]) -> None:
    """Refuse a value that no file of its config group has."""
    loader = GlobalHydra.instance().config_loader()
    if extra:  # options of a further folder are known only to Hydra, which names them itself
        return
    for override in overrides:
        value = override.value()
        if "." in override.key_or_group or not isinstance(value, str):
            continue
        options = group_options(loader, override.key_or_group)
        if options and value not in options:
            listed = ", ".join(nearest(value, options))
            raise UserError(f"{override.key_or_group}={value}: no such option; allowed: {listed}")


def group_options(loader: Any, group: str) -> list[str]:
    """The options of a config group by name, those of its subfolders as `folder/name`; empty where it is no group."""
    if group.startswith("hydra") or not loader.repository.group_exists(group):
        return []
    options = list(loader.get_group_options(group))
    for folder in loader.get_group_options(group, results_filter=ObjectType.GROUP):
        options += [f"{folder}/{name}" for name in group_options(loader, f"{group}/{folder}")]
    return options


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    text = str(getattr(cause, "msg", None) or cause).strip().splitlines()[0]
    if key is None:
        return text
    given = next((o for o in overrides if o.lstrip("+~").split("=")[0] == key), key)
    allowed = _keys_beside(key, overrides)
    if re.match(r"Key '.*' not in|Key '.*' is not in struct", text) and allowed:
        return f"{given}: no such key; allowed: {', '.join(nearest(key, allowed))}"
    return f"{given}: {text[0].lower()}{text[1:]}"


def _keys_beside(key: str, overrides: Sequence[str]) -> list[str]:
    """The dotted names of the keys that stand where `key` was looked for, with the chosen group options."""
    parent, _, _ = key.rpartition(".")
    chosen = [o for o in overrides if "." not in o.split("=")[0] and not o.startswith(key)]
    try:
        node: Any = compose("config", overrides=chosen)
    except HydraException:
        node = compose("config")
    for part in parent.split(".") if parent else []:
        if not OmegaConf.is_dict(node) or part not in node:
            return []
        node = node[part]
    if not OmegaConf.is_dict(node):
        return []
    kind = OmegaConf.get_type(node)
    names = [f.name for f in fields(kind)] if is_dataclass(kind) else [str(name) for name in node]
    return [f"{parent}.{name}" if parent else name for name in names]
