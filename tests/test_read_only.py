"""Outputs that one may read but not write: what only asks works, writes elsewhere, and mends nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnexp.files import may_write, writable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    """From its call on, the system says of a folder that it may not be written; root, as in a container, always may."""
    real = os.access

    def start(root: Path) -> None:
        def access(path: Path, mode: int, **named: bool) -> bool:
            return not (mode & os.W_OK and Path(path).is_relative_to(root)) and real(path, mode, **named)

        monkeypatch.setattr("cnnexp.files.os.access", access)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))

    return start


def everything(root: Path) -> dict[Path, int]:
    """The files below a folder, each with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if "manifests" not in path.parts}


def test_a_folder_of_ones_own_stands_for_one_of_others(
    read_only: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "theirs").mkdir()
    read_only(tmp_path / "theirs")
    wanted = tmp_path / "theirs" / "new" / "cache"
    place = writable(wanted)
    assert place.is_relative_to(tmp_path / "own" / "cnnexp") and place.name == "cache"
    assert writable(wanted) == place != writable(tmp_path / "theirs" / "other" / "cache")
    assert capsys.readouterr().err.replace("\n", " ").count("this user may not write there") == 2
    assert writable(tmp_path / "mine") == tmp_path / "mine" and may_write(tmp_path / "mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    monkeypatch.setenv("HOME", str(tmp_path / "theirs"))
    assert may_write(writable(wanted)) and not writable(wanted).is_relative_to(tmp_path / "theirs")


@pytest.mark.trains
def test_who_may_only_read_asks_all_the_same(
    cnnexp: Run, tracked_run: Path, drawn_root: Path, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    root = tmp_path / "outputs"  # of its own: what another test fetched there would not be fetched once more
    shutil.copytree(tracked_run / "outputs", root, ignore=shutil.ignore_patterns("cache", "explain", "evaluate"))
    image = next(path for path in drawn_root.rglob("*.*") if path.suffix in (".jpg", ".png"))
    before = everything(root)
    read_only(root)
    for command in (["predict", "latest", str(image)], ["explain", "latest", str(image)], ["evaluate", "latest"]):
        code, _, err = cnnexp(*command, f"paths.root={root}", f"paths.data={drawn_root}")
        assert code == 0 and "is used in its place" in err, err
    assert everything(root) == before
    assert {path.name for path in (tmp_path / "own").rglob("*.*")} >= {"model.keras", "heatmaps.png"}
