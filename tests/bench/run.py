"""`make bench`: one suite, one table, the same figures in outputs/bench.json, and in the history of full runs."""

import argparse
import sys
import tempfile
from functools import cache
from pathlib import Path

if not __package__:  # run as a file: the folder above holds the package `bench`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import figures, fixed, history, memory, overhead, profiles, start, store
from bench.photos import class_folders, describe
from bench.table import Row, machine, show, write_json
from cnnexp.errors import UserError
from cnnexp.process import quiet_libraries

OUTPUT = Path(__file__).resolve().parents[2] / "outputs" / "bench.json"
GROUPS = (
    "data",
    "step",
    "overhead",
    "features",
    "progression",
    "start",
    "fixed",
    "memory",
    "store",
    "figures",
    "profile",
)
PHOTOS, MANY_PHOTOS, TUTORIAL_PHOTOS, QUICK_PHOTOS = 400, 1000, 4000, 64
QUICK_RUNS = 100


def main(argv: list[str] | None = None) -> int:
    """Measure, show, write; returns 0, or 2 for bad input."""
    quiet_libraries()  # and oneDNN for all, as commands have it
    options = arguments(argv)
    repetitions = 2 if options.quick else 5
    with tempfile.TemporaryDirectory(prefix="cnnexp-bench-") as scratch:
        used: list[Path] = []

        @cache  # drawn only if something wants them
        def photos(count: int) -> Path:
            count = QUICK_PHOTOS if options.quick else count
            used.append(class_folders(options.photos, count, Path(scratch, f"photos-{count}")))
            return used[-1]

        suite = {
            "data": lambda: data_rows(photos(PHOTOS), repetitions),
            "step": lambda: step_rows(photos(MANY_PHOTOS), repetitions),
            "overhead": lambda: overhead.rows(photos(MANY_PHOTOS), repetitions),
            "features": lambda: feature_rows(photos(TUTORIAL_PHOTOS), repetitions),
            "progression": lambda: progression_rows(photos(MANY_PHOTOS), repetitions),
            "start": lambda: start.rows(repetitions),
            "fixed": lambda: fixed.rows(lambda: photos(TUTORIAL_PHOTOS), repetitions, options.long),
            "memory": lambda: memory.rows(photos(MANY_PHOTOS), repetitions),
            "store": lambda: store.rows(repetitions, QUICK_RUNS if options.quick else store.MANY),
            "figures": lambda: figures.rows(repetitions),
        }
        before = machine()
        try:
            groups = options.only or GROUPS
            measured = [(name, row) for name in groups if name in suite for row in suite[name]()]
            profiled = profiles.of_variants(photos(PHOTOS), options.quick) if "profile" in groups else []
        except UserError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        facts = {
            "machine": before,
            "repetitions": repetitions,
            "quick": options.quick,
            "photos": describe(used[0]) if used else None,
            "own_photos": options.photos is not None,
        }
    rows = [row for _, row in measured]
    show(facts, rows)
    if profiled:
        profiles.show(profiled)
    if rows and not options.quick:
        lines = history.lines(facts, measured)
        history.show(history.read(history.FILE), lines)
        history.append(history.FILE, lines)
    write_json(OUTPUT, facts | {"profiles": [one.as_json() for one in profiled]}, rows)
    return 0


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """What is asked for on the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 repetitions and fewer photos: does it work?")
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group of rows (repeat for two)")
    parser.add_argument("--long", action="store_true", help=f"fixed: a sweep of {fixed.HEADS} jobs, too")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEGs to use instead of drawn ones")
    return parser.parse_args(argv)


def data_rows(photos: Path, repetitions: int) -> list[Row]:
    """See `bench.data`, which imports TensorFlow."""
    from bench import data

    return data.rows(photos, repetitions)


def step_rows(photos: Path, repetitions: int) -> list[Row]:
    """See `bench.step`, which imports TensorFlow."""
    from bench import step

    return step.rows(photos, repetitions)


def feature_rows(photos: Path, repetitions: int) -> list[Row]:
    """See `bench.training`, which imports TensorFlow."""
    from bench import training

    return training.rows(photos, repetitions)


def progression_rows(photos: Path, repetitions: int) -> list[Row]:
    """See `bench.progression`, which imports TensorFlow."""
    from bench import progression

    return progression.rows(photos, repetitions)


if __name__ == "__main__":
    sys.exit(main())
