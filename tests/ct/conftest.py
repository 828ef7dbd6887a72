"""Scanners, and objects whose line integrals are known exactly."""

import math
from dataclasses import replace

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
    def rays(protocol: Protocol) -> tuple[NDArray, ...]:
        """Source x and y, (views, 1), and the unit vector along each ray, (views, bins)."""
        step = math.radians(protocol.arc_deg) / protocol.views
        angle = np.arange(protocol.views)[:, None] * step
        u = (np.arange(protocol.bins) - (protocol.bins - 1) / 2) * protocol.bin_mm
        reach = protocol.source_mm + protocol.detector_mm
        across, ahead = u, reach  # from the source to the bin, seen along the central ray
        if protocol.detector == "arc":
            across, ahead = reach * np.sin(u / reach), reach * np.cos(u / reach)
        sin, cos = np.sin(angle), np.cos(angle)
        source_x, source_y = protocol.source_mm * sin, -protocol.source_mm * cos
        along_x = across * cos - ahead * sin
        along_y = across * sin + ahead * cos
        length = np.hypot(along_x, along_y)
        return source_x, source_y, along_x / length, along_y / length

    @classmethod
    def ray_distance(cls, protocol: Protocol, x: float, y: float) -> NDArray:
        """Distance of every ray from a point, (views, bins)."""
        source_x, source_y, along_x, along_y = cls.rays(protocol)
        return np.abs(along_x * (y - source_y) - along_y * (x - source_x))

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

    @classmethod
    def ellipse(
        cls, protocol: Protocol, n: int, x: float, y: float, long: float, short: float, turn: float
    ) -> NDArray:
        """A Gaussian of height 1 with two widths, the long one turned from the x axis, (n, n)."""
        grid_x, grid_y = cls.grid(protocol, n)
        along = (grid_x - x) * math.cos(turn) + (grid_y - y) * math.sin(turn)
        across = (grid_y - y) * math.cos(turn) - (grid_x - x) * math.sin(turn)
        return np.exp(-((along / long) ** 2 + (across / short) ** 2) / 2)

    @classmethod
    def ellipse_sinogram(
        cls, protocol: Protocol, x: float, y: float, long: float, short: float, turn: float
    ) -> NDArray:
        """Line integrals of ``ellipse``, (views, bins): those of a round one, stretched."""
        source_x, source_y, way_x, way_y = cls.rays(protocol)
        cos, sin = math.cos(turn), math.sin(turn)
        from_x, from_y = source_x - x, source_y - y
        along, across = (from_x * cos + from_y * sin) / long, (from_y * cos - from_x * sin) / short
        way_along, way_across = (
            (way_x * cos + way_y * sin) / long,
            (way_y * cos - way_x * sin) / short,
        )
        stretch = np.hypot(way_along, way_across)
        distance = (along * way_across - across * way_along) / stretch
        return math.sqrt(2 * math.pi) / stretch * np.exp(-(distance**2) / 2)

    @classmethod
    def stripes(cls, protocol: Protocol, n: int, sigma: float, turn: float) -> NDArray:
        """A centred Gaussian times a cosine of period sigma / 2 along a turned x axis, (n, n)."""
        x, y = cls.grid(protocol, n)
        along = x * math.cos(turn) + y * math.sin(turn)
        return np.exp(-(x**2 + y**2) / (2 * sigma**2)) * np.cos(4 * math.pi / sigma * along)

    @classmethod
    def stripes_sinogram(cls, protocol: Protocol, sigma: float, turn: float) -> NDArray:
        """Line integrals of ``stripes``, (views, bins): large where a ray runs along them."""
        source_x, source_y, way_x, way_y = cls.rays(protocol)
        offset = source_x * way_y - source_y * way_x  # along the normal (way_y, -way_x)
        crossing = 4 * math.pi * (way_x * math.cos(turn) + way_y * math.sin(turn))
        beside = 4 * math.pi * (way_y * math.cos(turn) - way_x * math.sin(turn))
        height = math.sqrt(2 * math.pi) * sigma * np.exp(-(crossing**2) / 2)
        envelope = np.exp(-((offset / sigma) ** 2) / 2)
        return height * envelope * np.cos(beside * offset / sigma)


@pytest.fixture
def exact() -> type[Exact]:
    return Exact


@pytest.fixture(params=[12, 10, 7], ids=["four-fold", "two-fold", "no symmetry"])
def small(request: pytest.FixtureRequest) -> Protocol:
    """A tiny scanner, for each symmetry that the number of views can have."""
    return Protocol(request.param, 24, 0.5, 14.0, 200.0, 150.0, 1e5)


KINDS = [(detector, arc) for detector in ("flat", "arc") for arc in (360.0, 240.0, 120.0)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]:g}")
def kind(request: pytest.FixtureRequest) -> dict[str, object]:
    """Detector and arc: the full circle, a short scan (180 and the fan, here), a limited angle."""
    return dict(zip(("detector", "arc_deg"), request.param, strict=True))


@pytest.fixture
def scanner(small: Protocol, kind: dict[str, object]) -> Protocol:
    """The tiny scanner with each kind of detector and arc."""
    return replace(small, **kind)
