"""Cats and dogs as lists of `Part`s.

Pose, coat, body, head and eyes are shared by both; only `evidence` (ears, muzzle, whiskers, tongue) knows the
kind. Positions are in units of half the head's width, with the middle of the head at (0, 0), y downwards.
"""

from dataclasses import dataclass

import numpy as np

from cnnexp.data.drawing.canvas import Colour, Part, curve, ellipse, furry, mix, noise, smooth, tube
from cnnexp.data.opencv import cv2

CAT, DOG = 0, 1
REACH = 1.55  # no evidence is farther from the middle of the head than about this

COATS: tuple[Colour, ...] = (
    (40, 38, 40),
    (82, 80, 84),
    (132, 130, 132),
    (196, 194, 192),
    (238, 234, 226),
    (232, 214, 178),
    (222, 158, 84),
    (196, 118, 52),
    (150, 102, 62),
    (104, 68, 44),
    (66, 46, 36),
)
EYES: tuple[Colour, ...] = ((196, 160, 52), (112, 158, 76), (96, 150, 190), (140, 88, 42), (92, 58, 32))
NOSES: tuple[Colour, ...] = ((34, 30, 32), (34, 30, 32), (76, 48, 44), (206, 128, 126))
PINK: Colour = (226, 128, 132)


def shaded(colour: Colour, share: float, towards: Colour = (0, 0, 0)) -> Colour:
    """`colour` mixed with `share` of another."""
    red, green, blue = (a * (1 - share) + b * share for a, b in zip(colour, towards, strict=True))
    return red, green, blue


# ---------------------------------------------------------------------------------------------------- pose


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the animal is and how it is turned.

    Attributes:
        head, body: (3, 3) float, from head units to fractions of the picture's side.
        radius: half the head's width, in fractions of the picture's side.
        yaw, pitch: radians the face is turned to the right and downwards.
    """

    head: np.ndarray
    body: np.ndarray
    radius: float
    yaw: float
    pitch: float

    def on_head(self, points: np.ndarray, depth: np.ndarray | float = 0.0) -> np.ndarray:
        """(N, 2) head units, `depth` towards the viewer -> (N, 2) fractions of the picture's side."""
        turned = points * (np.cos(self.yaw), np.cos(self.pitch))
        moved = np.multiply.outer(depth, (np.sin(self.yaw), np.sin(self.pitch)))
        return _project(self.head, turned + moved)

    def on_face(self, points: np.ndarray, out: float = 0.0) -> np.ndarray:
        """The same for points that lie on the round face, or `out` in front of it."""
        return self.on_head(points, np.sqrt(np.maximum(0.05, 1 - (points**2).sum(axis=1))) + out)

    def on_body(self, points: np.ndarray) -> np.ndarray:
        return _project(self.body, points)


def _project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return moved[:, :2] / moved[:, 2:]


def pose(rng: np.random.Generator) -> Pose:
    """A random pose, the head far enough inside the picture for all evidence to be in it."""
    radius = rng.uniform(0.125, 0.22)
    x, y = rng.uniform(REACH * radius, 1 - REACH * radius, 2)
    y = min(y, rng.uniform(0.3, 0.9))  # rather in the upper part, so that a body is below the head
    y = max(y, REACH * radius)
    roll, tilt = np.radians(rng.uniform(-16, 16)), np.radians(rng.uniform(-20, 20))
    shear, stretch = rng.uniform(-0.12, 0.12), rng.uniform(0.92, 1.08)
    place = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [*rng.uniform(-0.35, 0.35, 2), 1.0]])
    size = np.array([[radius * stretch, radius * shear, 0], [0, radius / stretch, 0], [0, 0, 1.0]])
    frame = place @ perspective @ size @ _rotation(roll)
    side = rng.choice([-1, 1])
    bulk = rng.uniform(0.9, 1.2)
    body = frame @ np.diag([side * bulk, bulk, 1.0])
    yaw, pitch = np.radians(rng.uniform(-32, 32)), np.radians(rng.uniform(-10, 14))
    return Pose(frame @ _rotation(tilt), body, radius, yaw, pitch)


def _rotation(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])


# ---------------------------------------------------------------------------------------------------- coat


@dataclass(frozen=True, eq=False)
class Coat:
    """Colours of the animal.

    Attributes:
        texture: (side, side, 3) uint8 RGB, the fur.
        light: of chest, paws and muzzle, or None where they have the fur of the rest.
    """

    texture: np.ndarray
    base: Colour
    rim: Colour
    light: Colour | None
    nose: Colour
    eye: Colour
    whisker: Colour


