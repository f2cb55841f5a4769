import sys
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnnexp.config.data import DATASETS
from cnnexp.data.check.preflight import PreflightError
from cnnexp.data.dataset import Dataset, Split
from cnnexp.data.fetch import dogs_vs_cats as kaggle
from cnnexp.data.opencv import cv2
from cnnexp.data.sources import digits, dogs_vs_cats, folder, mnist, synthetic
from cnnexp.errors import UserError

FRACTIONS: dict[str, Any] = {"validation_fraction": 0.25, "test_fraction": 0.25, "split_seed": 0}
DRAWN: dict[str, Any] = {"train": 6, "validation": 4, "test": 2, "size": 32, "seed": 0}


def fill(root: Path, *names: str) -> str:
    """Small pictures, each of another grey."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(".png", np.full((6, 6, 3), number % 251, np.uint8))[1]
        (root / name).write_bytes(encoded.tobytes())
    return str(root)


def classes(root: Path, **counts: int) -> str:
    return fill(root, *(f"{name}/{number:02}.png" for name, count in counts.items() for number in range(count)))


def splits(dataset: Dataset) -> dict[str, Split]:
    return {split.name: split for split in (dataset.train, dataset.validation, dataset.test)}


def counts(dataset: Dataset) -> dict[str, list[int]]:
    return {name: np.bincount(split.labels).tolist() for name, split in splits(dataset).items()}


def ids(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {name: split.ids for name, split in splits(dataset).items()}


# -------------------------------------------------------------------------------------------------- folder


def test_class_folders_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path, cat=16, dog=8)
    monkeypatch.chdir(tmp_path)
    dataset = folder(path=".", **FRACTIONS)
    assert (dataset.name, dataset.class_names, dataset.channels, dataset.masks) == (
        "folder",
        ("cat", "dog"),
        3,
        None,
    )
    assert counts(dataset) == {"train": [8, 4], "validation": [4, 2], "test": [4, 2]}
    together = [name for part in ids(dataset).values() for name in part]
    assert sorted(together) == sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png"))
    for split in splits(dataset).values():
        assert split.arrays is None and split.labels.dtype == np.int64
        assert split.paths == tuple(str(tmp_path / name) for name in split.ids)
        assert split.labels.tolist() == [0 if name.startswith("cat/") else 1 for name in split.ids]


def test_fractions_and_seed_change_the_division(tmp_path: Path) -> None:
    path = classes(tmp_path, cat=20, dog=20)
    first = folder(path=path, **FRACTIONS)
    assert ids(folder(path=path, **FRACTIONS)) == ids(first)
    less = folder(path=path, **(FRACTIONS | {"validation_fraction": 0.1}))
    assert counts(less) == {"train": [13, 13], "validation": [2, 2], "test": [5, 5]}
    assert less.test.ids == first.test.ids
    less = folder(path=path, **(FRACTIONS | {"test_fraction": 0.1}))
    assert counts(less) == {"train": [13, 13], "validation": [5, 5], "test": [2, 2]}
    assert folder(path=path, **(FRACTIONS | {"split_seed": 1})).test.ids != first.test.ids


def test_split_folders_are_taken_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{part}/{kind}/{n}.png" for part in ("train", "val", "test") for kind in "ab" for n in range(3)]
    dataset = folder(path=fill(tmp_path, *names), **FRACTIONS)
    assert ids(dataset) == {"train": (*names[:6],), "validation": (*names[6:12],), "test": (*names[12:],)}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("there", "missing"), [("validation", "test"), ("test", "validation")])
def test_a_missing_split_is_taken_from_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str, missing: str
) -> None:
    names = [f"train/{kind}/{n}.png" for kind in "ab" for n in range(8)]
    kept = [f"{there}/{kind}/{n}.png" for kind in "ab" for n in range(5)]
    dataset = folder(path=fill(tmp_path, *names, *kept), **FRACTIONS)
    assert counts(dataset) == {"train": [6, 6], there: [5, 5], missing: [2, 2]}
    assert sorted(ids(dataset)["train"] + ids(dataset)[missing]) == names and ids(dataset)[there] == (*kept,)
    assert capsys.readouterr().err == (
        f"dataset.path={tmp_path}: has no {missing} images; 4 of its 16 training images are set aside "
        f"(dataset.{missing}_fraction=0.25)\n"
    )


def test_path_is_needed_and_must_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^dataset\.path=null: give the folder of your images"):
        folder(path=None, **FRACTIONS)
    with pytest.raises(UserError, match=r"^dataset\.path=.*nowhere: does not exist"):
        folder(path=str(tmp_path / "nowhere"), **FRACTIONS)
    (tmp_path / "images.zip").write_text("PK")
    with pytest.raises(UserError, match=r"images\.zip: is no archive that can be read"):
        folder(path=str(tmp_path / "images.zip"), **FRACTIONS)


def test_what_is_not_given_is_as_the_schema_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classes(tmp_path / "photos", cat=8, dog=8)
    monkeypatch.chdir(tmp_path)
    assert ids(folder(path=path)) == ids(folder(path=path, **FRACTIONS))
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]  # no folder of a config
    with pytest.raises(UserError, match=r"^dataset\.on_bad=ignore: must be one of error, skip\. "):
        folder(path=path, on_bad="ignore")
    with pytest.raises(TypeError, match="unexpected keyword argument 'pathh'"):
        folder(pathh=path)
    for source in (folder, dogs_vs_cats, mnist, digits, synthetic):
        defaults = {name: key.default for name, key in signature(source).parameters.items()}
        schema = DATASETS[source.__name__]()
        differ = {name for name, value in vars(schema).items() if defaults.get(name, value) != value}
        assert defaults["name"] == source.__name__ and differ <= {"name", "downloads", "manifests"}
        assert vars(schema).keys() - defaults.keys() == {"_target_", "image_size", "arguments"}


def test_limit_holds_for_each_split(tmp_path: Path) -> None:
    path = classes(tmp_path, cat=16, dog=8)
    whole, few = folder(path=path, **FRACTIONS), folder(path=path, limit=5, **FRACTIONS)
    assert counts(few) == {"train": [3, 2], "validation": [3, 2], "test": [3, 2]}
    assert all(set(ids(few)[split]) < set(ids(whole)[split]) for split in ids(whole))


def test_on_bad_decides_about_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = classes(tmp_path, cat=8, dog=8)
    whole = folder(path=path, **FRACTIONS)
    assert whole.train.paths is not None
    bad = whole.train.ids[2]
    (tmp_path / bad).write_bytes(b"")
    with pytest.raises(PreflightError, match=f"{bad}: cannot be read as an image: it is empty"):
        folder(path=path, on_bad="error", **FRACTIONS)
    assert capsys.readouterr().err == ""
    rest = folder(path=path, on_bad="skip", **FRACTIONS)
    assert rest.train.ids == tuple(name for name in whole.train.ids if name != bad)
    assert rest.test.digest == whole.test.digest and rest.train.digest != whole.train.digest
    assert capsys.readouterr().err.startswith(f"left out: {tmp_path}/{bad}: cannot be read as an image")


def test_digest_follows_bytes_names_and_classes_but_not_the_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = folder(path=classes(one, cat=8, dog=8), **FRACTIONS)
    assert folder(path=classes(two, cat=8, dog=8), **FRACTIONS).digest == first.digest
    digests = [first.digest]

    def note() -> None:
        digests.append(folder(path=str(two), **FRACTIONS).digest)

    fill(two, "another.png", first.test.ids[0])
    (two / "another.png").unlink()
    note()
    (two / "cat/00.png").rename(two / "cat/0.png")
    note()
    (two / "cat/01.png").rename(two / "dog/01a.png")
    note()
    (two / "dog").rename(two / "dogs")
    note()
    assert len(set(digests)) == 5


# -------------------------------------------------------------------------------------------- dogs_vs_cats


def test_dogs_vs_cats_prepares_and_then_needs_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle, "NUMBERS", {"train": range(3), "validation": range(3, 5), "test": range(5, 6)})
    source = fill(tmp_path / "raw", *(f"{animal}.{n}.jpg" for animal in ("cat", "dog") for n in range(6)))
    path = str(tmp_path / "set")
    dataset = dogs_vs_cats(path=path, source=source)
    assert (dataset.name, dataset.class_names) == ("dogs_vs_cats", ("cat", "dog"))
    assert dataset.test.ids == ("test/cat/cat.5.jpg", "test/dog/dog.5.jpg")
    assert counts(dataset) == {"train": [3, 3], "validation": [2, 2], "test": [1, 1]}
    again = dogs_vs_cats(path=path, source=None, limit=2, name="pets")
    assert again.test.digest == dataset.test.digest and again.name == "pets"
    assert counts(again) == {"train": [1, 1], "validation": [1, 1], "test": [1, 1]}
    (tmp_path / "set/train/cat/cat.1.jpg").write_text("")
    assert counts(dogs_vs_cats(path=path, source=None, on_bad="skip"))["train"] == [2, 3]


def test_dogs_vs_cats_says_where_photos_come_from(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        dogs_vs_cats(path=str(tmp_path / "set"), source=None)
    for part in ("set: the photos are not there", "kaggle.com", "dataset.source=FOLDER", "dataset=synthetic"):
        assert part in str(refused.value)
    with pytest.raises(UserError, match=r"^dataset\.path=null"):
        dogs_vs_cats(path=None, source=None)


@pytest.mark.parametrize("parts", [("",), ("train/", "val/"), ("train/", "test/")])
def test_dogs_vs_cats_refuses_a_folder_that_is_not_prepared(tmp_path: Path, parts: tuple[str, ...]) -> None:
    path = fill(tmp_path, *(f"{part}{animal}/{n}.jpg" for part in parts for animal in "cd" for n in range(9)))
    with pytest.raises(UserError, match=r"is no prepared data set, having no (train|validation|test)/"):
        dogs_vs_cats(path=path, source=None)


# ------------------------------------------------------------------------------------------ mnist and digits


def mnist_arrays() -> dict[str, Any]:
    """40 images to train and 20 to test, each of one grey."""
    y = np.arange(60, dtype=np.uint8) % 10
    x = np.arange(60, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    return {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]}


def test_mnist_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", **mnist_arrays())
    given: dict[str, Any] = {"path": str(tmp_path / "mnist.npz"), "validation_size": 10}
    dataset = mnist(split_seed=0, **given)
    assert (dataset.channels, dataset.class_names) == (1, tuple("0123456789"))
    assert counts(dataset) == {"train": [3] * 10, "validation": [1] * 10, "test": [2] * 10}
    assert dataset.test.ids == tuple(f"test/{n}" for n in range(20))
    greys: dict[str, int] = {}
    for split in splits(dataset).values():
        assert split.paths is None and split.arrays is not None
        assert split.arrays.shape == (len(split.ids), 28, 28, 1) and split.arrays.dtype == np.uint8
        assert split.labels.tolist() == (split.arrays[:, 0, 0, 0] % 10).tolist()
        greys |= dict(zip(split.ids, split.arrays[:, 9, 9, 0].tolist(), strict=True))
    assert greys == {f"train/{n}": n for n in range(40)} | {f"test/{n}": n + 40 for n in range(20)}
    assert mnist(split_seed=1, **given).validation.ids != dataset.validation.ids
    assert mnist(split_seed=1, **given).test.digest == dataset.test.digest
    assert counts(mnist(split_seed=0, **(given | {"validation_size": 20})))["train"] == [2] * 10
    assert [len(part) for part in ids(mnist(split_seed=0, limit=12, **given)).values()] == [12, 10, 12]


def test_mnist_from_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = mnist_arrays()

    def load_data() -> Any:
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

    source = SimpleNamespace(load_data=load_data)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(datasets=SimpleNamespace(mnist=source)))
    assert counts(mnist(path=None, validation_size=10, split_seed=0))["train"] == [3] * 10

    def fail() -> Any:
        raise Exception("URL fetch failure on https://example.org/mnist.npz: None -- no route\nto host")

    source.load_data = fail
    with pytest.raises(UserError) as refused:
        mnist(path=None, validation_size=10, split_seed=0)
    assert "\n" not in str(refused.value)
    for part in (
        "dataset.path=null: Keras cannot download",
        "URL fetch failure",
        "dataset.path=FILE",
        "digits",
    ):
        assert part in str(refused.value)


def test_digits() -> None:
    from sklearn.datasets import load_digits

    dataset = digits(validation_fraction=0.2, test_fraction=0.1, split_seed=0)
    assert [len(split.ids) for split in splits(dataset).values()] == [1797 - 359 - 180, 359, 180]
    original = load_digits()
    for split in splits(dataset).values():
        assert split.arrays is not None and split.arrays.shape[1:] == (8, 8, 1)
        numbers = [int(name.removeprefix("digits/")) for name in split.ids]
        assert split.labels.tolist() == original.target[numbers].tolist()
        levels = {int(v): int(a) for v, a in zip(original.images[numbers].flat, split.arrays.flat, strict=True)}
        assert [levels[v] for v in (0, 1, 2, 4, 15, 16)] == [0, 16, 32, 64, 239, 255]  # v * 15.9375
    other = digits(validation_fraction=0.2, test_fraction=0.1, split_seed=1)
    assert other.test.ids != dataset.test.ids and counts(other) == counts(dataset)
    few = digits(validation_fraction=0.2, test_fraction=0.1, split_seed=0, limit=20)
    assert counts(few) == {"train": [2] * 10, "validation": [2] * 10, "test": [2] * 10}


# ----------------------------------------------------------------------------------------------- synthetic


def test_synthetic_is_drawn_at_the_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = synthetic(path=str(tmp_path), **DRAWN)
    assert (dataset.name, dataset.class_names) == ("synthetic", ("cat", "dog"))
    assert counts(dataset) == {"train": [3, 3], "validation": [2, 2], "test": [1, 1]}
    assert dataset.masks == str(tmp_path / "6-4-2-32-0/masks")
    for split in splits(dataset).values():
        for name, path in zip(split.ids, split.paths or (), strict=True):
            assert Path(path) == tmp_path / "6-4-2-32-0" / name
            assert (Path(dataset.masks) / name).with_suffix(".png").is_file()
    monkeypatch.setattr("cnnexp.data.drawing.synthetic.draw_dataset", None)  # not called again
    assert synthetic(path=str(tmp_path), **DRAWN).digest == dataset.digest


def test_synthetic_options_have_their_own_folders(tmp_path: Path) -> None:
    dataset = synthetic(path=str(tmp_path), limit=5, **DRAWN)
    assert counts(dataset) == {"train": [2, 2], "validation": [2, 2], "test": [1, 1]}
    for change in ({"size": 40}, {"seed": 1}, {"decoys": 3}):
        synthetic(path=str(tmp_path), limit=2, **(DRAWN | change))
    names = sorted(entry.name for entry in tmp_path.iterdir() if entry.is_dir())
    assert names == ["2-2-2-32-0-3", "2-2-2-32-1", "2-2-2-40-0", "4-4-2-32-0"]
    image = cv2.imread(str(tmp_path / "2-2-2-40-0/train/cat/cat.0.jpg"))
    assert image is not None and image.shape == (40, 40, 3)


def test_synthetic_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset\.path=null"):
        synthetic(path=None, **DRAWN)
    fill(tmp_path, "6-4-2-32-0/cat/1.png")
    with pytest.raises(UserError, match="6-4-2-32-0: holds"):
        synthetic(path=str(tmp_path), **DRAWN)
