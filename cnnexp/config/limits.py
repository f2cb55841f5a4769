"""What a config value may be: declared beside its default, checked once the config is composed."""

import math
import operator
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnexp.errors import UserError, nearest

LONGEST_NAME = 255  # bytes, of every usual file system
LONGEST_PATH = 3000  # bytes; Linux has 4096, and files of ours go below
MOST_SHOWN = 100  # letters of a place in a message

BOUNDS = {
    "minimum": ("at least", operator.ge),
    "maximum": ("at most", operator.le),
    "above": ("more than", operator.gt),
    "below": ("less than", operator.lt),
}


def option(  # noqa: PLR0913 - each is a keyword, of which a field of the schema names those that it has
    default: Any = MISSING,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    also: Callable[[Any], Collection[str]] | None = None,
    place: bool | None = None,
    doc: str = "",
) -> Any:
    """A config field with its limits: inclusive (minimum, maximum), exclusive (above, below), or choices.

    Args:
        default: its value; a dataclass or a function makes it anew each time.
        also: gives further choices, which depend on other keys of the same dataclass.
        place: it is a file, a folder or an address; see `check_place`.
        doc: what the key means, in one sentence.
    """
    limits: dict[str, Any] = {
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "choices": choices,
        "also": also,
        "place": place,
        "doc": doc,
    }
    metadata = {name: limit for name, limit in limits.items() if limit is not None}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_limits(prefix: str, node: Any) -> None:
    """Compare the values of one config dataclass with their limits; None is no value and not compared.

    Args:
        prefix: the node's dotted key with a dot at its end, or "" for the root.
        node: the dataclass.

    Raises:
        UserError: the first value that is outside its limits, or is nan, infinite, or no number at all.
    """
    for item in fields(node):
        value, limits = getattr(node, item.name), item.metadata
        if limits.get("place"):
            for name, place in value.items() if isinstance(value, dict) else [("", value)]:
                check_place(f"{prefix}{item.name}{name and '.'}{name}", place)
        bounds = [(BOUNDS[name][1], limits[name]) for name in BOUNDS if name in limits]
        if value is None or not (bounds or "choices" in limits):
            continue
        key, means = f"{prefix}{item.name}", f". {limits['doc']}" if limits["doc"] else ""
        choices = [*limits.get("choices", ()), *(limits["also"](node) if "also" in limits else ())]
        if choices and value not in choices:
            allowed = f"one of {', '.join(nearest(str(value), choices))}"
        elif bounds and not is_number(value):
            allowed = f"a number {describe_limits(limits)}"
        elif bounds and not (math.isfinite(value) and all(holds(value, bound) for holds, bound in bounds)):
            allowed = describe_limits(limits)
        else:
            continue
        raise UserError(f"{key}={value}: must be {allowed}{means}")


def is_number(value: Any) -> bool:
    """Whether it is one; no bool is."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_place(key: str, value: str | None) -> None:
    """Refuse what can be no file, folder or address: an unknown user's home, a name that is too long, half an address.

    Args:
        key: for messages.
        value: may be None, which is no place.

    Raises:
        UserError: what is wrong with it.
    """
    if not isinstance(value, str):
        return
    shown = value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}... ({len(value):,} letters)"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", value):
        try:
            _ = urlsplit(value).port  # an address is parsed in two steps
        except ValueError as error:
            raise UserError(f"{key}: is no address ({error}); write http://HOST/FILE or https://HOST/FILE") from error
        return
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        user = value.partition("/")[0]
        raise UserError(f"{key}={shown}: {user} is no user's home here; write ./{user}, or the whole path") from error
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts) or len(os.fsencode(path)) > LONGEST_PATH:
        raise UserError(
            f"{key}={shown}: is too long; a name has up to {LONGEST_NAME} bytes, a path up to {LONGEST_PATH:,}"
        )
    if "\0" in value:
        raise UserError(f"{key}={shown}: a path has no byte 0")


def describe_limits(metadata: Mapping[str, Any]) -> str:
    """What a field made by `option` may be, as "at least 1 and less than 2" or "one of a, b"; "" for anything."""
    if "choices" in metadata:
        return f"one of {', '.join(metadata['choices'])}"
    return " and ".join(f"{words} {metadata[name]}" for name, (words, _) in BOUNDS.items() if name in metadata)


def check_keywords(prefix: str, schema: type[Any], keywords: Mapping[str, Any]) -> None:
    """Check what a function is called with as the keys of a config are; keywords that `schema` lacks are left alone.

    Args:
        prefix: as in `check_limits`.
        schema: a config dataclass.
        keywords: by name.

    Raises:
        UserError: the first value that is outside its limits, of another type, or does not go with another.
    """
    names = [item.name for item in fields(schema)]
    known = {name: value for name, value in keywords.items() if name in names}
    node, typed = schema(**known), OmegaConf.structured(schema)
    check_limits(prefix, node)
    for name, value in known.items():
        try:
            typed[name] = value
        except OmegaConfBaseException as error:
            reason = str(error.msg or error).splitlines()[0]
            raise UserError(f"{prefix}{name}={value}: {reason[0].lower()}{reason[1:]}") from error
    if hasattr(node, "check"):
        node.check()
