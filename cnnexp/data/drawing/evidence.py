"""What tells a drawn cat from a drawn dog: ears, muzzle, nose, whiskers, tongue.

Same units as in `animals`. Every part here is evidence: the mask of a picture is what can be seen of them.
"""

import numpy as np

from cnnexp.data.drawing.animals import CAT, PINK, Coat, Pose, shaded
from cnnexp.data.drawing.canvas import Part, curve, ellipse, furry, smooth, tube

DARK = (30.0, 24.0, 24.0)


def evidence(kind: int, rng: np.random.Generator, at: Pose, fur: Coat) -> tuple[list[Part], list[Part]]:
    """The parts behind the head and those in front of it."""
    if kind == CAT:
        return _cat_ears(rng, at, fur), _cat_muzzle(rng, at, fur)
    ears = _dog_ears(rng, at, fur)
    far = 1 if at.yaw > 0 else 0  # the ear on the side the face is turned to
    hidden = [ears.pop(far)] if abs(at.yaw) > np.radians(14) else []
    return hidden, _dog_muzzle(rng, at, fur) + ears


def _turned(points: np.ndarray, about: tuple[float, float], angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[cos, sin], [-sin, cos]]) + about


def _cat_ears(rng: np.random.Generator, at: Pose, fur: Coat) -> list[Part]:
    """Pointed and upright, with a pink inside."""
    height, out, turn = rng.uniform(0.62, 0.95), rng.uniform(0.0, 0.28), rng.uniform(-0.1, 0.16)
    parts = []
    for side in (-1, 1):
        tip = (0.66 + out, -0.62 - height)
        outer, inner = (0.98, -0.3), (0.16, -0.82)
        right, left = (0.98 + 0.4 * out, -0.4 - 0.5 * height), (0.36, -0.85 - 0.36 * height)
        corners = np.array([outer, right, tip, tip, left, inner, (0.5, -0.3)])
        corners = _turned(corners, (0.6, -0.6), turn + rng.uniform(-0.08, 0.08))
        outline = smooth(corners, 3)
        inside = (outline - (0.62, -0.6)) * (0.62, 0.74) + (0.62, -0.66)
        parts.append(Part(at.on_head(furry(outline, rng, 0.015) * (side, 1), -0.1), None, True, rim=fur.rim))
        colour = shaded(PINK, 0.45, fur.base)
        parts.append(Part(at.on_head(inside * (side, 1), -0.05), shaded(colour, 0.12), True, round=0.35))
    return parts


def _dog_ears(rng: np.random.Generator, at: Pose, fur: Coat) -> list[Part]:
    """Hanging beside the cheeks, left and right."""
    length, width, lift = rng.uniform(0.95, 1.6), rng.uniform(0.4, 0.58), rng.uniform(-0.05, 0.35)
    shade = rng.uniform(0.66, 0.92)
    parts = []
    for side in (-1, 1):
        corners = np.array(
            [
                (0.42, -0.86),
                (0.85, -0.9),
                (1.0 + 0.55 * width, -0.4),
                (1.02 + 0.8 * width, -0.5 + 0.75 * length),
                (1.0 + 0.2 * width, -0.62 + length),
                (0.95 - 0.25 * width, -0.6 + 0.75 * length),
                (0.9 - 0.1 * width, -0.3),
            ]
        )
        outline = smooth(_turned(corners, (0.7, -0.8), -lift - rng.uniform(-0.08, 0.08)), 3)
        outline = furry(outline, rng, 0.03) * (side, 1)
        parts.append(Part(at.on_head(outline, 0.1), None, True, rim=fur.rim, light=shade, round=0.4))
    return parts


