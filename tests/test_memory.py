"""What is larger than the memory of this machine is refused before anything is allocated."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnexp.config.composition import load_config
from cnnexp.errors import UserError, one_line
from cnnexp.runs import memory
from cnnexp.runs.build import build_network

pytestmark = pytest.mark.trains

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1 GiB."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**30)


SMALL = ["dataset=synthetic", "dataset.image_size=48", "backbone=small_cnn", "head=flatten_dense"]


def test_a_network_is_counted_without_its_weights(small_machine: None) -> None:
    """The convnet has 240,832 parameters and puts out 128 numbers: 240,832 + (128 + 1) * 2e6 + (2e6 + 1)."""
    state = random.getstate()
    with pytest.raises(UserError) as error:
        build_network(load_config([*SMALL, "head.units=2000000"]), 3, 2)
    said = "head.units=2000000: the network has 260,240,833 parameters, which take 1.9 GiB with their gradients, "
    assert str(error.value).startswith(said + "and this machine has 1.0 GiB; lower it, or dataset.image_size")
    assert random.getstate() == state


def test_what_fits_is_built(small_machine: None) -> None:
    assert build_network(load_config([*SMALL, "head.units=500000"]), 3, 2).model.count_params() == 65_240_833


def test_a_batch_of_more_images_than_memory(cnnexp: Run, drawn_root: Path, tmp_path: Path) -> None:
    """10^11 images of 48 x 48 x 3 floats are 2,764,800 GB, 2,574,920.7 GiB."""
    line = ["debug=smoke", "dataset=synthetic", "dataset.image_size=48", f"paths.data={drawn_root}"]
    code, _, err = cnnexp("train", *line, "trainer.batch_size=100000000000")
    assert code == 2 and err.count("\n") == 1
    assert "trainer.batch_size=100000000000: its images take 2,574,920.7 GiB, and this machine has " in err
    assert not (tmp_path / "outputs" / "runs").exists()


def test_the_memory_of_this_machine_is_known() -> None:
    assert 2**28 < memory.machine_memory() <= 2**62


def test_what_tensorflow_says_of_memory_is_shortened() -> None:
    kind = type("ResourceExhaustedError", (Exception,), {})
    said = "{{function_node __wrapped__X_device_/job:a/device:CPU:0}} OOM when allocating tensor with shape[128,9] and "
    line = one_line(kind(f"{said}type float on /job:localhost/replica:0 by allocator mklcpu [Op:X] name: "))
    assert "memory enough (OOM when allocating tensor with shape[128,9] and type float); lower" in line