def coat(rng: np.random.Generator, side: int, radius: float) -> Coat:
    """A plain, striped or patched coat."""
    base = _jittered(COATS[rng.integers(len(COATS))], rng)
    second = _jittered(COATS[rng.integers(len(COATS))], rng)
    if abs(sum(base) - sum(second)) < 150:
        second = shaded(base, 0.5, (0, 0, 0) if sum(base) > 300 else (200, 190, 180))
    cells = max(3, round(1.1 / radius))
    match rng.integers(3):
        case 0:  # plain
            share: np.ndarray = np.zeros((side, side), np.float32)
        case 1:  # stripes
            angle = rng.uniform(-0.5, 0.5)
            across = np.linspace(0, rng.uniform(8, 14) / radius, side, dtype=np.float32)
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            along = (across * cos)[None, :] + (across * sin)[:, None]
            waves = np.sin(along + 1.2 * noise(rng, side, cells))
            share = np.clip(waves * 2 - rng.uniform(-0.2, 1.0), 0, 1) * np.float32(rng.uniform(0.4, 0.9))
        case _:  # patches
            share = np.clip(noise(rng, side, cells) * 6 - rng.uniform(0, 3), 0, 1) * np.float32(0.95)
    texture = mix(base, second, share)
    hair = cv2.blur(noise(rng, side, side // 2), (1, 5)) * np.float32(rng.uniform(5, 13))
    hair += 5 * noise(rng, side, cells)
    light = shaded((248, 244, 236), rng.uniform(0, 0.25), base) if rng.random() < 0.5 else None
    whisker = (250.0, 250.0, 246.0) if sum(base) < 480 else (70.0, 64.0, 60.0)
    return Coat(
        texture=cv2.add(texture, cv2.merge([hair] * 3), dtype=cv2.CV_8U),
        base=base,
        rim=shaded(base, 0.55),
        light=light,
        nose=NOSES[rng.integers(len(NOSES))],
        eye=_jittered(EYES[rng.integers(len(EYES))], rng),
        whisker=whisker,
    )


def _jittered(colour: Colour, rng: np.random.Generator) -> Colour:
    light = rng.uniform(0.88, 1.12)
    red, green, blue = np.clip(np.array(colour) * light + rng.uniform(-8, 8, 3), 8, 250).tolist()
    return red, green, blue


# ---------------------------------------------------------------------------------------------- body, head


@dataclass(frozen=True)
class Posture:
    """How the body is held.

    Attributes:
        torso: corners of its outline.
        legs: from the top to the paw.
        haunches, chest: ellipses (x, y, half width, half height).
        tail: where it begins and bends, and x of its end; y of the end is within `tail_heights`.
    """

    torso: tuple[tuple[float, float], ...]
    legs: tuple[tuple[tuple[float, float], tuple[float, float]], ...]
    haunches: tuple[tuple[float, float, float, float], ...]
    chest: tuple[float, float, float, float]
    tail: tuple[tuple[float, float], tuple[float, float], float]
    tail_heights: tuple[float, float]


# fmt: off
POSTURES = (
    Posture(  # sits
        torso=((-0.6, 0.3), (0.6, 0.3), (0.95, 1.5), (1.25, 2.6),
               (1.0, 3.25), (-1.0, 3.25), (-1.25, 2.6), (-0.95, 1.5)),
        legs=(((-0.42, 1.5), (-0.42, 3.2)), ((0.42, 1.5), (0.42, 3.2))),
        haunches=((-1.05, 2.75, 0.55, 0.6), (1.05, 2.75, 0.55, 0.6)),
        chest=(0, 1.35, 0.5, 0.75),
        tail=((1.0, 2.9), (2.4, 3.2), 2.1),
        tail_heights=(0.8, 2.6),
    ),
    Posture(  # lies
        torso=((-0.7, 0.2), (0.6, 0.1), (2.2, 0.5), (3.3, 0.9),
               (3.7, 1.7), (3.2, 2.2), (-0.5, 2.2), (-0.9, 1.3)),
        legs=(((-0.2, 1.7), (-0.6, 2.25)), ((0.5, 1.7), (0.5, 2.25))),
        haunches=((2.85, 1.65, 0.8, 0.65),),
        chest=(-0.05, 1.2, 0.5, 0.6),
        tail=((3.4, 1.7), (4.8, 2.0), 4.0),
        tail_heights=(0.2, 2.2),
    ),
    Posture(  # stands
        torso=((-0.6, 0.2), (0.6, 0.0), (2.0, 0.3), (3.3, 0.35),
               (3.6, 1.1), (3.0, 1.6), (1.5, 1.75), (-0.3, 1.8)),
        legs=(((0.0, 1.2), (-0.05, 3.2)), ((0.75, 1.3), (0.8, 3.05)), ((2.5, 1.2), (2.45, 3.05)),
              ((3.1, 1.0), (3.25, 3.2))),
        haunches=(),
        chest=(-0.05, 1.1, 0.45, 0.6),
        tail=((3.3, 0.6), (4.3, 0.5), 4.2),
        tail_heights=(-1.2, 1.6),
    ),
)
# fmt: on


def body(rng: np.random.Generator, at: Pose, fur: Coat) -> list[Part]:
    """A body with tail and legs, and perhaps a light chest and a collar."""
    posture, fuzz = POSTURES[rng.integers(len(POSTURES))], 0.05
    start, bend, end = posture.tail
    line = curve(start, bend, (end, rng.uniform(*posture.tail_heights)))
    tail = tube(line, np.linspace(rng.uniform(0.16, 0.26), 0.1, len(line)))
    parts = [_fur(at.on_body(tail), fur, light=0.9)]
    parts += [_fur(at.on_body(ellipse(*haunch)), fur, light=0.88) for haunch in posture.haunches]
    torso = furry(smooth(np.array(posture.torso), 4), rng, fuzz)
    parts.append(_fur(at.on_body(torso), fur, light=0.94))
    if fur.light is not None:
        chest = furry(ellipse(*posture.chest), rng, fuzz)
        parts.append(Part(at.on_body(chest), fur.light, round=0.15))
    for top, bottom in posture.legs:
        leg = curve(top, ((top[0] + bottom[0]) / 2, (top[1] + bottom[1]) / 2), bottom, points=6)
        parts.append(_fur(at.on_body(smooth(tube(leg, 0.28), 2)), fur))
        paw = ellipse(bottom[0] - 0.06, bottom[1] + 0.05, 0.36, 0.23, points=18)
        parts.append(Part(at.on_body(paw), fur.light, rim=fur.rim))
    if rng.random() < 0.3:
        band = at.on_head(curve((-0.72, 0.72), (0, 1.35), (0.72, 0.72)))
        parts.append(Part(band, _bright(rng), width=0.2 * at.radius))
    return parts


def _fur(outline: np.ndarray, fur: Coat, light: float = 1.0) -> Part:
    return Part(outline, rim=fur.rim, light=light)


def _bright(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.permutation(rng.uniform((150, 30, 20), (230, 120, 90))).tolist()
    return red, green, blue


def head(rng: np.random.Generator, at: Pose, fur: Coat) -> list[Part]:
    """The head without evidence: skull, cheeks and eyes."""
    height, cheek, crown = rng.uniform(0.84, 0.98), rng.uniform(0.9, 1.06), rng.uniform(0.8, 0.95)
    corners = [(0, -1.0), (0.75 * crown, -0.9), (1.0, -0.2), (1.02 * cheek, 0.45), (0.55, 0.98), (0, 1.08)]
    right = np.array(corners) * (1.07, height)
    outline = smooth(np.concatenate([right, right[-2:0:-1] * (-1, 1)]), 3)
    parts = [Part(_project(at.head, furry(outline, rng, 0.045)), rim=fur.rim, round=0.4)]
    if fur.light is not None and rng.random() < 0.4:
        blaze = np.array([(-0.08, -0.8), (0.08, -0.8), (0.13, 0.3), (-0.13, 0.3)])
        parts.append(Part(at.on_face(smooth(blaze, 2)), fur.light, round=0.1))
    apart, size, squint = rng.uniform(0.38, 0.46), rng.uniform(0.15, 0.2), rng.uniform(0.75, 1.0)
    closed, pupil = rng.random() < 0.06, rng.uniform(0.5, 0.75)
    for side in (-1, 1):
        x, y = side * apart, -0.17
        if closed:
            lid = at.on_face(curve((x - size, y), (x, y + 0.7 * size), (x + size, y)))
            parts.append(Part(lid, shaded(fur.base, 0.75), width=0.07 * at.radius))
            continue
        socket = at.on_face(ellipse(x, y, 1.28 * size, 1.28 * size * squint))
        hole = at.on_face(ellipse(x, y, 0.8 * pupil * size, 1.15 * pupil * size))
        glint = at.on_face(ellipse(x - 0.3 * size, y - 0.35 * size, 0.26 * size, 0.26 * size, points=8))
        parts.append(Part(socket, shaded(fur.base, 0.7), round=0))
        parts.append(Part(at.on_face(ellipse(x, y, size, size * squint)), fur.eye, round=0.35))
        parts.append(Part(hole, (16, 14, 16), round=0))
        parts.append(Part(glint, (250, 250, 250), round=0))
    return parts
