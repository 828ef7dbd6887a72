"""Planar shapes by their signed distance in mm: negative inside, positive outside.

x runs to the right of the image (the patient's left), y downwards (the patient's back).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, hypot, sin, sqrt

import numpy as np

Box = tuple[float, float, float, float]
Points = Sequence[tuple[float, float]]
NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Shape:
    """A region of the plane.

    Attributes:
        box: x0, y0, x1, y1 in mm; everything outside it is outside the shape.
        distance: x, y (broadcastable float32, mm) to the signed distance in mm, approximately.
    """

    box: Box
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]

    @property
    def empty(self) -> bool:
        """Whether the shape has no points."""
        return self.box[2] <= self.box[0] or self.box[3] <= self.box[1]

    def __or__(self, other: "Shape") -> "Shape":
        """Return the union."""
        if self.empty or other.empty:
            return other if self.empty else self
        (a, b, c, d), (e, f, g, h) = self.box, other.box
        return Shape(
            (min(a, e), min(b, f), max(c, g), max(d, h)),
            lambda x, y: np.minimum(self.distance(x, y), other.distance(x, y)),
        )

    def __and__(self, other: "Shape") -> "Shape":
        """Return the intersection."""
        (a, b, c, d), (e, f, g, h) = self.box, other.box
        return Shape(
            (max(a, e), max(b, f), min(c, g), min(d, h)),
            lambda x, y: np.maximum(self.distance(x, y), other.distance(x, y)),
        )

    def __sub__(self, other: "Shape") -> "Shape":
        """Return what is in this shape and not in the other."""
        if other.empty:
            return self
        return Shape(self.box, lambda x, y: np.maximum(self.distance(x, y), -other.distance(x, y)))

    def grow(self, mm: float) -> "Shape":
        """Return the shape with its border moved outwards by ``mm`` (inwards if negative)."""
        a, b, c, d = self.box
        mm = float(mm)
        return Shape(
            (a - mm, b - mm, c + mm, d + mm) if not self.empty else NOWHERE,
            lambda x, y: self.distance(x, y) - mm,
        )


EMPTY = Shape(NOWHERE, lambda x, y: np.full(np.broadcast(x, y).shape, 1e6, np.float32))


def _plain(a: float, b: float, c: float, d: float) -> tuple[float, float, float, float]:
    """Return Python floats, which leave float32 arrays in single precision; NumPy's do not."""
    return float(a), float(b), float(c), float(d)


def ellipse(cx: float, cy: float, a: float, b: float, turn: float = 0.0) -> Shape:
    """Return an ellipse with half axes ``a``, ``b``, turned by ``turn`` radians.

    The distance is first order: exact at the border, monotonic elsewhere.
    """
    if min(a, b) < 0.3:
        return EMPTY
    cx, cy, a, b = _plain(cx, cy, a, b)
    c, s = cos(turn), sin(turn)
    half_x, half_y = hypot(a * c, b * s), hypot(a * s, b * c)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = x - cx, y - cy
        if turn:
            u, v = u * c + v * s, v * c - u * s
        u, v = u / a, v / b
        level = np.maximum(np.sqrt(u * u + v * v), np.float32(1e-4))
        u, v = u / a, v / b
        slope = np.maximum(np.sqrt(u * u + v * v), level / max(a, b))
        near: np.ndarray = level * (level - 1) / slope
        return near

    return Shape((cx - half_x, cy - half_y, cx + half_x, cy + half_y), distance)


def squarish(cx: float, cy: float, a: float, b: float) -> Shape:
    """Return a superellipse of exponent 2.5, the section of a trunk."""
    cx, cy, a, b = _plain(cx, cy, a, b)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = np.abs(x - cx) / a, np.abs(y - cy) / b
        steep_u, steep_v = u * np.sqrt(u), v * np.sqrt(v)
        level = np.maximum((u * steep_u + v * steep_v) ** np.float32(0.4), np.float32(1e-3))
        steep = level * np.sqrt(level)
        slope = np.sqrt(np.square(steep_u / a) + np.square(steep_v / b))
        near: np.ndarray = (level - 1) * steep / np.maximum(slope, steep / max(a, b))
        return near

    return Shape((cx - a, cy - b, cx + a, cy + b), distance)


def ellipsoid(
    z: float,
    centre: tuple[float, float, float],
    half: tuple[float, float, float],
    turn: float = 0.0,
) -> Shape:
    """Return the section at height ``z`` of an ellipsoid turned about the body axis."""
    inside = 1 - ((z - centre[2]) / half[2]) ** 2
    if inside <= 0:
        return EMPTY
    return ellipse(centre[0], centre[1], half[0] * sqrt(inside), half[1] * sqrt(inside), turn)


def capsule(p: tuple[float, float], q: tuple[float, float], r: float, s: float = -1.0) -> Shape:
    """Return all points within ``r`` (tapering to ``s``) of the segment from ``p`` to ``q``."""
    s = r if s < 0 else s
    x0, y0, r, s = _plain(*p, r, s)
    dx, dy = float(q[0] - p[0]), float(q[1] - p[1])
    square, wide = max(dx * dx + dy * dy, 1e-6), max(r, s)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = x - x0, y - y0
        t = np.clip((u * dx + v * dy) / square, 0, 1)
        u, v = u - t * dx, v - t * dy
        away: np.ndarray = np.sqrt(u * u + v * v) - (r + (s - r) * t)
        return away

    box = (
        min(x0, q[0]) - wide,
        min(y0, q[1]) - wide,
        max(x0, q[0]) + wide,
        max(y0, q[1]) + wide,
    )
    return Shape(box, distance)


def path(points: Points, radii: Sequence[float]) -> Shape:
    """Return a bent rod through ``points`` with a radius at each."""
    whole = EMPTY
    for i in range(len(points) - 1):
        whole = whole | capsule(points[i], points[i + 1], radii[i], radii[i + 1])
    return whole


def mirrored(points: Points, side: int) -> list[tuple[float, float]]:
    """Return the points for one side of the body: x times ``side`` (-1 is the patient's right)."""
    return [(side * x, y) for x, y in points]
