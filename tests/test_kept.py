"""The jobs of a sweep share a network and its compiled steps, and come to what a process of their own would."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cnnexp.config import SCHEMAS
from cnnexp.config.composition import load_config
from cnnexp.config.training import TrainerConfig
from cnnexp.models import kept
from cnnexp.models.build import build_model
from cnnexp.models.cnn import convnet
from cnnexp.models.heads import pooled
from cnnexp.runs import build
from cnnexp.runs.job import load_dataset
from cnnexp.training.runtime import prepare_tensorflow

LINE = [
    "experiment=baseline", "backbone.filters=[4]", "freeze_policy=full", "dataset=digits", "dataset.image_size=16",
    "dataset.limit=24", "head.units=8", "head.dropout=0.3", "trainer.epochs=2", "trainer.batch_size=8",
    "trainer.steps_per_epoch=null", "optimizer.schedule.name=constant", "tracking=none",
]  # fmt: skip
STRONG = ["augmentation=strong", "trainer.epochs=1"]
ERASING = [*STRONG, "augmentation.erasing_probability=1"]
CHANGES = {  # key -> the overrides of a job that differs in it
    "seed": ["seed=3"],
    "optimizer.learning_rate": ["optimizer.learning_rate=0.01"],
    "optimizer.schedule": ["optimizer.schedule.name=cosine"],
    "optimizer.weight_decay": ["optimizer.weight_decay=0.1"],
    "optimizer.ema_momentum": ["optimizer.ema_momentum=0.5"],
    "optimizer.layer_decay": ["optimizer.layer_decay=0.5", "freeze_policy=none"],
    "optimizer.arguments": ["+optimizer.arguments.clipnorm=0.1"],
    "optimizer.name": ["optimizer=sgd"],
    "optimizer.rho": ["optimizer.rho=0.5"],
    "optimizer.momentum": ["optimizer.momentum=0.5"],
    "optimizer.epsilon": ["optimizer.epsilon=0.1"],
    "optimizer.nesterov": ["optimizer=sgd", "optimizer.nesterov=true"],
    "optimizer.beta_1": ["optimizer=adam", "optimizer.beta_1=0.5"],
    "optimizer.beta_2": ["optimizer=adamw", "optimizer.beta_2=0.5"],
    "head.name": ["head=pooled", "head.units=8"],
    "head.units": ["head.units=5"],
    "head.input_dropout": ["head.input_dropout=0.5"],
    "head.dropout": ["head.dropout=0.6"],
    "trainer.epochs": ["trainer.epochs=3"],
    "trainer.max_epochs": ["trainer.max_epochs=1"],
    "trainer.batch_size": ["trainer.batch_size=5"],
    "trainer.steps_per_epoch": ["trainer.steps_per_epoch=4"],
    "trainer.evaluation_batch_size": ["trainer.evaluation_batch_size=7"],
    "trainer.monitor": ["trainer.monitor=val/loss", "trainer.early_stopping.patience=1", "trainer.epochs=4"],
    "trainer.epoch_metrics": ["trainer.epoch_metrics=[mcc]"],
    "trainer.keep_best": ["trainer.keep_best=true", "optimizer.learning_rate=1", "trainer.epochs=4"],
    "trainer.early_stopping": ["trainer.early_stopping.patience=1", "optimizer.learning_rate=1", "trainer.epochs=4"],
    "trainer.label_smoothing": ["trainer.label_smoothing=0.2"],
    "trainer.balanced_sampling": ["trainer.balanced_sampling=true", "trainer.batch_size=5"],
    "loss.name": ["loss=custom", "loss._target_=keras.losses.CategoricalFocalCrossentropy"],
    "loss.class_weight": ["loss.class_weight={0:9,1:1,2:1,3:1,4:1,5:1,6:1,7:1,8:1,9:1}"],
    "loss.label_smoothing": ["loss.label_smoothing=0.1"],
    "loss.gamma": ["loss=focal", "loss.gamma=3"],
    "trainer.flip_averaging": ["trainer.flip_averaging=true"],
    "trainer.feature_cache": ["trainer.feature_cache=false"],
    "trainer.feature_dtype": ["trainer.feature_dtype=float16"],
    "trainer.augmented_passes": ["trainer.augmented_passes=2", "augmentation=geometric"],
    "trainer.dtype_policy": ["trainer.dtype_policy=mixed_bfloat16"],
    "augmentation.name": ["augmentation=geometric"],
    "augmentation.seed": [*STRONG, "augmentation.seed=5"],
    "augmentation.mixup": [*STRONG, "augmentation.mixup=0.4"],
    "augmentation.rotation_range": [*STRONG, "augmentation.rotation_range=90"],
    "augmentation.width_shift_range": [*STRONG, "augmentation.width_shift_range=0.5"],
    "augmentation.height_shift_range": [*STRONG, "augmentation.height_shift_range=0.5"],
    "augmentation.shear_range": [*STRONG, "augmentation.shear_range=30"],
    "augmentation.zoom_range": [*STRONG, "augmentation.zoom_range=0.5"],
    "augmentation.horizontal_flip": [*STRONG, "augmentation.horizontal_flip=false"],
    "augmentation.vertical_flip": [*STRONG, "augmentation.vertical_flip=true"],
    "augmentation.fill_mode": [*STRONG, "augmentation.fill_mode=reflect"],
    "augmentation.brightness": [*STRONG, "augmentation.brightness=0.9"],
    "augmentation.contrast": [*STRONG, "augmentation.contrast=0.9"],
    "augmentation.saturation": [*STRONG, "augmentation.saturation=0.9"],
    "augmentation.erasing_probability": [*STRONG, "augmentation.erasing_probability=1"],
    "augmentation.erasing_min_area": [*ERASING, "augmentation.erasing_min_area=0.1"],
    "augmentation.erasing_max_area": [*ERASING, "augmentation.erasing_max_area=0.9"],
    "augmentation.erasing_min_aspect": [*ERASING, "augmentation.erasing_min_aspect=1"],
    "freeze_policy": ["freeze_policy=none"],
    "phases": ["phases=head_first", "freeze_policy.first_trainable_layer=block1_conv"],
}  # fmt: skip
MAY_CHANGE_NOTHING = {
    "trainer.feature_cache",
    "trainer.evaluation_batch_size",
}  # the latter's rounding is the machine's
NOT_DIGITS = {  # where, how and what else is computed; a process has one number of threads and devices
    "feature_cache_limit", "loader_threads", "image_memory_limit", "image_cache_limit", "threads", "strategy",
    "virtual_cpus", "deterministic", "resume", "figures",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def nothing_kept() -> Iterator[None]:
    kept.forget_network()
    yield
    kept.forget_network()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What a training comes to: the figures of its epochs, but for times, and the answers on the test images."""
    root = tmp_path_factory.mktemp("outputs")

    def train(overrides: list[str]) -> tuple[list[dict[str, float]], bytes]:
        config = load_config([*LINE, f"paths.root={root}", *overrides])
        prepare_tensorflow(config.seed, deterministic=True)
        dataset = load_dataset(config)
        fitted = build.fit(build.assemble(config, dataset, share=True), lambda epoch, figures: None)
        history = [
            {name: value for name, value in epoch.items() if "time" not in name and name != "images_per_s"}
            for epoch in fitted.history
        ]
        return history, fitted.probabilities.tobytes()

    return train


