from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from cnnexp.config.data import GeometricConfig, StrongConfig
from cnnexp.data.augment import COLOUR_STEPS, Colour, Draw, Geometric, Patch, Strong, change_colour
from cnnexp.errors import UserError

TUTORIAL: dict[str, Any] = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
ALL_STRONG = TUTORIAL | {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "erasing_probability": 0.5}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def factors(brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0) -> Colour:
    return Colour(brightness, contrast, saturation, COLOUR_STEPS)


def draws(augmentation: Geometric, height: int, width: int, number: int = 4000) -> list[Draw]:
    rng = np.random.default_rng(0)
    return [augmentation.sample(rng, height, width) for _ in range(number)]


def applied(augmentation: Geometric, image: np.ndarray, draw: Draw) -> np.ndarray:
    result = np.full_like(image, 77)
    augmentation.apply(image, draw, result)
    return result


def moved(row: list[int], draw: Draw, fill_mode: str = "nearest") -> list[int]:
    """A square image whose rows are all `row`, after `draw`."""
    image = np.tile(np.array(row, np.uint8), (len(row), 1))[:, :, np.newaxis]
    changed = applied(Geometric(fill_mode=fill_mode), image, draw)
    assert changed.shape == image.shape and (changed == changed[0]).all()
    return changed[0, :, 0].tolist()


# ------------------------------------------------------------------------------------------------- the map


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # Keras names an old module of SciPy
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
@pytest.mark.parametrize("shape", [(64, 64, 3), (40, 70, 3), (55, 30, 1)])
def test_apply_equals_image_data_generator(shape: tuple[int, ...], fill_mode: str) -> None:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    augmentation = Geometric(180, 0.4, 0.3, 40, 0.5, True, True, fill_mode)
    keras_generator = ImageDataGenerator(fill_mode=fill_mode)
    image, rng = noise(*shape), np.random.default_rng(1)
    for _ in range(200):
        draw = augmentation.sample(rng, *shape[:2])
        parameters = dict(zip(Draw._fields[:8], draw[:8], strict=True))
        expected = keras_generator.apply_transform(image.astype(np.float32), parameters)
        assert abs(applied(augmentation, image, draw) - expected).max() < 1, draw


def test_shift_by_hand() -> None:
    row = [10, 20, 30, 40, 50]
    assert moved(row, Draw(tx=2)) == [30, 40, 50, 50, 50]
    assert moved(row, Draw(tx=-1)) == [10, 10, 20, 30, 40]
    assert moved(row, Draw(tx=0.5)) == [15, 25, 35, 45, 50]
    assert moved(row, Draw(ty=2)) == row
    assert moved(row, Draw(tx=2), "reflect") == [30, 40, 50, 50, 40]
    assert moved(row, Draw(tx=2), "constant") == [30, 40, 50, 0, 0]


def test_zoom_by_hand() -> None:
    assert moved([10, 20, 30, 40, 50], Draw(zx=0.5)) == [20, 25, 30, 35, 40]
    assert moved([10, 20, 30, 40, 50], Draw(zx=2)) == [10, 10, 30, 50, 50]
    assert moved([10, 20, 30, 40, 50], Draw(zy=2)) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("channels", [1, 3])
def test_rotation_and_flips_by_hand(channels: int) -> None:
    image, apply = noise(9, 9, channels), partial(applied, Geometric())
    assert (apply(image, Draw()) == image).all()
    assert (apply(image, Draw(theta=90)) == np.rot90(image)).all()
    assert (apply(image, Draw(flip_horizontal=True)) == image[:, ::-1]).all()
    assert (apply(image, Draw(flip_vertical=True)) == image[::-1]).all()
    flipped_last = np.rot90(image)[::-1]
    assert (apply(image, Draw(theta=90, flip_vertical=True)) == flipped_last).all()


def test_apply_leaves_the_image_alone() -> None:
    image = noise(16, 16, 3)
    before = image.copy()
    strong = Strong(**ALL_STRONG)
    for draw in draws(strong, 16, 16, 20):
        applied(strong, image, draw)
    assert (image == before).all()


# ------------------------------------------------------------------------------------------------ the draws


