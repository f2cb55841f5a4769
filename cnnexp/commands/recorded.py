"""A model as a run recorded it."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import yaml

from cnnexp.commands.stores import open_tracker
from cnnexp.config import Config
from cnnexp.console import warn
from cnnexp.data.images import ImageError, read_image, resize, to_channels
from cnnexp.errors import UserError

IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class RecordedModel:
    """`model` takes (B, H, W, C) raw 0..255; `image_size` and `channels` are what it wants."""

    run_id: str
    name: str
    model: keras.Model
    class_names: tuple[str, ...]
    image_size: int
    channels: int


def load_recorded(config: Config, run: str) -> RecordedModel:
    """The model of a run id, a unique prefix of one, or `latest`.

    A `.keras` file is read in Keras' safe mode: nothing in it is executed or unpickled.

    Raises:
        UserError: no such run, or it recorded no model.
    """
    tracker = open_tracker(config)
    info = tracker.find_run(run)
    folder = Path(config.paths.cache) / "models" / info.run_id
    if not (folder / "model" / "data" / "model.keras").is_file():
        tracker.download(info.run_id, "model", folder)
    try:
        model = keras.saving.load_model(folder / "model" / "data" / "model.keras", compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"run {info.run_id}: its model cannot be loaded: {str(error).splitlines()[0]}") from error
    names = yaml.safe_load((folder / "model" / "MLmodel").read_text())["metadata"]["class_names"]
    _, height, _, channels = model.input_shape
    return RecordedModel(info.run_id, info.name, model, tuple(names), height, channels)


def find_images(patterns: list[str]) -> list[Path]:
    """Files, the images of folders (with their subfolders), and what globs match, each once, in order.

    Raises:
        UserError: a name that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS)
        elif path.is_file():
            matches = [path]
        else:
            anchor = Path(path.anchor or ".")
            matches = sorted(anchor.glob(str(path.relative_to(path.anchor))))
        if not matches:
            raise UserError(f"{pattern}: no image there; give files, folders, or a pattern in quotes")
        found.update(dict.fromkeys(matches))
    return list(found)


def read_batch(files: list[Path], recorded: RecordedModel) -> tuple[list[Path], np.ndarray]:
    """The files that could be read, and their images (B, H, W, C) uint8; the others are named on standard error."""
    read: list[Path] = []
    images = []
    for file in files:
        try:
            image = resize(read_image(str(file)), recorded.image_size)
        except ImageError as error:
            warn(f"cnnexp: skipped: {error}")
            continue
        read.append(file)
        images.append(to_channels(image, recorded.channels))
    shape = (0, recorded.image_size, recorded.image_size, recorded.channels)
    return read, np.stack(images) if images else np.empty(shape, np.uint8)


def class_probabilities(outputs: np.ndarray) -> np.ndarray:
    """(B, classes), also of a model whose one output is the probability of class 1."""
    return np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs
