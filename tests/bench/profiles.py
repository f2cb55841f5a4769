"""Where the time of each variant's epoch goes: TensorFlow's own profile, summed by kind of operation.

Photos are drawn or given, VGG16 has random weights, which cost what the trained ones cost. What is profiled is the
second epoch, steps and validation: the first compiles, and computes what the feature cache keeps.
"""

import contextlib
import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.training import train
from cnnexp.console import progress, table
from cnnexp.process import import_tensorflow

VARIANTS: dict[str, list[str]] = {
    "baseline": [],
    "augmented": [],
    "frozen": ["backbone.weights=null"],
    "frozen_augmented": ["backbone.weights=null", "trainer.augmented_passes=1"],
    "finetuned": ["backbone.weights=null", "phases=none"],
    "finetuned_augmented": ["backbone.weights=null", "phases=none", "trainer.augmented_passes=1"],
    "best": [],  # its own: at random weights it draws in training, and nothing can be cached
}
STEPS, QUICK_STEPS, QUICK_SIZE = 20, 2, 64
CALLS = ("StatefulPartitionedCall", "PartitionedCall", "While", "If")  # their time is that of what they call
KINDS_SHOWN = 5


@dataclass(frozen=True)
class Profile:
    """An epoch: its seconds, the share of them in which the cores computed, and that time by kind of operation."""

    variant: str
    steps: int
    seconds: float
    busy: float
    operations: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def of_variants(photos: Path, quick: bool) -> list[Profile]:
    """One of each variant."""
    import_tensorflow()
    return [profile(name, photos, quick) for name in progress(list(VARIANTS), "profiling")]


def profile(variant: str, photos: Path, quick: bool) -> Profile:
    """Train for two epochs and look at the second."""
    import tensorflow as tf

    steps = QUICK_STEPS if quick else STEPS
    small = [f"dataset.image_size={QUICK_SIZE}"] if quick else []
    given = [f"experiment={variant}", *VARIANTS[variant], *small, "tracking=none", "dataset.limit=200"]
    given += ["trainer.epochs=2", f"trainer.steps_per_epoch={steps}"]
    times: list[float] = []
    with tempfile.TemporaryDirectory() as root:

        def at_epoch_end(epoch: int, metrics: dict[str, float]) -> None:
            times.append(time.perf_counter())
            if epoch == 0:
                tf.profiler.experimental.start(root)
            else:
                tf.profiler.experimental.stop()

        with contextlib.redirect_stdout(io.StringIO()):
            train(photos, [*given, f"paths.root={root}"], at_epoch_end)
        (file,) = Path(root).rglob("*.xplane.pb")
        spent = Counter[str]()
        for kind, seconds in operations(file):
            spent[kind] += seconds
    passed, computed = times[1] - times[0], sum(spent.values())
    shares = {kind: seconds / computed for kind, seconds in spent.most_common()}
    return Profile(variant, steps, passed, computed / passed / (os.cpu_count() or 1), shares)


def operations(file: Path) -> Iterator[tuple[str, float]]:
    """Kind and seconds of each operation that TensorFlow's threads computed."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            if not line.name.startswith("tf_Compute"):
                continue
            for event in line.events:
                if kind := kind_of(plane.event_metadata[event.metadata_id].name):
                    yield kind, event.duration_ps / 1e12


def kind_of(event: str) -> str | None:
    """The kind of operation that an event is of, without prefixes; None: of none, or of a call of others."""
    if event.endswith("Executable::ExecuteAsyncOnStream"):
        return "update (XLA)"
    name, _, kind = event.rpartition(":")
    if not name or "::" in event or kind in CALLS or kind.startswith(" "):
        return None
    return kind.removeprefix("_Mkl").removeprefix("Native").removeprefix("_")


def show(found: list[Profile]) -> None:
    """Print a line for each variant."""
    rows = []
    for one in found:
        kinds = list(one.operations.items())[:KINDS_SHOWN]
        rest = 1 - sum(share for _, share in kinds)
        parts = [f"{kind} {share:.0%}" for kind, share in kinds] + [f"others {rest:.0%}"]
        rows.append([one.variant, f"{one.seconds:.3g}", f"{one.busy:.0%}", ", ".join(parts)])
    table("", ("variant", f"s, {found[0].steps} steps", "busy", "of that"), rows, left=4)
    print("an epoch with its validation; busy: the share of it in which the cores computed TensorFlow's operations")
