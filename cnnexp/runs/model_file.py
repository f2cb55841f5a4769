"""Looks into a model file that comes from a store, before Keras reads it."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import keras

from cnnexp.errors import UserError

CONFIG = "config.json"
MOST_BYTES = 50_000_000  # of the network's description; that of the largest Keras application has 1,000,000
RUNS_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def check_model_file(path: Path) -> None:
    """Refuse a `.keras` file whose network is not made of Keras' own layers, or whose members leave their folder.

    Keras' safe mode refuses most of this, too; here it is refused before anything is read, and in one line.

    Raises:
        UserError: what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.startswith("/") or "\\" in member or ":" in member or ".." in PurePosixPath(member).parts:
                    raise UserError(f"the model file has a member {member!r}, which would leave its folder; refused")
            if archive.getinfo(CONFIG).file_size > MOST_BYTES:
                raise UserError(f"the model file's {CONFIG} has more than {MOST_BYTES:,} bytes; refused")
            network = json.loads(archive.read(CONFIG))
    except UserError:
        raise
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RecursionError, RuntimeError) as error:
        raise UserError(f"the model file cannot be read ({str(error).splitlines()[0]})") from error
    for node in _nodes(network):
        _check_node(node)


def _nodes(network: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a network's description."""
    waiting = [network]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_node(node: dict[str, Any]) -> None:
    name, module = node.get("class_name"), node.get("module")
    if name in RUNS_CODE:
        raise UserError(f"the model has a {str(name).strip('_')}, which may run code of whoever made it; refused")
    if not module or (module == "builtins" and name == "function") or f"{module}.".startswith("keras."):
        return
    registered = node.get("registered_name")
    if not (isinstance(registered, str) and keras.saving.get_registered_object(registered)):
        raise UserError(f"the model names {module!s:.60}.{name!s:.60}; only layers of Keras are loaded")
