"""Composes `conf/` with a user's overrides, and turns what Hydra says of a mistake into one line."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnnexp import config
from cnnexp.config.hydra_driver import group_options, hydra_context, is_group, split_jobs
from cnnexp.errors import UserError, nearest

EXTRAS = {  # package of a launcher or sweeper -> the extra of cnnexp that brings it
    "hydra_joblib_launcher": "joblib",
    "hydra_ray_launcher": "ray",
    "hydra_submitit_launcher": "slurm",
    "hydra_optuna_sweeper": "optuna",
}
ROOT_KEYS = [item.name for item in fields(config.Config)]


def compose_config(overrides: Sequence[str], with_hydra: bool = False, name: str = "config") -> DictConfig:
    """Compose one job's configuration, inside `hydra_context`.

    Args:
        overrides: as on Hydra's command line.
        with_hydra: keep the `hydra` node.
        name: of the root YAML file, as Hydra's `--config-name`.

    Raises:
        UserError: an override that names no group, option, key or value of ours.
    """
    try:
        _check_options(_parse(overrides))
        return compose(name, overrides=list(overrides), return_hydra_config=with_hydra)
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error, overrides)) from error


class JobComposer:
    """`compose_config` for the jobs of a sweep, inside `hydra_context`.

    Jobs that choose the same options and differ in values alone are composed once, and get their values as Hydra sets
    them: composing takes a third of a second.
    """

    def __init__(self, name: str = "config") -> None:
        self.name = name
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of one job."""
        parsed = _parse(overrides)
        values = [override for override in parsed if self._is_value(override)]
        options = tuple(f"{o.key_or_group}=" if o in values else str(o.input_line) for o in parsed)
        if options not in self._composed:
            self._composed[options] = compose_config(overrides, name=self.name)
            return copy.deepcopy(self._composed[options])
        config = copy.deepcopy(self._composed[options])
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return compose_config(overrides, name=self.name)  # which says what is wrong
        return config

    def _is_value(self, override: Override) -> bool:
        """Whether it sets a value, and neither chooses an option nor adds or takes away a key."""
        key = override.key_or_group
        plain = not (override.is_add() or override.is_delete() or override.is_force_add() or override.package)
        return plain and not key.startswith("hydra") and "/" not in key and not is_group(key)


def load_config(overrides: Sequence[str]) -> config.Config:
    """Compose, type and check the configuration of one job."""
    with hydra_context():
        return config.validated(compose_config(overrides))


@dataclass
class CommandLineJobs:
    """What a command line would run: one list of overrides a job. `composed` is the configuration of a single run, or
    of a search what its jobs have in common. `shared` is what the line says beside its sweeps, with the node `hydra`.
    """

    multirun: bool
    shared: DictConfig
    jobs: list[list[str]] = field(default_factory=list)
    composed: DictConfig | None = None


def plan_jobs(overrides: Sequence[str], multirun: bool, name: str = "config") -> CommandLineJobs:
    """The jobs of a line for Hydra's basic sweeper; another one chooses as it goes, and gives no jobs here.

    Args:
        overrides: as on Hydra's command line.
        multirun: whether `--multirun` stands in it.
        name: see `compose_config`.

    Raises:
        UserError: several values of a key without multirun, or what `compose_config` refuses.
    """
    sweeps = [override for override in overrides if _is_sweep(override)]
    plain = [override for override in overrides if override not in sweeps]
    composed = compose_config(plain, with_hydra=True, name=name)
    if not multirun and composed.hydra.mode != RunMode.MULTIRUN:
        if sweeps:
            raise UserError(f"{sweeps[0]}: several values run as a sweep; add -m to train all of them")
        return CommandLineJobs(
            multirun=False, shared=composed, jobs=[list(overrides)], composed=without_hydra(composed)
        )
    for kind in ("launcher", "sweeper"):
        _check_plugin(f"hydra/{kind}={composed.hydra.runtime.choices[f'hydra/{kind}']}", composed.hydra[kind]._target_)
    if not str(composed.hydra.sweeper._target_).endswith("BasicSweeper"):
        return CommandLineJobs(multirun=True, shared=composed, composed=composed)
    params = [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items()]
    try:
        jobs = split_jobs(_parse([*params, *overrides]))
    except HydraException as error:
        wanted = "an interval is for a sweeper that searches, as hydra/sweeper=optuna; or list values, as KEY=1,2"
        raise UserError(f"{' '.join(sweeps or params)}: {wanted}") from error
    return CommandLineJobs(multirun=True, shared=composed, jobs=jobs)