@pytest.mark.parametrize(
    ("options", "name", "low", "high"),
    [
        ({"rotation_range": 40}, "theta", -40, 40),
        ({"width_shift_range": 0.2}, "tx", -0.2 * 200, 0.2 * 200),
        ({"height_shift_range": 0.2}, "ty", -0.2 * 100, 0.2 * 100),
        ({"width_shift_range": 7}, "tx", -7, 7),
        ({"height_shift_range": 1}, "ty", -1, 1),
        ({"shear_range": 15}, "shear", -15, 15),
        ({"zoom_range": 0.3}, "zx", 0.7, 1.3),
        ({"zoom_range": 0.3}, "zy", 0.7, 1.3),
    ],
)
def test_draws_are_uniform(options: dict[str, Any], name: str, low: float, high: float) -> None:
    drawn = draws(Geometric(**options), height=100, width=200)
    values = [getattr(draw, name) for draw in drawn]
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01
    others = set(Draw._fields) - {name, *(("zx", "zy") if "zoom_range" in options else ())}
    assert all(getattr(draw, other) == getattr(Draw(), other) for draw in drawn for other in others)


def test_draws_are_independent_of_each_other() -> None:
    drawn = draws(Geometric(**TUTORIAL | {"vertical_flip": True}), 100, 100)
    correlations = np.corrcoef(np.array([draw[:8] for draw in drawn], float).T)
    assert abs(correlations - np.eye(8)).max() < 0.07


@pytest.mark.parametrize("name", ["horizontal", "vertical"])
def test_every_second_image_is_flipped(name: str) -> None:
    options: dict[str, Any] = {f"{name}_flip": True}
    drawn = draws(Geometric(**options), 10, 10)
    flips = [getattr(draw, f"flip_{name}") for draw in drawn]
    assert abs(np.mean(flips) - 0.5) < 0.03
    assert not any(draw.flip_horizontal and draw.flip_vertical for draw in drawn)


def test_width_shift_moves_columns_and_height_shift_rows() -> None:
    images = np.zeros((50, 31, 31, 1), np.uint8)
    images[:, 15] = 255  # a horizontal line
    indices, passes = np.arange(50), np.zeros(50, int)
    assert (Geometric(width_shift_range=0.3).augment(images, indices, passes, 0) == images).all()
    assert not (Geometric(height_shift_range=0.3).augment(images, indices, passes, 0) == images).all()


# ------------------------------------------------------------------------------- seed, pass and image index


def test_augment_depends_on_seed_pass_and_index_only() -> None:
    strong, images = Strong(**ALL_STRONG), noise(12, 20, 20, 3)
    indices, passes = np.arange(100, 112), np.arange(12) % 3
    whole = strong.augment(images, indices, passes, seed=5)
    assert whole.shape == images.shape and whole.dtype == np.uint8

    order = np.random.default_rng(0).permutation(12)
    assert (strong.augment(images[order], indices[order], passes[order], 5) == whole[order]).all()

    def one(position: int) -> np.ndarray:
        part = slice(position, position + 1)
        return strong.augment(images[part], indices[part], passes[part], 5)[0]

    with ThreadPoolExecutor(4) as pool:
        assert (np.stack(list(pool.map(one, range(12)))) == whole).all()


@pytest.mark.parametrize("kind", [Geometric, Strong])
def test_another_seed_pass_or_index_is_another_draw(kind: type[Geometric]) -> None:
    images = np.repeat(noise(1, 20, 20, 3), 4, axis=0)
    augmentation = kind(rotation_range=40)
    changed = list(augmentation.augment(images, np.array([0, 1, 0, 7]), np.array([0, 0, 1, 7]), seed=0))
    changed += list(augmentation.augment(images[:1], np.array([0]), np.array([0]), seed=1))
    assert len({image.tobytes() for image in changed}) == 5


def test_augment_is_sample_and_apply_with_the_images_own_generator() -> None:
    strong, images = Strong(**ALL_STRONG), noise(2, 20, 30, 3)
    changed = strong.augment(images, np.array([3, 8]), np.array([0, 4]), seed=9)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([9, 4, 8])))
    assert (changed[1] == applied(strong, images[1], strong.sample(rng, 20, 30))).all()


def test_the_draws_of_old_runs_can_be_made_again() -> None:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((0, 0, 0))))
    draw = Geometric(**TUTORIAL).sample(rng, 150, 150)
    expected = (10.956935, -13.812797, -27.541589, -0.193389, 1.125308, 1.165102)
    assert draw[:6] == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        {"rotation_range": 40},
        {"width_shift_range": 0.2},
        {"height_shift_range": 0.2},
        {"shear_range": 20},
        {"zoom_range": 0.2},
        {"horizontal_flip": True},
        {"vertical_flip": True},
        {"rotation_range": 40, "fill_mode": "reflect"},
        {"rotation_range": 40, "fill_mode": "constant"},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"erasing_probability": 1.0},
        {"erasing_probability": 1.0, "erasing_min_area": 0.15},
        {"erasing_probability": 1.0, "erasing_max_area": 0.5},
        {"erasing_probability": 1.0, "erasing_min_aspect": 0.9},
    ],
)
def test_each_option_changes_the_images(options: dict[str, Any]) -> None:
    images, indices, passes = noise(8, 20, 20, 3), np.arange(8), np.zeros(8, int)
    name = list(options)[-1]
    without = {key: value for key, value in options.items() if key != name}
    expected = images if not without else Strong(**without).augment(images, indices, passes, 0)
    assert not (Strong(**options).augment(images, indices, passes, 0) == expected).all()


