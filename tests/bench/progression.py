"""The whole progression at the tutorial's schedules: our trainer beside the tutorial's script.

Run to the end, the script takes hours. So some steps, the validation of some photos and the features of some photos
are measured on both sides, and the time of the schedule is counted from them: 2000 photos to train on, 1000 to
validate with after each epoch, 1000 to test with at the end. VGG16 has random weights, which cost what the trained
ones cost. Ours has the settings of the experiment files, so that its augmented variants keep four passes of features,
where the script draws anew in each epoch; a sum with new draws shows what is left without that. Left out of ours are
determinism and all that a run records.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.data import PARAMETERS
from bench.step import SIZE, convnet
from bench.table import Row, take_turns
from bench.training import fitted
from cnnexp.config.composition import load_config
from cnnexp.console import progress
from cnnexp.process import import_tensorflow

TRAIN, VALIDATION, TEST = 2000, 1000, 1000  # photos of the tutorial
MEASURED_STEPS = 20  # of an epoch; where a head alone is trained, the whole of it
MEASURED_PHOTOS, FEW_PHOTOS = 200, 20  # at most, of each split
FIXED = ["tracking=none", "phases=none", "optimizer.schedule.name=constant", "trainer.flip_averaging=false"]
FRESH, HALF = "trainer.augmented_passes=null", "trainer.dtype_policy=mixed_bfloat16"


@dataclass(frozen=True)
class Schedule:
    """A variant in the tutorial: `trained_from` is the first layer of VGG16 that is trained, None: no VGG16."""

    epochs: int
    batch: int
    augmented: bool = False
    trained_from: str | None = None
    steps: int = 100  # an epoch

    @property
    def head_only(self) -> bool:
        """Whether the whole of VGG16 is frozen."""
        return self.trained_from == "head"


SCHEDULES = {
    "baseline": Schedule(30, 20),
    "augmented": Schedule(100, 32, augmented=True),
    "frozen": Schedule(30, 20, trained_from="head"),
    "frozen_augmented": Schedule(60, 32, augmented=True, trained_from="head"),
    "finetuned": Schedule(100, 20, trained_from="block5_conv1"),
    "finetuned_augmented": Schedule(100, 20, augmented=True, trained_from="block5_conv1"),
}


@dataclass(frozen=True)
class Cost:
    """Seconds: of a step, of the validation of a photo, of an epoch beside these, and of what comes first, once."""

    step_s: float
    photo_s: float
    epoch_s: float = 0.0
    first_s: float = 0.0

    def of(self, schedule: Schedule) -> float:
        """Of a whole schedule, with the test at its end."""
        epoch = schedule.steps * self.step_s + VALIDATION * self.photo_s + self.epoch_s
        return self.first_s + schedule.epochs * epoch + TEST * self.photo_s


def rows(photos: Path, repetitions: int) -> list[Row]:
    """A row for each variant and one for their sum, then the sums with other settings of ours."""
    import_tensorflow()
    from cnnexp.training.runtime import has_bfloat16

    repetitions = min(repetitions, 2)
    found = {name: measured(name, photos, repetitions) for name in SCHEDULES}
    redrawn = {
        name: again(found[name], photos, repetitions, FRESH) for name in ("frozen_augmented", "finetuned_augmented")
    }
    sums = [total("sum", found), total("sum_new_draws", found | redrawn)]
    if has_bfloat16():
        halves = {name: again(row, photos, repetitions, HALF) for name, row in found.items()}
        sums.append(total("sum_mixed_bfloat16", halves))
    return [*found.values(), *sums]


def measured(name: str, photos: Path, repetitions: int) -> Row:
    """The schedule of one variant, ours and the script's, in seconds."""
    schedule = SCHEDULES[name]
    ours_s, script_s = take_turns(
        name, repetitions, lambda: ours(name, photos).of(schedule), lambda: script(schedule, photos).of(schedule)
    )
    return Row(f"progression/{name}", f"the tutorial's script, {schedule.epochs} epochs", ours_s, script_s)


def again(variant: Row, photos: Path, repetitions: int, setting: str) -> Row:
    """Ours once more, with another setting, beside what the script took."""
    name = variant.name.removeprefix("progression/")
    turns = progress(range(repetitions), f"measuring {name} with {setting}")
    ours_s = [ours(name, photos, setting).of(SCHEDULES[name]) for _ in turns]
    return replace(variant, ours_each=ours_s)


def total(name: str, found: dict[str, Row]) -> Row:
    """The variants one after the other."""
    ours_s = [sum(each) for each in zip(*(one.ours_each for one in found.values()), strict=True)]
    peer_s = [sum(each) for each in zip(*(one.peer_each for one in found.values()), strict=True)]
    return Row(f"progression/{name}", "the tutorial's script", ours_s, peer_s)


# ---------------------------------------------------------------------------------------------------- ours


def ours(name: str, photos: Path, *settings: str) -> Cost:
    """What the trainer takes; two trainings tell what an epoch costs beside its photos (report, checkpoint)."""
    many, few = (training(name, photos, limit, *settings) for limit in (MEASURED_PHOTOS, FEW_PHOTOS))
    photo_s = (many.beside_s - few.beside_s) / (many.validated - few.validated)
    return Cost(many.step_s, photo_s, few.beside_s - few.validated * photo_s, many.first_s)


