"""The look at every file before anything is done: bad files, duplicates, leaks between splits, the memory of it."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from odd_files import BAD, ODD, PLAIN, encoded, jpeg, other_kinds, picture

from cnnexp.commands import prepare
from cnnexp.console import warn_once
from cnnexp.data.check import preflight
from cnnexp.data.check.manifest import TICK_NS, stamp
from cnnexp.data.check.preflight import PreflightError
from cnnexp.data.dataset import Dataset
from cnnexp.data.loading import ImageLoader
from cnnexp.data.sources import folder
from cnnexp.errors import UserError

FRACTIONS: dict[str, Any] = {"validation_fraction": 0.25, "test_fraction": 0.25, "split_seed": 0}
SPLITS = ("train", "validation", "test")


def load(root: Path, **keywords: Any) -> Dataset:
    return folder(path=str(root), **(FRACTIONS | keywords))


def clean(root: Path, each: int = 2) -> Path:
    """`each` photos of two classes in three splits, no two alike."""
    seed = 100
    for split in SPLITS:
        for name in ("apple", "pear"):
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                seed += 1
                (root / split / name / f"{number}.jpg").write_bytes(jpeg(seed))
    return root


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Class folders with every kind of file; gives the reason for which each bad one cannot be used."""
    root = tmp_path / "photos"
    for number, (name, (data, _)) in enumerate((BAD | ODD | {n: (d, "") for n, d in PLAIN.items()}).items()):
        target = root / ("apple", "pear")[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    reasons = {name: reason for name, (_, reason) in BAD.items()} | other_kinds(root / "pear")
    return root, reasons


# ------------------------------------------------------------------------------------------------ bad files


def test_skip_names_every_bad_file_and_goes_on_without_them(
    odd: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, reasons = odd
    assert len(reasons) >= 12
    dataset = load(root, on_bad="skip", on_leak="ignore", manifests=str(tmp_path / "manifests"))
    used = [name for split in (dataset.train, dataset.validation, dataset.test) for name in split.ids]
    assert sorted(Path(name).name for name in used) == sorted([*ODD, *PLAIN])
    for split in (dataset.train, dataset.validation, dataset.test):
        ImageLoader(split, 32, 3, threads=2).load()
    assert dataset.report is not None and dataset.report.table is not None
    with dataset.report.table.open(newline="") as file:
        rows = {Path(row["name"]).name: row for row in csv.DictReader(file)}
    assert {name for name, row in rows.items() if row["problem"]} == set(reasons)
    assert all(reason in rows[name]["problem"] for name, reason in reasons.items())
    assert all(note in rows[name]["notes"] for name, (_, note) in ODD.items())
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == sorted(str(root / rows[name]["name"]) for name in reasons)


def test_error_refuses_and_says_how_to_go_on(
    odd: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, reasons = odd
    with pytest.raises(PreflightError) as refused:
        load(root)
    assert str(refused.value) == (
        f"dataset.path={root}: {len(reasons)} of {len(reasons) + len(ODD) + len(PLAIN)} files cannot be used; "
        "dataset.on_bad=skip leaves them out"
    )
    assert len(capsys.readouterr().err.splitlines()) == len(reasons)


def test_of_very_many_bad_files_only_some_are_named(
    odd: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reasons = odd
    monkeypatch.setattr(preflight, "NAMED", 3)
    load(root, on_bad="skip", on_leak="ignore")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and lines[-1] == f"left out: ... and {len(reasons) - 3} more"


def test_a_class_of_bad_files_only_is_refused(tmp_path: Path) -> None:
    root = clean(tmp_path)
    for file in (root / "test/pear").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="class 'pear' has no test image that can be read"):
        load(root, on_bad="skip")


# ---------------------------------------------------------------------------------------------------- leaks


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    root = clean(tmp_path / "photos")
    train = picture(101)
    (root / "test/apple/same.jpg").write_bytes(jpeg(101))
    (root / "test/apple/smaller.png").write_bytes(encoded(train.resize((40, 40)), "PNG"))
    (root / "validation/pear/again.jpg").write_bytes(encoded(train, "JPEG", quality=30))
    (root / "train/pear/copy.jpg").write_bytes(jpeg(103))
    return root


def test_leaks_are_named_with_both_files(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = load(leaky)
    assert capsys.readouterr().err.splitlines() == [
        "leak: train/apple/0.jpg (train) and validation/pear/again.jpg (validation): the same to look at",
        "leak: train/apple/0.jpg (train) and test/apple/same.jpg (test): the same bytes",
        "leak: train/apple/0.jpg (train) and test/apple/smaller.png (test): the same to look at",
        "two labels: train/apple/0.jpg (apple) and validation/pear/again.jpg (pear): the same to look at",
        f"dataset.path={leaky}: 1 of 5 validation, 2 of 6 test images are also in an earlier split, so that their "
        "accuracy says too much; dataset.on_leak=error refuses them",
    ]
    report = dataset.report
    assert report is not None and report.two_labels == 1
    found = {name: (each.leaks, each.exact_duplicates, each.near_duplicates) for name, each in report.splits.items()}
    assert found == {"train": (0, 1, 0), "validation": (1, 0, 0), "test": (2, 0, 0)}


def test_on_leak_decides(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PreflightError, match=r"are also in an earlier split; take them away, or dataset\.on_leak=warn"):
        load(leaky, on_leak="error")
    capsys.readouterr()
    warn_once.cache_clear()
    assert load(leaky, on_leak="ignore").digest == load(leaky).digest
    load(leaky, on_leak="ignore")
    assert len(capsys.readouterr().err.splitlines()) == 5  # of the one that warns


def test_one_leak_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clean(tmp_path)
    (root / "test/apple/same.jpg").write_bytes(jpeg(101))
    load(root)
    assert capsys.readouterr().err == (
        "leak: train/apple/0.jpg (train) and test/apple/same.jpg (test): the same bytes (dataset.on_leak=error refuses "
        "it, ignore says nothing)\n"
    )


def test_duplicates_that_a_division_puts_into_different_splits_are_leaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("apple", 1), ("pear", 2)):
        (tmp_path / name).mkdir()
        for number in range(8):
            (tmp_path / name / f"{number}.jpg").write_bytes(jpeg(seed))  # all alike
    report = load(tmp_path).report
    assert report is not None
    assert [each.leaks for each in report.splits.values()] == [0, 4, 4]
    assert "leak: apple/" in capsys.readouterr().err
    load(tmp_path)
    assert not capsys.readouterr().err  # the next job of a sweep does not say it again


# --------------------------------------------------------------------------------------- memory of the files


def old(root: Path) -> None:
    """Wait until no file is so new that a change could go unnoticed."""
    for file in root.rglob("*.*"):
        while stamp(str(file)) is None:
            os.sched_yield()


def looked_at(root: Path, manifests: Path) -> int:
    report = load(root, manifests=str(manifests), on_bad="skip").report
    assert report is not None
    return report.looked_at


def test_a_file_is_looked_at_once_and_again_after_a_change(tmp_path: Path) -> None:
    root, manifests = clean(tmp_path / "photos"), tmp_path / "manifests"
    old(root)
    first = load(root, manifests=str(manifests))
    assert looked_at(root, manifests) == 0
    photo = root / "test/apple/0.jpg"
    size, times = photo.stat().st_size, (photo.stat().st_atime_ns, photo.stat().st_mtime_ns)
    content = bytearray(photo.read_bytes())
    content[-3] ^= 1  # in the picture's last bytes
    photo.write_bytes(content)
    os.utime(photo, ns=times)  # only the time of the last change of its entry tells
    assert photo.stat().st_size == size
    old(root)
    changed = load(root, manifests=str(manifests))
    assert changed.report is not None and changed.report.looked_at == 1
    assert changed.digest != first.digest
    assert changed.digest == load(root).digest  # without a memory
    assert looked_at(root, manifests) == 0


def test_a_file_that_was_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    root, manifests = clean(tmp_path / "photos"), tmp_path / "manifests"
    photo = root / "test/apple/0.jpg"
    ahead = photo.stat().st_mtime_ns + 3600 * 10**9 + TICK_NS
    os.utime(photo, ns=(ahead, ahead))
    load(root, manifests=str(manifests))
    old_files = looked_at(root, manifests)
    assert 1 <= old_files <= 12 and stamp(str(photo)) is None


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_memory_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    root, manifests = clean(tmp_path / "photos"), tmp_path / "manifests"
    old(root)
    digest = load(root, manifests=str(manifests)).digest
    (file,) = manifests.glob("*.npz")
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert looked_at(root, manifests) == 12
    assert load(root, manifests=str(manifests)).digest == digest
    assert looked_at(root, manifests) == 0


def test_a_memory_that_cannot_be_written_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clean(tmp_path / "photos")
    (tmp_path / "file").write_bytes(b"")
    load(root, manifests=str(tmp_path / "file/manifests"))
    assert "every image will be looked at again next time" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- command


def test_prepare_shows_what_was_found(
    odd: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, reasons = odd
    given = ["folder", f"dataset.path={root}", f"paths.root={tmp_path / 'out'}", "dataset.on_leak=ignore"]
    with pytest.raises(PreflightError):
        prepare.run(given)
    assert "CMYK" in capsys.readouterr().out
    assert prepare.run([*given, "dataset.on_bad=skip"]) == 0
    out = capsys.readouterr().out
    for note in ("bad", "CMYK", "alpha", "grey", "16 bits", "animated", "pages", "turned", "PNG called .jpg"):
        assert note in out, note
    assert f"{tmp_path}/out/data/manifests/photos-" in out.replace("\n", "")
    assert sum(map(int, next(line for line in out.splitlines() if " bad " in line).split()[1:])) == len(reasons)


def test_prepare_is_brief_where_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clean(tmp_path / "photos")
    assert prepare.run(["folder", f"dataset.path={root}", "dataset.manifests=null"]) == 0
    out, err = capsys.readouterr()
    assert "every file can be used, none is there twice" in out and "found" not in out and err == ""


def test_files_that_are_all_pointers_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 48213\n"
    for number in range(8):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(pointer)
    with pytest.raises(PreflightError, match=r"none of its 8 files can be used, as a/.*`git lfs pull` gets the files"):
        folder(path=str(tmp_path / "photos"))
    assert capsys.readouterr().err == ""
