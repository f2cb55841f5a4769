"""The line of `cnnexp train` that trains a run, and the one that goes on with it, from what the run left.

A line is its overrides, as they were typed. Where they mean something else today, or are not recorded, the line is made
from the recorded values: the options that are nearest, and each value in which they differ.
"""

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnexp.config import SCHEMAS
from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import as_written, group_options, hydra_context, own_flags
from cnnexp.console import SECRET, redact, warn
from cnnexp.errors import UserError
from cnnexp.formats import read_yaml
from cnnexp.runs.folder import RunFolder, SweepFolder
from cnnexp.runs.job import FLAGS
from cnnexp.runs.recorded_config import (
    PLACES,
    as_recorded,
    find_original,
    is_sweep,
    read_config,
    read_overrides,
    replaced,
)
from cnnexp.runs.settings import split_line
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import leaves

if TYPE_CHECKING:
    from cnnexp.tracking.info import RunInfo

HERE = ("paths", "tracking", "sweep")  # what a new run takes from where it is started
CUT = re.compile(r"\.\.\. \(\d+ characters, sha256 [0-9a-f]+\)$")  # the end of a value that the store would not take
OPTIONS = ("freeze_policy", "phases", "trainer")  # groups whose values do not say which option they are from


# ------------------------------------------------------------------------------------------------ trains it anew


def recorded_line(tracker: RunStore, name: str, overrides: Sequence[str] = (), config_dir: str | None = None) -> str:
    """The line of the shell that trains a run or a sweep, quoted.

    Args:
        tracker: on the store.
        name: see `find_original`.
        overrides: stand in it instead of those of the same keys.
        config_dir: stands in it instead of the recorded one.

    Raises:
        UserError: there is no such run, or nothing of it says how it was made.
    """
    run = find_original(tracker, name)
    flags = {flag: run.tags[flag] for flag in FLAGS if flag in run.tags}
    if config_dir:
        flags["config_dir"] = config_dir
    typed = _typed(tracker, run)
    if is_sweep(run):
        if typed is None:
            raise UserError(f"{name}: sweep {run.run_id} has not recorded its line; name one of its runs")
        return shell_line(["-m", *_flags(flags), *replaced(typed, overrides)])
    values = _values(tracker, run)
    if typed is not None:
        alone = ["hydra.mode=RUN"] if any(o.startswith("sweep=") for o in typed) else []  # not the whole sweep again
        own = shell_line([*_flags(flags), *replaced(typed, overrides), *alone])
        if values is None or _means(typed, flags, values):
            return own
        warn(f"cnnexp: its own line composes another config today: {own}")
    if values is None:
        raise UserError(f"{name}: run {run.run_id} has neither overrides, nor params, nor a config.yaml")
    flag = [f"--config-dir={config_dir}"] if config_dir else []
    return shell_line([*flag, *replaced(line_of_values(run.run_id, values), overrides)])


def shell_line(words: Sequence[str]) -> str:
    """`cnnexp train` with these words, as it is typed, without passwords; none can do anything to a terminal."""
    line = shlex.join(["cnnexp", "train", *map(redact, words)])
    if not line.isprintable():
        raise UserError(f"{line[:200]!r}: has control characters; refused")
    if SECRET in line:
        warn("cnnexp: *** stands where there was a password or a key; write it there")
    return line


def _flags(flags: Mapping[str, str]) -> list[str]:
    return [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]


def _typed(tracker: RunStore, run: "RunInfo") -> list[str] | None:
    """The overrides of the line: from the file, or from the tag, in which blanks stand between them."""
    if not is_sweep(run) and "overrides.yaml" in tracker.artifacts(run.run_id, ""):
        return read_overrides(tracker, run.run_id)
    text = run.tags.get("overrides")
    return None if text is None or CUT.search(text) else split_line(text)


def _values(tracker: RunStore, run: "RunInfo") -> dict[str, Any] | None:
    """The config: from its file, or as params hold it."""
    if "config.yaml" in tracker.artifacts(run.run_id, ""):
        return read_config(tracker, run.run_id)
    if not run.params or any(CUT.search(value) for value in run.params.values()):
        return None
    return values_of_params(run.params)


def values_of_params(params: Mapping[str, str]) -> dict[str, Any]:
    """A config as nested values: the reverse of `cnnexp.tracking.record.flatten`."""
    nested: dict[str, Any] = {}
    for key, text in params.items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        try:
            node[last] = text if last == "name" else json.loads(text)  # a name is text, whatever it looks like
        except ValueError:
            node[last] = text
    return nested


