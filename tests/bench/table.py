"""What a measurement is, and how it is shown: always our time beside a peer's, never a time alone."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import cnnexp
from cnnexp.console import progress, say, table
from cnnexp.files import write_atomic
from cnnexp.tracking.record import cores, processor

PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python", "pillow", "scipy", "hydra-core")
COLUMNS = ("what", "peer", "unit", "ours", "peer's", "times as fast", "min to max")
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """Our figures and the peer's, of repetitions that took turns: seconds, as images/s with `images`, or `measure`.

    The `note` stands below the table.
    """

    name: str
    peer: str
    ours_each: list[float]
    peer_each: list[float]
    images: int | None = None
    measure: str = "s"
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """For each repetition, how many times as fast as the peer we were, or as small: above 1 we were better."""
        return [peer / ours for ours, peer in zip(self.ours_each, self.peer_each, strict=True)]

    @property
    def unit(self) -> str:
        """Of `figure`."""
        return self.measure if self.images is None else "images/s"

    def figure(self, seconds: list[float]) -> float:
        """The median of some repetitions, in seconds or images per second."""
        return median(seconds) if self.images is None else self.images / median(seconds)

    def as_json(self) -> dict[str, Any]:
        """Every figure, with the seconds it was made from."""
        measure = self.measure.lower().replace(" ", "_")
        return {
            "name": self.name,
            "peer": self.peer,
            "ratio": median(self.ratios),
            "ratio_min": min(self.ratios),
            "ratio_max": max(self.ratios),
            "unit": self.unit,
            "ours": self.figure(self.ours_each),
            "peers": self.figure(self.peer_each),
            "images": self.images,
            f"ours_{measure}": self.ours_each,
            f"peer_{measure}": self.peer_each,
            "note": self.note,
        }


# ----------------------------------------------------------------------------------------------- measuring


def take_turns(name: str, repetitions: int, ours: Callable[[], T], peer: Callable[[], T]) -> tuple[list[T], list[T]]:
    """Run ours, peer, ours, peer, ..., so that a machine that gets slower does so for both."""
    pairs = [(ours(), peer()) for _ in progress(range(repetitions), f"measuring {name}")]
    return [ours for ours, _ in pairs], [peer for _, peer in pairs]


def seconds_of(work: Callable[[], object]) -> Callable[[], float]:
    """`work` as a function that returns how long it took."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return timed


def compare(
    name: str,
    peer_name: str,
    repetitions: int,
    ours: Callable[[], object],
    peer: Callable[[], object],
    images: int | None = None,
) -> Row:
    """Time two functions; each runs once before that counts, to warm up."""
    ours()
    peer()
    return Row(name, peer_name, *take_turns(name, repetitions, seconds_of(ours), seconds_of(peer)), images)


def machine() -> dict[str, Any]:
    """Where it is measured: processor, cores, load, versions."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # processes, last minute
        "system": platform.platform(terse=True),
        "versions": {
            "cnnexp": cnnexp.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------- showing


def show(facts: dict[str, Any], rows: list[Row]) -> None:
    """Print the machine and the table."""
    where = facts["machine"]
    load = "" if where["load"] is None else f", load {where['load']} at the start"
    say(f"{where['cpu']}, {where['cores']} cores{load}, {where['system']}")
    say(", ".join(f"{name} {number}" for name, number in where["versions"].items() if number))
    if facts["photos"]:
        say(f"photos: {facts['photos']}")
    table("", COLUMNS, [_cells(row) for row in rows], left=3)
    for row in rows:
        if row.note:
            say(f"{row.name}: {row.note}")
    pairs = f"median of up to {facts['repetitions']} pairs that took turns"
    say(f"times as fast, or as small: the peer's time, or memory, over ours, {pairs}")


def _cells(row: Row) -> list[str]:
    ratios = row.ratios
    figures = [three_digits(row.figure(seconds)) for seconds in (row.ours_each, row.peer_each)]
    spread = f"{min(ratios):.2g} to {max(ratios):.2g}"
    return [row.name, row.peer, row.unit, *figures, f"{median(ratios):.2g}", spread]


def three_digits(figure: float) -> str:
    """A figure as it is shown."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def write_json(file: Path, facts: dict[str, Any], rows: list[Row]) -> None:
    """Write what `show` prints, and each repetition; the file appears whole."""
    content = json.dumps({**facts, "rows": [row.as_json() for row in rows]}, indent=2) + "\n"
    write_atomic(file, content.encode())
    say(f"figures in {file}")