def without_hydra(composed: DictConfig) -> DictConfig:
    """The configuration of a job alone."""
    alone = copy.deepcopy(composed)
    with open_dict(alone):
        del alone["hydra"]
    return alone


def _check_plugin(choice: str, target: str) -> None:
    """Refuse a launcher or sweeper whose package is missing."""
    module = target.rpartition(".")[0]
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        extra = next((extra for package, extra in EXTRAS.items() if package in module), None)
        remedy = f"pip install 'cnnexp[{extra}]'" if extra else "install the package that has it"
        raise UserError(f"{choice}: {module} is not installed; {remedy}")


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    wrong = "not an override; write KEY=VALUE, with quotes around special characters"
    check_text(overrides)
    try:
        parsed = parser.parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError(f"{error.override}: {wrong}") from error
    for override in parsed:
        if not override.key_or_group:
            raise UserError(f"{override.input_line}: {wrong}")
    return parsed


def check_text(overrides: Sequence[str]) -> None:
    """Refuse bytes that are no UTF-8: a config is text, and is recorded as such."""
    for override in overrides:
        if not override.isascii() and override.encode("utf-8", "replace").decode() != override:
            raise UserError(f"{override}: is no UTF-8; rename what it means, or lead to it by a link")


def _is_sweep(override: str) -> bool:
    try:
        return bool(_parse([override])[0].is_sweep_override())
    except UserError:
        return False


def _check_options(overrides: Sequence[Override]) -> None:
    """Refuse a value that no file of its config group has, and weights for a backbone that there is not."""
    if any(override.key_or_group == "hydra.searchpath" for override in overrides):
        return  # it may bring further options; Hydra names a wrong one itself
    for override in overrides:
        group = override.key_or_group
        if group.startswith("paths.weights."):
            _check_backbone(group, group_options("backbone"))
        if "." in group or override.is_delete():
            continue
        options = group_options(group)
        value = override.value()
        for name in value if isinstance(value, list) else [value]:
            if options and name not in options:
                shown = "null" if name is None else str(name)
                hint = f"; ~{group} for none" if name is None and group not in ROOT_KEYS else ""
                listed = ", ".join(nearest(shown, options))
                raise UserError(f"{group}={shown}: no such option; allowed: {listed}{hint}")


def _check_backbone(key: str, options: list[str]) -> None:
    name = key.removeprefix("paths.weights.")
    if name not in options:
        raise UserError(f"{key}: there is no backbone={name}; allowed: {', '.join(nearest(name, options))}")


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(getattr(cause, "msg", None) or cause).strip().splitlines()[0]
    deleted = re.match(r"Could not delete from config. '(.*)' does not exist", text)
    key = deleted[1] if deleted else getattr(cause, "full_key", None)
    if key is None:
        given = next((o for o in overrides if text.startswith(f"Multiple values for {_key(o)}.")), None)
        return f"{given}: has its place already; write {given.lstrip('+')}" if given else text
    given = next((o for o in overrides if f"{_key(o)}.".startswith(f"{key}.")), key)
    if given.startswith("~") and not deleted:
        return f"{given}: a key of the schema cannot be taken away; give it another value"
    if deleted or re.match(r"Key '.*' (is )?not in", text):
        allowed = _keys_beside(key, overrides)
        if allowed:
            return f"{given}: no such key; allowed: {', '.join(nearest(key, allowed))}"
        return f"{given}: no such key yet; to add it, write +{given.lstrip('~')}"
    return f"{given}: {text[0].lower()}{text[1:]}"


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def _keys_beside(key: str, overrides: Sequence[str]) -> list[str]:
    """The dotted names of the keys that stand where `key` was looked for, with the chosen group options.

    Empty where any key may stand, as in `arguments`.
    """
    parent, _, _ = key.rpartition(".")
    chosen = [o for o in overrides if "." not in _key(o) and not o.startswith(key)]
    try:
        node: Any = compose("config", overrides=chosen, return_hydra_config=True)
    except HydraException:
        node = compose("config", return_hydra_config=True)
    kind = OmegaConf.get_type(OmegaConf.select(node, parent) if parent else node)
    names = [item.name for item in fields(kind)] if is_dataclass(kind) else []
    return [f"{parent}.{name}" if parent else name for name in names]