@dataclass(frozen=True)
class Training:
    """Seconds: of a step; of an epoch beside its steps, in which so many photos are `validated`; of all features."""

    step_s: float
    beside_s: float
    validated: int
    first_s: float


def training(name: str, photos: Path, limit: int, *settings: str) -> Training:
    """Train with at most so many photos of each split; the first epoch, which compiles, does not count."""
    schedule = SCHEDULES[name]
    steps = schedule.steps if schedule.head_only and FRESH not in settings else MEASURED_STEPS
    given = [f"experiment={name}", *FIXED, f"dataset.image_size={SIZE}", f"dataset.limit={limit}", *settings]
    given += [f"trainer.batch_size={schedule.batch}", f"trainer.steps_per_epoch={steps}", "trainer.epochs=3"]
    given += ["backbone.weights=null"] if schedule.trained_from else []
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        line = [*given, f"paths.root={root}"]
        result = fitted(photos, line, lambda epoch, metrics: ends.append(time.perf_counter()))
    count = len(list(photos.glob("*/*")))
    trained, validated = (min(count // part, limit) for part in (2, 4))
    kept = load_config(given).trainer.augmented_passes or 0
    passes = kept if schedule.augmented else 1
    in_steps = [epoch["time/epoch_s"] for epoch in result.history[1:]]
    return Training(
        step_s=median(in_steps) / steps,
        beside_s=median(end - start - each for (start, end), each in zip(pairwise(ends), in_steps, strict=True)),
        validated=validated,
        first_s=result.cache_seconds / (passes * trained + 2 * validated) * (passes * TRAIN + VALIDATION + TEST),
    )


# ---------------------------------------------------------------------------------------------- the script


def script(schedule: Schedule, photos: Path) -> Cost:
    """What the tutorial's script takes: JPEGs through `ImageDataGenerator`, plain `fit`, everything in each epoch."""
    if schedule.head_only and not schedule.augmented:
        return script_on_features(schedule, photos)
    model = network(schedule)
    train = batches(photos, schedule.batch, schedule.augmented)
    validate = batches(photos, schedule.batch, augmented=False)
    steps = -(-MEASURED_PHOTOS // schedule.batch)
    step_s = seconds(lambda: model.fit(train, steps_per_epoch=MEASURED_STEPS, verbose=0)) / MEASURED_STEPS
    photo_s = seconds(lambda: model.evaluate(validate, steps=steps, verbose=0)) / (steps * schedule.batch)
    return Cost(step_s, photo_s)


def script_on_features(schedule: Schedule, photos: Path) -> Cost:
    """The tutorial's `frozen`: what VGG16 puts out is computed once there too, and a small network trained on it."""
    import keras

    body, head = vgg16(), dense()
    size = min(len(list(photos.glob("*/*"))), MEASURED_PHOTOS) // schedule.batch * schedule.batch
    images = batches(photos, schedule.batch, augmented=False)
    steps = size // schedule.batch
    photo_s = seconds(lambda: body.predict(images, steps=steps, verbose=0)) / size
    features = np.random.default_rng(0).random((TRAIN, *body.output_shape[1:]), dtype=np.float32)
    labels = np.arange(TRAIN) % 2
    model = keras.Sequential([keras.Input(features.shape[1:]), head])
    compiled(model)
    fit = seconds(lambda: model.fit(features, labels, batch_size=schedule.batch, verbose=0))
    evaluate = seconds(lambda: model.evaluate(features, labels, batch_size=schedule.batch, verbose=0))
    first_s = (TRAIN + VALIDATION + TEST) * photo_s
    return Cost(fit / (TRAIN // schedule.batch), evaluate / TRAIN, first_s=first_s)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes the second time: at the first it is compiled."""
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def batches(photos: Path, size: int, augmented: bool) -> Any:
    """The tutorial's generator of (B, 150, 150, 3) float32 images in 0..1."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(rescale=1 / 255, **(PARAMETERS if augmented else {}))
    with contextlib.redirect_stdout(io.StringIO()):  # "Found 400 images belonging to 2 classes."
        return generator.flow_from_directory(
            str(photos), target_size=(SIZE, SIZE), batch_size=size, class_mode="binary", seed=0
        )


def network(schedule: Schedule) -> Any:
    """The tutorial's network of a variant, compiled as it does."""
    import keras

    if schedule.trained_from is None:
        layers = convnet(input_dropout=0.5 if schedule.augmented else 0.0)
        return compiled(keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers]))
    body = vgg16()
    trained = False
    for layer in body.layers:
        trained = trained or layer.name == schedule.trained_from
        layer.trainable = trained
    return compiled(keras.Sequential([keras.Input((SIZE, SIZE, 3)), body, dense()]))


def vgg16() -> Any:
    """Without its top, with random weights."""
    import keras

    return keras.applications.VGG16(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))


def dense() -> Any:
    """The head that the tutorial puts on VGG16."""
    import keras

    layers = keras.layers
    return keras.Sequential([layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dense(1, "sigmoid")])


def compiled(model: Any) -> Any:
    """With RMSprop, as the tutorial trains everything."""
    import keras

    model.compile(keras.optimizers.RMSprop(1e-5), "binary_crossentropy", metrics=["accuracy"])
    return model
