"""Calls what `_target_` of a config leaf names, one level deep, with the leaf's other keys as keywords."""

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
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # some builtins have none
        raise UserError(f"{group}._target_={node._target_}: does not tell what it takes") from error
    names = [item.name for item in fields(node) if item.name not in ("_target_", *omit)]
    keywords = {name: getattr(node, name) for name in names} | also
    if "name" not in signature.parameters:
        del keywords["name"]
    if "arguments" not in signature.parameters:
        keywords |= keywords.pop("arguments")
    try:
        signature.bind_partial(**keywords)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise UserError(f"{group}._target_={node._target_}: {error}; it takes {takes}") from error
    return partial(function, **keywords)


def find(key: str, target: str) -> Callable[..., Any]:
    """The function or class with this dotted name."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        wanted = "write package.module.function; PYTHONPATH=FOLDER says where a module of your own lies"
        raise UserError(f"{key}={target}: cannot be imported ({error}); {wanted}") from error
    if not callable(found):
        raise UserError(f"{key}={target}: is not a function or class")
    return found