def sentence(name: str) -> str:
    """What the key means, as a refusal of its value quotes it."""
    return next(str(field.metadata["doc"]) for field in fields(StrongConfig) if field.name == name)


def test_without_options_nothing_changes() -> None:
    images, indices, passes = noise(8, 20, 20, 3), np.arange(8), np.zeros(8, int)
    assert (Geometric().augment(images, indices, passes, 0) == images).all()
    assert (Strong().augment(images, indices, passes, 0) == images).all()
    geometric = Geometric(**TUTORIAL).augment(images, indices, passes, 0)
    assert (Strong(**TUTORIAL).augment(images, indices, passes, 0) == geometric).all()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rotation_range", 181, "at least 0 and at most 180"),
        ("rotation_range", -1, "at least 0 and at most 180"),
        ("width_shift_range", -0.1, "at least 0"),
        ("height_shift_range", float("inf"), "at least 0"),
        ("shear_range", 90, "at least 0 and less than 90"),
        ("zoom_range", 1, "at least 0 and less than 1"),
        ("zoom_range", float("nan"), "at least 0 and less than 1"),
        ("zoom_range", "a", "a number at least 0 and less than 1"),
        ("fill_mode", "wrap", "one of nearest, reflect, constant"),
        ("brightness", 1.5, "at least 0 and at most 1"),
        ("contrast", -1, "at least 0 and at most 1"),
        ("saturation", 2, "at least 0 and at most 1"),
        ("erasing_probability", 2, "at least 0 and at most 1"),
        ("erasing_min_area", 0, "more than 0 and less than 1"),
        ("zoom_range", True, "a number at least 0 and less than 1"),
        ("rotation_range", [1], "a number at least 0 and at most 180"),
        ("erasing_max_area", 1, "more than 0 and less than 1"),
        ("erasing_min_aspect", 3, "at most 1 and more than 0"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: Any, allowed: str) -> None:
    for kind in (Geometric, Strong):
        if name not in {field.name for field in fields(kind)}:
            continue
        with pytest.raises(UserError) as caught:
            kind(**{name: value})
        assert str(caught.value) == f"augmentation.{name}={value}: must be {allowed}. {sentence(name)}"


def test_the_least_area_to_erase_is_at_most_the_largest() -> None:
    with pytest.raises(UserError) as caught:
        Strong(erasing_max_area=0.01)
    said = "augmentation.erasing_min_area=0.02: must be at most augmentation.erasing_max_area=0.01"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rotation_range", None, "field 'rotation_range' is not Optional"),
        ("horizontal_flip", "perhaps", "value 'perhaps' is not a valid bool (type str)"),
        ("fill_mode", 3, f"must be one of nearest, reflect, constant. {sentence('fill_mode')}"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, said: str) -> None:
    for kind in (Geometric, Strong):
        with pytest.raises(UserError) as caught:
            kind(**{name: value})
        assert str(caught.value) == f"augmentation.{name}={value}: {said}"


def test_defaults_are_those_of_the_schema() -> None:
    for kind, schema in ((Geometric, GeometricConfig), (Strong, StrongConfig)):
        assert {field.name: field.default for field in fields(kind)}.items() <= vars(schema()).items()


# -------------------------------------------------------------------------------------------------- colour


def test_colour_by_hand() -> None:
    image = np.array([[[200, 100, 0], [50, 50, 50]]], np.uint8)  # grey 118.5 and 50
    assert change_colour(image, factors(brightness=1.5)).tolist() == [[[255, 150, 0], [75, 75, 75]]]
    contrast = change_colour(image, factors(contrast=0.5)).astype(int)  # mean grey 84.25
    assert abs(contrast - [[[142.1, 92.1, 42.1], [67.1, 67.1, 67.1]]]).max() < 1
    saturation = change_colour(image, factors(saturation=0.5)).astype(int)
    assert abs(saturation - [[[159.25, 109.25, 59.25], [50, 50, 50]]]).max() < 1
    assert (change_colour(image, factors()) == image).all()


