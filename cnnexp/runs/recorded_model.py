"""A model as a run recorded it."""

import json
import sys
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np

from cnnexp.config import Config
from cnnexp.config.targets import find
from cnnexp.console import warn
from cnnexp.data.folders import LeftAside, images_below
from cnnexp.data.images import ImageError, damage, read_square, refusal, warnings_caught
from cnnexp.errors import UserError, first_line
from cnnexp.files import writable
from cnnexp.formats import read_yaml
from cnnexp.metrics.decision import read_decision
from cnnexp.models.classifier import LoadedModel
from cnnexp.runs.recorded_config import find_single
from cnnexp.runs.tracker import open_tracker

MODEL_CONFIG = "config.json"
MOST_BYTES = 50_000_000  # of the network's description; that of the largest Keras application has 1,000,000
LAMBDA = "keras.layers.Lambda"  # with a Python lambda, whose code is in the model file
RUNS_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")  # of Keras


def load_recorded(config: Config, run: str, allowed: Collection[str] = ()) -> LoadedModel:
    """The model of a run id, a unique prefix of one, or `latest`.

    A `.keras` file is looked into, and read in Keras' safe mode: nothing in it is executed or unpickled.

    Args:
        config: says where the store is.
        run: whose model.
        allowed: layers and functions that the user vouches for, by their full names; `LAMBDA`: code in the file, too.

    Raises:
        UserError: no such run, it recorded no model, or one that is refused.
    """
    tracker = open_tracker(config.tracking)
    info = find_single(tracker, run)
    folder = Path(config.paths.cache) / "models" / info.run_id
    if not (folder / "model").is_dir():
        folder = writable(config.paths.cache) / "models" / info.run_id
    file = folder / "model" / "data" / "model.keras"
    if not file.is_file():
        tracker.download(info.run_id, "model", folder)
    try:
        check_model_file(file, allowed)
        model = keras.saving.load_model(file, _objects(allowed), compile=False, safe_mode=LAMBDA not in allowed)
        _, height, _, channels = model.input_shape
        metadata = _metadata(folder / "model" / "MLmodel")
        names = tuple(_class_names(metadata))
        if len(names) != max(2, model.output_shape[-1]):
            raise UserError(f"its {model.output_shape[-1]} outputs do not fit its {len(names)} class names")
        decision = read_decision(metadata.get("decision"), names)
    except Exception as error:  # Keras, zipfile, h5py and json raise all kinds for a file that is none of ours
        raise UserError(f"run {info.run_id}: its model cannot be loaded: {first_line(error)}") from error
    return LoadedModel(info.run_id, info.name, model, names, height, channels, decision)


def _metadata(file: Path) -> dict[str, Any]:
    described = read_yaml(file)
    metadata = described.get("metadata") if isinstance(described, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _class_names(metadata: dict[str, Any]) -> list[str]:
    names = metadata.get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("its MLmodel has no class names")
    return names


def find_images(patterns: list[str]) -> list[Path]:
    """Files, the images of folders (with their subfolders), and what globs match, each once, in order.

    Raises:
        UserError: a name that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            matches = _matching(pattern)
        except (OSError, ValueError) as error:  # it is too long, or no pattern
            raise UserError(
                f"{pattern[:100]}: cannot be looked for: {getattr(error, 'strerror', None) or error}"
            ) from error
        if not matches:
            raise UserError(f"{pattern}: no image there; give files, folders, or a pattern in quotes")
        found.update(dict.fromkeys(matches))
    return list(found)


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        left = LeftAside()
        found = sorted(path / name for name in images_below(str(path), "", pattern, left))
        left.say(pattern)
        return found
    if path.is_file():
        return [path]
    anchor = Path(path.anchor or ".")
    return sorted(anchor.glob(str(path.relative_to(path.anchor))))


def read_batch(files: list[Path], recorded: LoadedModel) -> tuple[list[Path], np.ndarray]:
    """The files that could be read, and their images (B, H, W, C) uint8; the others are named on standard error."""
    read: list[Path] = []
    images = []
    for file in files:
        try:
            with warnings_caught() as printed:
                image = read_square(str(file), recorded.image_size, recorded.channels)
            if fault := damage(printed()):
                raise refusal(str(file), fault)
        except ImageError as error:
            warn(f"cnnexp: skipped: {error}")
            continue
        read.append(file)
        images.append(image)
    shape = (0, recorded.image_size, recorded.image_size, recorded.channels)
    return read, np.stack(images) if images else np.empty(shape, np.uint8)


def check_model_file(path: Path, allowed: Collection[str] = ()) -> None:
    """Refuse a `.keras` file whose network is not made of Keras' own layers, or whose members leave their folder.

    `allowed` are those that the user vouches for.

    Keras' safe mode refuses most of this, too; here it is refused before anything is read, and in one line.

    Raises:
        UserError: what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.startswith("/") or "\\" in member or ":" in member or ".." in PurePosixPath(member).parts:
                    raise UserError(f"the model file has a member {member!r}, which would leave its folder; refused")
            if archive.getinfo(MODEL_CONFIG).file_size > MOST_BYTES:
                raise UserError(f"the model file's {MODEL_CONFIG} has more than {MOST_BYTES:,} bytes; refused")
            network = json.loads(archive.read(MODEL_CONFIG))
    except UserError:
        raise
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RecursionError, RuntimeError) as error:
        raise UserError(f"the model file cannot be read ({first_line(error)})") from error
    functions = {target.rpartition(".")[2] for target in allowed}  # these are described by their own names alone
    parts = {part for node in _nodes(network) if (part := _own_part(node))} - {*allowed, *functions}
    _refuse(sorted(parts, key=lambda part: ("." not in part, part)))


