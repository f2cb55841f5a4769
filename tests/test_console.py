"""What is printed: plain lines into a file or pipe, live bars on a terminal."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from rich.console import Console

from cnnexp import console
from cnnexp.console import (
    EpochProgress,
    byte_progress,
    flat_table,
    progress,
    say,
    shorten,
    shorten_all,
    show_markdown,
    table,
    visible,
    warn,
)


class Clock:
    """Stands in for `time`: each reading is `step` seconds after the one before."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The standard output as a terminal of 80 columns."""
    written = io.StringIO()
    made = Console(file=written, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(console, "stdout", lambda: made)
    return written


def test_say_and_warn_print_one_line_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    long = "outputs/" + "a" * 300
    say(f"[bold] {long} [/] 12")
    warn("no [such] file")
    captured = capsys.readouterr()
    assert captured.out == f"[bold] {long} [/] 12\n"  # not wrapped, and brackets are no markup
    assert captured.err == "no [such] file\n"


def test_say_follows_a_replaced_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    say("there")
    monkeypatch.undo()
    assert (other.getvalue(), capsys.readouterr().out) == ("there\n", "")


# ----------------------------------------------------------------------------------------------- progress


def test_progress_yields_every_item_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([3, 1, 2], "counting")) == [3, 1, 2]
    assert list(progress(iter("ab"), "spelling", total=2)) == ["a", "b"]
    assert list(progress([], "nothing")) == []
    assert capsys.readouterr().out == ""  # done within ten seconds


def test_a_page_loses_no_part_of_a_long_word(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "loss.class_weight.of_a_long_key_" * 3
    monkeypatch.setattr("rich.console.Console.pager", lambda *_, **__: nullcontext())
    show_markdown(f"| key | what it is |\n|---|---|\n| `{word}` | {'weights ' * 20} |\n")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert "…" not in shown and word in "".join(line.strip().partition(" ")[0] for line in shown.splitlines()[3:])


def test_progress_without_a_terminal_says_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "time", Clock(4.0))
    list(progress(range(7), "reading images"))
    assert capsys.readouterr().out == "reading images: 3 of 7\nreading images: 6 of 7\n"


def test_progress_of_unknown_length_has_no_total(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "time", Clock(20.0))

    def numbers() -> Iterator[int]:
        yield from range(2)

    list(progress(numbers(), "reading"))
    assert capsys.readouterr().out == "reading: 1\nreading: 2\n"


def test_progress_on_a_terminal_is_a_bar(terminal: io.StringIO) -> None:
    assert list(progress(iter(range(5)), "drawing", total=5)) == [0, 1, 2, 3, 4]
    assert "drawing" in terminal.getvalue() and "5/5" in terminal.getvalue()


def test_progress_can_be_left_early(capsys: pytest.CaptureFixture[str], terminal: io.StringIO) -> None:
    for item in progress(range(5), "drawing"):
        if item == 2:
            break
    say("after")
    assert terminal.getvalue().endswith("after\n")


# ------------------------------------------------------------------------------------------------- tables


