"""The configuration of a run as the tracking store holds it: read as data, and checked.

Whoever can write to the store can write into it. So it is parsed as plain YAML, may hold no interpolation, and names
only targets that belong to its leaves (see `cnnexp.config.targets.check_recorded`).
"""

import os
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from cnnexp.config import SCHEMAS, Config, validated
from cnnexp.config.composition import check_text, compose_config
from cnnexp.config.hydra_driver import hydra_context
from cnnexp.config.limits import check_place
from cnnexp.config.phases import PhaseConfig
from cnnexp.config.targets import check_recorded
from cnnexp.console import SECRET, redact
from cnnexp.errors import UserError, nearest
from cnnexp.files import read_file
from cnnexp.formats import MOST_BYTES, bare_key, parse_yaml, walk
from cnnexp.runs.folder import RunFolder, SweepFolder, single_runs
from cnnexp.tracking.protocols import RunStore
from cnnexp.tracking.record import config_hash

if TYPE_CHECKING:
    from cnnexp.tracking.info import RunInfo

OF_HERE = ("paths", "tracking")  # what a rebuilt run takes from this installation
KEPT_TRACKING = ("log_model", "explain")  # but these decide what a run records
WRITTEN = ("manifests", "downloads")  # below `paths.data`, and of a recorded data set never where it says
NOT_RECORDED = "*** was not recorded; give it again"
PLACES = (  # where the same data and weights lie, and what this machine can do
    *OF_HERE,
    "dataset.path",
    "dataset.source",
    "backbone.weights",
    "trainer.resume",
    "trainer.threads",
    "trainer.loader_threads",
    "trainer.feature_cache_limit",
    "trainer.image_memory_limit",
    "trainer.image_cache_limit",
    "sweep",
)
GROUPS = (*SCHEMAS, "freeze_policy", "phases", "trainer", *OF_HERE)


# -------------------------------------------------------------------------------------------------- reading


def find_single(tracker: RunStore, name: str) -> "RunInfo":
    """The run that `name` means, which is no sweep.

    Raises:
        UserError: as of `find_recorded`; it is the parent run of a sweep.
    """
    run = find_recorded(tracker, name)
    if is_sweep(run):
        raise UserError(f"{name}: run {run.run_id} is a sweep, which trained nothing itself; name one of its runs")
    return run


def is_sweep(run: "RunInfo") -> bool:
    """Whether it is the parent run of a sweep."""
    return run.tags.get("sweep") == "parent"


def find_recorded(tracker: RunStore, name: str) -> "RunInfo":
    """The run, or the parent run of a sweep, that `name` means, see `RunStore.find_run`; or that a folder belongs to.

    Raises:
        UserError: there is none, or several; its id is none of MLflow's, which becomes a folder's name here.
    """
    run: RunInfo = _run_of_folder(tracker, name) or tracker.find_run(name)
    if not re.fullmatch(r"[0-9a-f]{32}", run.run_id):
        raise UserError(f"{name}: the store answers with the run id {run.run_id[:80]!r}; refused")
    return run


def find_original(tracker: RunStore, name: str) -> "RunInfo":
    """`find_recorded`, where `latest` is no run that was made from another one."""
    run = find_recorded(tracker, name)
    while name == "latest" and "variation_of" in run.tags:
        run = tracker.get_run(run.tags["variation_of"])
    return run


def _run_of_folder(tracker: RunStore, name: str) -> "RunInfo | None":
    """None where `name` is no folder; one that has the form of a run id is meant where there is a folder of a run."""
    path = Path(name)
    if not path.is_dir():
        return None
    folder = path.resolve().parent if path.resolve().name == ".hydra" else path
    manifest = RunFolder(folder).manifest
    run_id = SweepFolder(folder).parent_run_id or (manifest.run_id if manifest else "")
    if not run_id:
        if os.sep not in name and name not in (".", ".."):
            return None
        raise UserError(f"{name}: no run or sweep is recorded in this folder; name one below paths.runs, or a run id")
    try:
        return tracker.find_run(f"runs:/{run_id}")
    except UserError as error:
        root = folder.resolve().parent.parent
        raise UserError(f"{name}: {error}; was it recorded elsewhere, as in paths.root={root}?") from error