def warn_of_own_parts(model: keras.Model, modules: Sequence[str]) -> None:
    """Say, before anything is trained, what it means that a network has layers or functions of the user's own.

    Args:
        model: the network.
        modules: in which they may be, as `mine`.

    Raises:
        UserError: the network cannot be written down, so that it could not be recorded at the end.
    """
    try:
        network = json.loads(model.to_json())
    except Exception as error:  # what is in the user's own layers
        raise UserError(
            f"the network cannot be recorded: {first_line(error)}; give the layer a get_config that returns numbers, "
            "texts and lists, or set tracking.log_model=false"
        ) from error
    parts = {part for node in _nodes(network) if (part := _own_part(node))}
    if not parts:
        return
    named = sorted(part if "." in part else _full_name(part, modules) for part in parts)
    vouched = " ".join(f"--allow-target {name}" for name in named)
    warn(
        f"cnnexp: the network has parts that are not Keras' own: {', '.join(named)}; predict, evaluate and explain "
        f"load the recorded model only with `{vouched}`, and `mlflow models serve` not at all"
    )


def _full_name(function: str, modules: Sequence[str]) -> str:
    """A function is described by its name alone."""
    of = next((module for module in modules if hasattr(sys.modules.get(module), function)), "MODULE")
    return f"{of}.{function}"


def _objects(allowed: Collection[str]) -> dict[str, Any]:
    """The layers and functions that the user vouches for, as Keras looks them up."""
    objects: dict[str, Any] = {}
    for target in allowed:
        if not target.startswith("keras."):
            found = find("--allow-target", target)
            objects |= {found.__name__: found, keras.saving.get_registered_name(found): found}
    return objects


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


def _refuse(parts: Sequence[str]) -> None:
    if not parts:
        return
    named = [part if "." in part else f"MODULE.{part}" for part in parts if part not in RUNS_CODE]
    vouch = " ".join(f"--allow-target {name[:120]}" for name in named)
    for part in parts:
        if part in RUNS_CODE:
            raise UserError(f"the model has a {part}, which may run code of whoever made it; refused")
    if LAMBDA in parts:
        raise UserError(
            "the model has a Lambda, and a lambda may run code of whoever made it; refused; if you trust it, add "
            f"{vouch}"
        )
    shown = ", ".join(name[:120] for name in named[:8])
    raise UserError(f"the model names {shown}; only layers of Keras are loaded; if you trust it, add {vouch}")


def _own_part(node: dict[str, Any]) -> str | None:
    """What a part of a network's description names that is neither Keras' nor cnnexp's: a class by its full name, a
    function by its own, or `LAMBDA`; None for all else."""
    name, module = node.get("class_name"), node.get("module")
    if name in RUNS_CODE:
        values = node.get("config")
        function = values.get("function") if isinstance(values, dict) else None
        if name == "Lambda" and isinstance(function, dict) and function.get("class_name") == "function":
            return _own_part(function) or LAMBDA
        return LAMBDA if name in ("Lambda", "__lambda__") else str(name)
    if not module or f"{module}.".startswith("keras."):
        return None
    if module == "builtins" and name == "function":
        function = str(node.get("config"))
        is_known = any(hasattr(getattr(keras, part), function) for part in FUNCTIONS)
        return None if is_known or keras.saving.get_registered_object(function) else function
    registered = node.get("registered_name")
    if isinstance(registered, str) and keras.saving.get_registered_object(registered):
        made_by = keras.saving.get_registered_object(registered).__module__
        return None if made_by.startswith(("cnnexp.", "keras.")) else f"{module}.{name}"
    return f"{module}.{name}"
