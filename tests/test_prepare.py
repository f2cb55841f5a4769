from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.config.data import SyntheticConfig
from cnnexp.data.drawing import synthetic
from cnnexp.data.drawing.synthetic import draw_synthetic
from cnnexp.data.fetch.mnist import read_mnist
from cnnexp.errors import UserError


def test_pictures_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    draw = synthetic.draw_dataset

    def counted(*given: Any) -> None:
        calls.append(given)
        draw(*given)

    monkeypatch.setattr(synthetic, "draw_dataset", counted)
    options = {seed: SyntheticConfig(train=2, validation=2, test=2, size=32, seed=seed) for seed in (0, 1)}
    for seed in (0, 0, 1):
        draw_synthetic(tmp_path / f"drawn{seed}", options[seed])
    assert [given[1:] for given in calls] == [(options[0],), (options[1],)]


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"dataset\.path=.*file/drawn: cannot be filled"):
        draw_synthetic(tmp_path / "file/drawn", SyntheticConfig(train=2, validation=2, test=2, size=32))


def mnist_arrays() -> dict[str, Any]:
    y = np.arange(30, dtype=np.uint8) % 10
    x = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    return {"x_train": x, "y_train": y, "x_test": x[:20] + 100, "y_test": y[:20]}


def test_read_mnist(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", **mnist_arrays())
    x_train, y_train, x_test, y_test = read_mnist(tmp_path / "mnist.npz")
    assert x_train[:, 5, 5].tolist() == list(range(30)) and x_test[:, 0, 0].tolist() == list(range(100, 120))
    assert y_train.tolist() == list(range(10)) * 3 and y_test.tolist() == list(range(10)) * 2
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_train": np.zeros((30, 28, 28), np.float32)}, r"x \(30, 28, 28\) float32"),
        ({"x_test": np.zeros((20, 784), np.uint8)}, r"x \(20, 784\) uint8, y \(20,\)"),
        ({"y_train": np.zeros(30, np.uint8)}, "not .* 0-9"),
        ({"y_test": None}, "y_test"),
    ],
)
def test_another_npz_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    arrays = {key: array for key, array in (mnist_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=rf"mnist\.npz: is not Keras' mnist\.npz .*{reason}"):
        read_mnist(tmp_path / "mnist.npz")


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_a_broken_mnist_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"mnist\.npz: is not Keras' mnist\.npz .*dataset\.path=null"):
        read_mnist(tmp_path / "mnist.npz")
