"""Zip and tar archives of strangers: what is in them, and some or all of it in a folder."""

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from cnnexp.console import byte_progress
from cnnexp.data.folders import is_system
from cnnexp.errors import UserError, first_line
from cnnexp.files import atomic_folder, exclusive, open_file

ZIP_START = b"PK"
MOST_FILES = 5_000_000
SMALL = 2**30  # bytes: so much may come out of any archive,
MOST_RATIO = 200  # and more only up to so many times its size
CHUNK = 1 << 20
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)


class ArchiveError(UserError):
    """A file that is no archive, a damaged one, or one that must not be unpacked."""


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, compressed or not, whatever its name; a part of a zip is one too."""
    try:
        with open_file(path) as file:
            return _begins_as_zip(file) or tarfile.is_tarfile(file)
    except (OSError, *DAMAGE):
        return False


def file_names(archive: Path) -> list[str]:
    """The files in an archive, with `/`; hidden ones and what macOS and Windows add are left out.

    Raises:
        ArchiveError: it is damaged or encrypted; a name leads out of it; a member is a link or device, or there
            twice; what would come out of it is absurdly large.
        OSError: it cannot be read.
    """
    with _reading(archive) as members:
        return [name for name, _, _ in members]


def unpack(archive: Path, targets: Mapping[str, Path]) -> None:
    """Write files of an archive, given their names in it, to `targets`; their folders are made.

    Raises:
        ArchiveError: as `file_names`; one of them is not there.
        OSError: the disk is full, or one of them cannot be written.
    """
    missing = set(targets)
    with _reading(archive) as members, byte_progress(f"unpacking {archive.name}") as advance:
        for name, size, opened in members:
            if name not in targets:
                continue
            missing.discard(name)
            targets[name].parent.mkdir(parents=True, exist_ok=True)
            source = opened()
            assert source is not None, name  # what tarfile gives for a link
            with source, targets[name].open("wb") as target:
                left = size
                while chunk := source.read(min(CHUNK, left)):
                    target.write(chunk)
                    advance(len(chunk))
                    left -= len(chunk)
            if left:
                raise ArchiveError(f"{archive}: is cut short in {name}; get it again")
    if missing:
        raise ArchiveError(f"{archive}: has no {min(missing)}")


def unpack_all(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder, which appears when everything is in it; nothing to do where it is there.

    Of two processes, one waits for the other.

    Raises:
        UserError: as `file_names`; the disk is full.
    """
    if folder.is_dir():
        return
    with exclusive(folder, "dataset.downloads"):
        if folder.is_dir():
            return
        with atomic_folder(folder) as unfinished:
            unpack(archive, {name: unfinished / name for name in file_names(archive)})


def innermost(folder: Path) -> Path:
    """Down to the first folder that holds more than one other folder: archives often have one around everything."""
    while True:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir():
            folders = [entry for entry in inside if entry.is_dir()]
            if len(folders) != 1:  # beside the folder may lie a text about it
                return folder
            inside = folders
        folder = inside[0]


# -------------------------------------------------------------------------------------------------- reading

Member = tuple[str, int, Callable[[], IO[bytes] | None]]  # name, size in bytes, and how to open it


@contextmanager
def _reading(path: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive, one after the other."""
    try:
        with open_file(path) as file:
            if _begins_as_zip(file):
                with zipfile.ZipFile(file) as zipped:
                    yield _checked(path, _zip_members(path, zipped))
            else:
                with tarfile.open(fileobj=file, mode="r:*") as tar:
                    yield _checked(path, _tar_members(path, tar))
    except (OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 give none
            raise
        raise ArchiveError(
            f"{path}: is no archive that can be read, or is damaged ({first_line(error)}); get it again"
        ) from error
    except RuntimeError as error:  # zipfile: it is encrypted in a way that shows only here
        raise ArchiveError(f"{path}: {error}; unpack it yourself") from error


def _begins_as_zip(file: IO[bytes]) -> bool:
    start = file.read(len(ZIP_START))
    file.seek(0)
    return start == ZIP_START


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    for member in archive.infolist():
        if member.is_dir():
            continue
        if member.flag_bits & 1:
            raise ArchiveError(f"{path}: is encrypted; unpack it yourself, and give the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ArchiveError(f"{path}: {member.filename!r} is a link; get another archive")
        yield member.filename, member.file_size, partial(archive.open, member)


def _tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[Member]:
    for member in archive:
        if member.isdir():
            continue
        if not member.isreg():
            raise ArchiveError(f"{path}: {member.name!r} is a link or device; get another archive")
        yield member.name, member.size, partial(archive.extractfile, member)
    for _ in range(SMALL // CHUNK):  # to the end, where the check sum of what is compressed stands
        if archive.fileobj is None or not archive.fileobj.read(CHUNK):
            return


def _checked(path: Path, members: Iterator[Member]) -> Iterator[Member]:
    """Those that are wanted, each with a clean name, as long as all of them are harmless."""
    packed, total, seen = path.stat().st_size, 0, set[str]()
    for number, (raw, size, opened) in enumerate(members, 1):
        total += size
        if number > MOST_FILES or total > max(SMALL, MOST_RATIO * packed):
            raise ArchiveError(
                f"{path}: {total:,} bytes and more would come out of {packed:,}, as of no archive of photos; it is "
                "not unpacked"
            )
        name = _clean(path, raw)
        parts = name.split("/")
        if any(is_system(part) for part in parts):
            continue
        if name in seen:
            raise ArchiveError(f"{path}: holds {name} twice; get another archive")
        seen.add(name)
        yield name, size, opened


def _clean(path: Path, raw: str) -> str:
    """The name with `/`; refuses one that leads out of the folder, on any system."""
    name = raw.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name or not parts:
        raise ArchiveError(f"{path}: {raw!r} leads out of the archive's folder; nothing was unpacked")
    return "/".join(parts)
