"""`cnnexp prepare`: a data set, ready on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnexp.commands.arguments import CommandParser
from cnnexp.config.composition import load_config
from cnnexp.console import say, table
from cnnexp.errors import UserError
from cnnexp.runs.paths import check_paths

if TYPE_CHECKING:
    from cnnexp.data.check.preflight import Report

TEXT = """\
Draws, splits or checks a data set, and shows what is in it; `cnnexp train` does the same when it needs to.

  cnnexp prepare synthetic                              draws the cats and dogs of the demo
  cnnexp prepare dogs_vs_cats                           downloads the photos (825 MB), splits them by number as the
                                                        tutorial does
  cnnexp prepare dogs_vs_cats dataset.source=SOURCE     the same from Kaggle's train.zip or train/, or from a URL
  cnnexp prepare folder dataset.path=FOLDER             checks your own class folders; also in a zip or tar archive,
                                                        local or at a URL, or listed in a CSV file of path,label"""


def parser() -> CommandParser:
    """The arguments of `cnnexp prepare`."""
    words = {
        "DATASET": "an option of the group `dataset`",
        "[OVERRIDES]": "as dataset.path=FOLDER or paths.root=FOLDER",
    }
    return CommandParser("prepare", TEXT, words, ["synthetic", "folder dataset.path=photos dataset.on_bad=skip"])


def run(arguments: list[str]) -> int:
    """Load the data set, which prepares it, and show its splits."""
    given = parser().parse(arguments)
    if len(given.names) != 1:
        raise UserError("cnnexp prepare: name one data set, as `cnnexp prepare synthetic`")
    config = load_config([f"dataset={given.names[0]}", *given.overrides], given.config_dir)
    check_paths(config.paths)
    is_chosen = any(line.startswith("dataset.download=") for line in given.overrides)
    if hasattr(config.dataset, "download") and not is_chosen:
        config.dataset.download = True  # `cnnexp train` never begins with that
    from cnnexp.data.balance import unbalanced_line
    from cnnexp.data.check.preflight import PreflightError
    from cnnexp.runs.job import load_dataset

    try:
        dataset = load_dataset(config)
    except PreflightError as error:
        if error.report:
            show_report(error.report)
        raise
    rows = []
    for split in dataset.splits:
        counts = [int((split.labels == label).sum()) for label in range(len(dataset.class_names))]
        shown = ", ".join(f"{count} {name}" for count, name in zip(counts, dataset.class_names, strict=True))
        of_which = shown if len(counts) <= 12 else f"{len(counts)} classes"
        if split.group_count:
            of_which += f"; {split.group_count:,} groups"
        rows.append([split.name, f"{len(split.labels):,}", of_which])
    table(dataset.name, ["split", "images", "of which"], rows)
    unbalanced = unbalanced_line(dataset.class_names, dataset.train.labels)
    if unbalanced:
        say(unbalanced)
    if dataset.report:
        show_report(dataset.report)
    # of drawn or unpacked images the path is not where they lie
    if where := dataset.train.folder or getattr(config.dataset, "path", None):
        say(f"in {where}")
    say(f"digest {dataset.digest}")
    return 0


def show_report(report: Report) -> None:
    """Print what was found in the files: nothing but a line where all is well."""
    counts = {
        "bad": [split.bad for split in report.splits.values()],
        "twice, the same bytes": [split.exact_duplicates for split in report.splits.values()],
        "twice, to look at": [split.near_duplicates for split in report.splits.values()],
        "also in an earlier split": [split.leaks for split in report.splits.values()],
    }
    for note in sorted({note for split in report.splits.values() for note in split.notes}):
        counts[note] = [split.notes[note] for split in report.splits.values()]
    rows = [[what, *(f"{number:,}" for number in numbers)] for what, numbers in counts.items() if any(numbers)]
    if rows:
        table("what was found in the files", ["", *report.splits], rows)
        if report.two_labels:
            say(f"images that are like one of another class: {report.two_labels:,}")
    else:
        others = f"all but the {report.left_aside:,} files left aside" if report.left_aside else "every file"
        say(f"{others} can be used, none is there twice")
    if report.table:
        say(f"each file: {report.table}")
