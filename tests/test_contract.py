"""What a data set function of the user's own may return, and the line that mends what it may not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data.contract import checked
from cnnexp.data.dataset import Dataset, Split
from cnnexp.errors import UserError

Run = Callable[..., tuple[int, str, str]]


def split(name: str, count: int = 4) -> Split:
    images = np.zeros((count, 8, 8, 3), np.uint8)
    return Split(name, np.arange(count) % 2, None, images, tuple(f"{name}/{n}" for n in range(count)), name)


def made(**train: Any) -> Dataset:
    first = replace(split("train"), **train)
    return Dataset("mine", ("dark", "light"), 3, first, split("validation"), split("test"), "mine")


def test_labels_become_int64_and_all_else_stays() -> None:
    dataset = made(labels=[0, 1, 1, 0])
    found = checked(dataset)
    assert found.train.labels.dtype == np.int64 and found.train.labels.tolist() == [0, 1, 1, 0]
    assert found.train.arrays is dataset.train.arrays and found.digest == "mine"


IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            {"arrays": np.linspace(0, 1, 768, dtype=np.float32).reshape(4, 8, 8, 3)},
            "float32, from 0 to 1; .*images * 255",
        ),
        ({"arrays": np.linspace(-1, 1, 768).reshape(4, 8, 8, 3)}, "float64, from -1 to 1; .*(images + 1) * 127.5"),
        ({"arrays": IMAGES.astype(np.int64)}, "type int64, from 0 to 0; .*give images.astype(np.uint8)"),
        ({"arrays": IMAGES.astype(np.float32) + 300}, "from 300 to 300; .*scaled to 0..255"),
        ({"arrays": IMAGES.astype(np.float32) + 200}, "from 200 to 200; .*images.round()"),
        (
            {"groups": ("a", "b")},
            "has groups that are no texts, or not as many as ids; name each image's, or give None",
        ),
        ({"arrays": np.zeros((4, 8, 8, 4), np.uint8)}, "(4, 8, 8, 4); .*images[..., :3], without the transparency"),
        ({"arrays": np.zeros((4, 3, 8, 8), np.uint8)}, "(4, 3, 8, 8); .*images.transpose(0, 2, 3, 1)"),
        ({"arrays": np.zeros((4, 8, 8), np.uint8)}, "images of shape (4, 8, 8)"),
        ({"arrays": [IMAGES[0]] * 4}, "arrays of type list"),
        ({"arrays": None}, "both paths and arrays, or none"),
        ({"arrays": None, "paths": ("nowhere.jpg",) * 4}, "4 paths at which there is no file, as nowhere.jpg"),
        ({"labels": np.eye(2)[[0, 1, 0, 1]]}, "one-hot labels (4, 2); .*labels.argmax(axis=1)"),
        ({"labels": np.array(["dark"] * 4)}, "labels as .*dark.*class_names.index(label)"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "labels of type float64"),
        ({"labels": np.array([1, 2, 1, 2])}, "labels from 1 to 2; with 2 class_names they are 0 to 1"),
        ({"labels": np.array([0, -1, 1, 1])}, "labels from -1 to 1"),
        ({"labels": np.array([0, 1])}, "4 arrays, 2 labels, 4 ids; give as many of each"),
        ({"labels": None}, "its train split object of type 'NoneType' has no len()"),
        ({"ids": ("a", "a", "b", "c")}, "the same for two images"),
        ({"arrays": IMAGES[:0], "labels": np.array([], int), "ids": ()}, "its train split has no images"),
        ({"digest": ""}, "no digest"),
        ({"name": "training"}, "is called 'training'; call it 'train'"),
    ],
)
def test_what_is_refused(train: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        checked(made(**train))
    message = str(refused.value)
    assert all(part in message for part in said.split(".*")), message
    assert message.startswith("its train split ") and "\n" not in message and len(message) < 300


def test_what_is_refused_of_the_whole() -> None:
    for change, said in (
        ({"class_names": ("one",)}, "class_names is ('one',); give two texts at least"),
        ({"class_names": ("a", "a")}, "class_names has 'a' twice"),
        ({"channels": 4}, "channels is 4; give 1 for grey, or 3 for RGB"),
        ({"validation": None}, "its validation split is NoneType, not cnnexp.data.dataset.Split"),
    ):
        with pytest.raises(UserError, match="^" + "".join(f"[{c}]" if c in "(),.?" else c for c in said)):
            checked(replace(made(), **change))


def test_the_line_names_the_function(cnnexp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "floats_of_mine.py").write_text(
        "from test_contract import made\nimport numpy as np\n\n\n"
        "def floats():\n    return made(arrays=np.full((4, 8, 8, 3), 0.5, np.float32))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, _, err = cnnexp("prepare", "custom", "dataset._target_=floats_of_mine.floats")
    assert code == 2 and len(err.splitlines()) == 1
    assert err.startswith("cnnexp: dataset._target_=floats_of_mine.floats: its train split has images of type float32")