def test_every_key_is_tried() -> None:
    trained = {item.name for item in fields(TrainerConfig)} - NOT_DIGITS
    wanted = {f"trainer.{name}" for name in trained}
    for group in ("optimizer", "head", "loss", "augmentation"):
        names = {item.name for kind in SCHEMAS[group].values() for item in fields(kind)}
        wanted |= {f"{group}.{name}" for name in names - {"_target_", "arguments"}}
    assert wanted - {"augmentation.arguments", "loss.arguments"} <= CHANGES.keys()
    assert is_dataclass(TrainerConfig)


FEW = ("optimizer.learning_rate", "loss.gamma")


@pytest.mark.parametrize("keys", [FEW, pytest.param(tuple(CHANGES), marks=pytest.mark.long)], ids=["few", "all"])
def test_a_job_after_others_comes_to_what_it_comes_to_alone(outcome: Callable[..., Any], keys: tuple[str, ...]) -> None:
    """For each key: alone on a fresh network, and in a row with all the others."""
    alone = {}
    for key in ("", *keys):
        kept.forget_network()
        alone[key] = outcome(CHANGES.get(key, []))
    changes_nothing = {key for key in keys if alone[key] == alone[""]}
    assert changes_nothing <= MAY_CHANGE_NOTHING  # else it tests nothing
    kept.forget_network()
    row = ["", *keys, "", *(key for key in reversed(keys) for _ in range(2)), ""]
    assert [key for key in row if outcome(CHANGES.get(key, [])) != alone[key]] == []


