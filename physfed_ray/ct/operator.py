"""The scanner as a linear map A between images and line integrals, with A^T and the FBP B.

A is ray-driven (Joseph 1982): a ray that runs mostly upwards crosses every row of pixels once and
reads it there by linear interpolation; its sum is weighted with the way from row to row. Rays of
the other three directions are the same in an image that is turned by quarters. A^T is the exact
transpose, from the same weights.

Torch, on CPU and GPU. The batch is the innermost dimension, so that one index and one weight serve
all slices, and every output is the sum of one bag (``embedding_bag``), in one order: results do not
depend on the number of threads. Weights are made view by view and forgotten: for 1024 views of a
256 x 256 image they would fill a gigabyte.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from physfed_ray.ct.attenuation import inscribed_circle
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.linear import apply_linear
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.symmetry import Mirrors

_QUARTER = math.pi / 2


@dataclass(frozen=True)
class FanBeam:
    """A, A^T and B of a protocol on an n x n grid over its field of view.

    As in the FBP, the object lies in the inscribed circle of the grid: A reads nothing outside it,
    A^T and B are 0 there. All three are differentiable any number of times and keep nothing for the
    backward pass; the derivative of A is A^T, and of A^T, A.

    Attributes:
        protocol: The scanner.
        n: Side of the images in pixels.
    """

    protocol: Protocol
    n: int

    def project(self, image: Tensor) -> Tensor:
        """Return the line integrals A x.

        Args:
            image: (B, 1, n, n) float32 or float64, attenuation per mm.

        Returns:
            (B, 1, views, bins), dimensionless.

        Raises:
            ValueError: The image has another shape or type.
        """
        self._check(image, (self.n, self.n), "an image")
        return apply_linear(image, self._project, self._back_project)

    def back_project(self, sinogram: Tensor) -> Tensor:
        """Return A^T y, the exact adjoint of ``project``.

        Args:
            sinogram: (B, 1, views, bins) float32 or float64.

        Returns:
            (B, 1, n, n), the sinogram's unit times mm.

        Raises:
            ValueError: The sinogram has another shape or type.
        """
        self._check(sinogram, (self.protocol.views, self.protocol.bins), "a sinogram")
        return apply_linear(sinogram, self._back_project, self._project)

    def fbp(self, sinogram: Tensor, kernel_mm: float | None = None) -> Tensor:
        """Return B y, the filtered back projection (``ct.fbp.fbp``).

        Args:
            sinogram: (B, 1, views, bins) float32 or float64, dimensionless.
            kernel_mm: Width that the filter averages over, mm; by default the scanner's own.

        Returns:
            (B, 1, n, n), attenuation per mm.

        Raises:
            ValueError: The sinogram has another shape or type.
        """
        self._check(sinogram, (self.protocol.views, self.protocol.bins), "a sinogram")
        return fbp(sinogram[:, 0], self.protocol, self.n, kernel_mm)[:, None]

    def _check(self, given: Tensor, sides: tuple[int, int], what: str) -> None:
        fits = given.ndim == 4 and given.shape[1:] == (1, *sides)
        if not fits or given.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{what} of this operator is (B, 1, {sides[0]}, {sides[1]}) float32 or float64, "
                f"not {tuple(given.shape)} {given.dtype}"
            )

    def _project(self, image: Tensor) -> Tensor:
        """Every ray sums what it reads in the rows that it crosses."""
        mirrors, rays = Mirrors(self.protocol), _rays(self.protocol, self.n)
        planes = pad(mirrors.to_planes(self._inside(image[:, 0])), (0, 0, 1, 1, 1, 1))
        kinds = 4 // mirrors.turns  # the columns hold the other quarters
        turned = [torch.rot90(planes, -quarter).flatten(0, 1) for quarter in range(kinds)]
        sums = planes.new_zeros(mirrors.own_views * self.protocol.bins, planes.shape[2])
        for fan, slope in rays.fans(planes):
            taps, weights = rays.taps(fan, slope)
            crossed = embedding_bag(
                taps, turned[fan.quarter % kinds], mode="sum", per_sample_weights=weights
            )
            crossed *= rays.step_mm(slope)[:, None]
            sums[fan.rows] = mirrors.turn_on(crossed, fan.quarter // kinds)
        return mirrors.from_rows(sums)[:, None]

    def _back_project(self, sinogram: Tensor) -> Tensor:
        """Every pixel sums the rays that read it: they come sorted by the pixel.

        A pixel is read by the rays that start from it and from its left neighbour, so that the even
        pixels share all rays out among themselves, and so do the odd ones.
        """
        mirrors, rays, side = Mirrors(self.protocol), _rays(self.protocol, self.n), self.n + 2
        values, kinds = mirrors.to_rows(sinogram[:, 0]), 4 // mirrors.turns
        turned = values.new_zeros(kinds, side * side, values.shape[1])
        for fan, slope in rays.fans(values):
            first, share = rays.sorted_taps(fan, slope)
            ray = torch.arange(len(slope), dtype=torch.int32, device=first.device)
            ray = ray.expand_as(first).flatten()
            count = torch.bincount(first.flatten(), minlength=side * side)
            start = pad(count.cumsum(0), (1, 0)).to(torch.int32)
            bags = pad(start[1:-1:2], (1, 0)), start[0:-1:2].contiguous()
            share = torch.where((first & 1).bool(), share, 1 - share).flatten()
            spread = values[fan.rows] * rays.step_mm(slope)[:, None]
            spread = mirrors.turn_on(spread, -(fan.quarter // kinds))
            into = turned[fan.quarter % kinds]
            for parity, weights in enumerate((share, 1 - share)):
                summed = embedding_bag(
                    ray, spread, bags[parity], mode="sum", per_sample_weights=weights
                )
                pixels = into[parity::2]
                pixels += summed[: len(pixels)]
        planes = [
            torch.rot90(plane.view(side, side, -1), quarter) for quarter, plane in enumerate(turned)
        ]
        inner = torch.stack(planes).sum(0)[1:-1, 1:-1].contiguous()
        return self._inside(mirrors.from_planes(inner))[:, None]

    def _inside(self, image: Tensor) -> Tensor:
        """Set (B, n, n) to 0 outside the inscribed circle."""
        circle = torch.from_numpy(inscribed_circle(self.n)).to(image.device)
        return torch.where(circle, image, 0)


@dataclass(frozen=True)
class _Fan:
    """Those rays of a view that run mostly upwards once the image is turned by quarters.

    Attributes:
        quarter: How many quarters the image turns clockwise.
        rows: Where the rays lie among (view, bin).
        slopes: Where their slopes lie.
        source_column: Where the source is, in columns of the padded turned image.
        source_row: Likewise, in rows; it lies below the circle.
    """

    quarter: int
    rows: slice
    slopes: slice
    source_column: float
    source_row: float


@dataclass(frozen=True)
class _Rays:
    """The rays of the own views that meet the circle, as lines on a grid.

    Attributes:
        n: Side of the grid in pixels.
        pixel_mm: Pixel length, mm.
        groups: The rays, a view and direction at a time, each in the order of the bins.
        slopes: Columns that a ray moves to the right while it goes up one row, float64.
    """

    n: int
    pixel_mm: float
    groups: tuple[_Fan, ...]
    slopes: Tensor

    def fans(self, like: Tensor) -> Iterator[tuple[_Fan, Tensor]]:
        """Yield each group with its rays' slopes, in the type and on the device of a tensor."""
        slopes = self.slopes.to(like)
        for fan in self.groups:
            yield fan, slopes[fan.slopes]

    def step_mm(self, slope: Tensor) -> Tensor:
        """Return a ray's way from row to row, mm."""
        return (slope.square() + 1).sqrt_() * self.pixel_mm

    def taps(self, fan: _Fan, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return which pixels of the padded turned image the rays read, and with what weight.

        Args:
            fan: The rays.
            slope: Their slopes, (rays,).

        Returns:
            (rays, 2 n) int32, left pixels before right ones, and their weights.
        """
        taps = torch.empty(len(slope), 2, self.n, dtype=torch.int32, device=slope.device)
        weights = slope.new_empty(taps.shape)
        left, share = taps[:, 0], weights[:, 1]
        self._cross(fan, slope[:, None], self._row(slope), left, share)
        torch.add(left, 1, out=taps[:, 1])
        torch.sub(1, share, out=weights[:, 0])
        return taps.flatten(1), weights.flatten(1)

    def sorted_taps(self, fan: _Fan, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same, ascending in pixels: a ray farther on is farther right in every row.

        Rounding keeps that order, as a column is a product and a sum.

        Args:
            fan: The rays.
            slope: Their slopes, (rays,).

        Returns:
            The left one of two neighbouring pixels, int32, and the share of the right one, both
            (n, rays).
        """
        left = torch.empty(self.n, len(slope), dtype=torch.int32, device=slope.device)
        share = slope.new_empty(left.shape)
        self._cross(fan, slope, self._row(slope)[:, None], left, share)
        return left, share

    def _row(self, like: Tensor) -> Tensor:
        """Rows of the padded image, (n,)."""
        return torch.arange(1, self.n + 1, dtype=like.dtype, device=like.device)

    def _cross(self, fan: _Fan, slope: Tensor, row: Tensor, left: Tensor, share: Tensor) -> None:
        """Find the left pixel and the share of the right one, where rays cross rows."""
        rise = fan.source_row - row
        ahead = (rise > 0).to(slope)  # behind the source, a ray reads the empty margin
        torch.mul(slope, rise * ahead, out=share)
        share.add_(ahead * fan.source_column).clamp_(0, self.n + 1)
        left.copy_(share).clamp_(max=self.n)
        share.sub_(left)
        left.add_(row.to(torch.int32), alpha=self.n + 2)


@lru_cache(maxsize=16)
def _rays(protocol: Protocol, n: int) -> _Rays:
    """Return the rays of the own views; those that pass the circle by are left out."""
    pixel_mm, source_mm = protocol.pixel_at(n), protocol.source_mm
    bend = protocol.ray_angles
    meets = source_mm * np.abs(np.sin(bend)) < protocol.field_radius_mm + pixel_mm
    groups, slopes, done = [], [np.empty(0)], 0
    for view, angle in enumerate(protocol.view_angles[: Mirrors(protocol).own_views].tolist()):
        direction = angle - bend  # 0: upwards, growing counterclockwise
        quarters = np.round(direction / _QUARTER).astype(int)
        for quarter in np.unique(quarters[meets]).tolist():
            bins = np.flatnonzero(meets & (quarters == quarter))
            first = view * protocol.bins + int(bins[0])
            turned = angle - quarter * _QUARTER
            groups.append(
                _Fan(
                    quarter=quarter % 4,
                    rows=slice(first, first + len(bins)),
                    slopes=slice(done, done + len(bins)),
                    source_column=(n + 1) / 2 + source_mm * math.sin(turned) / pixel_mm,
                    source_row=(n + 1) / 2 + source_mm * math.cos(turned) / pixel_mm,
                )
            )
            slopes.append(-np.tan(direction[bins] - quarter * _QUARTER))
            done += len(bins)
    return _Rays(n, pixel_mm, tuple(groups), torch.from_numpy(np.concatenate(slopes)))
