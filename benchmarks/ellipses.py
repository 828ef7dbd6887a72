"""Objects made of ellipses, whose line integrals are known exactly."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.protocol import Protocol

_FINE = 16
"""Samples along a side of a pixel, where an edge crosses it."""


@dataclass(frozen=True)
class Ellipse:
    """One ellipse; overlapping ellipses add up.

    Attributes:
        value: What it adds inside.
        a: Half axis along its own x, in any unit of length.
        b: Half axis along its own y.
        x: Centre.
        y: Centre.
        turned: Angle of its own x from x, counterclockwise, degrees.
    """

    value: float
    a: float
    b: float
    x: float = 0.0
    y: float = 0.0
    turned: float = 0.0

    def scaled(self, length: float, value: float = 1.0) -> "Ellipse":
        """Return it with its lengths and its value multiplied."""
        lengths = (length * side for side in (self.a, self.b, self.x, self.y))
        return Ellipse(self.value * value, *lengths, self.turned)

    def circular(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """Map vectors from the plane to where the ellipse is a circle of radius 1."""
        cos, sin = math.cos(math.radians(self.turned)), math.sin(math.radians(self.turned))
        return (cos * x + sin * y) / self.a, (cos * y - sin * x) / self.b


SHEPP_LOGAN = (
    Ellipse(1.0, 0.69, 0.92),
    Ellipse(-0.8, 0.6624, 0.874, 0, -0.0184),
    Ellipse(-0.2, 0.11, 0.31, 0.22, 0, -18),
    Ellipse(-0.2, 0.16, 0.41, -0.22, 0, 18),
    Ellipse(0.1, 0.21, 0.25, 0, 0.35),
    Ellipse(0.1, 0.046, 0.046, 0, 0.1),
    Ellipse(0.1, 0.046, 0.046, 0, -0.1),
    Ellipse(0.1, 0.046, 0.023, -0.08, -0.605),
    Ellipse(0.1, 0.023, 0.023, 0, -0.606),
    Ellipse(0.1, 0.023, 0.046, 0.06, -0.605),
)
"""The head phantom with Toft's contrasts, in a circle of radius 1, values in [0, 1]."""


def line_integrals(ellipses: Iterable[Ellipse], protocol: Protocol) -> NDArray[np.float64]:
    """Return the exact integrals along the rays to the middles of the bins, (views, bins).

    Args:
        ellipses: Lengths in mm.
        protocol: The scanner, with a flat detector and a full circle.
    """
    angle = np.arange(protocol.views)[:, None] * (2 * math.pi / protocol.views)
    u = (np.arange(protocol.bins) - (protocol.bins - 1) / 2) * protocol.bin_mm
    sin, cos = np.sin(angle), np.cos(angle)
    source_x, source_y = protocol.source_mm * sin, -protocol.source_mm * cos
    along_x = u * cos - protocol.detector_mm * sin - source_x
    along_y = u * sin + protocol.detector_mm * cos - source_y
    length = np.hypot(along_x, along_y)
    total = np.zeros(length.shape)
    for ellipse in ellipses:
        from_x, from_y = ellipse.circular(source_x - ellipse.x, source_y - ellipse.y)
        step_x, step_y = ellipse.circular(along_x, along_y)
        squared = step_x**2 + step_y**2
        cross = from_x * step_y - from_y * step_x
        chord = 2 * np.sqrt(np.maximum(squared - cross**2, 0)) / squared  # as a share of the ray
        total += ellipse.value * chord * length
    return total


def image(ellipses: Iterable[Ellipse], protocol: Protocol, n: int) -> NDArray[np.float64]:
    """Return the mean over each pixel of a grid over the field of view, (n, n), row 0 on top.

    Args:
        ellipses: Lengths in mm.
        protocol: The scanner.
        n: Side of the grid.
    """
    pixel_mm = protocol.pixel_at(n)
    centre = (np.arange(n) - (n - 1) / 2) * pixel_mm
    offset = ((np.arange(_FINE) + 0.5) / _FINE - 0.5) * pixel_mm
    fine = (centre[:, None] + offset).ravel()
    total = np.zeros((n, n))
    for ellipse in ellipses:
        x, y = ellipse.circular(fine - ellipse.x, -fine[:, None] - ellipse.y)
        inside = x**2 + y**2 <= 1
        total += ellipse.value * inside.reshape(n, _FINE, n, _FINE).mean((1, 3))
    return total
