"""What the user sees while a command works: progress bars, tables, one-line notes.

On a terminal these are live; anywhere else (a file, a pipe, CI) they are plain lines.
"""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, TypeVar

from rich import box
from rich.cells import cell_len
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
SHORTEST_NAME = 6  # characters that are left of a name where a terminal is too narrow for it
PLAIN_INTERVAL_S = 10.0  # seconds between the lines of a progress report that is not on a terminal

# what would do something to a terminal in place of being seen there (C0, DEL, C1), end the line or turn its direction;
# and what stands for bytes of a name that are no UTF-8
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SECRET = "***"  # stands for what is shown to nobody
USER = re.compile(r"""(\w://[^\s:/@"']*):[^\s"'/]*@|(\w://[^\s:/@"']*):[^\s"']*@""")
QUERY = re.compile(r"""(\w://[^\s"'?]*\?)([^\s"'#]*)""")
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""One line for a person, `redact`ed; control characters, and bytes that are no UTF-8, as `\n` or `\xNN`."""
    return UNSEEN.sub(lambda found: _escaped(found[0]), redact(text))


def redact(text: str) -> str:
    """`text` with `***` for the password of every URL in it, and for each value of its query, whatever they are called.

    A second time it changes nothing.
    """
    if "://" not in text:
        return text
    text = USER.sub(lambda found: f"{found[1] or found[2]}:{SECRET}@", text)
    return QUERY.sub(lambda found: found[1] + _without_values(found[2]), text)


def trace_of(error: BaseException) -> str:
    """How an error came about, as Python prints it, `redact`ed and in characters that UTF-8 has."""
    return redact("".join(traceback.format_exception(error))).encode("utf-8", "replace").decode()


def _without_values(query: str) -> str:
    """Names stay; a part without a name may be a key itself."""
    parts = (part.partition("=") for part in re.split("[&;]", query))
    return "&".join(f"{name}={SECRET}" if equals else SECRET * bool(name) for name, equals, _ in parts)


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

    Where the terminal is too narrow, names are folded; figures are never broken, and nothing is cut off.
    """
    console = stdout()
    if not console.is_terminal:
        console.width = 250  # a file has no edge
    console.print(_grid(title, columns, rows, left))


def flat_table(  # noqa: PLR0913 - a table, and how it gets narrower
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    dropped: Sequence[str] = (),
    wide: bool = False,
) -> list[str]:
    """Print a table with one line a row: a narrow terminal gets fewer columns, and then shorter names.

    Args:
        dropped: columns that can be left out, the first first.
        wide: leave out nothing, however narrow the terminal is; so it is in a file.

    Returns:
        The columns that were left out.
    """
    console = stdout()
    rows = [[visible(cell) for cell in row] for row in rows]
    kept, out = list(range(len(columns))), []
    fits = wide or not console.is_terminal
    for name in dropped if not fits else ():
        place = columns.index(name) if name in columns else -1
        if _width(columns, rows, kept, left if 0 <= place < left else 0) <= console.width:
            break  # names are made shorter before one is left out
        if place >= 0:
            kept.remove(place)
            out.append(name)
    names = sum(place < left for place in kept)
    shown = [[row[place] for place in kept] for row in rows]
    heads = [columns[place] for place in kept]
    width = _width(columns, rows, kept)
    if fits:
        console.width = max(250, width)
    else:
        _shorten_names(heads, shown, names, width - console.width)
    console.print(_grid(title, heads, shown, names), soft_wrap=wide)
    return out


def _grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> Table:
    grid = Table(title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    grid.title = Text(visible(title)) if title else None
    for number, column in enumerate(columns):
        name = number < left
        grid.add_column(Text(visible(column)), justify="left" if name else "right", overflow="fold", no_wrap=not name)
    for row in rows:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    return grid


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], short: int = 0) -> int:
    """Of a table with these columns in one line: each has a blank on either side, and one stands between two.

    The first `short` columns are taken as short as they can be made.
    """
    widest = [max(cell_len(line[place]) for line in (columns, *rows)) for place in kept]
    widest = [min(width, SHORTEST_NAME) if place < short else width for place, width in zip(kept, widest, strict=True)]
    return sum(widest) + 3 * len(kept) + 1


def _shorten_names(columns: list[str], rows: list[list[str]], left: int, excess: int) -> None:
    """Take letters out of the middle of names, always of the longest column, until `excess` columns are saved."""
    lines = [columns, *rows]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(left)]
    for _ in range(excess):
        longest = widths.index(max(widths))
        if widths[longest] <= SHORTEST_NAME:
            break
        widths[longest] -= 1
    for place, width in enumerate(widths):
        for line, short in zip(lines, shorten_all([line[place] for line in lines], width), strict=True):
            line[place] = short


def shorten_all(texts: Sequence[str], longest: int) -> list[str]:
    """`shorten` for names that stand together: of those that would be the same, what differs is left in."""
    whole = [visible(text) for text in texts]
    shown = {text: shorten(text, longest) for text in whole}
    seen: set[frozenset[str]] = set()
    while alike := {frozenset(text for text in shown if shown[text] == short) for short in shown.values()} - seen:
        for group in alike:
            seen.add(group)
            if len(group) > 1:
                columns = enumerate(zip(*group, strict=False))
                same = next((place for place, letters in columns if len(set(letters)) > 1), min(map(len, group)))
                start = max(0, same - longest // 3)
                for text in group:
                    rest = text[start : start + longest - 2]
                    shown[text] = f"…{rest}" + ("…" if start + longest - 2 < len(text) else "")
    return [shown[text] for text in whole]


def shorten(text: str, longest: int) -> str:
    """`text` as `visible` gives it, its middle left out where it is longer than `longest` characters."""
    text = visible(text)
    if len(text) <= longest:
        return text
    head = (longest - 1) // 3
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def show_markdown(text: str) -> None:
    """Show a page on a terminal, in its pager; anywhere else as it is written."""
    console = stdout()
    if not console.is_terminal:
        sys.stdout.write(text)
        return
    from rich.markdown import Markdown, TableElement

    class FoldingTable(TableElement):
        """Rich's, which would leave out the end of a word that is wider than its column."""

        def __rich_console__(self, console: Any, options: Any) -> Any:
            rows = self.body.rows if self.body else []
            for cell in (cell for row in rows for cell in row.cells):
                cell.content.overflow = "fold"
            yield from super().__rich_console__(console, options)

    class Page(Markdown):
        elements: ClassVar = {**Markdown.elements, "table_open": FoldingTable}

    os.environ.setdefault("LESS", "-RFX")  # colours; and no pager where the page fits the screen
    with console.pager(styles=True):
        console.print(Page(text))


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
