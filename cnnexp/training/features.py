"""The feature cache: what lies before the first trainable layer is a fixed function of the image.

`cut_model` divides a model there, `cached_features` computes what comes out of the fixed part once and keeps it on
disk, where every run with the same images and the same fixed part finds it again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock

from cnnexp.console import progress
from cnnexp.errors import UserError


@dataclass(frozen=True)
class Cut:
    """A model divided in two: `fixed` (image -> features), `tail` (features -> probabilities, all that is trained)."""

    fixed: keras.Model
    tail: keras.Model


def cut_model(model: keras.Model) -> Cut | None:
    """Divide `model` at the last frozen layer of every path from the image to its trainable part.

    Both parts share their layers with `model`: training the tail trains the model. A layer is fixed if it has no
    trainable weights, draws no random numbers in training, and everything before it is fixed.

    Args:
        model: a flat functional model with one input; `trainable` of its layers is already set.

    Returns:
        None where nothing with weights is fixed, so that a cache would gain nothing.
    """
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    fixed_tensors: set[int] = set()
    crossing: dict[int, Any] = {}
    saves_work = False
    for node in nodes:
        inputs = node.input_tensors
        if all(id(tensor) in fixed_tensors for tensor in inputs) and _is_fixed(node):
            fixed_tensors.update(id(tensor) for tensor in node.output_tensors)
            saves_work = saves_work or bool(getattr(node.operation, "weights", None))
        else:
            crossing.update((id(tensor), tensor) for tensor in inputs if id(tensor) in fixed_tensors)
    if not saves_work:
        return None
    features = list(crossing.values())
    return Cut(
        fixed=keras.Model(model.inputs, features, name="fixed"),
        tail=keras.Model(features, model.outputs[0], name="tail"),
    )


def _is_fixed(node: Any) -> bool:
    """Whether this call of a layer gives the same result in training as in inference, whatever has been learned.

    Frozen batch normalization uses its moving statistics (Keras 3), so it is fixed; active dropout is not.
    """
    layer = node.operation
    return not getattr(layer, "trainable_variables", None) and not hasattr(layer, "seed_generator")


def features_key(fixed: keras.Model, split_digest: str, image_size: int, dtype: str) -> str:
    """The name of a cache entry: a digest of the images, the fixed part's layers, and its weights.

    Args:
        fixed: the model up to the cut; its config carries preprocessing, architecture and cut.
        split_digest: of the images' names and bytes.
        image_size: pixels the images are resized to.
        dtype: of the stored features.
    """
    digest = hashlib.sha256()
    layers = [[layer.__class__.__name__, layer.get_config()] for layer in fixed.layers]
    outputs = [tensor.name for tensor in fixed.outputs]
    facts = [split_digest, image_size, dtype, [_nameless(layer) for layer in layers], len(outputs), fixed.output_shape]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for weight in fixed.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:32]


def _nameless(layer: list[Any]) -> list[Any]:
    """A layer's class and config without its name, which may carry a counter of the process."""
    kind, config = layer
    return [kind, {key: value for key, value in config.items() if key not in ("name", "trainable", "seed")}]


def cached_features(
    folder: Path, key: str, fixed: keras.Model, take: Callable[[np.ndarray], np.ndarray], count: int, batch_size: int
) -> tuple[list[np.ndarray], bool]:
    """The fixed part's outputs for `count` images, computed at most once.

    Two processes that need the same entry compute it once: the second waits for the first. An entry appears whole or
    not at all.

    Args:
        folder: of the cache.
        key: from `features_key`.
        fixed: the model up to the cut.
        take: gives the images of some indices, (B, H, W, C) uint8.
        count: number of images.
        batch_size: of the forward pass.

    Returns:
        One memory-mapped array (count, ...) for each output of `fixed`, and whether they were there already.

    Raises:
        UserError: the disk is full.
    """
    entry = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / f"{key}.lock")):
        found = (entry / "meta.json").is_file()
        if not found:
            _write_entry(entry, fixed, take, count, batch_size)
    os.utime(entry)
    outputs = len(json.loads((entry / "meta.json").read_text())["shapes"])
    return [np.load(entry / f"{number}.npy", mmap_mode="r") for number in range(outputs)], found


def _write_entry(
    entry: Path, fixed: keras.Model, take: Callable[[np.ndarray], np.ndarray], count: int, batch_size: int
) -> None:
    unfinished = entry.with_name(f"{entry.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(entry, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        shapes = [(count, *output.shape[1:]) for output in fixed.outputs]
        arrays = [
            np.lib.format.open_memmap(unfinished / f"{number}.npy", "w+", dtype="float32", shape=shape)
            for number, shape in enumerate(shapes)
        ]
        for array in arrays:
            _allocate(Path(str(array.filename)))
        for start in progress(range(0, count, batch_size), f"features of {count} images"):
            indices = np.arange(start, min(start + batch_size, count))
            results = fixed.predict_on_batch(take(indices))
            for array, result in zip(arrays, results if isinstance(results, list) else [results], strict=True):
                array[indices] = result
        for array in arrays:
            array.flush()
        (unfinished / "meta.json").write_text(json.dumps({"shapes": shapes}))
        unfinished.rename(entry)
    except OSError as error:
        raise UserError(
            f"{entry.parent}: the feature cache cannot be written ({error.strerror}); make room, set "
            f"paths.cache=FOLDER, or train without it: trainer.feature_cache=false"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _allocate(file: Path) -> None:
    """Reserve a sparse file's blocks, so that a full disk is an error here and not a SIGBUS in a memory map."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
