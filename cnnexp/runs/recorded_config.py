"""The configuration of a run as the tracking store holds it: read as data, and checked.

Whoever can write to the store can write into it. So it is parsed as plain YAML, may hold no interpolation, and names
only targets that belong to its leaves (see `cnnexp.config.targets.check_recorded`).
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cnnexp.config import SCHEMAS
from cnnexp.config.targets import check_recorded
from cnnexp.errors import UserError

if TYPE_CHECKING:
    from cnnexp.tracking.info import RunInfo

MOST_BYTES = 1_000_000  # of a text that is read back; ours have a few thousand
MOST_NODES = 20_000
MOST_LEVELS = 20


# -------------------------------------------------------------------------------------------------- reading


def find_single(tracker: Any, name: str) -> "RunInfo":
    """The run that `name` means, which is no sweep.

    Raises:
        UserError: there is none, or several; it is the parent run of a sweep; its id is none of MLflow's, which
            becomes a folder's name here.
    """
    run: RunInfo = tracker.find_run(name)
    if not re.fullmatch(r"[0-9a-f]{32}", run.run_id):
        raise UserError(f"{name}: the store answers with the run id {run.run_id[:80]!r}; refused")
    if run.tags.get("sweep") == "parent":
        raise UserError(f"{name}: run {run.run_id} is a sweep, which trained nothing itself; name one of its runs")
    return run


def read_text(tracker: Any, run_id: str, name: str) -> str:
    """A text artifact of a run.

    Raises:
        UserError: the run has no such artifact, or it is no text of a sensible length.
    """
    with tempfile.TemporaryDirectory() as folder:
        path: Path = tracker.download(run_id, name, folder)
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise UserError(f"run {run_id}: {name} is no text of at most {MOST_BYTES:,} bytes")
        return path.read_text(encoding="utf-8", errors="replace")


def read_config(tracker: Any, run_id: str) -> dict[str, Any]:
    """The composed config that a run recorded, as plain values; its targets are still to be checked.

    Raises:
        UserError: there is none, it is no config, or a value holds an interpolation.
    """
    values = _parse(run_id, "config.yaml", read_text(tracker, run_id, "config.yaml"))
    if not isinstance(values, dict):
        raise UserError(f"run {run_id}: config.yaml is no mapping of keys to values")
    for path, value in _walk(run_id, values):
        key = ".".join(map(str, path))
        if not all(isinstance(part, str | int) for part in path) or "${" in key:
            raise UserError(f"run {run_id}: config.yaml: {key[:100]!r} is no key of a config")
        if isinstance(value, str) and "${" in value:
            raise UserError(f"run {run_id}: config.yaml: {key}={value[:100]!r}: a recorded config is resolved; refused")
    return values


def read_overrides(tracker: Any, run_id: str) -> list[str]:
    """The overrides that a run was started with.

    Raises:
        UserError: they are not recorded.
    """
    values = _parse(run_id, "overrides.yaml", read_text(tracker, run_id, "overrides.yaml"))
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"run {run_id}: overrides.yaml is no list of overrides")
    return values


def _parse(run_id: str, name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"run {run_id}: {name} cannot be read: {str(error).splitlines()[0]}") from error


def _walk(run_id: str, values: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value below `values` with the keys that lead to it, without recursion: YAML can nest without end."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), values)]
    for _ in range(MOST_NODES):
        if not waiting:
            return
        path, value = waiting.pop()
        if len(path) > MOST_LEVELS:
            break
        yield path, value
        if isinstance(value, dict):
            waiting += [((*path, key), below) for key, below in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, number), below) for number, below in enumerate(value)]
    raise UserError(f"run {run_id}: config.yaml has more than {MOST_NODES:,} values or {MOST_LEVELS} levels; refused")


def check_targets(run_id: str, values: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse a recorded config, or a part of one, that names what does not belong there.

    Raises:
        UserError: a target that is neither in its place nor in `allowed`; a key of the schema hidden in `arguments`.
    """
    for path, value in _walk(run_id, values):
        if path and path[-1] == "_target_":
            try:
                check_recorded(tuple(map(str, path)), value, allowed)
            except UserError as error:
                raise UserError(f"run {run_id}: config.yaml: {error}") from error
        if path and path[-1] == "arguments" and isinstance(value, dict):
            known = {item.name for kind in SCHEMAS.get(str(path[0]), {}).values() for item in fields(kind)}
            hidden = next((name for name in value if name in known), None)
            if hidden:
                key = ".".join(map(str, path))
                raise UserError(f"run {run_id}: config.yaml: {key}.{hidden}: is a key of its own; refused")
