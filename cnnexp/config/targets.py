"""Calls what `_target_` of a config leaf names, one level deep, with the leaf's other keys as keywords."""

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import Any

from cnnexp.errors import UserError

HOMES = {  # of the leaf of each group: the module, or package, in which its target is defined
    "dataset": "cnnexp.data.sources",
    "augmentation": "cnnexp.data.augment",
    "backbone": "cnnexp.models",
    "head": "cnnexp.models",
    "loss": "cnnexp.training.losses",
    "decision": "cnnexp.metrics.decision",
    "optimizer": "keras",
}


def partial_from_config(group: str, node: Any, omit: tuple[str, ...] = (), **also: Any) -> Callable[..., Any]:
    """The function that `node._target_` names, with the values of `node` bound to it.

    Args:
        group: the node's dotted key, for messages.
        node: a config dataclass with `_target_` and `arguments`.
        omit: keys that are not handed to the function; `name` is only to one that takes it, a key at its default too,
            and what is in `arguments` goes as keywords to one that does not take `arguments` as such.
        also: further keyword arguments.

    Raises:
        UserError: there is no such function, or it does not take these arguments.
    """
    function = find(f"{group}._target_", node._target_)
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # some builtins have none
        raise UserError(f"{group}._target_={node._target_}: does not tell what it takes") from error
    keys = [item for item in fields(node) if item.name not in ("_target_", *omit)]
    keywords = {item.name: getattr(node, item.name) for item in keys} | also
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    for item in keys:
        is_taken = item.name in signature.parameters or takes_any
        if item.name == "name" and "name" not in signature.parameters:
            del keywords["name"]
        elif not is_taken and item.name != "arguments" and keywords[item.name] == item.default:
            del keywords[item.name]  # a function of one's own need not know what nobody asked for
    if "arguments" not in signature.parameters:
        keywords |= keywords.pop("arguments")
    try:
        signature.bind_partial(**keywords)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise UserError(f"{group}._target_={node._target_}: {error}; it takes {takes}") from error
    if takes_any and node._target_.startswith("keras.") and inspect.isclass(function):
        names = _names_taken(function)
        unknown = next((name for name in keywords if name not in names), None)
        if unknown is not None:
            raise UserError(f"{group}._target_={node._target_}: takes no {unknown}; it takes {', '.join(names)}")
    return partial(function, **keywords)


def _names_taken(kind: type) -> list[str]:
    """The keywords that a class of Keras takes, with those that it hands on to the classes that it extends."""
    makers = [vars(base)["__init__"] for base in kind.__mro__[:-1] if "__init__" in vars(base)]
    parameters = [parameter for maker in makers for parameter in inspect.signature(maker).parameters.values()]
    plain = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    return [name for name in dict.fromkeys(plain) if name != "self"]


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


def check_recorded(path: tuple[str, ...], target: Any, allowed: Collection[str]) -> None:
    """Refuse a `_target_` of a config that comes from elsewhere, unless it is what belongs into this leaf.

    What counts is the object that the name leads to: where it is defined, and what it is. So neither a function of
    Keras that downloads or unpickles will do, nor what Keras or cnnexp imports from elsewhere.

    Args:
        path: the keys that lead to it, as ("phases", "finetune", "optimizer", "_target_").
        target: what stands there.
        allowed: targets that the user vouches for, by their full names.

    Raises:
        UserError: it is not allowed, or does not exist.
    """
    if target in allowed or (target is None and path == ("augmentation", "_target_")):
        return
    key, group = ".".join(path), path[-2] if len(path) > 1 else ""
    belongs = len(path) == 2 or (len(path) == 4 and path[0] == "phases" and group == "optimizer")
    home = HOMES.get(group) if belongs else None
    shown = " ".join(str(target).split())[:100]
    vouch = f"if you trust it, add --allow-target {shown}"
    if home is None:
        raise UserError(f"{key}={shown}: a recorded config names no target in this place; {vouch}")
    if not isinstance(target, str) or not re.fullmatch(rf"{re.escape(home)}(\.[A-Za-z]\w*)+", target, re.ASCII):
        raise UserError(f"{key}={shown}: a recorded config may name only what is in {home} here; {vouch}")
    found = find(key, target)
    module = str(getattr(found, "__module__", ""))
    kind = inspect.isclass(found) or inspect.isfunction(found)
    if group == "optimizer":
        kind = inspect.isclass(found) and issubclass(found, import_module("keras").optimizers.Optimizer)
    if not kind or not f"{module}.".startswith(f"{home}."):
        raise UserError(f"{key}={shown}: is no {group} of {home.partition('.')[0]}; {vouch}")
