"""Several devices give what one gives: the batch in parts, the trainings, and what a line on the console says."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from cnnexp.training import runtime
from cnnexp.training.devices import parts

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("rows", "devices"), [(6, 2), (5, 2), (1, 2), (7, 3), (4, 1)])
def test_parts_have_one_size_and_the_mean_of_their_losses_is_the_batches(rows: int, devices: int) -> None:
    x, y = np.arange(rows * 2.0).reshape(rows, 2), np.arange(rows)
    found = list(parts((x, x[:, 0]), y, devices))
    assert len(found) == devices and len({len(labels) for _, labels, _ in found}) == 1
    assert all((taken[0][:, 0] == taken[1]).all() and (taken[1] == 2 * labels).all() for taken, labels, _ in found)
    losses = np.random.default_rng(0).random(rows)
    assert np.mean([np.mean(losses[labels] * weights) for _, labels, weights in found]) == pytest.approx(losses.mean())
    real = np.concatenate([labels[weights > 0] for _, labels, weights in found])
    assert real.tolist() == y.tolist()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What one and two devices came to in each case of two_devices.py."""
    line = [sys.executable, Path(__file__).with_name("two_devices.py"), tmp_path_factory.mktemp("two_devices")]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.trains
@pytest.mark.parametrize("case", ["plain", "averaged", "classes", "cached", "resumed"])
@pytest.mark.long
def test_two_devices_train_as_one(trainings: dict[str, list[dict[str, Any]]], case: str) -> None:
    one, two = trainings[case]
    for name, figures in one["figures"].items():
        assert len(figures) == 2
        np.testing.assert_allclose(two["figures"][name], figures, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-12)
    np.testing.assert_allclose(two["test"], one["test"], rtol=1e-12)


@pytest.mark.trains
@pytest.mark.long
def test_a_batch_that_does_not_divide_trains_the_same(trainings: dict[str, list[dict[str, Any]]]) -> None:
    one, two = trainings["not_divisible"]
    assert one["weights"] != trainings["plain"][0]["weights"]
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-6)  # sample weights have 32 bits
    np.testing.assert_allclose(two["figures"]["val/loss"], one["figures"]["val/loss"], rtol=1e-6)


@pytest.mark.trains
@pytest.mark.long
def test_a_run_on_two_devices_is_recorded_whole(tmp_path: Path, drawn_root: Path) -> None:
    line = [sys.executable, "-c", "from cnnexp.cli import main; raise SystemExit(main())"]
    line += ["train", "experiment=demo/finetuned", "dataset=synthetic", "debug=smoke", f"paths.data={drawn_root}"]
    line += ["dataset.image_size=48", "trainer.strategy=mirrored", "trainer.virtual_cpus=2", "trainer.threads=2"]
    as_a_user = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    finished = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=as_a_user)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr.strip(), finished.stderr
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (folder / "predictions.csv").is_file()


def test_what_a_process_computes_on_cannot_change(cnnexp: Run, drawn_root: Path) -> None:
    tf.config.list_logical_devices()  # from here on it is fixed
    given = ["train", "debug=smoke", "dataset=synthetic", f"paths.data={drawn_root}"]
    code, _, err = cnnexp(*given, "trainer.virtual_cpus=3")
    assert code == 2 and "trainer.virtual_cpus=3: this process computes on 1 already" in err and "fresh_process" in err


def test_a_strategy_that_there_is_not_is_refused_in_one_line(cnnexp: Run) -> None:
    code, _, err = cnnexp("train", "experiment=baseline", "dataset=synthetic", "trainer.strategy=multi_worker")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "trainer.strategy=multi_worker: must be one of mirrored, auto" in err and "a cluster shares out jobs" in err


def test_the_memory_of_a_gpu_grows_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    physical, grown = tf.config.list_physical_devices, []

    def devices(kind: str) -> list[Any]:
        return ["GPU:0", "GPU:1"] if kind == "GPU" else physical(kind)

    monkeypatch.setattr(tf.config, "list_physical_devices", devices)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *given: grown.append(given))
    runtime.configure_devices()
    assert grown == [("GPU:0", True), ("GPU:1", True)]
