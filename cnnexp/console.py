"""What the user sees while a command works: progress bars, tables, one-line notes.

On a terminal these are live; anywhere else (a file, a pipe, CI) they are plain lines.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
PLAIN_INTERVAL_S = 10.0  # seconds between the lines of a progress report that is not on a terminal

# what would do something to a terminal in place of being seen there (C0, DEL, C1), end the line or turn its direction;
# and what stands for bytes of a name that are no UTF-8
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""One line of text for a person: control characters, and bytes that are no UTF-8, as `\n` or `\xNN`."""
    return UNSEEN.sub(lambda found: _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file's name (PEP 383)
        code -= 0xDC00
    return ESCAPES.get(letter) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def stdout() -> Console:
    """A console on the standard output as it is now (tests and Hydra replace `sys.stdout`)."""
    return Console(file=sys.stdout, highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def stderr() -> Console:
    """A console on the standard error as it is now."""
    return Console(file=sys.stderr, highlight=False, emoji=False, soft_wrap=True)


def say(message: str) -> None:
    """Print one line."""
    stdout().print(visible(message), markup=False)


def warn(message: str) -> None:
    """Print one line to standard error."""
    stderr().print(visible(message), markup=False)


@cache
def warn_once(message: str) -> None:
    """The same, but no line a second time: the jobs of a sweep share a process, and find the same."""
    warn(message)


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show how far it is.

    Args:
        items: what to go through.
        description: what is being done, in two or three words.
        total: the number of items, where `items` has no length.
    """
    if total is None:
        total = len(items) if isinstance(items, Sequence) else None
    console = stdout()
    if not console.is_terminal:
        yield from _plain_progress(items, description, total)
        return
    with _bar(console) as bar:
        yield from bar.track(items, total=total, description=visible(description))


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(_described(), *columns, console=console, transient=True)


def _described() -> TextColumn:
    return TextColumn("{task.description}", markup=False)


def _plain_progress(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said >= PLAIN_INTERVAL_S:
            said = time.monotonic()
            say(f"{description}: {number}" + (f" of {total}" if total else ""))


@contextmanager
def byte_progress(description: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how much of a file is done, in MB (10^6 bytes); the block is given what is to be told of each new part.

    Args:
        description: what is being done, in two or three words.
        total: bytes, where they are known.
        done: bytes that were there before.
    """
    console = stdout()
    if console.is_terminal:
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(_described(), *columns, console=console, transient=True) as bar:
            task = bar.add_task(visible(description), total=total, completed=done)
            yield lambda count: bar.advance(task, count)
        return
    said = time.monotonic()

    def advance(count: int) -> None:
        nonlocal said, done
        done += count
        if time.monotonic() - said >= PLAIN_INTERVAL_S:
            said = time.monotonic()
            say(f"{description}: {done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))

    yield advance


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """Print a table; the first `left` columns are aligned left (names), the others right (figures).

    Where the terminal is too narrow, cells are folded and nothing is cut off.
    """
    grid = Table(title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    grid.title = Text(visible(title)) if title else None
    for number, column in enumerate(columns):
        grid.add_column(Text(visible(column)), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    console = stdout()
    if not console.is_terminal:
        console.width = 250  # a file has no edge
    console.print(grid)


def show_markdown(text: str) -> None:
    """Show a page on a terminal, in its pager; anywhere else as it is written."""
    from rich.markdown import Markdown

    console = stdout()
    if not console.is_terminal:
        sys.stdout.write(text)
        return
    os.environ.setdefault("LESS", "-RFX")  # colours; and no pager where the page fits the screen
    with console.pager(styles=True):
        console.print(Markdown(text))


class EpochProgress:
    """The progress of a training: a bar over the steps of an epoch, and one line for each epoch done."""

    def __init__(self, epochs: int, steps: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.console = stdout()
        self.bar: Progress | None = None
        self.shown = time.monotonic()

    def start(self, epoch: int) -> None:
        """Begin epoch `epoch`, counted from 0."""
        if self.console.is_terminal and self.bar is None:
            self.bar = _bar(self.console)
            self.task = self.bar.add_task("training", total=self.steps)
            self.bar.start()
        if self.bar:
            self.bar.reset(self.task, description=f"epoch {epoch + 1}/{self.epochs}", total=self.steps)

    def step(self, done: int) -> None:
        """Show that `done` steps of the epoch are done."""
        if self.bar:
            self.bar.update(self.task, completed=done)
        elif time.monotonic() - self.shown >= PLAIN_INTERVAL_S:
            self.shown = time.monotonic()
            say(f"  step {done} of {self.steps}")

    def line(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.shown = time.monotonic()
        (self.bar.console if self.bar else self.console).print(visible(text), markup=False)

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.bar.stop()
            self.bar = None
