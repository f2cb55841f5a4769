"""What surrounds the animal, and the light and camera it is seen with. Nothing here knows cat from dog."""

import numpy as np

from cnnexp.data.drawing.animals import COATS, Pose, shaded
from cnnexp.data.drawing.canvas import Colour, Part, curve, ellipse, mix, noise, smooth, tube
from cnnexp.data.opencv import cv2

WHITE: Colour = (255, 255, 255)
PAPER: Colour = (252, 252, 250)
INK: Colour = (10, 10, 12)
GREENS: tuple[Colour, ...] = ((70, 120, 50), (110, 150, 60), (60, 96, 62), (150, 150, 80))

# ------------------------------------------------------------------------------------------------- objects


def distractors(rng: np.random.Generator) -> list[Part]:
    """Objects behind the animal."""
    parts: list[Part] = []
    for _ in range(rng.integers(2, 8)):
        x, y = rng.uniform(0, 1, 2)
        parts += _object(rng, x, y, rng.uniform(0.04, 0.13))
    return parts


def occluders(rng: np.random.Generator, at: Pose) -> list[Part]:
    """At most three objects in front of the animal, near its head."""
    parts: list[Part] = []
    for _ in range(rng.choice(4, p=[0.35, 0.35, 0.2, 0.1])):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5)
        place = np.array([[distance * np.cos(angle), distance * np.sin(angle)]])
        x, y = at.on_head(place)[0]
        match rng.integers(4):
            case 0:  # a branch or a post that crosses the picture
                away = rng.uniform(0, np.pi)
                step = np.array([np.cos(away), np.sin(away)])
                bend = (x + rng.uniform(-0.08, 0.08), y + rng.uniform(-0.08, 0.08))
                line = curve((x, y) - 1.5 * step, bend, (x, y) + 1.5 * step)
                colour = _colour(rng)
                band = tube(line, at.radius * rng.uniform(0.08, 0.22))
                parts.append(Part(band, colour, rim=shaded(colour, 0.5), round=0.2))
            case 1:  # grass from below
                parts += _tuft(rng, x, y + 1.2 * at.radius, 1.6 * at.radius)
            case _:
                parts += _object(rng, x, y, at.radius * rng.uniform(0.35, 0.75))
    return parts


def decoys(rng: np.random.Generator, count: int) -> list[list[Part]]:
    """Boards, spotted balls and targets, anywhere: black on white, so that they catch the eye before all else."""
    found = []
    for _ in range(count):
        x, y = rng.uniform(0, 1, 2).tolist()
        found.append(_decoy(rng, x, y, rng.uniform(0.05, 0.1)))
    return found


