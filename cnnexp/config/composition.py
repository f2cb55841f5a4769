"""Composes `conf/` with a user's overrides, and turns what Hydra says of a mistake into one line."""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from typing import Any, get_type_hints

from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnnexp import config
from cnnexp.config.hydra_driver import (
    check_own_files,
    chosen_options,
    group_options,
    hydra_context,
    job_subdir,
    own_file,
    parse_overrides,
    split_jobs,
)
from cnnexp.config.phases import PhaseConfig
from cnnexp.console import warn_once
from cnnexp.errors import UserError, nearest
from cnnexp.formats import bare_key

EXTRAS = {  # package of a launcher or sweeper -> the extra of cnnexp that brings it
    "hydra_joblib_launcher": "joblib",
    "hydra_ray_launcher": "ray",
    "hydra_submitit_launcher": "slurm",
    "hydra_optuna_sweeper": "optuna",
}
LONGEST_NAME = 255  # bytes of a folder's name
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
    except (AttributeError, AssertionError) as error:  # of OmegaConf, where keys are given to what is null
        raise UserError(_below_null(overrides, name)) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        line = _of_own_file(error) or _of_defaults(error, overrides) or _one_line(error, overrides)
        raise UserError(line) from error


def load_config(overrides: Sequence[str], config_dir: str | None = None) -> config.Config:
    """Compose, type and check the configuration of one job, maybe with files of the user's own."""
    with hydra_context(config_dir):
        return config.validated(compose_config(overrides))


@dataclass
class CommandLineJobs:
    """What a command line would run: one list of overrides a job. `composed` is the configuration of a single run, or
    of a search what its jobs have in common. `shared` is what the line says beside its sweeps, with the node `hydra`.

    overrides:  of the line, with the options that a `glob` chose in its place.
    swept:      those with several values, also those that a file gives the sweeper.
    subdirs:    of the jobs of a sweep, below its folder.
    name:       of the root YAML file.
    config_dir: of the user's own files, as `--config-dir`.
    """

    multirun: bool
    shared: DictConfig
    overrides: list[str] = field(default_factory=list)
    jobs: list[list[str]] = field(default_factory=list)
    composed: DictConfig | None = None
    swept: list[str] = field(default_factory=list)
    subdirs: list[str] = field(default_factory=list)
    name: str = "config"
    config_dir: str | None = None


def plan_jobs(overrides: Sequence[str], multirun: bool, name: str = "config") -> CommandLineJobs:
    """The jobs of a line for Hydra's basic sweeper; another one chooses as it goes, and gives no jobs here.

    Args:
        overrides: as on Hydra's command line.
        multirun: whether `--multirun` stands in it.
        name: see `compose_config`.

    Raises:
        UserError: several values of a key without multirun, a key with none, or what `compose_config` refuses.
    """
    sweeps = [override for override in overrides if _is_sweep(override)]
    plain = [override for override in overrides if override not in sweeps]
    composed = compose_config(plain, with_hydra=True, name=name)
    if composed.hydra.job.chdir:
        warn_once("cnnexp: hydra.job.chdir=true has no effect: relative paths count from where the command was given")
    for source in composed.hydra.runtime.config_sources:
        if source.schema == "file" and source.provider.startswith("hydra.searchpath"):
            check_own_files("hydra.searchpath", source.path)
    if not multirun and composed.hydra.mode != RunMode.MULTIRUN:
        if sweeps:
            raise UserError(f"{sweeps[0]}: several values run as a sweep; add -m to train all of them")
        alone = without_hydra(composed)
        return CommandLineJobs(False, composed, list(overrides), [list(overrides)], alone, name=name)
    settings = composed.hydra
    for kind in ("launcher", "sweeper"):
        _check_plugin(kind, settings)
    params = _sweeper_params(settings)
    try:
        written = _without_globs(params)
        _swept(written)
    except UserError as error:
        raise UserError(f"hydra.sweeper.params: {error}") from error
    line = [*_without_globs(overrides), *(override for override in written if override not in params)]
    plan = CommandLineJobs(True, composed, line, composed=composed, swept=_swept([*written, *line]), name=name)
    if not str(settings.sweeper._target_).endswith("BasicSweeper"):
        return plan
    size = settings.sweeper.max_batch_size
    if size is not None and size < 1:
        raise UserError(f"hydra.sweeper.max_batch_size={size}: must be at least 1, or null for one batch of all jobs")
    order_jobs(plan, line)
    return plan


def order_jobs(plan: CommandLineJobs, overrides: list[str]) -> None:
    """Give a sweep of Hydra's basic sweeper its jobs as they come by this order of its overrides."""
    params = _sweeper_params(plan.shared.hydra)
    try:
        plan.jobs = split_jobs(_parse([*params, *overrides]))
    except HydraException as error:
        wanted = "an interval is for a sweeper that searches, as hydra/sweeper=optuna; or list values, as KEY=1,2"
        raise UserError(f"{' '.join(plan.swept)}: {wanted}") from error
    plan.overrides = overrides


