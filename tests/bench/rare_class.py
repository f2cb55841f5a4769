"""What is done for a rare class, on trashnet's photos; the worked example of the guide's page on figures.

    python tests/bench/rare_class.py --photos FOLDER [--root FOLDER]

trains a linear layer on the features of EfficientNet-Lite0 over three divisions of the photos: as it is, with weights
of the classes, with balanced sampling. It pools the test images of the divisions, tests each remedy against none in
pairs, and writes rare_class.json. Given again, it goes on where it was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a file: the folder above holds the package `bench`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.history import commit_of
from cnnexp.metrics.paired import measure, p_value
from cnnexp.metrics.registry import class_figures
from cnnexp.metrics.statistics import wilson_interval
from cnnexp.report.predictions import read_predictions
from cnnexp.runs.folder import RunFolder
from cnnexp.tracking.record import cores, processor

FILE = Path(__file__).with_name("rare_class.json")
RARE = "trash"
REMEDIES = {"none": [], "loss.class_weight=balanced": ["loss.class_weight=balanced"]}
REMEDIES["trainer.balanced_sampling=true"] = ["trainer.balanced_sampling=true"]
LINE = [
    "experiment=frozen", "backbone=efficientnet_lite0", "head=pooled", "head.units=0", "head.dropout=0.2",
    "dataset=folder", "dataset.image_size=224", "dataset.on_bad=skip", "dataset.on_leak=ignore", "optimizer=adamw",
    "optimizer.learning_rate=1e-3", "trainer.epochs=30", "trainer.batch_size=32", "trainer.keep_best=true",
    "trainer.early_stopping.patience=null", "trainer.monitor=val/f1_macro", "tracking=none",
    "tracking.explain=false", "sweep.report=grid",
    "seed=0,1,2", "dataset.split_seed=${seed}",
]  # fmt: skip


def main() -> int:
    """Train what is not trained yet, and write the table; returns the exit code of the first sweep that failed."""
    parser = argparse.ArgumentParser(prog="rare_class", description=__doc__)
    parser.add_argument("--photos", required=True, type=Path, help="trashnet's folder: cardboard/, glass/, ...")
    parser.add_argument("--root", default=Path("outputs"), type=Path, help="paths.root of the runs")
    given = parser.parse_args()
    commit, dirty = commit_of(FILE)
    found: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit, "dirty": dirty}
    found |= {"cpu": processor(), "cores": cores(), "load": os.getloadavg()[0], "remedies": {}}
    before: tuple[np.ndarray, np.ndarray] | None = None
    for number, (name, overrides) in enumerate(REMEDIES.items()):
        folder = given.root / "runs" / f"rare_class_{number}"
        line = [
            *LINE,
            *overrides,
            f"dataset.path={given.photos}",
            f"paths.root={given.root}",
            f"hydra.sweep.dir={folder}",
        ]
        code = subprocess.run([sys.executable, "-m", "cnnexp.cli", "train", "-m", *line], check=False).returncode
        if code:
            return code
        labels, answers, row = pooled(folder)
        rare = labels == row.pop("number")
        right = np.eye(2)[(answers == labels).astype(int)]  # as probabilities of "wrong" and "right"
        if before is None:
            before = rare, right
        one, other = (measure("acc", np.ones(int(rare.sum()), int), [table[rare]]) for table in (before[1], right))
        assert one is not None and other is not None
        row["gained"] = int((right[rare, 1] > before[1][rare, 1]).sum())
        row["lost"] = int((right[rare, 1] < before[1][rare, 1]).sum())
        row["p"] = p_value(one, other) if number else None
        found["remedies"][name] = row
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def pooled(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """True classes and answers, (N,) each, of all jobs of a sweep, one behind the other, and their figures."""
    jobs = [RunFolder(path) for path in sorted(folder.glob("[0-9]*"))]
    read = [read_predictions(job.predictions) for job in jobs]
    labels, answers = (np.concatenate([getattr(one, name) for one in read]) for name in ("labels", "predicted"))
    names = read[0].class_names
    number, values = names.index(RARE), class_figures(labels, answers, len(names))
    support = int(values["support"][number])
    recall = float(values["recall"][number])
    return (
        labels,
        answers,
        {
            "number": number,
            "images": support,
            "recall": recall,
            "recall_interval": wilson_interval(round(recall * support), support),
            "precision": float(values["precision"][number]),
            "f1_macro": float(np.mean(values["f1"])),
            "acc": float((labels == answers).mean()),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
