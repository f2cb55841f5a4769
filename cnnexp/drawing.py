"""Draws figures in a process of its own, so that the one that trains can go on meanwhile.

The figures of a run take Matplotlib a second and a half, on one core and with Python's lock held. The process is sent
a function and its arguments by a pipe, pickled, and answers with what it raised, or None. It ends where its pipe does,
so that it never outlives a command that is killed; where it dies itself, what it was to draw is drawn here.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from cnnexp.process import quiet_libraries

PRELOADED = "cnnexp.report.scoring"  # imported while the process waits for work, and Matplotlib with it

Draw = Callable[..., None]  # (function, *arguments): calls it, now or soon, here or in the drawing process


def draw_now(function: Callable[..., Any], *arguments: Any) -> None:
    """Call the function here, and be done when this returns."""
    function(*arguments)


class DrawingProcess:
    """A second Python process that calls the functions that it is sent, one after the other."""

    def __init__(self) -> None:
        line, pipe = [sys.executable, "-m", "cnnexp.drawing"], subprocess.PIPE
        self._process = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._thread = ThreadPoolExecutor(1, "drawing")  # a large picture would fill the pipe, and have us wait

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[None]":
        """Have the function called there; the result raises what it raised."""
        return self._thread.submit(self._call, function, arguments)

    def close(self) -> None:
        """Let it end what it does, and end it; what waits is not drawn."""
        self._thread.shutdown(cancel_futures=True)
        self._process.communicate()

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        assert self._process.stdin and self._process.stdout
        try:
            pickle.dump((function, arguments), self._process.stdin)
            self._process.stdin.flush()
            raised = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):  # it died
            draw_now(function, *arguments)
            return
        if raised is not None:
            raise raised


_running: list[DrawingProcess] = []  # that of this command, while there is one


@contextmanager
def drawing_process() -> Iterator[None]:
    """Around a command: from here on figures are drawn beside it, where the machine has a second core for that."""
    if _cores() > 1 and not _running:
        _running.append(DrawingProcess())
    try:
        yield
    finally:
        while _running:
            _running.pop().close()


@contextmanager
def drawing() -> Iterator[Draw]:
    """Around work during which figures are drawn: all of them are there when it ends.

    Yields:
        What has a function called, in the drawing process if there is one, else here and now.

    Raises:
        Exception: what a function raised.
    """
    begun: list[Future[None]] = []

    def draw(function: Callable[..., Any], *arguments: Any) -> None:
        future = draw_aside(function, *arguments)
        if future is None:
            draw_now(function, *arguments)
        else:
            begun.append(future)

    try:
        yield draw
    except BaseException:
        for future in begun:
            future.cancel()
        raise
    for future in begun:
        future.result()


def draw_aside(function: Callable[..., Any], *arguments: Any) -> "Future[None] | None":
    """Have the function called in the drawing process; None: there is none, and nothing is done."""
    return _running[0].submit(function, *arguments) if _running else None


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """The drawing process: call what comes until nothing more comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that is printed gets among the answers
    quiet_libraries()
    import_module(PRELOADED)
    with suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = pickle.load(sys.stdin.buffer)
            raised: Exception | None = None
            try:
                function(*arguments)
            except Exception as error:
                error.add_note(traceback.format_exc())
                raised = error
            pickle.dump(raised, answers)
            answers.flush()


if __name__ == "__main__":
    main()