def _decoy(rng: np.random.Generator, x: float, y: float, size: float) -> list[Part]:
    angle = rng.uniform(0, 2 * np.pi)
    match rng.integers(3):
        case 0:  # a board of 3x3 fields
            parts = [Part(_placed(_square(-0.9, -0.9, 1.8), x, y, size, angle), PAPER, rim=INK, round=0)]
            for field in range(0, 9, 2):
                left, top = 0.6 * (field % 3) - 0.9, 0.6 * (field // 3) - 0.9
                parts.append(Part(_placed(_square(left, top, 0.6), x, y, size, angle), INK, round=0))
            return parts
        case 1:  # a ball with a spot in the middle and five around it
            parts = [Part(ellipse(x, y, size, size), PAPER, rim=INK, round=0)]
            parts.append(Part(ellipse(x, y, 0.35 * size, 0.35 * size, points=12), INK, round=0))
            for turn in angle + np.arange(5) * 2 * np.pi / 5:
                at = x + 0.75 * size * np.cos(turn), y + 0.75 * size * np.sin(turn)
                parts.append(Part(ellipse(*at, 0.22 * size, 0.22 * size, points=12), INK, round=0))
            return parts
        case _:  # a target
            rings = ((1, INK), (0.78, PAPER), (0.55, INK), (0.3, PAPER))
            return [Part(ellipse(x, y, part * size, part * size), colour, round=0) for part, colour in rings]


def _square(left: float, top: float, side: float) -> list[tuple[float, float]]:
    right, bottom = left + side, top + side
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _colour(rng: np.random.Generator) -> Colour:
    """Of an object: often a coat's, so that colour does not tell objects from animals."""
    if rng.random() < 0.5:
        return shaded(COATS[rng.integers(len(COATS))], rng.uniform(0, 0.25))
    red, green, blue = rng.uniform(25, 235, 3).tolist()
    return shaded((red, green, blue), rng.uniform(0, 0.6), (130, 130, 130))


def _object(rng: np.random.Generator, x: float, y: float, size: float) -> list[Part]:
    """A random object of about `size` fractions of the picture's side around (x, y)."""
    colour = _colour(rng)
    rim, angle = shaded(colour, 0.5), rng.uniform(0, 2 * np.pi)
    match rng.integers(8):
        case 0:
            return _ball(rng, x, y, size)
        case 1:
            return _tuft(rng, x, y + size, 1.6 * size)
        case 2:
            return _flower(rng, x, y, size)
        case 3:  # a tent or a roof
            corners = [(-0.9, 0.8), (0.9, 0.8), (0, -1), (0, -1)]
            upright = rng.uniform(-0.5, 0.5)
            inside = _placed([(-0.45, 0.8), (0.45, 0.8), (0, -0.4)], x, y, size, upright)
            return [
                Part(_placed(corners, x, y, size, upright), colour, rim=rim),
                Part(inside, shaded(colour, 0.35), round=0.2),
            ]
        case 4:  # a drop, a leaf or a sack
            corners = [(0, -1.2), (0, -1.2), (0.5, 0.1), (0.45, 0.9), (-0.45, 0.9), (-0.5, 0.1)]
            vein = _placed([(0, -1), (0, 0.6)], x, y, size, angle)
            leaf = Part(smooth(_placed(corners, x, y, size, angle)), colour, rim=rim)
            return [leaf, Part(vein, rim, width=0.1 * size)]
        case 5:  # a box
            corners = [(-0.8, -0.7), (0.8, -0.7), (0.8, 0.7), (-0.8, 0.7)]
            lid = [(-0.85, -0.7), (0.85, -0.7), (0.85, -0.35), (-0.85, -0.35)]
            return [
                Part(_placed(corners, x, y, size, angle), colour, rim=rim),
                Part(_placed(lid, x, y, size, angle), shaded(colour, 0.25, WHITE), rim=rim, round=0.1),
            ]
        case 6:  # a stone
            stone = ellipse(0, 0, 1, 0.7, points=9) * rng.uniform(0.75, 1.15, (9, 1))
            return [Part(smooth(_placed(stone, x, y, size, angle)), colour, rim=rim, round=0.45)]
        case _:  # two points side by side: a crown, a book, far mountains
            left = np.array([(-1, 0.7), (-0.95, -0.6), (-0.7, -1), (-0.2, 0.1)])
            outline = np.concatenate([left, left[::-1] * (-1, 1)])
            return [Part(_placed(outline, x, y, size, rng.uniform(-0.4, 0.4)), colour, rim=rim)]


def _placed(
    corners: list[tuple[float, float]] | np.ndarray, x: float, y: float, size: float, angle: float
) -> np.ndarray:
    """(N, 2) corners turned by `angle`, made `size` large, and moved to (x, y)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(corners) @ np.array([[cos, sin], [-sin, cos]]) * size + (x, y)


def _ball(rng: np.random.Generator, x: float, y: float, size: float) -> list[Part]:
    colour, stripe, angle = _colour(rng), _colour(rng), rng.uniform(0, np.pi)
    band = _placed(tube(curve((-0.95, 0), (0, 0.5), (0.95, 0)), 0.16), x, y, 0.8 * size, angle)
    return [
        Part(ellipse(x, y, 0.8 * size, 0.8 * size), colour, rim=shaded(colour, 0.5), round=0.45),
        Part(band, stripe, round=0.2),
    ]


def _flower(rng: np.random.Generator, x: float, y: float, size: float) -> list[Part]:
    petal, count = _colour(rng), rng.integers(5, 8)
    stem = curve((x, y), (x + rng.uniform(-0.5, 0.5) * size, y + size), (x, y + 2 * size))
    parts = [Part(stem, GREENS[rng.integers(len(GREENS))], width=0.12 * size)]
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        leaf = _placed(ellipse(0.5, 0, 0.36, 0.24, points=14), x, y, size, angle)
        parts.append(Part(leaf, petal, rim=shaded(petal, 0.4), round=0.2))
    return [*parts, Part(ellipse(x, y, 0.26 * size, 0.26 * size, points=14), _colour(rng), round=0.3)]


def _tuft(rng: np.random.Generator, x: float, y: float, size: float) -> list[Part]:
    """Blades of grass, or straw, that start at (x, y)."""
    parts = []
    colour = GREENS[rng.integers(len(GREENS))] if rng.random() < 0.6 else _colour(rng)
    for _ in range(rng.integers(5, 11)):
        foot, lean = x + size * rng.uniform(-0.35, 0.35), rng.uniform(-0.6, 0.6)
        tip = (foot + lean * size, y - size * rng.uniform(0.6, 1.0))
        blade = curve((foot, y), (foot + 0.2 * lean * size, y - 0.6 * size), tip, points=9)
        outline = tube(blade, np.linspace(0.05, 0.008, 9) * size)
        parts.append(Part(outline, shaded(colour, rng.uniform(0, 0.35)), round=0))
    return parts


# ---------------------------------------------------------------------------------------------- background


def background(rng: np.random.Generator, side: int) -> np.ndarray:
    """(side, side, 3) uint8 RGB: a gradient, a horizon, a pattern or blurred lights, and noise."""
    first, second = _dull(rng), _dull(rng)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across = np.linspace(0, 1, side, dtype=np.float32)
    x, y = across[None, :], across[:, None]
    match rng.integers(4):
        case 0:  # a gradient
            share: np.ndarray = 0.5 + 0.5 * (x * cos + y * sin)
        case 1:  # a horizon
            border = rng.uniform(0.3, 0.75) + 0.03 * noise(rng, side, 5)
            share = np.clip((y - border) * rng.choice([8, 30, 90]), 0, 1)
        case 2:  # stripes or checks
            waves = np.sin((x * cos + y * sin) * np.float32(rng.uniform(15, 70)))
            if rng.random() < 0.5:
                waves = waves * np.sin((x * sin - y * cos) * np.float32(rng.uniform(15, 70)))
            share = np.clip(0.5 + 2 * waves, 0, 1) * np.float32(rng.uniform(0.2, 0.7))
        case _:  # lights out of focus
            lights = np.zeros((side, side), np.float32)
            for _ in range(rng.integers(6, 25)):
                middle = rng.integers(0, side, 2).tolist()
                radius = int(side * rng.uniform(0.02, 0.09))
                cv2.circle(lights, middle, radius, rng.uniform(0.2, 1.0), -1, cv2.LINE_AA)
            share = cv2.blur(lights, (side // 40 | 1, side // 40 | 1))
    return cv2.add(mix(first, second, share), _clouds(rng, side), dtype=cv2.CV_8U)


def _dull(rng: np.random.Generator) -> Colour:
    """A random colour; full colours are rarer than greyish ones."""
    red, green, blue = rng.uniform(40, 225, 3).tolist()
    grey = (red + green + blue) / 3
    return shaded((red, green, blue), rng.uniform(0.2, 0.8), (grey, grey, grey))


def _clouds(rng: np.random.Generator, side: int) -> np.ndarray:
    """(side, side, 3) float32 noise around 0, coarse and fine together, of grey and a little of colour."""
    total: np.ndarray = np.zeros((2, 2, 3), np.float32)
    for cells in (4, 9, 22, 64):
        grey = rng.standard_normal((cells, cells, 1), dtype=np.float32) * np.float32(rng.uniform(1, 7))
        colour = rng.standard_normal((cells, cells, 3), dtype=np.float32) * np.float32(rng.uniform(0, 3.5))
        total = grey + colour + cv2.resize(total, (cells, cells), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(total, (side, side), interpolation=cv2.INTER_CUBIC)


# -------------------------------------------------------------------------------------------------- camera


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, contrast, gamma, colour cast, uneven light and sensor noise: (H, W, 3) uint8 RGB in and out."""
    side = len(image)
    if rng.random() < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), side / 180 * rng.uniform(0.25, 1.0))
    gamma, contrast, offset = rng.uniform(0.65, 1.25), rng.uniform(0.75, 1.2), rng.uniform(-14, 20)
    level = (np.arange(256) / 255.0) ** gamma * 255
    cast = rng.uniform(0.9, 1.1, 3)
    table = np.clip(((level - 128) * contrast + 128 + offset)[:, None] * cast, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table.reshape(1, 256, 3))
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    across = np.linspace(-strength, strength, side, dtype=np.float32)
    light = (1 + np.float32(np.cos(angle)) * across)[None, :] + (np.float32(np.sin(angle)) * across)[:, None]
    lit: np.ndarray = cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_32F)
    grain = rng.standard_normal(lit.shape, dtype=np.float32)
    return cv2.addWeighted(grain, rng.uniform(1, 7), lit, 1, 0, dtype=cv2.CV_8U)