@pytest.mark.parametrize("factor", [0.0, 0.4, 0.9, 1.3, 2.0])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_colour_equals_pillow(name: str, enhancer: Any, factor: float) -> None:
    image = noise(30, 30, 3)
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(factor)).astype(int)
    changed = change_colour(image, factors(**{name: factor}))
    assert abs(changed - expected).max() <= 2  # Pillow cuts fractions off, and rounds the grey mean


def test_colour_steps_are_made_in_the_order_drawn() -> None:
    image = noise(30, 30, 3)
    colour = Colour(1.5, 0.5, 0.3, ("contrast", "saturation", "brightness"))
    expected = change_colour(image, factors(contrast=0.5))
    expected = change_colour(expected, factors(saturation=0.3))
    expected = change_colour(expected, factors(brightness=1.5))
    assert (change_colour(image, colour) == expected).all()
    assert not (change_colour(image, colour._replace(order=COLOUR_STEPS)) == expected).all()


def test_colour_of_a_grey_image() -> None:
    grey = np.array([[[40], [80]]], np.uint8)  # mean 60
    assert change_colour(grey, factors(brightness=0.5)).tolist() == [[[20], [40]]]
    assert change_colour(grey, factors(contrast=0.5)).tolist() == [[[50], [70]]]
    assert change_colour(grey, factors(saturation=0.0)).tolist() == grey.tolist()


@pytest.mark.parametrize("name", COLOUR_STEPS)
def test_colour_factors_are_uniform(name: str) -> None:
    options: dict[str, Any] = {name: 0.4}
    colours = [draw.colour for draw in draws(Strong(**options), 10, 10)]
    factors = [getattr(colour, name) for colour in colours]
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 0.01
    assert all(colour is not None and sorted(colour[:3]).count(1.0) == 2 for colour in colours)
    orders = [colour.order for colour in colours if colour is not None]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 0.01


# ------------------------------------------------------------------------------------------------- erasing


def patches(strong: Strong, height: int, width: int) -> list[Patch]:
    return [draw.patch for draw in draws(strong, height, width) if draw.patch is not None]


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_probability(probability: float) -> None:
    number = len(patches(Strong(erasing_probability=probability), 50, 50))
    assert abs(number / 4000 - probability) < 0.025


def test_erasing_area_aspect_and_place() -> None:
    height, width = 400, 600
    strong = Strong(erasing_probability=1.0, erasing_min_area=0.05, erasing_max_area=0.1, erasing_min_aspect=0.5)
    drawn = patches(strong, height, width)
    rows = np.array([patch.pixels.shape[0] for patch in drawn])
    columns = np.array([patch.pixels.shape[1] for patch in drawn])
    areas, aspects = rows * columns / (height * width), rows / columns
    assert stats.kstest(areas, stats.uniform(0.05, 0.05).cdf).statistic < 0.03
    assert stats.kstest(aspects, stats.uniform(0.5, 1.5).cdf).statistic < 0.03
    for starts, free in (
        (np.array([patch.top for patch in drawn]), height - rows),
        (np.array([patch.left for patch in drawn]), width - columns),
    ):
        assert (starts >= 0).all() and (starts <= free).all()
        assert stats.kstest(starts / free, "uniform").statistic < 0.03
    levels = np.concatenate([patch.pixels.ravel() for patch in drawn[:10]])
    assert stats.kstest(levels, stats.uniform(-0.5, 256).cdf).statistic < 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_paints_one_rectangle(channels: int) -> None:
    image = np.zeros((10, 12, channels), np.uint8)
    pixels = np.full((3, 5, 3), (7, 8, 9), np.uint8)
    changed = applied(Strong(), image, Draw(patch=Patch(2, 4, pixels)))
    expected = np.zeros_like(image)
    expected[2:5, 4:9] = (7, 8, 9)[:channels]
    assert (changed == expected).all()


def test_erasing_a_rectangle_that_fits_nowhere_is_given_up() -> None:
    square = Strong(erasing_probability=1.0, erasing_min_area=0.9, erasing_max_area=0.9, erasing_min_aspect=1.0)
    assert square.sample(np.random.default_rng(0), 10, 100).patch is None
    assert len(patches(square, 10, 10)) == 4000


def test_erasing_a_tiny_image_takes_at_least_a_pixel() -> None:
    tiny = Strong(erasing_probability=1.0, erasing_min_area=0.02, erasing_max_area=0.02)
    assert {min(patch.pixels.shape[:2]) for patch in patches(tiny, 4, 4)} == {1}
