"""A disk that is full: in a file system of its own, of too few kilobytes."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for a new store, and little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("only root may mount a file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_run_that_finds_no_room_fails_in_one_line_and_goes_on(
    cnnexp: Run, drawn_root: Path, small_disk: Path
) -> None:
    line = ["train", "debug=smoke", "dataset=synthetic", "dataset.image_size=48", "trainer.epochs=1"]
    line += ["backbone.filters=[8]", f"paths.root={small_disk}", f"paths.data={drawn_root}/data", "head.units=128"]
    code, out, err = cnnexp(*line)
    (folder,) = (small_disk / "runs").iterdir()
    remedy = "make room, and go on with it: the same line with trainer.resume=true, or what `cnnexp doctor` prints"
    assert (code, err) == (1, f"cnnexp: {folder}: the disk is full, so the run is FAILED; {remedy}\n")
    assert "542,177 of 542,177 parameters are trained" in out  # it had begun to train; its checkpoint found no room
    assert not list(small_disk.rglob(".*.png*")) and not (folder / "result.json.tmp").exists()
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().endswith(b"IEND\xaeB`\x82")
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    code, out, err = cnnexp(*line, "trainer.resume=true")
    assert code == 0, err
    assert "goes on with run" in out
    assert json.loads((folder / "result.json").read_text())["status"] == "FINISHED"
