"""What full runs of the suite measured, one line a row and run in `history.jsonl`: last time's beside today's.

Only figures of the same processor with as many cores, and of the same kind of photos, are beside each other.
"""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.table import Row, three_digits
from cnnexp.console import table

FILE = Path(__file__).with_name("history.jsonl")
COLUMNS = ("what", "unit", "ours", "times as fast", "last ours", "last times as fast", "last on", "at", "")
ALIKE = ("name", "unit", "cpu", "cores", "photos")  # of two lines that may be compared
WORSE = 0.8  # times the last ratio: what is below has a mark
Line = dict[str, Any]


def lines(facts: dict[str, Any], measured: list[tuple[str, Row]]) -> list[Line]:
    """A line for each row; `measured` has its group with it."""
    where, now = facts["machine"], datetime.now(UTC).isoformat(timespec="seconds")
    commit, dirty = commit_of(FILE)
    return [
        {
            "date": now,
            "commit": commit,
            "dirty": dirty,
            "cpu": where["cpu"],
            "cores": where["cores"],
            "load": where["load"],
            "photos": "own" if facts["own_photos"] else "drawn",
            "group": group,
            "name": row.name,
            "unit": row.unit,
            "ours": row.figure(row.ours_each),
            "peer": row.figure(row.peer_each),
            "ratio": median(row.ratios),
            "ratio_min": min(row.ratios),
            "ratio_max": max(row.ratios),
            "repetitions": len(row.ratios),
            "quick": facts["quick"],
        }
        for group, row in measured
    ]


def commit_of(history: Path) -> tuple[str | None, bool | None]:
    """The commit checked out, shortened, and whether files differ from it, the history aside; None without git."""
    asked = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno", "--", ":/", f":!{history.name}"])
    try:
        commit, changed = (
            subprocess.run(
                ["git", *line], cwd=history.parent, capture_output=True, text=True, check=True
            ).stdout.strip()
            for line in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changed)


def read(file: Path) -> list[Line]:
    """All lines, the oldest first."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def append(file: Path, new: list[Line]) -> None:
    """Add lines at the end, in one write."""
    text = "".join(json.dumps(line) + "\n" for line in new)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def show(earlier: list[Line], new: list[Line]) -> None:
    """Print each new line beside the last one that is alike, with a mark where it is more than 20 % worse."""
    last = {alike(line): line for line in earlier}
    cells = [_cells(line, last.get(alike(line))) for line in new]
    table("beside the last time on this processor", COLUMNS, cells, left=2)


def alike(line: Line) -> tuple[Any, ...]:
    """What is the same in lines that may be compared."""
    return tuple(line[key] for key in ALIKE)


def _cells(line: Line, last: Line | None) -> list[str]:
    today = [line["name"], line["unit"], three_digits(line["ours"]), f"{line['ratio']:.2g}"]
    if last is None:
        return [*today, "", "", "never", "", ""]
    at = f"{last['commit'] or ''}{' and changes' if last['dirty'] else ''}"
    mark = "WORSE" if line["ratio"] < WORSE * last["ratio"] else ""
    return [*today, three_digits(last["ours"]), f"{last['ratio']:.2g}", last["date"][:10], at, mark]
