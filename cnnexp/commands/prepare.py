"""`cnnexp prepare`: a data set, ready on disk."""

from cnnexp.commands.arguments import split_overrides
from cnnexp.composition import load_config
from cnnexp.console import say, table
from cnnexp.errors import UserError

HELP = """usage: cnnexp prepare DATASET [OVERRIDES]

Draws, splits or checks a data set, and shows what is in it; `cnnexp train` does the same when it needs to.

  cnnexp prepare synthetic                              draws the cats and dogs of the demo
  cnnexp prepare dogs_vs_cats dataset.source=FOLDER     splits Kaggle's train/ folder by number, as the tutorial does
  cnnexp prepare folder dataset.path=FOLDER             checks your own class folders
"""


def run(arguments: list[str]) -> int:
    """Load the data set, which prepares it, and show its splits."""
    names, overrides = split_overrides(arguments)
    if len(names) != 1:
        raise UserError("cnnexp prepare: name one data set, as `cnnexp prepare synthetic`")
    config = load_config([f"dataset={names[0]}", *overrides])
    from cnnexp.commands.datasets import load_dataset

    dataset = load_dataset(config)
    rows = []
    for split in (dataset.train, dataset.validation, dataset.test):
        counts = [int((split.labels == label).sum()) for label in range(len(dataset.class_names))]
        shown = ", ".join(f"{count} {name}" for count, name in zip(counts, dataset.class_names, strict=True))
        rows.append([split.name, f"{len(split.labels):,}", shown if len(counts) <= 12 else f"{len(counts)} classes"])
    table(dataset.name, ["split", "images", "of which"], rows)
    where = getattr(config.dataset, "path", None)
    if where:
        say(f"in {where}")
    say(f"digest {dataset.digest}")
    return 0
