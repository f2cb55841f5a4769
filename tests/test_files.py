"""Files of users that are no files, or too large: refused at once, by whatever reads them."""

import os
import pty
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from odd_files import jpeg

from cnnexp.data.check.look import inspect_file
from cnnexp.data.fetch.archive import is_archive
from cnnexp.data.fetch.dogs_vs_cats import ANIMALS, prepare_dogs_vs_cats
from cnnexp.data.fetch.mnist import read_mnist
from cnnexp.data.fetch.tables import read_table
from cnnexp.data.images import ImageError, read_image, read_square
from cnnexp.data.splits import file_digests
from cnnexp.errors import UserError
from cnnexp.files import FileRefusedError, open_file, read_file
from cnnexp.formats import read_json
from cnnexp.report.predictions import read_predictions


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """What waits for somebody to write fails."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def zeros(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def terminal(path: Path) -> Path:
    path.symlink_to(os.ttyname(pty.openpty()[1]))
    return path


def sockets(path: Path) -> Path:
    socket.socket(socket.AF_UNIX).bind(str(path))
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("make", [pipe, zeros, terminal, sockets, folder])
def test_what_is_no_regular_file_is_refused_at_once(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "x.png")
    with pytest.raises(FileRefusedError, match="no regular file"):
        read_file(path, 10)
    for read in (read_image, lambda name: read_square(name, 8)):
        with pytest.raises(ImageError, match=r"x\.png: cannot be read as an image: it is .*no regular file"):
            read(str(path))
    assert "no regular file" in inspect_file(str(path)).problem
    with pytest.raises(UserError, match=f"dataset.path={path}: it is .*no regular file"):
        read_mnist(path)
    with pytest.raises(UserError, match=f"dataset.path={path}: it is .*no regular file"):
        read_table(path)
    with pytest.raises(UserError, match="no regular file"):
        file_digests([str(path)], "")
    with pytest.raises(UserError, match="no regular file"):
        read_predictions(path)
    with pytest.raises(UserError, match="no regular file"):
        read_json(path, dict)
    assert not is_archive(path)


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_file(tmp_path / "b", 3) == b"abc"
    with open_file(tmp_path / "b") as file:
        assert file.read(2) == b"ab"


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    """30 GiB that take no place on the disk."""
    path = tmp_path / "sparse.png"
    path.touch()
    os.truncate(path, 30 * 2**30)
    said = "it has 32,212,254,720 bytes, more than 536,870,910"
    with pytest.raises(ImageError, match=said):
        read_image(str(path))
    assert inspect_file(str(path)).problem == said
    (tmp_path / "a").write_bytes(b"abcd")
    with pytest.raises(FileRefusedError, match="it has 4 bytes, more than 3"):
        read_file(tmp_path / "a", 3)
    with pytest.raises(UserError, match="it has 32,212,254,720 bytes, more than 1,073,741,824"):
        read_mnist(path)


def test_a_bomb_of_arrays_is_not_unpacked(tmp_path: Path) -> None:
    """1.1 GB of zeros in an archive of some MB."""
    with (
        zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x_train.npy", "w", force_zip64=True) as member,
    ):
        header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2000000, 28, 28), }"
        member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        for _ in range(1100):
            member.write(bytes(10**6))
    with pytest.raises(UserError, match="it holds more than 1,073,741,824 bytes"):
        read_mnist(tmp_path / "m.npz")


def test_a_file_that_became_a_pipe_after_it_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    assert not inspect_file(str(path)).problem
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ImageError, match="no regular file"):
        read_square(str(path), 8)


def test_a_pipe_among_photos_is_replaced_like_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = {"train": range(2), "validation": range(2, 3), "test": range(3, 4)}
    monkeypatch.setattr("cnnexp.data.fetch.dogs_vs_cats.NUMBERS", numbers)
    raw = tmp_path / "raw"
    raw.mkdir()
    for animal in ANIMALS:
        for number in range(5):
            (raw / f"{animal}.{number}.jpg").write_bytes(jpeg(number))
    (raw / "cat.1.jpg").unlink()
    os.mkfifo(raw / "cat.1.jpg")
    prepare_dogs_vs_cats(str(raw), tmp_path / "set", tmp_path / "downloads")
    assert sorted(file.name for file in (tmp_path / "set/train/cat").iterdir()) == ["cat.0.jpg", "cat.4.jpg"]
    assert "cat.1.jpg is missing: cat.4.jpg takes its place" in capsys.readouterr().err


def test_mnist_is_read_as_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": rng.integers(0, 256, (20, 28, 28), np.uint8) if kind == "x" else np.arange(20) % 10
        for part in ("train", "test")
        for kind in "xy"
    }
    np.savez_compressed(tmp_path / "m.npz", **arrays)
    for found, name in zip(read_mnist(tmp_path / "m.npz"), ("x_train", "y_train", "x_test", "y_test"), strict=True):
        assert (found == arrays[name]).all()


def test_a_pipe_as_a_data_set_is_one_line(cnnexp: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    code, _, err = cnnexp("prepare", "mnist", "dataset.path=pipe.npz", "paths.root=out")
    assert (code, err) == (2, "cnnexp: dataset.path=pipe.npz: it is no regular file; give Keras' mnist.npz\n")
    os.mkfifo(tmp_path / "pipe.csv")
    code, _, err = cnnexp("prepare", "folder", "dataset.path=pipe.csv", "paths.root=out")
    assert code == 2 and err.count("\n") == 1 and "pipe.csv" in err