def read_text(tracker: RunStore, run_id: str, name: str) -> str:
    """A text artifact of a run.

    Raises:
        UserError: the run has no such artifact, or it is no text of a sensible length.
    """
    with tempfile.TemporaryDirectory() as folder:
        path: Path = tracker.download(run_id, name, folder)
        try:
            return read_file(path, MOST_BYTES).decode("utf-8", "replace")
        except OSError as error:
            raise UserError(f"run {run_id}: {name} is no text of at most {MOST_BYTES:,} bytes") from error


def read_config(tracker: RunStore, run_id: str) -> dict[str, Any]:
    """The composed config that a run recorded, as plain values; its targets are still to be checked.

    Raises:
        UserError: there is none, it is no config, or a value holds an interpolation.
    """
    values = parse_yaml(read_text(tracker, run_id, "config.yaml"), f"run {run_id}: config.yaml")
    if not isinstance(values, dict):
        raise UserError(f"run {run_id}: config.yaml is no mapping of keys to values")
    for path, value in walk(values):
        key = ".".join(map(str, path))
        if not all(isinstance(part, str | int) for part in path) or "${" in key:
            raise UserError(f"run {run_id}: config.yaml: {key[:100]!r} is no key of a config")
        if isinstance(value, str) and "${" in value:
            raise UserError(f"run {run_id}: config.yaml: {key}={value[:100]!r}: a recorded config is resolved; refused")
    return values


def read_overrides(tracker: RunStore, run_id: str) -> list[str]:
    """The overrides that a run was started with.

    Raises:
        UserError: they are not recorded.
    """
    values = parse_yaml(read_text(tracker, run_id, "overrides.yaml"), f"run {run_id}: overrides.yaml")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"run {run_id}: overrides.yaml is no list of overrides")
    return values


