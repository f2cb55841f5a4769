"""What was found in the files of a folder, kept so that a file is looked at once: a file for each folder of images."""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnexp.console import warn
from cnnexp.data.check.duplicates import THUMBNAIL
from cnnexp.data.check.look import FileInspection, thumbnails
from cnnexp.data.folders import reads_heif
from cnnexp.data.opencv import cv2
from cnnexp.files import write_atomic
from cnnexp.formats import csv_bytes

VERSION = [2, cv2.__version__, reads_heif()]  # raise the number when the same file gives another `FileInspection`
COLUMNS = ("name", "split", "label", "sha256", "width", "height", "format", "notes", "problem", "duplicate_of")
TICK_NS = 50_000_000  # more than the steps of a file system's clock: some milliseconds,
COARSE_TICK_NS = 2_000_000_000  # or whole seconds, two on FAT


class Stamp(NamedTuple):
    """What tells that a file is the one that was looked at. A rename, and a copy that keeps times, change `changed`."""

    size: int
    modified_ns: int
    changed_ns: int


Manifest = dict[str, tuple[Stamp, FileInspection]]  # by the file's name in the folder


def manifest_file(folder: Path, root: Path) -> Path:
    """The manifest of the images in `root`, in the folder of manifests."""
    return folder / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}.npz"


def stamp(path: str) -> Stamp | None:
    """None where there is no such file, or where it was changed so recently that it may be again, unnoticed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    tick = TICK_NS if changed % 1_000_000_000 else COARSE_TICK_NS
    if time.time_ns() - changed < tick:
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_manifest(file: Path) -> Manifest:
    """What `write_manifest` wrote; empty where there is nothing, something else, or a part of it."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            facts, pictures = json.loads(stored["facts"].tobytes()), stored["thumbnails"]
        if facts["version"] != VERSION or pictures.shape != (len(facts["files"]), THUMBNAIL, THUMBNAIL):
            return {}
        rows = zip(facts["files"], pictures, strict=True)
        return {str(name): _entry(values, picture) for (name, *values), picture in rows}
    except Exception:  # whatever was done to it: it is only a memory of what can be found again
        return {}


def _entry(values: list[Any], picture: np.ndarray) -> tuple[Stamp, FileInspection]:
    size, modified, changed, digest, kind, width, height, notes, problem, bits = values
    numbers = Stamp(int(size), int(modified), int(changed))
    if len(bytes.fromhex(digest)) != 32 or not 0 <= bits < 2**64 or picture.dtype != np.uint8:
        raise ValueError("not written by `write_manifest`")
    texts = tuple(str(note) for note in notes)
    return numbers, FileInspection(
        digest, str(kind), int(width), int(height), texts, str(problem), bits, picture.tobytes()
    )


def write_manifest(file: Path, manifest: Manifest) -> None:
    """Replace the file as a whole; of two processes, the later one wins."""
    files = [[name, *numbers, *found[:-1]] for name, (numbers, found) in manifest.items()]
    facts = json.dumps({"version": VERSION, "files": files}).encode()
    buffer = io.BytesIO()
    pictures = thumbnails([found for _, found in manifest.values()])
    np.savez(buffer, facts=np.frombuffer(facts, np.uint8), thumbnails=pictures)
    _write(file, buffer.getvalue())


def write_csv(file: Path, rows: Iterable[Sequence[str | int]]) -> None:
    """A table of all files, one row each with the `COLUMNS`."""
    _write(file, csv_bytes([COLUMNS, *rows], end="\n"))


def _write(file: Path, content: bytes) -> None:
    try:
        write_atomic(file, content)
    except OSError as error:
        warn(f"{file}: cannot be written ({error.strerror}): every image will be looked at again next time")
