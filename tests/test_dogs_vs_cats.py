"""Kaggle's photos from folders, archives and a server: the right ones, whatever goes wrong."""

import json
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp import files
from cnnexp.data.fetch import dogs_vs_cats
from cnnexp.data.fetch.dogs_vs_cats import ANIMALS, prepare_dogs_vs_cats
from cnnexp.data.fetch.download import ExpectedFile
from cnnexp.data.opencv import cv2
from cnnexp.errors import UserError


def photo(animal: str, number: int) -> bytes:
    """A picture of its own for each; a PNG, whatever its name, is quickly written."""
    colour = (number % 256, number // 256, 200 if animal == "dog" else 100)
    return bytes(cv2.imencode(".png", np.full((4, 4, 3), colour, np.uint8))[1])


def fill(folder: Path, numbers: range) -> Path:
    """Photos of both animals in Kaggle's layout."""
    folder.mkdir()
    for number in numbers:
        for animal in ANIMALS:
            (folder / f"{animal}.{number}.jpg").write_bytes(photo(animal, number))
    return folder


def prepared(source: Path | str, path: Path, **promise: Any) -> None:
    prepare_dogs_vs_cats(str(source), path, path.parent / "downloads", ExpectedFile(**promise))


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 16 photos."""
    monkeypatch.setattr(dogs_vs_cats, "NUMBERS", {"train": range(4), "validation": range(4, 6), "test": range(6, 8)})
    return fill(tmp_path / "raw", range(8))


def entries(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_photos_are_split_by_number(tmp_path: Path) -> None:
    prepared(fill(tmp_path / "raw", range(2001)), tmp_path / "data/set")
    found = {str(file.relative_to(tmp_path / "data/set")): file.read_bytes() for file in tmp_path.glob("data/**/*.jpg")}
    expected = {}
    for number in range(2000):
        split = "train" if number <= 999 else "validation" if number <= 1499 else "test"
        for animal in ("cat", "dog"):
            expected[f"{split}/{animal}/{animal}.{number}.jpg"] = photo(animal, number)
    assert found == expected
    assert entries(tmp_path / "data") == ["set"]


def test_a_prepared_folder_is_kept(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "set"
    path.mkdir()  # an empty folder is as good as none
    prepared(raw, path)
    before = (path / "dataset.json").stat().st_mtime_ns
    prepared(raw, path)
    prepared(Path(shutil.copytree(raw, tmp_path / "copy")), path)  # the same photos, elsewhere
    shutil.rmtree(raw)
    prepared(raw, path)  # the raw photos were thrown away
    assert (path / "dataset.json").stat().st_mtime_ns == before
    assert json.loads((path / "dataset.json").read_text())["source"] == str(raw)


def test_other_photos_are_noticed(raw: Path, tmp_path: Path) -> None:
    prepared(raw, tmp_path / "set")
    (raw / "dog.7.jpg").write_bytes(photo("dog", 77))
    with pytest.raises(UserError, match=r"set: was made from other photos .* delete it, or give another"):
        prepared(raw, tmp_path / "set")
    (raw / "dog.7.jpg").write_bytes(photo("dog", 7))
    (raw / "dog.9.jpg").write_text("one that is not used")
    prepared(raw, tmp_path / "set")


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"drawn_by": "someone else"}'])
def test_what_others_put_there_is_not_touched(raw: Path, tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/thesis.txt").write_text("precious")
    if manifest is not None:
        (tmp_path / "set/dataset.json").write_text(manifest)
    with pytest.raises(UserError, match=r"set: holds something that was not made from dataset\.source"):
        prepared(raw, tmp_path / "set")
    assert (tmp_path / "set/thesis.txt").read_text() == "precious"


def test_missing_photos_are_named_and_counted(raw: Path, tmp_path: Path) -> None:
    for name in ("dog.3.jpg", "cat.7.jpg", "cat.5.jpg"):
        (raw / name).unlink()
    with pytest.raises(UserError, match=r"raw: dog\.3\.jpg and 2 more are missing of the 16 photos"):
        prepared(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_wrong_source_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: does not exist; give the folder with the photos of train\.zip"):
        prepared(tmp_path / "nowhere", tmp_path / "set")
    (tmp_path / "train.zip").write_text("PK")
    with pytest.raises(UserError, match=r"train\.zip: .*is no archive|train\.zip: is neither"):
        prepared(tmp_path / "train.zip", tmp_path / "set")
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked/train").symlink_to(raw)
    with pytest.raises(UserError, match=r"cat\.0\.jpg and 15 more .*; give .*unpacked/train$"):
        prepared(tmp_path / "unpacked", tmp_path / "set")


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
            prepared(raw, tmp_path / "set")
    assert entries(tmp_path) == ["raw"]
    prepared(raw, tmp_path / "set")  # the lock is free again


def test_what_a_killed_process_left_is_removed(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process does not clean up
        stop_at(patch, 10, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            prepared(raw, tmp_path / "set")
    monkeypatch.setattr("cnnexp.files.lives", lambda process: False)
    left, _ = entries(tmp_path)
    assert left.startswith(".set.cnnexp-")
    (tmp_path / left / "train/cat/stray.jpg").write_text("of the killed process")
    prepared(raw, tmp_path / "set")
    assert entries(tmp_path) == ["raw", "set"] and len(list(tmp_path.glob("set/*/*/*"))) == 16


def test_a_full_disk_is_one_line(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 5, OSError(28, "No space left on device", "cat.5.jpg"))
    with pytest.raises(UserError, match=r"cannot be filled \(cat\.5\.jpg: No space left on device\); make room"):
        prepared(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_two_at_once_copy_once(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    waiting = threading.Event()
    copied: list[str] = []
    second = threading.Thread(target=prepared, args=(raw, tmp_path / "set"))

    def copyfile(source: Path, target: Path) -> None:
        if not copied:  # the first process is in the middle: start another, and go on when it waits
            second.start()
            assert waiting.wait(timeout=10)
        copied.append(target.name)
        target.write_bytes(source.read_bytes())

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    monkeypatch.setattr(files, "say", say)
    monkeypatch.setattr(shutil, "copyfile", copyfile)
    prepared(raw, tmp_path / "set")
    second.join(timeout=10)
    assert not second.is_alive() and len(copied) == 16
    assert said == [f"{tmp_path / 'set'}: waiting for another process that makes it"]


# ------------------------------------------------------------------------------- replaced photos, archives


def microsofts(folder: Path, numbers: range) -> Path:
    for animal in ANIMALS:
        below = folder / "PetImages" / animal.capitalize()
        below.mkdir(parents=True)
        for number in numbers:
            (below / f"{number}.jpg").write_bytes(photo(animal, number))
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.glob("*/*/*.jpg"))}


@pytest.mark.parametrize("form", ["kaggle folder", "microsoft folder", "zip", "tar.gz", "zip of train"])
def test_all_forms_give_the_same(raw: Path, tmp_path: Path, form: str) -> None:
    prepared(raw, tmp_path / "expected")
    source: Path = {"kaggle folder": raw}.get(form) or microsofts(tmp_path / "pets", range(8))
    if form == "zip of train":
        source = Path(shutil.make_archive(str(tmp_path / "train"), "zip", raw.parent, "raw"))
    elif form == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", source))
    elif form == "tar.gz":
        source = Path(shutil.make_archive(str(tmp_path / "pets"), "gztar", source))
    prepared(source, tmp_path / "set")
    assert contents(tmp_path / "set") == contents(tmp_path / "expected")
    manifests = [json.loads((tmp_path / name / "dataset.json").read_text()) for name in ("set", "expected")]
    assert manifests[0]["digest"] == manifests[1]["digest"] and manifests[0]["replaced"] == {}
    before = (tmp_path / "set/dataset.json").stat().st_mtime_ns
    prepared(source, tmp_path / "set")
    assert (tmp_path / "set/dataset.json").stat().st_mtime_ns == before


def test_missing_and_broken_photos_are_replaced_in_their_order(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = microsofts(tmp_path / "pets", range(12))
    (pets / "PetImages/Cat/2.jpg").write_bytes(b"")
    (pets / "PetImages/Cat/8.jpg").write_bytes(b"no picture either")  # the first that would take its place
    (pets / "PetImages/Dog/7.jpg").unlink()
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", pets))
    prepared(archive, tmp_path / "set")
    found = contents(tmp_path / "set")
    assert len(found) == 16
    assert found["train/cat/cat.9.jpg"] == photo("cat", 9) and "train/cat/cat.2.jpg" not in found
    assert found["test/dog/dog.8.jpg"] == photo("dog", 8) and "test/dog/dog.7.jpg" not in found
    assert capsys.readouterr().err.splitlines() == [
        "cat.2.jpg cannot be read (it is empty): cat.9.jpg takes its place",
        "dog.7.jpg is missing: dog.8.jpg takes its place",
    ]
    assert json.loads((tmp_path / "set/dataset.json").read_text())["replaced"] == {
        "cat.2.jpg": {"because": "cannot be read (it is empty)", "number": 9},
        "dog.7.jpg": {"because": "is missing", "number": 8},
    }
    prepared(archive, tmp_path / "set")
    prepared(pets, tmp_path / "set")  # the same photos, unpacked
    (pets / "PetImages/Cat/9.jpg").write_bytes(photo("cat", 99))
    with pytest.raises(UserError, match="was made from other photos"):
        prepared(pets, tmp_path / "set")


def test_too_few_photos_to_replace_the_broken_ones(raw: Path, tmp_path: Path) -> None:
    (raw / "cat.3.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"cat\.3\.jpg cannot be read \(it is empty\), and no other"):
        prepared(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_another_archive_is_noticed_and_the_same_one_elsewhere_is_not(raw: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "train"), "zip", raw))
    prepared(archive, tmp_path / "set")
    prepared(Path(shutil.copy(archive, tmp_path / "copy.zip")), tmp_path / "set")
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("cat.9.jpg", photo("cat", 9))
    with pytest.raises(UserError, match="was made from other photos"):
        prepared(archive, tmp_path / "set")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_an_archive_that_is_cut_leaves_nothing(raw: Path, tmp_path: Path, suffix: str) -> None:
    kind = {"zip": "zip", "tar.gz": "gztar"}[suffix]
    archive = Path(shutil.make_archive(str(tmp_path / "train"), kind, raw))
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=r"train\.(zip|tar\.gz): "):
        prepared(archive, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_archive_without_photos_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(__file__, "test.py")
    with pytest.raises(UserError, match=r"x\.tar: cat\.0\.jpg and 3999 more are missing of the 4000 photos"):
        prepared(tmp_path / "x.tar", tmp_path / "set")