def check_targets(run_id: str, values: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse a recorded config, or a part of one, that names what does not belong there.

    Raises:
        UserError: a target that is neither in its place nor in `allowed`; a key of the schema hidden in `arguments`.
    """
    for path, value in walk(values):
        if path and path[-1] == "_target_":
            try:
                check_recorded(tuple(map(str, path)), value, allowed)
            except UserError as error:
                raise UserError(f"run {run_id}: config.yaml: {error}") from error
        own = path and _part(values, str(path[0])).get("_target_") in allowed  # takes what it takes
        if path and path[-1] == "arguments" and isinstance(value, dict) and not own:
            known = {item.name for kind in SCHEMAS.get(str(path[0]), {}).values() for item in fields(kind)}
            hidden = next((name for name in value if name in known), None)
            if hidden:
                key = ".".join(map(str, path))
                raise UserError(f"run {run_id}: config.yaml: {key}.{hidden}: is a key of its own; refused")


@dataclass(frozen=True)
class Asked:
    """What a user says of a recorded run: where things are here, or what is varied.

    overrides:  KEY=VALUE, or GROUP=OPTION.
    config_dir: files of the user's own, of which an option may be.
    allowed:    targets of the user's own in the recorded config.
    """

    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None
    allowed: list[str] = field(default_factory=list)

    @property
    def line(self) -> list[str]:
        """As it is typed."""
        own = [f"--config-dir={self.config_dir}"] if self.config_dir else []
        return [*map(redact, self.overrides), *own, *(f"--allow-target={target}" for target in self.allowed)]


def restore_config(
    run_id: str, values: Mapping[str, Any], overrides: Sequence[str], config_dir: str | None = None
) -> DictConfig:
    """The recorded config, typed, with `overrides` applied to it as Hydra would.

    `paths` and `tracking` are those of this installation. A group that is chosen anew (`dataset=folder`) is composed
    from `conf/`. A key that the record lacks, because it is newer, has the default of the schema.

    Args:
        run_id: for messages.
        values: from `read_config`.
        overrides: KEY=VALUE, or GROUP=OPTION.
        config_dir: files of the user's own.

    Raises:
        UserError: an override that names nothing, or a recorded key that this version does not have.
    """
    parsed = _parse_overrides(overrides)
    given = [override.key_or_group for override in parsed]
    anew = [*dict.fromkeys([*OF_HERE, *(key for key in given if key in GROUPS)])]
    with hydra_context(config_dir):
        here = compose_config([str(o.input_line) for o in parsed if _top(o) in anew])
    config = as_recorded(run_id, {name: value for name, value in values.items() if name not in anew})
    if config.loss.label_smoothing == config.trainer.label_smoothing:  # by its earlier name, and maybe given anew by it
        config.loss.label_smoothing = "${trainer.label_smoothing}"
    for item in fields(Config):
        if item.name in anew:
            config[item.name] = here[item.name]
        elif item.name not in values and item.default is MISSING:
            raise UserError(f"run {run_id}: config.yaml: has no {item.name}")
    for key in KEPT_TRACKING:
        recorded = _part(values, "tracking").get(key)
        if f"tracking.{key}" not in given and (isinstance(recorded, bool) or recorded == "auto"):
            config.tracking[key] = recorded
    for override in parsed:
        if _top(override) not in anew:
            _apply(config, override)
    if "dataset" not in anew:
        _find_data(config, values, given)
    _check_secrets(run_id, config)
    return config


def _check_secrets(run_id: str, config: DictConfig) -> None:
    """Refuse a value of which a part was not written down, unless it is of this installation."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    for path, value in walk({name: value for name, value in values.items() if name not in OF_HERE}):
        if isinstance(value, str) and SECRET in value:
            key = ".".join(map(str, path))
            raise UserError(f"run {run_id}: {key}={value}: {NOT_RECORDED}: {key}=VALUE")


def hash_today(folder: RunFolder, wanted: str) -> str | None:
    """The `config_hash` of the run in a folder, its config read through the schema of this version.

    So a key that came later, at its neutral default, does not make another run of it.

    Args:
        folder: before Hydra writes the config of a new run there.
        wanted: the hash that is looked for: where the folder says that it has this one, nothing is read.

    Returns:
        None where there is no run, or its config cannot be read by this version.
    """
    manifest = folder.manifest
    if manifest is None:
        return None
    if manifest.config_hash == wanted:
        return wanted
    try:
        config = as_recorded(manifest.run_id, folder.read_config())
        values: Any = OmegaConf.to_container(config, resolve=True)
    except (UserError, OSError, AttributeError, yaml.YAMLError, OmegaConfBaseException):
        return None
    without = values | {"reference_accuracy": None}  # which a version before showed beside other images, too
    return wanted if wanted == config_hash(without) else config_hash(values)


def find_unfinished(runs: Path, wanted: str) -> RunFolder | None:
    """The newest folder below `runs` of a single run with this config, see `hash_today`, that is not finished."""
    unfinished = (folder for folder in reversed(single_runs(runs)) if folder.status != "FINISHED")
    return next((folder for folder in unfinished if hash_today(folder, wanted) == wanted), None)


def adopt(folder: RunFolder, wanted: str) -> None:
    """Let a run of an earlier version that computes the same go on, or count as done: it gets today's hash."""
    manifest = folder.manifest
    if manifest and manifest.config_hash != wanted and hash_today(folder, wanted) == wanted:
        folder.write_manifest(replace(manifest, config_hash=wanted))


def as_recorded(run_id: str, values: Mapping[str, Any]) -> DictConfig:
    """The config of a run as it was recorded, places included: for a run of this installation.

    Raises:
        UserError: a recorded key that this version does not have.
    """
    config = OmegaConf.structured(Config)
    known = {item.name for item in fields(Config)}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"run {run_id}: config.yaml: {name}: no such key in this version of cnnexp")
        _set(run_id, config, name, value)
    return config


def typed_record(run_id: str, config: DictConfig) -> Config:
    """`cnnexp.config.validated` for what `restore_config` gave, of which every value may be of any kind.

    Raises:
        UserError: a value that is missing or not allowed.
    """
    try:
        return validated(config)
    except (TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"run {run_id}: config.yaml: a value of a wrong kind: {error}") from error


def variations(overrides: Sequence[str]) -> list[str]:
    """Those that change more than where data, weights and records lie, and how this machine works."""

    def is_place(key: str) -> bool:
        return any(f"{key}.".startswith(f"{place}.") for place in PLACES)

    return [str(o.input_line) for o in _parse_overrides(overrides) if not is_place(o.key_or_group)]


