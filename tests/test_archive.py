"""Archives of strangers: unpacked whole, or refused in one line with nothing written."""

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnexp.data.fetch import archive
from cnnexp.data.fetch.archive import ArchiveError, file_names, innermost, is_archive, unpack, unpack_all
from cnnexp.errors import UserError

FILES = {"photos/apple/1.jpg": b"apple 1" * 1000, "photos/pear/2.jpg": b"pear 2" * 2000, "photos/about.txt": b"hello"}
JUNK = {"__MACOSX/photos/._1.jpg": b"x", "photos/.DS_Store": b"x", "photos/Thumbs.db": b"x"}
KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def made(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix != ".zip":
        return tar_with(path, *((tarfile.TarInfo(name), data) for name, data in files.items()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_junk_comes_out(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / f"x.{kind}", FILES | JUNK)
    assert is_archive(path) and sorted(file_names(path)) == sorted(FILES)
    unpack_all(path, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    assert sorted(entry.name for entry in innermost(tmp_path / "out").iterdir() if entry.is_dir()) == ["apple", "pear"]


@pytest.mark.parametrize("kind", KINDS)
def test_some_of_it(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / f"x.{kind}", FILES)
    unpack(path, {"photos/pear/2.jpg": tmp_path / "new/2.jpg"})
    assert contents(tmp_path / "new") == {"2.jpg": FILES["photos/pear/2.jpg"]}
    with pytest.raises(ArchiveError, match=r"has no photos/plum/3\.jpg"):
        unpack(path, {"photos/plum/3.jpg": tmp_path / "3.jpg"})


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../evil.jpg", "photos/../../evil.jpg", "/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "a/..\\..\\evil"]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = made(tmp_path / f"x.{kind}", FILES | {name: b"evil"})
    with pytest.raises(ArchiveError, match=r"leads out of the archive's folder; nothing was unpacked"):
        unpack_all(path, tmp_path / "deep/out")
    assert [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"] == [path]


def test_names_as_windows_writes_them(tmp_path: Path) -> None:
    path = made(tmp_path / "x.tar", {"photos\\apple\\1.jpg": b"1", "./photos/pear/2.jpg": b"2"})
    unpack_all(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {"photos/apple/1.jpg": b"1", "photos/pear/2.jpg": b"2"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("photos/link.jpg")
    link.type, link.linkname = kind, "/etc/passwd"
    path = tar_with(tmp_path / "x.tar", (link, b""))
    with pytest.raises(ArchiveError, match=r"'photos/link\.jpg' is a link or device"):
        file_names(path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("photos/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"'photos/link\.jpg' is a link"):
        file_names(tmp_path / "x.zip")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "x.zip", FILES)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is encrypted; unpack it yourself"):
        file_names(path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SMALL", 100_000)
    path = made(tmp_path / f"x.{kind}", {"bomb.bmp": bytes(3_000_000)})
    with pytest.raises(ArchiveError, match=r"3,000,000 bytes and more would come out of"):
        unpack_all(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(archive, "SMALL", 3_000_000)
    unpack_all(path, tmp_path / "out")


def test_a_bomb_of_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    with pytest.raises(ArchiveError, match="it is not unpacked"):
        file_names(made(tmp_path / "x.zip", FILES))


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    member = (tarfile.TarInfo("a.jpg"), b"1")
    with pytest.raises(ArchiveError, match=r"holds a\.jpg twice"):
        file_names(tar_with(tmp_path / "x.tar", member, (tarfile.TarInfo("./a.jpg"), b"2")))


def test_what_is_refused_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No refusal stands within the words for an archive that is damaged."""
    link = tarfile.TarInfo("a/link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as zipped:
        for name in ("a/1.jpg", "./a/1.jpg"):
            zipped.writestr(name, b"1")
    said = {
        made(tmp_path / "out.zip", {"../evil.jpg": b"1"}): (
            "'../evil.jpg' leads out of the archive's folder; nothing was unpacked"
        ),
        twice: "holds a/1.jpg twice; get another archive",
        tar_with(tmp_path / "link.tar", (link, b"")): "'a/link.jpg' is a link or device; get another archive",
        made(tmp_path / "bomb.zip", {"a/1.jpg": bytes(300_000)}): (
            "300,000 bytes and more would come out of 443, as of no archive of photos; it is not unpacked"
        ),
    }
    monkeypatch.setattr(archive, "SMALL", 1000)
    for path, words in said.items():
        with pytest.raises(ArchiveError) as caught:
            unpack_all(path, tmp_path / "unpacked")
        words = words.replace("443", f"{path.stat().st_size:,}")
        assert str(caught.value) == f"{path}: {words}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.8])
def test_a_cut_archive_is_one_line(tmp_path: Path, kind: str, part: float) -> None:
    files = {f"photos/{number}.jpg": os.urandom(3000) for number in range(20)}
    path = made(tmp_path / f"x.{kind}", files)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UserError) as refused:
        unpack_all(path, tmp_path / "out")
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_flipped_bits_are_one_line(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / f"x.{kind}", {"a.jpg": bytes(range(256)) * 100})
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"x\..*: is (no archive that can be read|cut short)"):
        unpack_all(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_unpacked_once_and_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "x.zip", FILES)

    def interrupted(*_: object) -> Callable[[int], None]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archive, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            unpack_all(path, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix != ".lock") == ["x.zip"]
    unpack_all(path, tmp_path / "out")
    path.unlink()
    unpack_all(path, tmp_path / "out")  # nothing to do


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "x.zip", FILES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "2.jpg")

    monkeypatch.setattr(archive, "unpack", full)
    with pytest.raises(UserError, match=r"out: cannot be filled \(2\.jpg: No space left on device\)"):
        unpack_all(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK", b"\x1f\x8b", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"x\.zip: is no archive that can be read"):
        file_names(tmp_path / "x.zip")


def test_a_text_beside_the_only_folder_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "set/photos/apple").mkdir(parents=True)
    (tmp_path / "set/photos/pear").mkdir()
    (tmp_path / "set/readme.txt").write_text("")
    assert innermost(tmp_path) == tmp_path / "set/photos"
    shutil.rmtree(tmp_path / "set/photos/pear")
    (tmp_path / "set/photos/apple/1.jpg").write_text("")
    assert innermost(tmp_path) == tmp_path / "set/photos/apple"
