from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnexp.data.augment import Geometric
from cnnexp.data.dataset import Split
from cnnexp.data.loading import ImageLoader
from cnnexp.data.opencv import cv2
from cnnexp.data.pipeline import AugmentedPasses, EvalBatches, FeatureArrays, TrainBatches, order, stream_indices


def split_of(paths: tuple[str, ...] | None = None, arrays: np.ndarray | None = None) -> Split:
    count = len(paths) if paths is not None else len(arrays if arrays is not None else ())
    return Split("train", np.arange(count) % 2, paths, arrays, tuple(map(str, range(count))), "digest")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Seven noisy pictures of 12 x 9 pixels."""
    rng = np.random.default_rng(0)
    for number in range(7):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (9, 12, 3), np.uint8))
    return tuple(str(tmp_path / f"{number}.png") for number in range(7))


def train_batches(n: int, batch_size: int, steps: int | None, seed: int = 0, **more: Any) -> TrainBatches:
    """Batches in which x is the index of the image."""
    inputs = FeatureArrays((np.arange(n),))
    return TrainBatches(inputs, np.arange(n) % 3, batch_size=batch_size, steps_per_epoch=steps, seed=seed, **more)


def x_of(batches: TrainBatches, epoch: int, step: int) -> list[Any]:
    x = batches.batch(epoch, step)[0]
    assert isinstance(x, np.ndarray)
    return x.tolist()


def epoch_of(batches: TrainBatches, epoch: int) -> list[list[int]]:
    return [batches.indices(epoch, step)[0].tolist() for step in range(len(batches))]


# --------------------------------------------------------------------------------------------------- order


def test_order_is_another_permutation_for_each_pass_and_seed() -> None:
    orders = [order(100, number, seed) for number in range(3) for seed in range(3)]
    assert all(sorted(one) == list(range(100)) for one in orders)
    assert len({tuple(one) for one in orders}) == 9
    order.cache_clear()
    assert order(100, 0, 0).tolist() == orders[0].tolist()


def test_stream_goes_from_one_pass_into_the_next() -> None:
    first, second, third = (order(5, number, 7).tolist() for number in range(3))
    expected = [
        (first[:2], [0, 0]),
        (first[2:4], [0, 0]),
        ([first[4], second[0]], [0, 1]),
        (second[1:3], [1, 1]),
        (second[3:5], [1, 1]),
        (third[:2], [2, 2]),
    ]
    found = [stream_indices(step, 2, 5, 7) for step in range(6)]
    assert [(indices.tolist(), passes.tolist()) for indices, passes in found] == expected


def test_a_batch_may_be_larger_than_the_data() -> None:
    indices, passes = stream_indices(1, 8, 3, 0)  # positions 8 to 15: the end of pass 2, passes 3 and 4, one of 5
    assert passes.tolist() == [2, 3, 3, 3, 4, 4, 4, 5]
    assert indices[0] == order(3, 2, 0)[2] and indices[7] == order(3, 5, 0)[0]
    assert sorted(indices[1:4]) == sorted(indices[4:7]) == [0, 1, 2]


def test_a_pass_is_shuffled_once_and_not_for_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    order.cache_clear()
    for step in range(100):
        stream_indices(step, 5, 125, 0)  # 500 positions: 4 passes of 125
    assert order.cache_info().misses == 4


# ------------------------------------------------------------------------------------------------- training


def test_steps_continue_the_stream_over_epochs() -> None:
    batches = train_batches(5, batch_size=2, steps=3)
    assert len(batches) == 3 and batches.images_per_epoch == 6
    stream = [index for number in range(6) for index in order(5, number, 0)]
    found = [index for epoch in range(5) for batch in epoch_of(batches, epoch) for index in batch]
    assert found == stream  # 5 epochs x 3 steps x 2 = 30 = 6 passes: each image six times
    assert batches.indices(1, 0)[1].tolist() == [1, 1] and batches.indices(4, 2)[1].tolist() == [5, 5]


def test_without_steps_an_epoch_is_one_pass() -> None:
    batches = train_batches(5, batch_size=2, steps=None)
    assert len(batches) == 3 and batches.images_per_epoch == 5
    epochs = [epoch_of(batches, epoch) for epoch in range(3)]
    for number, epoch in enumerate(epochs):
        assert [len(batch) for batch in epoch] == [2, 2, 1]
        assert [index for batch in epoch for index in batch] == order(5, number, 0).tolist()
    assert batches.indices(2, 2)[1].tolist() == [2]
    assert len(train_batches(6, batch_size=2, steps=None)) == 3


def test_a_batch_depends_on_seed_epoch_and_step_only() -> None:
    batches = train_batches(50, batch_size=8, steps=10)
    forwards = {(e, s): x_of(batches, e, s) for e in range(3) for s in range(10)}
    resumed = train_batches(50, batch_size=8, steps=10)
    backwards = {(e, s): x_of(resumed, e, s) for e in (2, 1, 0) for s in reversed(range(10))}
    assert forwards == backwards
    assert x_of(train_batches(50, batch_size=8, steps=10, seed=1), 0, 0) != forwards[0, 0]


def test_a_batch_has_the_images_and_targets_of_its_indices() -> None:
    batches = train_batches(10, batch_size=4, steps=None)
    x, y = x_of(batches, 1, 2), batches.batch(1, 2)[1]
    assert x == order(10, 1, 0)[8:].tolist()
    assert y.tolist() == [index % 3 for index in x]


def test_augmentation_gets_images_indices_and_passes() -> None:
    def augmentation(images: np.ndarray, indices: np.ndarray, passes: np.ndarray) -> np.ndarray:
        assert images.tolist() == indices.tolist()
        return np.stack([images, passes], axis=1)

    x = x_of(train_batches(5, batch_size=2, steps=3, seed=9, augmentation=augmentation), 0, 2)
    assert x == [[order(5, 0, 9)[4], 0], [order(5, 1, 9)[0], 1]]


def test_mixing_gets_the_batch_and_its_place() -> None:
    batches = train_batches(5, batch_size=2, steps=3, mix=lambda x, y, epoch, step: (x * 100 + step, y * 10 + epoch))
    plain = train_batches(5, batch_size=2, steps=3)
    assert batches.batch(1, 2)[0].tolist() == [100 * x + 2 for x in x_of(plain, 1, 2)]
    assert batches.batch(1, 2)[1].tolist() == [10 * y + 1 for y in plain.batch(1, 2)[1]]


def test_kept_passes_are_used_in_turn() -> None:
    passes = AugmentedPasses(
        tuple(FeatureArrays((np.arange(5) + 100 * number, -np.arange(5.0))) for number in range(3))
    )
    first, second = passes.take(np.array([4, 0, 2, 1]), np.array([0, 4, 2, 3]))
    assert first.tolist() == [4, 100, 202, 1]  # pass 4 is kept pass 1, pass 3 is kept pass 0
    assert second.tolist() == [-4, 0, -2, -1]
    batches = TrainBatches(passes, np.arange(5), batch_size=5, steps_per_epoch=None, seed=0)
    for epoch in range(4):
        assert batches.batch(epoch, 0)[0][0].tolist() == (order(5, epoch, 0) + 100 * (epoch % 3)).tolist()


def test_augmented_images_do_not_depend_on_the_batch_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    transform = Geometric(rotation_range=40, zoom_range=0.2, horizontal_flip=True)

    def stream(batch_size: int) -> np.ndarray:
        batches = TrainBatches(
            ImageLoader(split_of(arrays=images), 16, 3, threads=2),
            np.arange(6) % 2,
            batch_size=batch_size,
            steps_per_epoch=12 // batch_size,
            seed=0,
            augmentation=lambda *batch: transform.augment(*batch, seed=0),
        )
        return np.concatenate([batches.batch(0, step)[0] for step in range(len(batches))])

    two, three = stream(2), stream(3)
    assert (two == three).all()
    first, second = (two[pass_number * 6 + np.argsort(order(6, pass_number, 0))] for pass_number in (0, 1))
    assert all((first[i] != images[i]).any() and (first[i] != second[i]).any() for i in range(6))


# ------------------------------------------------------------------------------------- evaluation, features


def test_evaluation_goes_through_all_in_order() -> None:
    batches = EvalBatches(FeatureArrays((np.arange(5) * 10,)), batch_size=2)
    assert len(batches) == 3
    for _ in range(2):
        assert [np.asarray(x).tolist() for x in batches] == [[0, 10], [20, 30], [40]]


def test_features_of_one_and_of_several_outputs(tmp_path: Path) -> None:
    features = np.lib.format.open_memmap(tmp_path / "0.npy", "w+", dtype=np.float32, shape=(4, 3))
    features[:] = np.arange(12).reshape(4, 3)
    one = FeatureArrays((features,)).take(np.array([2, 0]))
    assert type(one) is np.ndarray and one.tolist() == [[6, 7, 8], [0, 1, 2]]
    two = FeatureArrays((features, np.arange(4))).take(np.array([2, 0]))
    assert isinstance(two, tuple) and two[0].tolist() == one.tolist() and two[1].tolist() == [2, 0]
    assert len(FeatureArrays((features,))) == 4


@pytest.mark.parametrize("steps", [6, None])
def test_stacks_are_the_batches_of_the_epochs(steps: int | None) -> None:
    rows = np.arange(12.0)[:, None]
    for inputs in (
        FeatureArrays((rows,)),
        FeatureArrays((rows, -rows)),
        AugmentedPasses((FeatureArrays((rows,)), FeatureArrays((100 + rows,)))),
    ):
        batches = TrainBatches(inputs, np.arange(12), batch_size=2, steps_per_epoch=steps, seed=3)
        one_by_one = list(batches.epochs(1, 3))
        stacked = list(batches.stacks(1, 3, 3))
        assert len(one_by_one) == 12 and len(stacked) == 4
        for number, (x, y) in enumerate(one_by_one):
            many, labels = stacked[number // 3]
            np.testing.assert_array_equal(labels[number % 3], y)
            pairs = zip(many, x, strict=True) if isinstance(x, tuple) else [(many, x)]
            for some, of_batch in pairs:
                np.testing.assert_array_equal(some[number % 3], of_batch)