def replaced(line: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides of a line, and after them those that stand in it instead of the ones of the same keys."""
    anew = {bare_key(override) for override in overrides}
    return [*(override for override in line if bare_key(override) not in anew), *overrides]


def _parse_overrides(overrides: Sequence[str]) -> list[Override]:
    check_text(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"{str(error).splitlines()[0]}; write KEY=VALUE") from error
    known = [item.name for item in fields(Config)]
    for override in parsed:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: several values; a recorded run is varied by one value of a key")
        if override.is_delete() or override.package is not None or _top(override) not in known:
            allowed = ", ".join(nearest(_top(override), known))
            raise UserError(f"{override.input_line}: changes no recorded key; write KEY=VALUE, of {allowed}")
    return parsed


def _top(override: Override) -> str:
    return override.key_or_group.partition(".")[0]


def _part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = values.get(name)
    return part if isinstance(part, dict) else {}


def _set(run_id: str, config: DictConfig, name: str, value: Any) -> None:
    try:
        config[name] = _typed(run_id, name, value)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"run {run_id}: config.yaml: {name}={value!s:.100}: {reason}") from error


def _typed(run_id: str, name: str, value: Any) -> Any:
    """A recorded part of the config with its schema, so that what the record lacks gets a default."""
    if name == "phases":
        if not isinstance(value, dict):
            raise UserError(f"run {run_id}: config.yaml: phases={value!s:.100}: must be phases by name")
        return {phase: _typed_phase(run_id, f"phases.{phase}", node) for phase, node in value.items()}
    kind = _schema(name, value) if name in SCHEMAS else next(i.type for i in fields(Config) if i.name == name)
    return _merged(run_id, name, kind, value) if is_dataclass(kind) else value


def _typed_phase(run_id: str, key: str, node: Any) -> Any:
    own = node.get("optimizer") if isinstance(node, dict) else None
    phase = _merged(run_id, key, PhaseConfig, {**node, "optimizer": None} if own else node)
    if own:
        phase.optimizer = _merged(run_id, f"{key}.optimizer", _schema("optimizer", own), own)
    return phase


def _schema(group: str, value: Any) -> type:
    """The schema with all recorded keys, first the one that is called like the recorded option."""
    kinds = SCHEMAS[group]
    names = {kind: {item.name for item in fields(kind)} for kind in kinds.values()}
    recorded = set(value) if isinstance(value, dict) else set()
    fitting = [kind for kind in names if recorded <= names[kind]] or list(names)
    called = kinds.get(str(value.get("name"))) if isinstance(value, dict) else None
    if called in fitting:
        return called
    return max(fitting, key=lambda kind: (len(recorded & names[kind]), -len(names[kind])))


def _merged(run_id: str, key: str, kind: Any, value: Any) -> Any:
    """`value` in the schema `kind`; whether a run was to be resumed is no part of what it computed."""
    if not isinstance(value, dict):
        raise UserError(f"run {run_id}: config.yaml: {key}={value!s:.100}: must be keys with values")
    own = {name: below for name, below in value.items() if (key, name) != ("trainer", "resume")}
    try:
        return OmegaConf.merge(OmegaConf.structured(kind), own)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        wrong = "no such key in this version of cnnexp" if isinstance(error, ConfigKeyError) else reason
        raise UserError(f"run {run_id}: config.yaml: {key}.{error.full_key}: {wrong}") from error


def _apply(config: DictConfig, override: Override) -> None:
    try:
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=override.is_add())
    except OmegaConfBaseException as error:
        raise UserError(f"{override.input_line}: {str(error.msg or error).splitlines()[0]}") from error


def _find_data(config: DictConfig, values: Mapping[str, Any], given: Collection[str]) -> None:
    """Let `dataset.path` lead to the data on this machine, unless it is given.

    What lay below the recorded `paths.data` is looked for below that of this installation, then where it lay, and
    made in the first place if it has to be; what lay elsewhere must be there. A `dataset.source` that is not here is
    left out: what was made from it may be here all the same. What is written, is written here.

    Raises:
        UserError: it is not there.
    """
    node = config.dataset
    for key in WRITTEN:
        if isinstance(node.get(key), str) and f"dataset.{key}" not in given:
            node[key] = str(Path(config.paths.data) / key)
    if "dataset.path" in given:
        return
    recorded, data = node.get("path"), _part(values, "paths").get("data")
    for name in ("path", "source"):
        check_place(f"dataset.{name}", node.get(name))
    if isinstance(recorded, str):
        lies = Path(recorded).expanduser().exists()
        below = os.path.relpath(recorded, data) if isinstance(data, str) else os.pardir
        moved = Path(config.paths.data) / below
        outside = below.split(os.sep)[0] == os.pardir
        if outside and not lies:
            if SECRET in recorded:
                raise UserError(f"dataset.path={recorded}: {NOT_RECORDED}: dataset.path=VALUE")
            raise UserError(f"dataset.path={recorded}: is not on this machine; say where it is: dataset.path=WHERE")
        if not outside and (moved.exists() or not lies):
            node.path = str(moved)
    source = node.get("source")
    if isinstance(source, str) and not Path(source).expanduser().exists():
        node.source = None
