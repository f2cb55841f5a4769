"""Files of the user's own in `--config-dir`: what they need not say, and that a mistake is named with its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cnnexp.config import validated
from cnnexp.config.composition import compose_config
from cnnexp.config.hydra_driver import complete_leaf, hydra_context
from cnnexp.config.targets import partial_from_config
from cnnexp.config.training import OptimizerConfig
from cnnexp.errors import UserError

Run = Callable[..., tuple[int, str, str]]
LION = "_target_: keras.optimizers.Lion\nlearning_rate: 1e-4\nbeta_1: 0.95\n"


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return file


def composed(folder: Path, *overrides: str) -> Any:
    with hydra_context(str(folder)):
        return validated(compose_config(list(overrides)))


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        composed(folder, *overrides)
    return str(error.value)


def test_own_keys_go_to_a_target_without_a_schema(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/lion", LION)
    node = composed(tmp_path, "optimizer=lion").optimizer
    assert (node._target_, node.name, node.learning_rate) == ("keras.optimizers.Lion", "lion", 1e-4)
    assert node.arguments == {"beta_1": 0.95}
    assert composed(tmp_path, "optimizer=lion", "optimizer.arguments.beta_1=0.5").optimizer.arguments["beta_1"] == 0.5
    write(tmp_path, "head/mine/wide", "_target_: mine.head\nunits: 7\narguments: {depth: 2}\nname: w\n")
    head = composed(tmp_path, "head=mine/wide").head
    assert (head.name, head.arguments) == ("w", {"units": 7, "depth": 2})
    write(tmp_path, "backbone/net", "defaults: [custom, _self_]\n_target_: mine.net\nfilters: 4\n")
    assert composed(tmp_path, "backbone=net").backbone.arguments == {"filters": 4}


def test_a_target_with_a_schema_has_its_keys(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/slow", "_target_: keras.optimizers.Adam\nbeta_1: 0.8\n")
    node = composed(tmp_path, "optimizer=slow").optimizer
    assert (node.name, node.beta_1, node.beta_2, node.arguments) == ("slow", 0.8, 0.999, {})
    write(tmp_path, "augmentation/turn", "_target_: cnnexp.data.augment.Geometric\nrotation_range: 7\n")
    assert composed(tmp_path, "augmentation=turn").augmentation.rotation_range == 7
    write(tmp_path, "optimizer/far", "_target_: keras.optimizers.Adam\nbeta_1: 8\n")
    assert refused(tmp_path, "optimizer=far").startswith("optimizer.beta_1=8.0: must be")


def test_a_file_that_builds_on_another_option_is_left_as_it_is() -> None:
    node = OmegaConf.create({"defaults": ["adam", "_self_"], "_target_": "mine.Own", "beta_1": 0.5})
    before = OmegaConf.to_container(node)
    complete_leaf("optimizer", "own", node)
    complete_leaf("trainer", "own", node)
    assert OmegaConf.to_container(node) == before


MISTAKES = {
    "optimizer/a": (
        "_target_: keras.optimizers.Lion\nlearning_rat: 1\n",
        "optimizer.learning_rat=1: no such key; write",
    ),
    "optimizer/b": (
        "_target_: keras.optimizers.Adam\nbeta_3: 1\n",
        "optimizer.beta_3: no such key; allowed: optimizer.b",
    ),
    "optimizer/c": (
        "defaults: [sgd, _self_]\nmomentun: 1\n",
        "optimizer.momentun: no such key; allowed: optimizer.mom",
    ),
    "experiment/d": ("# @package _global_\ntrainr: {epochs: 1}\n", "trainr: no such key; allowed: trainer, "),
    "experiment/e": (
        "# @package _global_\ntrainer: {epoch: 1}\n",
        "trainer.epoch: no such key; allowed: trainer.epochs",
    ),
    "experiment/f": (
        "# @package _global_\ntrainer: {epochs: x}\n",
        "trainer.epochs: value 'x' of type 'str' could not",
    ),
    "phases/g": ("a: {optimzer: x}\n", "phases.a.optimzer: no such key; allowed: phases.a.optimizer"),
    "dataset/h": ("_target_: mine.d\nimage_sice: 3\n", "dataset.image_sice=3: no such key; write image_size"),
    "trainer/i": (
        "defaults: [default, _self_]\nearly_stopping: {patienc: 3}\n",
        "trainer.early_stopping.patienc: no such",
    ),
    "head/j": ("_target_: mine.h\nunits: [1\n", "line 3: expected ',' or ']'"),
    "experiment/k": ("name: mine\n", "its first line must be `# @package _global_`"),
    "experiment/l": ("# Mine.\n# @package _global_\nname: mine\n", "its first line must be `# @package _global_`"),
    "experiment/m": ("", "is empty or no mapping"),
    "experiment/n": ("- a\n", "is empty or no mapping"),
    "experiment/o": ("# @package _global_\ntrainer:\n\tepochs: 1\n", "line 3: found character '\\t' that cannot start"),
    "experiment/p": ("# @package _global_\nname: a\nname: b\n", "line 3: found duplicate key name"),
    "experiment/q": ("# @package _global_\nname: caf\udce9\n", "line 2: is not in UTF-8; save it as UTF-8"),
    "experiment/r": ("# @package\nname: a\n", "Expected header format"),
    "experiment/s": ("# @package _global_\ndefaults: 3\n", "defaults: defaults must be a list"),
    "experiment/t": (
        "# @package _global_\ndefaults:\n  - override /optimizer: adm\n",
        "defaults: optimizer=adm: no such option; allowed: adam, adamw",
    ),
    "sweep/u": ("report: grid\nhydra: {mode: MULTIRUN}\n", "its first line must be `# @package _global_`"),
    "optimizer/v": ("", "is empty or no mapping"),
    "debug/w": ("seed: 1\n", "its first line must be `# @package _global_`"),
}


@pytest.mark.parametrize("option", MISTAKES)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, option: str) -> None:
    text, said = MISTAKES[option]
    file = write(tmp_path, option, text)
    assert refused(tmp_path, option.replace("/", "=")).startswith(f"{file}: {said}")


def test_a_file_is_read_however_an_editor_saved_it(tmp_path: Path) -> None:
    for number, text in enumerate(("\ufeff# @package _global_\nseed: 5\n", "# @package _global_\r\nseed: 5\r\n")):
        write(tmp_path, f"experiment/x{number}", text)
        assert composed(tmp_path, f"experiment=x{number}").seed == 5
    write(tmp_path, "sweep/own", "report: grid\n")
    assert composed(tmp_path, "sweep=own").sweep.report == "grid"


COMMANDS = {  # that take overrides, with what else they need
    "train": [],
    "plan": [],
    "summary": [],
    "prepare": ["synthetic"],
    "evaluate": ["latest"],
    "predict": ["latest", "a.jpg"],
    "explain": ["latest", "a.jpg"],
    "reproduce": ["latest"],
    "compare": [],
    "doctor": [],
    "ui": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_files_of_ones_own(cnnexp: Run, tmp_path: Path, command: str) -> None:
    file = write(tmp_path / "mine", "paths/here", "defaults: [default, _self_]\nrot: elsewhere\n")
    code, _, err = cnnexp(command, *COMMANDS[command], "paths=here", "-cd", "mine")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith(f"cnnexp: {file}: paths.rot: no such key; allowed: paths.root")


def test_what_a_file_of_ones_own_says_is_done(cnnexp: Run, tmp_path: Path) -> None:
    write(tmp_path / "mine", "paths/here", "defaults: [default, _self_]\nroot: elsewhere\n")
    assert cnnexp("doctor", "--config-dir=mine", "paths=here")[0] == 0
    assert not (tmp_path / "outputs").exists()
    write(tmp_path / "mine", "dataset/few", "defaults: [synthetic, _self_]\ntrain: 6\nvalidation: 2\n")
    line = ["dataset.size=32", "dataset.test=2", "dataset.limit=null", "dataset.decoys=0", "--config-dir=mine"]
    code, out, err = cnnexp("prepare", "few", *line)
    assert code == 0 and "3 cat, 3 dog" in out, err


@pytest.mark.trains
def test_what_a_run_is_asked_with_files_of_ones_own(cnnexp: Run, tracked_run: Path, tmp_path: Path) -> None:
    store = f"tracking.uri=sqlite:///{tracked_run}/outputs/mlflow.db"
    write(tmp_path / "mine", "optimizer/lion", LION)
    line = ["reproduce", "--print", "latest", store, "--config-dir=mine"]
    code, out, err = cnnexp(*line, "optimizer=lion")
    assert code == 0 and out.startswith("cnnexp train --config-dir=mine ") and "optimizer=lion" in out, err
    code, _, err = cnnexp("evaluate", "latest", store, "dataset=lost", "--config-dir=mine")
    assert code == 2 and "dataset=lost: no such option" in err
    write(tmp_path / "mine", "dataset/lost", "_target_: cnnexp.data.sources.folder\npath: nowhere\n")
    code, _, err = cnnexp("evaluate", "latest", store, "dataset=lost", "--config-dir=mine")
    assert code == 2 and "dataset.path=nowhere" in err


def test_a_mistake_of_the_line_is_not_one_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/lion", LION)
    assert refused(tmp_path, "optimizer=lion", "trainer.epoch=1").startswith("trainer.epoch=1: no such key")


def test_a_keyword_that_an_optimizer_of_keras_does_not_take_is_refused() -> None:
    node = OptimizerConfig("keras.optimizers.Lion", "lion", arguments={"beta_2": 0.9, "clipnorm": 1.0})
    assert partial_from_config("optimizer", node, omit=("schedule", "ema_momentum", "layer_decay")).keywords["clipnorm"]
    node.arguments["beta_9"] = 1
    with pytest.raises(
        UserError, match=r"^optimizer._target_=keras.optimizers.Lion: takes no beta_9; it takes learning_r"
    ):
        partial_from_config("optimizer", node, omit=("schedule", "ema_momentum", "layer_decay"))


@pytest.mark.trains
@pytest.mark.usefixtures("no_training")
def test_runs_with_files_of_ones_own(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    write(tmp_path / "mine", "optimizer/lion", LION)
    wrong = write(tmp_path / "mine", "optimizer/wrong", LION + "beta_9: 1\n")
    line = ["debug=smoke", "dataset=synthetic", f"paths.data={drawn_root}", "tracking=none", "--config-dir=mine"]
    code, out, err = cnnexp("train", "-m", *line, "optimizer=lion,wrong")
    assert code == 1 and out.count("epoch   1/2") == 1
    assert f"job 1 failed: {wrong}: optimizer._target_=keras.optimizers.Lion: takes no beta_9" in err
    code, _, err = cnnexp("train", *line, "optimizer=wrong")
    assert code == 2 and err.startswith(f"cnnexp: {wrong}: optimizer._target_=") and len(err.splitlines()) == 1
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1  # the sweep
    code, out, _ = cnnexp("train", *line, "optimizer=lion", "--cfg", "job")
    assert code == 0 and "beta_1: 0.95" in out and "name: lion" in out
