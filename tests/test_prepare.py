import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data import prepare
from cnnexp.data.prepare import draw_synthetic, prepare_dogs_vs_cats, read_mnist
from cnnexp.errors import UserError


def fill(folder: Path, numbers: range) -> Path:
    """Photos of both animals in Kaggle's layout, each holding its own name."""
    folder.mkdir()
    for number in numbers:
        (folder / f"cat.{number}.jpg").write_text(f"cat {number}")
        (folder / f"dog.{number}.jpg").write_text(f"dog {number}")
    return folder


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 16 photos, and some that do not belong to it."""
    monkeypatch.setattr(prepare, "NUMBERS", {"train": range(4), "validation": range(4, 6), "test": range(6, 8)})
    return fill(tmp_path / "raw", range(10))


def entries(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_photos_are_split_by_number(tmp_path: Path) -> None:
    prepare_dogs_vs_cats(fill(tmp_path / "raw", range(2001)), tmp_path / "data/set")
    found = {str(file.relative_to(tmp_path / "data/set")): file.read_text() for file in tmp_path.glob("data/**/*.jpg")}
    expected = {}
    for number in range(2000):
        split = "train" if number <= 999 else "validation" if number <= 1499 else "test"
        for animal in ("cat", "dog"):
            expected[f"{split}/{animal}/{animal}.{number}.jpg"] = f"{animal} {number}"
    assert found == expected
    assert entries(tmp_path / "data") == ["set"]


def test_a_prepared_folder_is_kept(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "set"
    path.mkdir()  # an empty folder is as good as none
    prepare_dogs_vs_cats(raw, path)
    before = (path / "dataset.json").stat().st_mtime_ns
    prepare_dogs_vs_cats(raw, path)
    prepare_dogs_vs_cats(Path(shutil.copytree(raw, tmp_path / "copy")), path)  # the same photos, elsewhere
    shutil.rmtree(raw)
    prepare_dogs_vs_cats(raw, path)  # the raw photos were thrown away
    assert (path / "dataset.json").stat().st_mtime_ns == before
    assert json.loads((path / "dataset.json").read_text())["source"] == str(raw)


def test_other_photos_are_noticed(raw: Path, tmp_path: Path) -> None:
    prepare_dogs_vs_cats(raw, tmp_path / "set")
    (raw / "dog.7.jpg").write_text("another dog")
    with pytest.raises(UserError, match=r"set: was made from other photos .* delete it, or give another"):
        prepare_dogs_vs_cats(raw, tmp_path / "set")
    (raw / "dog.7.jpg").write_text("dog 7")
    (raw / "dog.9.jpg").write_text("one that is not used")
    prepare_dogs_vs_cats(raw, tmp_path / "set")


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"drawn_by": "someone else"}'])
def test_what_others_put_there_is_not_touched(raw: Path, tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/thesis.txt").write_text("precious")
    if manifest is not None:
        (tmp_path / "set/dataset.json").write_text(manifest)
    with pytest.raises(UserError, match=r"set: holds something that was not made from dataset\.source"):
        prepare_dogs_vs_cats(raw, tmp_path / "set")
    assert (tmp_path / "set/thesis.txt").read_text() == "precious"


def test_missing_photos_are_named_and_counted(raw: Path, tmp_path: Path) -> None:
    for name in ("dog.3.jpg", "cat.7.jpg", "cat.5.jpg"):
        (raw / name).unlink()
    with pytest.raises(UserError, match=r"raw: dog\.3\.jpg and 2 more are missing of the 4000 photos"):
        prepare_dogs_vs_cats(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_wrong_source_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: does not exist; give the folder with the photos of train\.zip"):
        prepare_dogs_vs_cats(tmp_path / "nowhere", tmp_path / "set")
    (tmp_path / "train.zip").write_text("PK")
    with pytest.raises(UserError, match=r"train\.zip: is not a folder"):
        prepare_dogs_vs_cats(tmp_path / "train.zip", tmp_path / "set")
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked/train").symlink_to(raw)
    with pytest.raises(UserError, match=r"cat\.0\.jpg and 15 more .*; give .*unpacked/train$"):
        prepare_dogs_vs_cats(tmp_path / "unpacked", tmp_path / "set")


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> list[str]:
    """Let the copying fail at the photo with this number; returns the list of those that were copied."""
    copied: list[str] = []
    whole = shutil.copyfile

    def copyfile(source: Path, target: Path) -> Any:
        if len(copied) == count:
            raise error
        copied.append(str(target))
        return whole(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    return copied


def test_an_interrupt_leaves_nothing(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 10, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            prepare_dogs_vs_cats(raw, tmp_path / "set")
    assert entries(tmp_path) == ["raw"]
    prepare_dogs_vs_cats(raw, tmp_path / "set")  # the lock is free again


def test_what_a_killed_process_left_is_removed(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process does not clean up
        stop_at(patch, 10, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            prepare_dogs_vs_cats(raw, tmp_path / "set")
    assert entries(tmp_path) == [".set.unfinished", "raw"]
    (tmp_path / ".set.unfinished/train/cat/stray.jpg").write_text("of the killed process")
    prepare_dogs_vs_cats(raw, tmp_path / "set")
    assert entries(tmp_path) == ["raw", "set"] and len(list(tmp_path.glob("set/*/*/*"))) == 16


def test_a_full_disk_is_one_line(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 5, OSError(28, "No space left on device", "cat.5.jpg"))
    with pytest.raises(UserError, match=r"cannot be filled \(cat\.5\.jpg: No space left on device\); make room"):
        prepare_dogs_vs_cats(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_two_at_once_copy_once(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    waiting = threading.Event()
    copied: list[str] = []
    second = threading.Thread(target=prepare_dogs_vs_cats, args=(raw, tmp_path / "set"))

    def copyfile(source: Path, target: Path) -> None:
        if not copied:  # the first process is in the middle: start another, and go on when it waits
            second.start()
            assert waiting.wait(timeout=10)
        copied.append(target.name)
        target.write_bytes(source.read_bytes())

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    monkeypatch.setattr(prepare, "say", say)
    monkeypatch.setattr(shutil, "copyfile", copyfile)
    prepare_dogs_vs_cats(raw, tmp_path / "set")
    second.join(timeout=10)
    assert not second.is_alive() and len(copied) == 16
    assert said == [f"{tmp_path / 'set'}: waiting for another process that fills this folder"]


# ------------------------------------------------------------------------------------ drawn pictures, MNIST


def test_pictures_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    draw = prepare.draw_dataset

    def counted(*given: Any) -> None:
        calls.append(given)
        draw(*given)

    monkeypatch.setattr(prepare, "draw_dataset", counted)
    for seed in (0, 0, 1):
        draw_synthetic(tmp_path / f"drawn{seed}", 2, 2, 2, 32, seed)
    assert [given[1:] for given in calls] == [(2, 2, 2, 32, 0, 0), (2, 2, 2, 32, 1, 0)]


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"dataset\.path=.*file/drawn: cannot be filled"):
        draw_synthetic(tmp_path / "file/drawn", 2, 2, 2, 32, 0)


def mnist_arrays() -> dict[str, Any]:
    y = np.arange(30, dtype=np.uint8) % 10
    x = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    return {"x_train": x, "y_train": y, "x_test": x[:20] + 100, "y_test": y[:20]}


def test_read_mnist(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", **mnist_arrays())
    x_train, y_train, x_test, y_test = read_mnist(tmp_path / "mnist.npz")
    assert x_train[:, 5, 5].tolist() == list(range(30)) and x_test[:, 0, 0].tolist() == list(range(100, 120))
    assert y_train.tolist() == list(range(10)) * 3 and y_test.tolist() == list(range(10)) * 2
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_train": np.zeros((30, 28, 28), np.float32)}, r"x \(30, 28, 28\) float32"),
        ({"x_test": np.zeros((20, 784), np.uint8)}, r"x \(20, 784\) uint8, y \(20,\)"),
        ({"y_train": np.zeros(30, np.uint8)}, "not .* 0-9"),
        ({"y_test": None}, "y_test"),
    ],
)
def test_another_npz_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    arrays = {key: array for key, array in (mnist_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=rf"mnist\.npz: is not Keras' mnist\.npz .*{reason}"):
        read_mnist(tmp_path / "mnist.npz")


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_a_broken_mnist_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"mnist\.npz: is not Keras' mnist\.npz .*dataset\.path=null"):
        read_mnist(tmp_path / "mnist.npz")