def _sweeper_params(settings: DictConfig) -> list[str]:
    """The overrides that a file gives the sweeper."""
    params: Mapping[str, Any] = settings.sweeper.get("params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def _without_globs(overrides: Sequence[str]) -> list[str]:
    """The same, with the options of its group that each `glob` chooses, those of subfolders too."""
    written = []
    for override in _parse(overrides):
        names = chosen_options(override)
        if names is not None and not names:
            group = override.key_or_group
            options = group_options(group)
            allowed = f"of these: {', '.join(options)}" if options else f"for {group} is no config group; list values"
            raise UserError(f"{override.input_line}: chooses no option {allowed}")
        key = override.get_key_element()
        written.append(str(override.input_line) if names is None else f"{key}={','.join(names)}")
    return written


def _swept(overrides: Sequence[str]) -> list[str]:
    """Those with several values.

    Raises:
        UserError: one has none.
    """
    swept = [override for override in _parse(list(dict.fromkeys(overrides))) if override.is_sweep_override()]
    for override in swept:
        if re.match(r"hydra[./](sweeper|launcher)\b", override.key_or_group):
            raise UserError(f"{override.input_line}: is read once, for the whole sweep; give it one value")
        if override.is_discrete_sweep() and next(iter(override.sweep_string_iterator()), None) is None:
            raise UserError(f"{override.input_line}: has no value; a range ends before its stop: range(0,3) is 0, 1, 2")
    return [str(override.input_line) for override in swept]


def job_subdirs(plan: CommandLineJobs) -> list[str]:
    """The folders of the jobs of a sweep, below that of the sweep, inside `hydra_context`.

    Raises:
        UserError: two jobs have one folder, one has none of its own in that of the sweep, or a name is too long.
    """
    given = OmegaConf.to_container(plan.shared.hydra.sweep, resolve=False)["subdir"]  # type: ignore[index, call-overload]
    key = f"hydra.sweep.subdir={given}"
    if given == "${hydra.job.num}":
        return [str(number) for number in range(len(plan.jobs))]
    if not plan.jobs and not any(name in str(given) for name in ("hydra.job.num", "hydra.job.id", "override_dirname")):
        raise UserError(f"{key}: two jobs of a search may get one folder; take ${{hydra.job.num}} into it")
    first: dict[str, int] = {}
    for number, job in enumerate(plan.jobs):
        try:
            subdir = job_subdir(compose_config(job, with_hydra=True, name=plan.name), number)
        except OmegaConfBaseException as error:
            raise UserError(f"{key}: {str(error.msg or error).splitlines()[0]}") from error
        place = os.path.normpath(subdir)
        parts = place.split(os.sep)
        if parts[0] in ("", os.curdir, os.pardir):
            below = "below hydra.sweep.dir; give a name, as ${hydra.job.num}"
            raise UserError(f"{key}: job {number} would lie in {place}, not in a folder of its own {below}")
        if max(len(part.encode()) for part in parts) > LONGEST_NAME:
            remedy = (
                "leave some out with hydra.job.config.override_dirname.exclude_keys=[KEY], or take ${hydra.job.num}"
            )
            raise UserError(f"{key}: the name of job {number}'s folder has over {LONGEST_NAME} bytes; {remedy}")
        if (other := first.setdefault(place, number)) != number:
            raise UserError(
                f"{key}: jobs {other} and {number} would have one folder, {place}; take ${{hydra.job.num}} into it"
            )
    return list(first)


def without_hydra(composed: DictConfig) -> DictConfig:
    """The configuration of a job alone."""
    alone = copy.deepcopy(composed)
    with open_dict(alone):
        del alone["hydra"]
    return alone


def _check_plugin(kind: str, settings: DictConfig) -> None:
    """Refuse a launcher or sweeper that is none, or whose package is missing."""
    choice = f"hydra/{kind}={settings.runtime.choices[f'hydra/{kind}']}"
    target = settings[kind].get("_target_") if isinstance(settings[kind], DictConfig) else None
    if not isinstance(target, str):
        raise UserError(f"hydra.{kind}={settings[kind]}: names no {kind}; choose one, as hydra/{kind}=basic")
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
    wrong = "not an override; write KEY=VALUE, with quotes around special characters"
    check_text(overrides)
    try:
        parsed = parse_overrides(overrides)
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


def _of_own_file(error: Exception) -> str | None:
    """What is wrong in a file of the user's own, with the file; None where it is not in one."""
    found = re.match(r"In '(.+?)': \w+ raised while composing config:\n(.*)\n(?:.*\n)*?\s*full_key: (.*)", str(error))
    file = own_file(found[1]) if found else None
    if found is None or file is None:
        return None
    text, key = found[2], found[3]
    if not re.match(r"Key '.*' (is )?not in", text):
        return f"{file}: {key}: {text[0].lower()}{text[1:]}"
    allowed = _keys_of_type(key, str(error))
    return f"{file}: {key}: no such key" + (f"; allowed: {', '.join(nearest(key, allowed))}" if allowed else "")


def _of_defaults(error: Exception, overrides: Sequence[str]) -> str | None:
    """What is wrong in the defaults list of a file of the user's own, with the file; None where it is in none."""
    text = str(error)
    if (invalid := re.match(r"Invalid defaults list in '(.+?)', (.*)", text)) and (file := own_file(invalid[1])):
        return f"{file}: defaults: {invalid[2]}"
    missing = re.match(r"In '.+?': Could not find '(.+)/(.+?)'", text)
    if missing is None:
        return None
    group, option = missing[1], missing[2]
    chosen = [own_file(f"{bare_key(o)}/{o.partition('=')[2]}") for o in overrides]
    file = next((own for own in chosen if own and option in own.read_text("utf-8", "replace")), None)
    allowed = ", ".join(nearest(option, group_options(group)))
    return f"{f'{file}: ' if file else ''}defaults: {group}={option}: no such option; allowed: {allowed}"


def _keys_of_type(key: str, text: str) -> list[str]:
    """The dotted names that stand where `key` was looked for, by the name of the schema in Hydra's text."""
    name = re.search(r"object_type=(\w+)", text)
    kinds = [kind for kind in _all_schemas(config.Config) if name and kind.__name__ == name[1]]
    parent = key.rpartition(".")[0]
    return [f"{parent}.{item.name}" if parent else item.name for item in fields(kinds[0])] if kinds else []


def _all_schemas(kind: type) -> list[type]:
    """The dataclasses that the config is made of, and those of the groups' options."""
    found: list[type] = [
        kind,
        PhaseConfig,
        *(option for options in config.SCHEMAS.values() for option in options.values()),
    ]
    for below in found:
        hints = get_type_hints(below).values()
        found += [hint for hint in hints if isinstance(hint, type) and is_dataclass(hint) and hint not in found]
    return found


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(getattr(cause, "msg", None) or cause).strip().splitlines()[0]
    deleted = re.match(r"Could not delete from config. '(.*)' does not exist", text)
    key = deleted[1] if deleted else getattr(cause, "full_key", None)
    if key is None:
        given = next((o for o in overrides if text.startswith(f"Multiple values for {bare_key(o)}.")), None)
        return f"{given}: has its place already; write {given.lstrip('+')}" if given else text
    given = next((o for o in overrides if f"{bare_key(o)}.".startswith(f"{key}.")), key)
    if given.startswith("~") and not deleted:
        return f"{given}: a key of the schema cannot be taken away; give it another value"
    if deleted or re.match(r"Key '.*' (is )?not in", text):
        allowed = _keys_beside(key, overrides)
        if allowed:
            return f"{given}: no such key; allowed: {', '.join(nearest(key, allowed))}"
        return f"{given}: no such key yet; to add it, write +{given.lstrip('~')}"
    return f"{given}: {text[0].lower()}{text[1:]}"


def _below_null(overrides: Sequence[str], name: str) -> str:
    """Which of the overrides gives keys to what is null, and how they are given."""
    for number, given in enumerate(overrides):
        try:
            compose(name, overrides=list(overrides[: number + 1]))
        except (AttributeError, AssertionError):
            if ".params" in bare_key(given):
                return f"{given}: is for a file of the group sweep; on the line, give the keys themselves, as seed=0,1"
            return f"{given}: its place is null, and takes no keys on the line; give them in a file of the group sweep"
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
    return f"{' '.join(overrides)}: cannot be composed"


def _keys_beside(key: str, overrides: Sequence[str]) -> list[str]:
    """The dotted names of the keys that stand where `key` was looked for, with the chosen group options.

    Empty where any key may stand, as in `arguments`.
    """
    parent, _, _ = key.rpartition(".")
    chosen = [o for o in overrides if "." not in bare_key(o) and not o.startswith(key)]
    try:
        node: Any = compose("config", overrides=chosen, return_hydra_config=True)
    except HydraException:
        node = compose("config", return_hydra_config=True)
    kind = OmegaConf.get_type(OmegaConf.select(node, parent) if parent else node)
    names = [item.name for item in fields(kind)] if is_dataclass(kind) else []
    return [f"{parent}.{name}" if parent else name for name in names]