def test_steps_are_kept_for_another_rate_and_seed_alone(
    outcome: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    compile_model = keras.Model.compile
    monkeypatch.setattr(keras.Model, "compile", lambda self, **o: (compiled.append(self), compile_model(self, **o)))
    kept.forget_network()
    for change, count in (
        ([], 1),
        (["optimizer.learning_rate=0.02"], 1),
        (["seed=7", "trainer.epochs=3"], 1),
        (["optimizer.momentum=0.5"], 2),
        (["optimizer.schedule.name=cosine"], 3),
        (["optimizer.schedule.name=cosine", "seed=2"], 3),
        (["optimizer.schedule.name=cosine", "optimizer.learning_rate=0.02"], 4),
    ):
        outcome(change)
        assert len(compiled) == count, change


def test_a_network_that_draws_for_something_else_is_not_kept() -> None:
    """How a seed is used must be known of every one that was drawn."""

    def odd(image: Any) -> Any:
        keras.initializers.GlorotUniform()  # draws a seed, and is in no layer
        return convnet(image, filters=[2])

    def build(backbone: Any) -> Any:
        return build_model((8, 8, 3), 2, backbone, pooled, "odd")

    kept.forget_network()
    first = kept.kept_network("odd", lambda: build(odd))
    assert kept.kept_network("odd", lambda: build(odd)) is not first
    plain = kept.kept_network("plain", lambda: build(lambda image: convnet(image, filters=[2])))
    assert kept.kept_network("plain", lambda: build(None)) is plain
    assert kept.kept_network("other", lambda: build(odd)) is not plain


def test_a_renewed_network_equals_a_fresh_one() -> None:
    """Weights, dropout, and what is drawn after it, for two seeds; loaded weights stay."""

    def build(seed: int, again: bool) -> list[np.ndarray]:
        keras.utils.set_random_seed(seed)
        keras.backend.clear_session(free_memory=False)

        def make() -> Any:
            network = build_model(
                (8, 8, 3), 3, lambda image: convnet(image, filters=[3]), lambda x, n: pooled(x, n, 4, 0.5), "net"
            )
            network.backbone_layers[0].set_weights([np.full((3, 3, 3, 3), 0.5), np.full(3, 7.0)])
            return network

        if not again:
            kept.forget_network()
        network = kept.kept_network("net", make)
        drawn = keras.random.uniform((3,), seed=keras.random.SeedGenerator())
        values = [np.array(variable.numpy()) for variable in network.model.variables]
        for variable in network.model.variables:  # as a training would leave them
            variable.assign(np.ones(variable.shape, variable.dtype))
        return [*values, np.array(drawn)]

    fresh = {seed: build(seed, again=False) for seed in (1, 2)}
    for seed in (1, 2, 1):
        renewed = build(seed, again=True)
        assert all(np.array_equal(a, b) for a, b in zip(fresh[seed], renewed, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(fresh[1], fresh[2], strict=True))


@pytest.mark.long
def test_a_sweep_equals_processes_of_their_own(tmp_path: Path) -> None:
    """The third job of a sweep, and the same in a process that does nothing else: predictions to the last byte."""
    line = [*LINE, "tracking.explain=false", f"paths.root={tmp_path}", "optimizer.learning_rate=0.003"]
    command = [sys.executable, "-m", "cnnexp.cli", "train"]
    sweep = [*command, "-m", *line, "seed=1,2,3", f"hydra.sweep.dir={tmp_path}/sweep"]
    single = [*command, *line, "seed=3", f"hydra.run.dir={tmp_path}/single"]
    for arguments in (sweep, single):
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, other = (tmp_path / name / "predictions.csv" for name in ("sweep/2", "single"))
    assert one.read_bytes() == other.read_bytes()
