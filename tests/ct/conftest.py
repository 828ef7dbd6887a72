"""Scanners, and objects whose line integrals are known exactly."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from physfed_ray.ct.protocol import Protocol


class Exact:
    """Objects on a grid, and their line integrals by plane geometry; lengths in mm."""

    @staticmethod
    def grid(protocol: Protocol, n: int) -> tuple[NDArray, NDArray]:
        """X (1, n) and y (n, 1) of the pixel centres; row 0 has the largest y."""
        centre = (np.arange(n) - (n - 1) / 2) * protocol.pixel_at(n)
        return centre[None, :], -centre[:, None]

    @staticmethod
    def ray_distance(protocol: Protocol, x: float, y: float) -> NDArray:
        """Distance of every ray from a point, (views, bins)."""
        angle = np.arange(protocol.views)[:, None] * 2 * math.pi / protocol.views
        u = (np.arange(protocol.bins) - (protocol.bins - 1) / 2) * protocol.bin_mm
        sin, cos = np.sin(angle), np.cos(angle)
        source_x, source_y = protocol.source_mm * sin, -protocol.source_mm * cos
        along_x = u * cos - protocol.detector_mm * sin - source_x
        along_y = u * sin + protocol.detector_mm * cos - source_y
        cross = along_x * (y - source_y) - along_y * (x - source_x)
        return np.abs(cross) / np.hypot(along_x, along_y)

    @classmethod
    def disk(cls, protocol: Protocol, n: int, x: float, y: float, radius: float) -> NDArray:
        """Share of each pixel that lies in a disk, (n, n) float32."""
        fine = 8
        grid_x, grid_y = cls.grid(protocol, n * fine)
        inside = (grid_x - x) ** 2 + (grid_y - y) ** 2 <= radius**2
        return inside.reshape(n, fine, n, fine).mean((1, 3)).astype(np.float32)

    @classmethod
    def disk_sinogram(cls, protocol: Protocol, x: float, y: float, radius: float) -> NDArray:
        """Chord lengths 2 sqrt(r^2 - d^2) of a disk, (views, bins)."""
        distance = cls.ray_distance(protocol, x, y)
        return 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))

    @classmethod
    def gaussian(cls, protocol: Protocol, n: int, x: float, y: float, sigma: float) -> NDArray:
        """A Gaussian of height 1, (n, n)."""
        grid_x, grid_y = cls.grid(protocol, n)
        return np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / (2 * sigma**2))

    @classmethod
    def gaussian_sinogram(cls, protocol: Protocol, x: float, y: float, sigma: float) -> NDArray:
        """Line integrals of ``gaussian``, (views, bins)."""
        distance = cls.ray_distance(protocol, x, y)
        return math.sqrt(2 * math.pi) * sigma * np.exp(-(distance**2) / (2 * sigma**2))


@pytest.fixture
def exact() -> type[Exact]:
    return Exact


@pytest.fixture(params=[12, 10, 7], ids=["four-fold", "two-fold", "no symmetry"])
def small(request: pytest.FixtureRequest) -> Protocol:
    """A tiny scanner, for each symmetry that the number of views can have."""
    return Protocol(request.param, 24, 0.5, 14.0, 200.0, 150.0, 1e5)
