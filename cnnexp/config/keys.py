"""The reference of the keys, made from the schema."""

import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from cnnexp.config import SCHEMAS, Config
from cnnexp.config.limits import describe_limits
from cnnexp.config.phases import PhaseConfig
from cnnexp.errors import UserError, nearest


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    kind:   its type, as `int` or `text or null`.
    limits: what it may be, as `at least 1`.
    only:   with which options of its group it is there, if not with all.
    """

    name: str
    doc: str
    kind: str
    default: str
    limits: str
    only: str = ""


def find_keys(part: str) -> list[Key]:
    """The keys whose names contain `part`; all of them for "".

    Raises:
        UserError: there is none.
    """
    every = all_keys()
    found = [key for key in every if part in key.name]
    if not found:
        near = nearest(part, [key.name for key in every])
        raise UserError(f"{part}: no key has this in its name; near are {', '.join(near[:5])}")
    return found


def all_keys() -> list[Key]:
    """Every key, in the order of the schema; one that only some options of a group have stands once."""
    return _keys_of(Config(), "")


def _keys_of(node: Any, prefix: str) -> list[Key]:
    keys: list[Key] = []
    hints = get_type_hints(type(node))
    for item in fields(node):
        name, below, value = f"{prefix}{item.name}", _dataclass_in(hints[item.name]), getattr(node, item.name)
        if value == MISSING and below:
            value = below()
        if prefix == "" and item.name in SCHEMAS:
            keys += _keys_of_group(name, SCHEMAS[item.name])
        elif below is PhaseConfig and prefix == "":
            keys += _keys_of(PhaseConfig(), "phases.NAME.")
        elif is_dataclass(value):
            keys += _keys_of(value, f"{name}.")
        else:
            doc, limits = item.metadata.get("doc", ""), describe_limits(item.metadata)
            keys.append(Key(name, doc, _kind(hints[item.name]), _shown(value), limits))
    return keys


def _keys_of_group(group: str, options: dict[str, type]) -> list[Key]:
    """The keys of all options of a group, each once; where only some have it, these are named."""
    having: dict[tuple[str, str, str], list[str]] = {}
    first: dict[tuple[str, str, str], Key] = {}
    for option, node in options.items():
        for key in _keys_of(node(), f"{group}."):
            same = (key.name, key.doc, key.default)
            first.setdefault(same, key)
            having.setdefault(same, []).append(option)
    keys = []
    for same, key in first.items():
        only = "" if len(having[same]) == len(options) else f"with {group}={','.join(having[same])}"
        keys.append(Key(key.name, key.doc, key.kind, key.default, key.limits, only))
    return keys


def _shown(value: Any) -> str:
    """A default as YAML has it; one without a value as OmegaConf writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace("'", "")


NAMES = {str: "text", int: "int", float: "float", bool: "true or false", Any: "any"}


def _kind(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _kind(part) for part in inner)
    if origin is list:
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return "mapping"
    if is_dataclass(hint):
        return "mapping"
    return NAMES.get(hint, typing.cast(Any, hint).__name__ if isinstance(hint, type) else str(hint))


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass of a nested node: itself, or the values of a mapping."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    values = [part for part in get_args(hint) if isinstance(part, type) and is_dataclass(part)]
    return values[0] if values else None
