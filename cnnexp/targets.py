"""Calls what `_target_` of a config leaf names: one level deep, with the leaf's other keys as keyword arguments."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import Any

from cnnexp.errors import UserError


def bind(group: str, node: Any, omit: tuple[str, ...] = (), **also: Any) -> Callable[..., Any]:
    """The function that `node._target_` names, with the values of `node` bound to it.

    Args:
        group: the node's dotted key, for messages.
        node: a config dataclass with `_target_` and `arguments`.
        omit: keys that are not handed to the function; `name` is only to one that takes it, and what is in
            `arguments` goes as keywords to one that does not take `arguments` as such.
        also: further keyword arguments.

    Raises:
        UserError: there is no such function, or it does not take these arguments.
    """
    function = find(f"{group}._target_", node._target_)
    keywords = {f.name: getattr(node, f.name) for f in fields(node) if f.name not in ("_target_", *omit)} | also
    takes = _parameters(function)
    if "name" not in takes:
        del keywords["name"]
    if "arguments" not in takes:
        keywords |= keywords.pop("arguments")
    try:
        inspect.signature(function).bind_partial(**keywords)
    except TypeError as error:
        raise UserError(f"{group}: {node._target_} does not take these arguments: {error}") from error
    return partial(function, **keywords)


def find(key: str, target: str) -> Callable[..., Any]:
    """The function or class with this dotted name."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}={target}: cannot be imported ({error}); write package.module.function") from error
    if not callable(found):
        raise UserError(f"{key}={target}: is not a function or class")
    return found  # type: ignore[no-any-return]


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)