def _cat_muzzle(rng: np.random.Generator, at: Pose, fur: Coat) -> list[Part]:
    """Two small pads, a small nose, a mouth like a w, whiskers."""
    pad, y = rng.uniform(0.2, 0.26), rng.uniform(0.36, 0.42)
    line = 0.045 * at.radius
    parts = [Part(at.on_face(ellipse(0, y + 0.2, 0.17, 0.16)), fur.light, True, round=0.15, rim=fur.rim)]
    for side in (-1, 1):
        cheek = at.on_face(ellipse(side * 0.84 * pad, y, pad, 0.78 * pad), 0.06)
        parts.append(Part(cheek, fur.light, True, round=0.2))
    nose = np.array([(-0.15, y - 0.24), (0.15, y - 0.24), (0.03, y - 0.08), (-0.03, y - 0.08)])
    parts.append(Part(at.on_face(smooth(nose, 2), 0.12), fur.nose, True, round=0.2))
    for side in (-1, 1):
        mouth = curve((0, y - 0.1), (0.02 * side, y + 0.2), (side * 1.3 * pad, y + 0.1))
        parts.append(Part(at.on_face(mouth, 0.1), DARK, True, width=line))
    count, length, droop = rng.integers(3, 5), rng.uniform(0.7, 1.05), rng.uniform(-0.1, 0.2)
    for side in (-1, 1):
        for angle in np.linspace(-0.32, 0.3, count) + droop + rng.uniform(-0.06, 0.06, count):
            reach = (side * (0.3 + length * np.cos(angle)), y + length * np.sin(angle) + 0.08)
            middle = (side * (0.3 + 0.5 * length), y + 0.5 * length * np.sin(angle) - 0.08)
            whisker = at.on_head(curve((side * 0.28, y), middle, reach, points=8), np.linspace(0.9, 0.45, 8))
            parts.append(Part(whisker, fur.whisker, True, width=0.032 * at.radius))
    return parts


def _dog_muzzle(rng: np.random.Generator, at: Pose, fur: Coat) -> list[Part]:
    """Long and broad, with a big nose, jowls and perhaps a tongue."""
    width, length, out = rng.uniform(0.4, 0.52), rng.uniform(0.5, 0.64), rng.uniform(0.2, 0.5)
    y, line = 0.46, 0.05 * at.radius
    parts = []
    if rng.random() < 0.35:
        end = (0.0, y + rng.uniform(0.62, 0.85))
        tongue = tube(curve((0.02, y + 0.3), (0.06, y + 0.6), end, points=8), 0.17)
        parts.append(Part(at.on_face(smooth(tongue, 2), 0.1), PINK, True, rim=shaded(PINK, 0.4)))
    jaw = ellipse(0, y + 0.22, 0.62 * width, 0.3)
    parts.insert(0, Part(at.on_face(jaw, 0.5 * out), fur.light, True, round=0.3, rim=fur.rim, light=0.85))
    root = ellipse(0, y - 0.1, 0.86 * width, length)
    parts.append(Part(at.on_face(root, 0.0), fur.light, True, round=0.25, light=0.97))
    tip = ellipse(0, y + 0.05, width, 0.58 * length)
    parts.append(Part(at.on_face(tip, out), fur.light, True, round=0.3, rim=fur.rim))
    big = rng.uniform(0.19, 0.26)
    top = y - 0.12
    upper = [(-big, top - 0.1), (0, top - 0.17), (big, top - 0.1)]
    lower = [(0.7 * big, top + 0.12), (0, top + 0.2), (-0.7 * big, top + 0.12)]
    nose = at.on_face(smooth(np.array(upper + lower), 2), out + 0.12)
    parts.append(Part(nose, fur.nose, True, round=0.3))
    glint = ellipse(-0.3 * big, top - 0.06, 0.3 * big, 0.03, points=10)
    parts.append(Part(at.on_face(glint, out + 0.12), shaded(fur.nose, 0.6, (255, 255, 255)), True, round=0))
    for side in (-1, 1):
        mouth = curve((0, top + 0.15), (0.02 * side, y + 0.36), (side * 0.8 * width, y + 0.2))
        parts.append(Part(at.on_face(mouth, out + 0.05), DARK, True, width=line))
    return parts
