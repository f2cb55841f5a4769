"""A model as a run recorded it."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import keras
import numpy as np

from cnnexp.config import Config
from cnnexp.console import warn
from cnnexp.data.folders import LeftAside, images_below
from cnnexp.data.images import ImageError, damage, read_square, refusal, warnings_caught
from cnnexp.errors import UserError
from cnnexp.formats import read_yaml
from cnnexp.models.classifier import LoadedModel
from cnnexp.runs.recorded_config import find_single
from cnnexp.runs.tracker import open_tracker

MODEL_CONFIG = "config.json"
MOST_BYTES = 50_000_000  # of the network's description; that of the largest Keras application has 1,000,000
RUNS_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def load_recorded(config: Config, run: str) -> LoadedModel:
    """The model of a run id, a unique prefix of one, or `latest`.

    A `.keras` file is looked into, and read in Keras' safe mode: nothing in it is executed or unpickled.

    Raises:
        UserError: no such run, it recorded no model, or one that is refused.
    """
    tracker = open_tracker(config.tracking)
    info = find_single(tracker, run)
    folder = Path(config.paths.cache) / "models" / info.run_id
    file = folder / "model" / "data" / "model.keras"
    if not file.is_file():
        tracker.download(info.run_id, "model", folder)
    try:
        check_model_file(file)
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
        _, height, _, channels = model.input_shape
        names = tuple(_class_names(folder / "model" / "MLmodel"))
        if len(names) != max(2, model.output_shape[-1]):
            raise UserError(f"its {model.output_shape[-1]} outputs do not fit its {len(names)} class names")
    except Exception as error:  # Keras, zipfile, h5py and json raise all kinds for a file that is none of ours
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"run {info.run_id}: its model cannot be loaded: {reason}") from error
    return LoadedModel(info.run_id, info.name, model, names, height, channels)


def _class_names(file: Path) -> list[str]:
    described = read_yaml(file)
    metadata = described.get("metadata") if isinstance(described, dict) else None
    names = metadata.get("class_names") if isinstance(metadata, dict) else None
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
            if archive.getinfo(MODEL_CONFIG).file_size > MOST_BYTES:
                raise UserError(f"the model file's {MODEL_CONFIG} has more than {MOST_BYTES:,} bytes; refused")
            network = json.loads(archive.read(MODEL_CONFIG))
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
