"""Random changes of training images, decided by seed, pass and image index alone.

Order, batches and threads therefore do not matter. A class here has `augment(images, indices, passes, seed)`;
one of your own that `_target_` names must have it too. It gets parts of a batch, in `trainer.loader_threads` threads.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cnnexp.config.data import GeometricConfig, StrongConfig
from cnnexp.config.limits import check_keywords
from cnnexp.data.opencv import cv2

BORDERS = {"nearest": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT, "constant": cv2.BORDER_CONSTANT}
COLOUR_STEPS = ("brightness", "contrast", "saturation")
LEVELS = np.arange(256, dtype=np.float64)
ERASING_TRIES = 100


class Colour(NamedTuple):
    """Three factors, 1 for no change, and the order in which they are applied, by name."""

    brightness: float
    contrast: float
    saturation: float
    order: tuple[str, ...]


class Patch(NamedTuple):
    """What is painted over: `pixels` (h, w, 3) uint8 from row `top` and column `left` on."""

    top: int
    left: int
    pixels: np.ndarray


class Draw(NamedTuple):
    """What happens to one image; the first eight are `transform_parameters` of Keras' `apply_transform`."""

    theta: float = 0.0  # degrees
    tx: float = 0.0  # pixels, to the left
    ty: float = 0.0  # pixels, upwards
    shear: float = 0.0  # degrees
    zx: float = 1.0  # columns of the input a column of the output covers
    zy: float = 1.0  # rows of the input a row of the output covers
    flip_horizontal: bool = False
    flip_vertical: bool = False
    colour: Colour | None = None
    patch: Patch | None = None


@dataclass(frozen=True)
class Geometric:
    """One affine map an image, with the parameters of Keras' `ImageDataGenerator`.

    Map and interpolation equal those of `ImageDataGenerator.apply_transform` in Keras 3. As there, the map
    turns about row W/2 and column H/2, which is the middle of a square image. `width_shift_range` moves
    columns and `height_shift_range` rows, as their names say and Keras before 2.9 did; in later versions,
    `get_random_transform` exchanges the two.

    Args:
        rotation_range: degrees, to either side.
        width_shift_range: to either side; below 1 a fraction of the width, from 1 on pixels (drawn uniformly,
            as Keras does for a float).
        height_shift_range: up and down, likewise.
        shear_range: degrees, to either side.
        zoom_range: z for two independent factors between 1 - z and 1 + z, of width and height.
        horizontal_flip: mirror every second image.
        vertical_flip: turn every second image upside down.
        fill_mode: what lies beyond the border: nearest (the border pixel), reflect (dcba|abcd|dcba), or
            constant (0, into which the border pixel fades; in Keras it ends sharply).

    Raises:
        UserError: a value outside its range.
    """

    rotation_range: float = 0.0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    zoom_range: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill_mode: str = "nearest"

    def __post_init__(self) -> None:
        check_keywords("augmentation.", GeometricConfig, vars(self))

    def augment(self, images: np.ndarray, indices: np.ndarray, passes: np.ndarray, seed: int) -> np.ndarray:
        """Change every image in its own way.

        Args:
            images: (B, H, W, C) uint8, C = 3 (RGB) or 1 (grey).
            indices: (B,) int, which image of the split each is.
            passes: (B,) int, the how-manieth pass over the split each is drawn for.
            seed: of the run.

        Returns:
            (B, H, W, C) uint8.
        """
        height, width = images.shape[1:3]
        result = np.empty_like(images)
        for position, (index, number) in enumerate(zip(indices, passes, strict=True)):
            entropy = np.random.SeedSequence((seed, int(number), int(index)))
            draw = self.sample(np.random.Generator(np.random.PCG64(entropy)), height, width)
            self.apply(images[position], draw, result[position])
        return result

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Draw:
        """Draw what happens to an image of `height` x `width` pixels."""
        *six, flip_horizontal, flip_vertical = rng.random(8).tolist()
        theta, tx, ty, shear, zx, zy = (2 * number - 1 for number in six)
        return Draw(
            theta=theta * self.rotation_range,
            tx=tx * _pixels(self.width_shift_range, width),
            ty=ty * _pixels(self.height_shift_range, height),
            shear=shear * self.shear_range,
            zx=1.0 + zx * self.zoom_range,
            zy=1.0 + zy * self.zoom_range,
            flip_horizontal=flip_horizontal < 0.5 and self.horizontal_flip,
            flip_vertical=flip_vertical < 0.5 and self.vertical_flip,
        )

    def apply(self, image: np.ndarray, draw: Draw, result: np.ndarray) -> None:
        """Do to an image, (H, W, C) uint8, what was drawn; `result`, of the same shape and type, is filled."""
        height, width, channels = image.shape
        warped = cv2.warpAffine(
            cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) if channels == 3 else image,  # four take half the time of three
            output_to_input(draw, height, width),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=BORDERS[self.fill_mode],
        )
        if channels == 3:
            cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=result)
        else:
            result[:, :, 0] = warped  # OpenCV drops the axis of a single channel


