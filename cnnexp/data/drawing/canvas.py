"""Paint for drawn pictures: outlines, a canvas that keeps the evidence mask, textures.

A picture is a list of `Part`s, painted from back to front. Outlines are in fractions of the picture's side,
(0, 0) at the top left and y downwards, so that one list can be painted at any size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from cnnexp.data.opencv import cv2

SUPERSAMPLING = 2  # a picture is painted so many times larger, then shrunk
SHIFT = 4  # binary digits behind the point in the pixel coordinates given to OpenCV

Colour = tuple[float, float, float]  # RGB, 0..255


@dataclass(frozen=True, eq=False)
class Part:
    """One area (or line, where `width` is above 0) of one colour or texture.

    Attributes:
        outline: (N, 2) float, x and y in fractions of the picture's side.
        paint: RGB, or None for the animal's coat.
        evidence: whether it tells the classes apart; a part without evidence hides the evidence behind it.
        width: of a line, in fractions of the picture's side.
        rim: RGB of the line around an area, or None.
        round: how much darker the border of an area is than its middle, 0..1.
        light: what the brightness is multiplied with.
    """

    outline: np.ndarray
    paint: Colour | None = None
    evidence: bool = False
    width: float = 0.0
    rim: Colour | None = None
    round: float = 0.3
    light: float = 1.0


# ------------------------------------------------------------------------------------------------ outlines


def smooth(points: np.ndarray, rounds: int = 3) -> np.ndarray:
    """(N, 2) corners -> (N * 2**rounds, 2) points of a closed curve (Chaikin 1974)."""
    # a corner that is given twice comes out sharper
    return _chaikin(len(points), rounds) @ points


@cache
def _chaikin(corners: int, rounds: int) -> np.ndarray:
    """(corners * 2**rounds, corners): what each corner contributes to each point of the curve."""
    weights = np.eye(corners)
    for _ in range(rounds):
        following = np.roll(weights, -1, axis=0)
        weights = np.stack([0.75 * weights + 0.25 * following, 0.25 * weights + 0.75 * following], axis=1)
        weights = weights.reshape(-1, corners)
    return weights


def ellipse(x: float, y: float, width: float, height: float, points: int = 28) -> np.ndarray:
    """(points, 2) outline of an ellipse, from its middle and half axes."""
    return _circle(points) * (width, height) + (x, y)


@cache
def _circle(points: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def normals(outline: np.ndarray) -> np.ndarray:
    """(N, 2) unit vectors at right angles to an outline."""
    along = np.empty_like(outline)
    along[1:-1] = outline[2:] - outline[:-2]
    along[0], along[-1] = outline[1] - outline[0], outline[-1] - outline[-2]
    length = np.sqrt((along * along).sum(axis=1, keepdims=True)) + 1e-9
    return along[:, ::-1] * (1, -1) / length


def tube(line: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """(2N, 2) outline of a band around a line of (N, 2) points; `width` is from the middle to the border."""
    reach = normals(line) * np.reshape(width, (-1, 1))
    return np.concatenate([line + reach, (line - reach)[::-1]])


def curve(*corners: tuple[float, float], points: int = 12) -> np.ndarray:
    """(points, 2) points of the Bezier curve of three corners."""
    return _bernstein(points) @ np.array(corners)


@cache
def _bernstein(points: int) -> np.ndarray:
    t = np.linspace(0, 1, points)
    return np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)


def furry(outline: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """The outline with every other point moved outwards or inwards by at most `amount`, like tufts of fur."""
    move = rng.uniform(-1, 1, len(outline)) * amount
    move[::2] *= 0.2
    return outline + normals(outline) * move[:, None]


# -------------------------------------------------------------------------------------------------- canvas


class Canvas:
    """A picture and its evidence mask while they are painted, both `side` pixels large.

    Attributes:
        image: (side, side, 3) uint8 RGB.
        mask: (side, side) uint8, 255 where evidence is seen.
    """

    def __init__(self, background: np.ndarray, coat: np.ndarray) -> None:
        assert background.shape == coat.shape
        self.image = background
        self.coat = coat
        self.side = len(background)
        self.mask = np.zeros((self.side, self.side), np.uint8)

    def paint(self, parts: Iterable[Part]) -> None:
        """Paint parts from back to front."""
        for part in parts:
            points = _pixels(part.outline, self.side)
            if part.width > 0:
                assert part.paint is not None
                thickness = max(1, round(part.width * self.side))
                cv2.polylines(self.image, [points], False, part.paint, thickness, cv2.LINE_AA, SHIFT)
            else:
                self._fill(part, points)
                if part.rim is not None:
                    thickness = max(1, round(self.side / 220))
                    cv2.polylines(self.image, [points], True, part.rim, thickness, cv2.LINE_8, SHIFT)
            _mark(self.mask, part, points)

    def _fill(self, part: Part, points: np.ndarray) -> None:
        left, top, width, height = cv2.boundingRect(points)
        right, bottom = (min((end >> SHIFT) + 2, self.side) for end in (left + width, top + height))
        left, top = max((left >> SHIFT) - 1, 0), max((top >> SHIFT) - 1, 0)
        if right <= left or bottom <= top:
            return
        area = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(area, [points], 255, cv2.LINE_8, SHIFT, (-left << SHIFT, -top << SHIFT))
        reach = max(3, int(0.45 * min(area.shape)) | 1)
        shade = cv2.blur(area, (reach, reach), borderType=cv2.BORDER_CONSTANT)
        shade = cv2.convertScaleAbs(shade, None, part.round * part.light, 255 * (1 - part.round) * part.light)
        if part.paint is None:
            paint = cv2.multiply(self.coat[top:bottom, left:right], cv2.merge([shade] * 3), None, 1 / 255)
        else:
            paint = cv2.merge([cv2.convertScaleAbs(shade, None, level / 255) for level in part.paint])
        cv2.copyTo(paint, area, self.image[top:bottom, left:right])


def _pixels(outline: np.ndarray, side: int) -> np.ndarray:
    return (outline * (side << SHIFT)).astype(np.int32)


def mark(mask: np.ndarray, parts: Iterable[Part]) -> None:
    """Set the (side, side) uint8 `mask` to 255 where evidence is seen, to 0 where another part hides it."""
    for part in parts:
        _mark(mask, part, _pixels(part.outline, len(mask)))


def _mark(mask: np.ndarray, part: Part, points: np.ndarray) -> None:
    value = 255 if part.evidence else 0
    if part.width > 0:
        thickness = max(1, round(3 * part.width * len(mask)))  # hard to hit, so it counts thrice as wide
        cv2.polylines(mask, [points], False, value, thickness, cv2.LINE_8, SHIFT)
    else:
        cv2.fillPoly(mask, [points], value, cv2.LINE_8, SHIFT)


# ------------------------------------------------------------------------------------------------ textures


def noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """(side, side) float32 smooth noise of about unit deviation, with `cells` cells along each side."""
    grid = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)


def mix(first: Colour, second: Colour, share: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: `first` where the (H, W) float32 `share` is 0, `second` where it is 1."""
    share = share.astype(np.float32, copy=False)
    ends = zip(first, second, strict=True)
    return cv2.merge([share * np.float32(end - start) + np.float32(start) for start, end in ends])
