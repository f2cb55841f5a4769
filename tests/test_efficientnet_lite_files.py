"""The reader of PyTorch weight files, against files put together by hand and files that PyTorch writes."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.errors import UserError
from cnnexp.models.efficientnet_lite import efficientnet_lite
from cnnexp.models.torch_checkpoint import read_state_dict


def text(string: str) -> bytes:
    return b"X" + struct.pack("<i", len(string)) + string.encode()


def number(value: int) -> bytes:
    return b"K" + bytes([value])


def tensor_opcodes(storage: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """The pickle opcodes with which PyTorch writes a tensor: a function, then a tuple of its arguments."""
    numbers = [b"(" + b"".join(number(n) for n in group) + b"t" for group in (shape, strides)]
    hooks = b"\x89ccollections\nOrderedDict\n)R"  # requires_grad=False, none
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + b"".join(numbers) + hooks + b"tR"


def storage_opcodes(name: bytes, key: str, size: int) -> bytes:
    """A persistent id: ("storage", type, key, device, size)."""
    return b"(" + text("storage") + b"ctorch\n" + name + b"\n" + text(key) + text("cpu") + number(size) + b"tQ"


def state_opcodes(offset: int = 1, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (1, 2)) -> bytes:
    weight = tensor_opcodes(storage_opcodes(b"FloatStorage", "7", 8), offset, shape, strides)
    count = tensor_opcodes(storage_opcodes(b"LongStorage", "9", 1), 0, (), ())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + text("weight") + weight + text("count") + count + b"u."


def legacy_file(state: bytes | None = None) -> bytes:
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    version = b"\x80\x02M\xe9\x03."  # 1001
    system = b"\x80\x02}(" + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + b"\x88u."
    keys = b"\x80\x02](" + text("7") + text("9") + b"e."
    floats = struct.pack("<q8f", 8, *range(8))
    return magic + version + system + (state or state_opcodes()) + keys + floats + struct.pack("<qq", 1, 42)


def zip_file(path: Path, state: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", state)
        archive.writestr("weights/data/7", struct.pack("<8f", *range(8)))
        archive.writestr("weights/data/9", struct.pack("<q", 42))
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_reads_both_formats(tmp_path: Path) -> None:
    old, new = written(tmp_path / "old.pth", legacy_file()), zip_file(tmp_path / "new.pth", state_opcodes())
    for path in (old, new):
        arrays = read_state_dict(path)
        assert list(arrays) == ["weight", "count"]
        np.testing.assert_array_equal(arrays["weight"], [[1, 3, 5], [2, 4, 6]])
        assert arrays["weight"].dtype == np.float32 and arrays["weight"].flags.owndata
        assert arrays["count"].dtype == np.int64 and arrays["count"].shape == () and arrays["count"] == 42


@pytest.mark.torch
@pytest.mark.parametrize("zip_format", [True, False])
def test_reads_what_pytorch_writes(tmp_path: Path, zip_format: bool) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {"part": base[1:3, ::2].t(), "whole": base, "half": base[0].half(), "none": base[:0]}
    state["flag"] = torch.tensor(True)
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=zip_format)
    arrays = read_state_dict(tmp_path / "weights.pth")
    assert list(arrays) == list(state)
    for name, tensor in state.items():
        assert arrays[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


@pytest.mark.parametrize("zipped", [False, True])
def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "proof"
    state, path = pickle.dumps(Hostile(f"touch {proof}"), protocol=2), tmp_path / "hostile.pth"
    path = zip_file(path, state) if zipped else written(path, legacy_file(state))
    with pytest.raises(UserError) as raised:
        read_state_dict(path)
    said = f"{path} names {os.name}.system, which a weights file has no need of; refused"
    assert str(raised.value) == said
    assert not proof.exists()


@pytest.mark.parametrize("name", [b"builtins\neval", b"torch\nload", b"torch._utils\nx", b"collections\nabc"])
def test_every_other_name_is_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(UserError, match="no need of; refused"):
        read_state_dict(written(tmp_path / "w.pth", legacy_file(b"\x80\x02c" + name + b"\n.")))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = legacy_file()
    for length in range(len(content)):
        with pytest.raises(UserError, match=r"short\.pth") as raised:
            read_state_dict(written(tmp_path / "short.pth", content[:length]))
        assert "\n" not in str(raised.value)
    whole = zip_file(tmp_path / "whole.pth", state_opcodes()).read_bytes()
    with pytest.raises(UserError, match="damaged"):
        read_state_dict(written(tmp_path / "short.pth", whole[: len(whole) // 2]))


@pytest.mark.parametrize(
    "state",
    [
        state_opcodes(offset=3),  # its last number would be the ninth of eight
        state_opcodes(shape=(2, 255)),
        state_opcodes(shape=(3, 3), strides=(0, 0)),  # nine numbers out of eight
        state_opcodes(shape=(2, 3, 1)),
        b"\x80\x02}" + text("weight") + b"K\x01s.",
        b"\x80\x02K\x01.",
    ],
)
def test_impossible_tensors_are_refused(tmp_path: Path, state: bytes) -> None:
    with pytest.raises(UserError, match=r"w\.pth"):
        read_state_dict(written(tmp_path / "w.pth", legacy_file(state)))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "other.pth", legacy_file())
    with pytest.raises(UserError, match=r"other\.pth does not hold the weights of efficientnet_lite0: it has "):
        efficientnet_lite(keras.Input((64, 64, 3)), weights=str(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth"):
        read_state_dict(tmp_path / "absent.pth")
    with pytest.raises(UserError, match=r"not a PyTorch weight file"):
        read_state_dict(written(tmp_path / "number.pth", b"\x80\x02K\x01."))
    with pytest.raises(UserError, match="compressed"):
        read_state_dict(zip_file(tmp_path / "zip.pth", state_opcodes(), zipfile.ZIP_DEFLATED))
    big_endian = legacy_file().replace(text("little_endian") + b"\x88", text("little_endian") + b"\x89")
    with pytest.raises(UserError, match="little-endian"):
        read_state_dict(written(tmp_path / "big.pth", big_endian))