def output_to_input(draw: Draw, height: int, width: int) -> np.ndarray:
    """Where in the image a pixel of the result comes from: (2, 3) float64, (column, row, 1) -> (column, row).

    Rotation . shift . shear . zoom about the centre, as in Keras' `apply_affine_transform`, after the flips.
    The shear matrix [[1, -sin s], [0, cos s]] turned by theta is multiplied out here:
    [[cos theta, -sin(theta + s)], [sin theta, cos(theta + s)]].
    """
    theta, both = math.radians(draw.theta), math.radians(draw.theta + draw.shear)
    cos, sin = math.cos(theta), math.sin(theta)
    xx, xy = cos * draw.zx, -math.sin(both) * draw.zy
    yx, yy = sin * draw.zx, math.cos(both) * draw.zy
    centre_x, centre_y = height / 2 - 0.5, width / 2 - 0.5  # Keras': height first, though columns come first
    x = centre_x + cos * draw.tx - sin * draw.ty - xx * centre_x - xy * centre_y
    y = centre_y + sin * draw.tx + cos * draw.ty - yx * centre_x - yy * centre_y
    if draw.flip_horizontal:  # column -> width - 1 - column
        x, y, xx, yx = x + xx * (width - 1), y + yx * (width - 1), -xx, -yx
    if draw.flip_vertical:  # row -> height - 1 - row
        x, y, xy, yy = x + xy * (height - 1), y + yy * (height - 1), -xy, -yy
    return np.array([(xx, xy, x), (yx, yy, y)])


@dataclass(frozen=True)
class Strong(Geometric):
    """Geometric, then colour jitter, then random erasing.

    The jitter is that of torchvision's `ColorJitter`: each factor f uniform in [1 - x, 1 + x], the three
    applied in random order, each rounded and clipped to 0..255. With grey = 0.299 R + 0.587 G + 0.114 B:
        brightness: f image
        contrast: f image + (1 - f) mean(grey)
        saturation: f image + (1 - f) grey; a grey image has none, and stays as it is.
    Random erasing is Zhong et al. 2017 (arXiv 1708.04896), Algorithm 1 with the random fill RE-R: with
    `erasing_probability` one rectangle gets uniform noise. Its area is uniform between `erasing_min_area` and
    `erasing_max_area` of the image, its height / width uniform between `erasing_min_aspect` and its inverse,
    its place uniform where it fits (a rectangle that fits nowhere is drawn again, at most 100 times).

    Raises:
        UserError: a value outside its range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erasing_probability: float = 0.0
    erasing_min_area: float = StrongConfig.erasing_min_area
    erasing_max_area: float = StrongConfig.erasing_max_area
    erasing_min_aspect: float = StrongConfig.erasing_min_aspect

    def __post_init__(self) -> None:
        check_keywords("augmentation.", StrongConfig, vars(self))

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Draw:
        """Draw what happens to an image of `height` x `width` pixels."""
        draw = super().sample(rng, height, width)
        brightness, contrast, saturation = rng.uniform(-1.0, 1.0, 3).tolist()
        colour = Colour(
            1.0 + brightness * self.brightness,
            1.0 + contrast * self.contrast,
            1.0 + saturation * self.saturation,
            tuple(COLOUR_STEPS[step] for step in rng.permutation(3)),
        )
        return draw._replace(colour=colour, patch=self._sample_patch(rng, height, width))

    def _sample_patch(self, rng: np.random.Generator, height: int, width: int) -> Patch | None:
        if rng.random() >= self.erasing_probability:
            return None
        for _ in range(ERASING_TRIES):
            area = rng.uniform(self.erasing_min_area, self.erasing_max_area) * height * width
            aspect = rng.uniform(self.erasing_min_aspect, 1 / self.erasing_min_aspect)
            rows, columns = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
            if rows <= height and columns <= width:
                top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
                return Patch(top, left, rng.integers(0, 256, (rows, columns, 3), np.uint8))
        return None

    def apply(self, image: np.ndarray, draw: Draw, result: np.ndarray) -> None:
        """Do to an image, (H, W, C) uint8, what was drawn; `result`, of the same shape and type, is filled."""
        super().apply(image, draw, result)
        if draw.colour is not None:
            result[:] = change_colour(result, draw.colour)
        if draw.patch is not None:
            top, left, pixels = draw.patch
            rows, columns, _ = pixels.shape
            result[top : top + rows, left : left + columns] = pixels[:, :, : result.shape[2]]


def change_colour(image: np.ndarray, colour: Colour) -> np.ndarray:
    """Brightness, contrast and saturation of an image, (H, W, C) uint8, by the equations of `Strong`."""
    for step in colour.order:
        factor = getattr(colour, step)
        if factor == 1.0:
            continue
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image
        if step == "brightness":
            image = _look_up(image, factor * LEVELS)
        elif step == "contrast":
            image = _look_up(image, factor * LEVELS + (1 - factor) * cv2.mean(grey)[0])
        elif image.shape[2] == 3:
            grey_rgb = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, factor, grey_rgb, 1 - factor, 0)  # rounds and clips
    return image


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each grey level by its entry in `table`, (256,) float, rounded and clipped."""
    levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return cv2.LUT(image, levels).reshape(image.shape)


def _pixels(shift_range: float, length: int) -> float:
    return shift_range * length if shift_range < 1 else shift_range