def test_a_table_aligns_names_left_and_figures_right(capsys: pytest.CaptureFixture[str]) -> None:
    table("results", ["variant", "accuracy"], [["baseline", "0.7"], ["best", "0.98125"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "results"
    first, second = [line for line in lines if "0." in line]
    assert first.index("baseline") == second.index("best")
    assert first.index("0.7") + len("0.7") == second.index("0.98125") + len("0.98125")


def test_the_number_of_left_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table("", ["a", "b", "c"], [["x", "y", "1"], ["long", "longer", "1000"]], left=2)
    first, second = [line for line in capsys.readouterr().out.splitlines() if "1" in line]
    assert first.index("x") == second.index("long")
    assert first.index("y") == second.index("longer")
    assert first.index("1") == second.index("1000") + 3


def test_a_long_row_in_a_file_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    table("", ["name", "figure"], [["a" * 150, "1"]])
    assert [line for line in capsys.readouterr().out.splitlines() if "a" * 150 in line and line.rstrip().endswith("1")]


def test_brackets_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table("", ["layer", "shape"], [["dense", "[None, 10]"], ["[bold]x", "[/]"]])
    out = capsys.readouterr().out
    assert "[None, 10]" in out and "[bold]x" in out and "[/]" in out


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_each_row_is_one_line_at_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Columns go in the order that is asked for, then names get shorter; figures are whole."""
    written = io.StringIO()
    made = Console(file=written, force_terminal=True, width=width, highlight=False, color_system=None)
    monkeypatch.setattr(console, "stdout", lambda: made)
    columns = ["variant", "test %", "95 % interval", "gain", "time"]
    rows = [[f"{'long' * 12}{n}", "95.9 ± 0.2", "94.5 - 97.0", "+13.6", "3 min 20 s"] for n in range(3)]
    out = flat_table("", columns, rows, 1, ("none", "time", "95 % interval"))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = [line for line in lines if "95.9 ± 0.2" in line and "+13.6" in line]
    assert [line.split()[0][-1] for line in shown] == ["0", "1", "2"]
    # all five columns take 16 + 49 + 10 + 11 + 5 + 10 = 101 characters
    assert out == {60: ["time", "95 % interval"], 80: ["time", "95 % interval"], 100: ["time"], 120: []}[width]
    assert all(("long" * 12 in line) == (width > 60) for line in shown)


def test_a_name_is_left_out_only_when_it_cannot_be_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    made = Console(file=written, force_terminal=True, width=60, highlight=False, color_system=None)
    monkeypatch.setattr(console, "stdout", lambda: made)
    names = [f"key{n}" for n in range(8)]
    rows = [["a long value"] * 8 + ["12.5"]]
    # eight names of at least six characters and a figure of five: 8 * 9 + 8 + 1 = 81; with three less 54
    assert flat_table("", [*names, "val %"], rows, 8, names[:0:-1]) == ["key7", "key6", "key5"]
    assert max(map(len, written.getvalue().splitlines())) <= 60 and "12.5" in written.getvalue()


def test_wide_has_every_column(terminal: io.StringIO) -> None:
    columns, rows = ["name", "one", "two"], [["n" * 60, "1" * 30, "2" * 30]]
    assert flat_table("", columns, rows, 1, ("two",), wide=True) == []
    assert any("n" * 60 in line and "2" * 30 in line for line in terminal.getvalue().splitlines())


def test_a_file_has_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert flat_table("", ["name", "one", "two"], [["n" * 300, "1", "2"]], 1, ("two",)) == []
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "n" * 300 in line]
    assert line.split()[1:] == ["1", "2"]


def test_figures_are_not_broken_where_names_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    made = Console(file=written, force_terminal=True, width=40, highlight=False, color_system=None)
    monkeypatch.setattr(console, "stdout", lambda: made)
    table("", ["name", "figure"], [["word " * 20, "123456789.123456789"]])
    assert "123456789.123456789" in written.getvalue()


# ------------------------------------------------------------------------------------------ epochs of a training


def test_epochs_without_a_terminal_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bar = EpochProgress(epochs=2, steps=3)
    for epoch in range(2):
        bar.start(epoch)
        for step in range(3):
            bar.step(step + 1)
        bar.line(f"epoch {epoch + 1} [done]")
    bar.stop()
    assert capsys.readouterr().out == "epoch 1 [done]\nepoch 2 [done]\n"


def test_a_long_epoch_says_its_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "time", Clock(6.0))
    bar = EpochProgress(epochs=1, steps=5)
    bar.start(0)
    for step in range(5):
        bar.step(step + 1)
    assert capsys.readouterr().out == "  step 2 of 5\n  step 4 of 5\n"


def test_epochs_on_a_terminal_are_a_bar_with_lines_above(terminal: io.StringIO) -> None:
    bar = EpochProgress(epochs=2, steps=3)
    bar.stop()  # before it began: nothing to take away
    bar.start(0)
    bar.step(3)
    bar.line("epoch one is done")
    bar.start(1)
    bar.stop()
    written = terminal.getvalue()
    assert "epoch 1/2" in written and "epoch 2/2" in written
    assert "epoch one is done\n" in written
    assert bar.bar is None


# ------------------------------------------------------------------------------- what a terminal would obey

HOSTILE = "a\x1b[31mRED\x1b]0;X\x07\r\n\t\x7f\x9b1m\udce9\u202e\ud800:cat:é"
SEEN = r"a\x1b[31mRED\x1b]0;X\x07\r\n\t\x7f\x9b1m\xe9\u202e\ud800:cat:é"


def test_control_characters_are_shown_and_not_obeyed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert visible(HOSTILE) == SEEN and visible(SEEN) == SEEN
    say(HOSTILE)
    warn(HOSTILE)
    assert capsys.readouterr() == (f"{SEEN}\n", f"{SEEN}\n")
    table(HOSTILE, [HOSTILE, "n"], [[HOSTILE, "1"]])
    out = capsys.readouterr().out
    assert [line.count(SEEN) for line in out.splitlines() if line.strip(" ─")] == [1, 1, 1]
    monkeypatch.setattr(console, "time", Clock(20))
    assert list(progress([1], HOSTILE)) == [1]
    with byte_progress(HOSTILE) as advance:
        advance(10**6)
    EpochProgress(1, 1).line(HOSTILE)
    assert capsys.readouterr().out == f"{SEEN}: 1 of 1\n{SEEN}: 1.0 MB\n{SEEN}\n"


def test_names_in_bars_are_shown_as_they_are(terminal: io.StringIO) -> None:
    list(progress([1, 2], "unpacking [bold]\x1b[31m.zip"))
    with byte_progress("unpacking [bold]\x1b[32m.zip", 10) as advance:
        advance(10)
    for colour in (31, 32):
        assert rf"unpacking [bold]\x1b[{colour}m.zip" in terminal.getvalue()
        assert f"\x1b[{colour}m.zip" not in terminal.getvalue()


def test_a_title_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table("[red]cats[/red]", ["[b]x", "y"], [["1", "2"]])
    out = capsys.readouterr().out
    assert "[red]cats[/red]" in out and "[b]x" in out


def test_names_that_stand_together_are_cut_where_they_do_not_differ() -> None:
    middle = [f"a long name of a class, number {number}, with a long end of its own" for number in range(12)]
    short = shorten_all(middle, 24)
    assert len(set(short)) == 12 and max(map(len, short)) <= 24
    assert all(f"{number}," in name for number, name in enumerate(short))
    assert shorten_all(["short", middle[0], "short"], 24) == ["short", shorten(middle[0], 24), "short"]
    assert shorten_all([], 5) == []
