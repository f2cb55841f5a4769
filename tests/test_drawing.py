"""Figures that are drawn in a process of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cnnexp import drawing
from cnnexp.drawing import draw_aside, drawing_process
from cnnexp.runs.sweep import Sweep

STARTED_S = 60  # that a new Python may take on a slow machine to import Matplotlib
KILLED = """
import os, signal, time
from cnnexp import drawing
with drawing.drawing_process():
    print(drawing._running[0]._process.pid, flush=True)
    drawing.draw_aside(time.sleep, 0.5)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A drawing process, whose current folder is `tmp_path`."""
    monkeypatch.setattr(drawing, "_cores", lambda: 2)
    with drawing_process():
        with drawing.drawing() as draw:
            draw(os.chdir, tmp_path)
        yield drawing._running[0]._process


def test_functions_are_called_in_another_process_and_done_at_the_end(beside: Any, tmp_path: Path) -> None:
    with drawing.drawing() as draw:
        draw(time.sleep, 0.2)
        draw(os.mkdir, "here")  # where the other process is
        assert not (tmp_path / "here").exists()
    assert (tmp_path / "here").is_dir() and Path.cwd() != tmp_path


def test_what_a_function_raises_there_is_raised_here_with_its_place(beside: Any, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError) as raised, drawing.drawing() as draw:
        draw(os.mkdir, tmp_path)
    assert Path(raised.value.filename) == tmp_path
    assert "Traceback" in raised.value.__notes__[0]


def test_where_the_work_fails_what_waits_is_not_drawn(beside: Any, tmp_path: Path) -> None:
    with suppress(KeyError), drawing.drawing() as draw:
        draw(time.sleep, 0.3)
        draw(os.mkdir, "late")
        raise KeyError
    with drawing.drawing() as draw:  # the process is free for the next work
        draw(os.mkdir, "next")
    assert [path.name for path in tmp_path.iterdir()] == ["next"]


def test_a_control_c_which_the_whole_group_gets_does_not_end_it(beside: subprocess.Popen[bytes]) -> None:
    beside.send_signal(signal.SIGINT)
    with drawing.drawing() as draw:
        draw(os.mkdir, "there")
    assert beside.poll() is None


@pytest.mark.parametrize("moment", ["before", "while"])
def test_what_a_process_that_dies_was_to_draw_is_drawn_here(
    beside: subprocess.Popen[bytes], tmp_path: Path, moment: str
) -> None:
    if moment == "before":
        beside.kill()
        beside.wait()
    with drawing.drawing() as draw:
        draw(os.mkdir, tmp_path / "first")
        draw(time.sleep, 0.2)
        draw(os.mkdir, tmp_path / "last")
        beside.kill()
    assert {path.name for path in tmp_path.iterdir()} == {"first", "last"}


def test_it_ends_with_a_command_that_is_killed() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    process, end = int(killed.stdout), time.monotonic() + STARTED_S
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()


def test_it_ends_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_cores", lambda: 2)
    with drawing_process():
        process = drawing._running[0]._process
        assert process.poll() is None
    assert process.returncode == 0
    assert draw_aside(os.getpid) is None


def test_with_one_core_figures_are_drawn_at_once(tmp_path: Path) -> None:
    with drawing_process(), drawing.drawing() as draw:
        draw(os.mkdir, tmp_path / "here")
        assert (tmp_path / "here").is_dir()


def test_the_chart_of_a_sweep_grows_with_its_jobs(
    cnnexp: Callable[..., tuple[int, str, str]],
    no_training: None,
    drawn_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(drawing, "_cores", lambda: 2)
    seen: list[tuple[int, bool]] = []  # after each job: how many were done, and whether there is a chart

    def draw_so_far(self: Sweep) -> None:
        real(self)
        assert self._chart is not None
        if not self._chart.done():
            self._chart.result(timeout=STARTED_S)
        done = len(list(self.folder.path.glob("*/result.json")))
        seen.append((done, (self.folder.path / "comparison.png").stat().st_size > 10_000))

    real = Sweep.draw_so_far
    monkeypatch.setattr(Sweep, "draw_so_far", draw_so_far)
    line = ("debug=smoke", "tracking=none", f"paths.data={drawn_root}", "seed=1,2")
    code, out, err = cnnexp("train", "-m", *line)
    assert code == 0, err
    assert seen == [(1, True), (2, True)]
    assert out.count("which grows with the jobs") == 1
    assert {file.name for file in tmp_path.rglob("0/*.png")} >= {"curves.png", "confusion.png", "reliability.png"}
