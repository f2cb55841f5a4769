"""PyTorch weight files read without PyTorch, and without running anything they name."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from cnnexp.errors import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # the first pickle of the format of PyTorch 0.1.10 to 1.5
PROTOCOL_VERSION = 1001
ZIP_SIGNATURE = b"PK\x03\x04"  # the format from PyTorch 1.6 on

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class Storage(NamedTuple):
    """One flat block of numbers, which several tensors may share. `key` is its name in the file."""

    dtype: np.dtype
    key: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict, from the zip format or the older one that is a row of pickles.

    A pickle may name functions to call. Here it gets an ordered dict, a function that puts a tensor together
    and the types of storages; a file that names anything else is refused.

    Args:
        path: what `torch.save(model.state_dict(), path)` wrote.

    Returns:
        Tensor name -> array of the tensor's shape, in the order of the file; each array owns its memory.

    Raises:
        UserError: no such file, not a weight file, cut short, or naming what a weight file has no need of.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no weight file {path}")
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE
            file.seek(0)
            tensors, data = _read_zip(file, path) if is_zip else _read_legacy(file, path)
        return {name: _to_array(tensor, data) for name, tensor in tensors.items()}
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way, says the documentation of pickle
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged, cut short or not a PyTorch state dict ({reason})") from error


def _read_legacy(file: IO[bytes], path: Path) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Five pickles (magic number, version, system, tensors, storage keys); each storage: int64 size, data."""
    if _RestrictedUnpickler(file, path).load() != MAGIC_NUMBER:
        raise UserError(f"{path} is not a PyTorch weight file")
    version, system = (_RestrictedUnpickler(file, path).load() for _ in range(2))
    if version != PROTOCOL_VERSION or not system["little_endian"]:
        raise UserError(f"{path}: only little-endian files of version {PROTOCOL_VERSION} can be read")
    unpickler = _RestrictedUnpickler(file, path)
    tensors = _checked(unpickler.load(), path)
    data = {}
    for key in _RestrictedUnpickler(file, path).load():
        storage = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError(f"storage {key} has not the size it should have")
        data[key] = _numbers(file.read(storage.size * storage.dtype.itemsize), storage)
    return tensors, data


def _read_zip(file: IO[bytes], path: Path) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Uncompressed entries: NAME/data.pkl with the tensors, NAME/data/KEY with each storage."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed entries")
        pickled = next(name for name in names if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path}: only little-endian files can be read")
        with archive.open(pickled) as stream:
            unpickler = _RestrictedUnpickler(stream, path)
            tensors = _checked(unpickler.load(), path)
        storages = unpickler.storages.items()
        data = {key: _numbers(archive.read(f"{root}data/{key}"), storage) for key, storage in storages}
    return tensors, data


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors out of storages that are read later; `storages` are those it met, by key."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Callable[..., Any] | str:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]  # a string, which no pickle can change or call
        raise UserError(f"{self.path} names {module}.{name}, which a weights file has no need of; refused")

    def persistent_load(self, identity: Any) -> Storage:
        kind, dtype, key, _device, size = identity[:5]
        if kind != "storage" or dtype not in STORAGES.values() or not isinstance(key, str) or size < 0:
            raise ValueError(f"no storage: {identity}")
        if any(view is not None for view in identity[5:]):
            raise ValueError(f"storage {key} is a view of another")
        return self.storages.setdefault(key, Storage(np.dtype(dtype), key, size))


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    """Takes the arguments of `torch._utils._rebuild_tensor_v2`; the last are `requires_grad` and hooks."""
    return Tensor(storage, offset, shape, strides)


def _checked(state: Any, path: Path) -> dict[str, Tensor]:
    """`state`, where it is a dict of tensors in which none reaches beyond its storage."""
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not the state dict of a network")
    for name, tensor in state.items():
        is_tensor = isinstance(tensor, Tensor) and isinstance(tensor.storage, Storage)
        if not is_tensor or not isinstance(name, str):
            raise UserError(f"{path}: {name!r} is no tensor; save model.state_dict() alone")
        storage, offset, shape, strides = tensor
        if not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
            raise ValueError(f"{name} has an impossible shape")
        count = math.prod(shape)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if count > storage.size or (count > 0 and last >= storage.size):
            raise ValueError(f"{name} reaches beyond its storage")
    return state


def _numbers(raw: bytes, storage: Storage) -> np.ndarray:
    if len(raw) != storage.size * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} is cut short")
    return np.frombuffer(raw, storage.dtype)


def _to_array(tensor: Tensor, data: dict[str, np.ndarray]) -> np.ndarray:
    flat = data[tensor.storage.key][tensor.offset :]
    steps = tuple(stride * flat.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps).copy()