def _means(overrides: Sequence[str], flags: Mapping[str, str], values: Mapping[str, Any]) -> bool:
    """Whether a line composes these values today, but for where things lie."""
    try:
        with hydra_context(flags.get("config_dir")):
            composed = compose_config(overrides, name=flags.get("config_name", "config"))
        return _computed(composed) == _computed(as_recorded("", values))
    except UserError:
        return False


def _computed(config: DictConfig) -> dict[str, Any]:
    """Every value that says what is computed, by its dotted key."""
    places = tuple(f"{place}." for place in PLACES)
    return {key: value for key, value in _leaves(config).items() if not f"{key}.".startswith(places)}


def _leaves(config: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config, resolve=True)
    return leaves(values)


# ---------------------------------------------------------------------------------------------- from the values


def line_of_values(run_id: str, values: Mapping[str, Any]) -> list[str]:
    """The overrides that compose a recorded config: for each group the nearest option, and what differs from it.

    `paths`, `tracking` and `sweep` are those of where the line is given.

    Args:
        run_id: for messages.
        values: the config as nested values; a value that is missing is that of the schema.

    Raises:
        UserError: a recorded key that this version does not have.
    """
    data = values.get("paths", {}).get("data") if isinstance(values.get("paths"), dict) else None
    wanted = _leaves(as_recorded(run_id, {name: value for name, value in values.items() if name not in HERE}))
    path = wanted.get("dataset.path")
    if isinstance(path, str) and isinstance(data, str) and Path(data) in Path(path).parents:
        del wanted["dataset.path"]  # where cnnexp puts it
    with hydra_context():
        line = [f"{group}={_option(group, values.get(group))}" for group in SCHEMAS if values.get(group)]
        for group in OPTIONS:
            chosen = [f"{group}={option}" for option in group_options(group)]
            line.append(min(chosen, key=lambda option: _distance(wanted, [*line, option])))
        line += _phase_optimizers(values)
        changed = _different(wanted, line)
    return [*line, *(f"{key}={_written(value)}" for key, value in changed.items())]


def _option(group: str, node: Any) -> str:
    """The option that has made this node: the one with its name, or the one whose schema has its keys."""
    options, name = group_options(group), node.get("name") if isinstance(node, dict) else None
    return str(name) if name in options else "custom"


def _phase_optimizers(values: Mapping[str, Any]) -> list[str]:
    phases = values.get("phases")
    nodes = {name: node.get("optimizer") for name, node in phases.items()} if isinstance(phases, dict) else {}
    return [f"+optimizer@phases.{name}.optimizer={_option('optimizer', node)}" for name, node in nodes.items() if node]


def _distance(wanted: Mapping[str, Any], line: Sequence[str]) -> float:
    """In how many values a line composes another config; infinite where it composes none."""
    try:
        return len(_different(wanted, line))
    except OmegaConfBaseException:  # a key of this option leads to one that these groups do not have
        return math.inf


def _different(wanted: Mapping[str, Any], line: Sequence[str]) -> dict[str, Any]:
    """What stands otherwise in the config that a line composes; a key that is new there is written with `++`."""
    composed = _leaves(compose_config(line))
    changed: dict[str, Any] = {}
    for key, value in wanted.items():
        if key.partition(".")[0] in HERE or (key in composed and composed[key] == value):
            continue
        if value != MISSING:
            changed[key if key in composed else f"++{key}"] = value
    return changed


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return text if re.fullmatch(r"[A-Za-z_][\w./-]*", text) and text.lower() not in NO_WORDS else f"'{quoted}'"


NO_WORDS = ("null", "true", "false", "nan", "inf")


# ------------------------------------------------------------------------------------------------- goes on with it


def resuming_line(folder: RunFolder, sweep: SweepFolder | None = None) -> str | None:
    """The line that goes on with the run that was stopped in this folder, or with the sweep of which it is a job; None
    where Hydra did not begin it."""
    settings = _settings(folder)
    if settings is None:
        return None
    flags, own = _flags(own_flags(settings)), list(map(redact, as_written(settings.overrides.hydra)))
    chosen = [
        override for override in own if not override.startswith(("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir="))
    ]
    if sweep:
        return shlex.join(["cnnexp", "train", "-m", *flags, *sweep.shared_overrides, *chosen])
    task = map(redact, as_written(settings.overrides.task))
    line = [override for override in task if not override.startswith("trainer.resume=")]
    return shlex.join(["cnnexp", "train", *flags, *line, *chosen, "trainer.resume=true"])


def _settings(folder: RunFolder) -> Any:
    """The node `hydra` of the run, as Hydra wrote it down."""
    try:
        return OmegaConf.create(read_yaml(folder.path / ".hydra" / "hydra.yaml")).hydra
    except (UserError, OmegaConfBaseException, AttributeError):
        return None
