"""What the feature cache saves: epochs beside those through the whole network, a sweep beside separate runs.

VGG16 at 150 pixels with random weights, which cost what the trained ones cost. Left out on both sides are determinism,
which could not be taken back in this process and would slow down other peers, and all that a run records: the group
`fixed` has the same sweep with it.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.table import Row, take_turns
from cnnexp.config.composition import load_config
from cnnexp.process import import_tensorflow

if TYPE_CHECKING:
    from cnnexp.training.trainer import FitResult

NETWORK = ["backbone.weights=null", "tracking=none"]
EpochListener = Callable[[int, dict[str, float]], None]
STEPS, BATCH = 100, 20  # of an epoch in the tutorial
VARIANTS = {  # and of how many epochs from the cache, after the first, the median is taken: short ones vary
    "frozen": (["experiment=frozen"], 20),
    "finetuned": (["experiment=finetuned", "phases=none"], 2),
    "finetuned_augmented": (["experiment=finetuned_augmented", "phases=none", "trainer.augmented_passes=1"], 2),
}
HEADS = [(units, dropout) for units in (64, 128, 256, 512) for dropout in (0.0, 0.5)]


def rows(photos: Path, repetitions: int) -> list[Row]:
    """One row for an epoch of each variant, and one for a sweep over 8 heads."""
    import_tensorflow()
    quick = repetitions < 3
    size = 64 if quick else 150
    found = []
    with tempfile.TemporaryDirectory() as root:
        for name, (overrides, epochs) in VARIANTS.items():
            given = [*overrides, *NETWORK, f"dataset.image_size={size}", f"paths.root={root}", "dataset.limit=100"]
            steps = 2 if quick else 5
            found.append(epoch_row(name, photos, given, min(repetitions, 2), steps, 2 if quick else epochs))
    found.append(sweep_row(photos, size, limit=20 if quick else None))
    return found


def epoch_row(name: str, photos: Path, overrides: list[str], repetitions: int, steps: int, epochs: int) -> Row:
    """An epoch of 100 steps from the cache beside one through the whole network, of which `steps` are measured."""
    full = [*overrides, "trainer.augmented_passes=null", "trainer.feature_cache=false"]
    cached_s, full_s = take_turns(
        name,
        repetitions,
        lambda: epoch_seconds(photos, [*overrides, f"trainer.steps_per_epoch={STEPS}"], epochs=epochs + 1),
        lambda: epoch_seconds(photos, [*full, f"trainer.steps_per_epoch={steps}"], epochs=2),
    )
    return Row(f"epoch/{name}", f"full pass ({steps} of {STEPS} steps)", cached_s, [s * STEPS / steps for s in full_s])


def epoch_seconds(photos: Path, overrides: list[str], epochs: int) -> float:
    """The training steps of an epoch; the first epoch, which compiles, does not count."""
    batch = [f"trainer.batch_size={BATCH}", f"trainer.epochs={epochs}"]
    return median(epoch["time/epoch_s"] for epoch in train(photos, [*overrides, *batch])[1:])


def sweep_row(photos: Path, size: int, limit: int | None) -> Row:
    """8 heads for 10 epochs each on one cache, beside 8 separate runs, of which one, of middling size, is measured."""
    fixed = ["experiment=frozen", *NETWORK, f"dataset.image_size={size}"]
    fixed += [f"dataset.limit={limit}"] if limit else []

    def runs(heads: list[tuple[int, float]]) -> float:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as root:
            for units, dropout in heads:
                head = [f"head.units={units}", f"head.dropout={dropout}", "trainer.epochs=10"]
                train(photos, [*fixed, *head, f"paths.root={root}"])
        return time.perf_counter() - began

    ours_s, one_s = take_turns("a sweep", 1, lambda: runs(HEADS), lambda: runs([HEADS[len(HEADS) // 2]]))
    return Row(
        "sweep/8_heads",
        "8 separate runs (1 measured), nothing recorded",
        ours_s,
        [seconds * len(HEADS) for seconds in one_s],
    )


def train(
    photos: Path, overrides: list[str], on_epoch: EpochListener = lambda epoch, metrics: None
) -> list[dict[str, float]]:
    """Train as the config says, without a tracker; returns the figures of each epoch."""
    return fitted(photos, overrides, on_epoch).history


def fitted(photos: Path, overrides: list[str], on_epoch: EpochListener) -> "FitResult":
    """Train as the config says, without a tracker."""
    from cnnexp.runs import build
    from cnnexp.runs.job import load_dataset
    from cnnexp.training.runtime import prepare_tensorflow

    with contextlib.redirect_stdout(io.StringIO()):
        config = load_config([*overrides, "dataset=folder", f"dataset.path={photos}"])
        prepare_tensorflow(config.seed, deterministic=False)
        dataset = load_dataset(config)
        return build.fit(build.assemble(config, dataset), on_epoch)
