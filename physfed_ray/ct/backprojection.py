"""Pixel-driven fan-beam back projection in torch, batched over slices, with its exact adjoint.

The batch is the innermost dimension, so that one index and one weight serve all slices: a pixel is
a bag of (view, bin) rows, which ``embedding_bag`` sums. Views a quarter turn apart share their
indices too. Indices are computed for a block of views at a time, used, and forgotten: for 1024
views of a 256 x 256 image they would fill a gigabyte.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from physfed_ray.ct.attenuation import inscribed_circle
from physfed_ray.ct.linear import apply_linear
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.symmetry import Turns

_VIEWS_PER_BLOCK = 16  # about 7 MB of indices for a 256 x 256 image: they stay in the cache


def back_project_views(sinogram: Tensor, protocol: Protocol, image_size: int) -> Tensor:
    """Return the sum over views of a weight times the view, interpolated at each pixel.

    The weight is ``1 / U^2``, for a curved detector ``1 / L^2``: U is the distance from the source
    to the pixel along the central ray, L the whole distance, in units of the source distance.
    Linear in the sinogram and differentiable any number of times; nothing is kept for the backward
    pass.

    Args:
        sinogram: (B, views, bins) floating point, on any device.
        protocol: The scanner.
        image_size: n of the images.

    Returns:
        (B, n, n), 0 outside the inscribed circle.
    """
    geometry = _Geometry(protocol, image_size)
    gather, scatter = partial(_gather, geometry=geometry), partial(_scatter, geometry=geometry)
    return apply_linear(sinogram, gather, scatter)


def back_project_variance(
    variance: Tensor, covariance: Tensor, protocol: Protocol, image_size: int
) -> Tensor:
    """Return the variance of ``back_project_views`` of a noisy sinogram.

    A pixel reads ``w0 q_j + w1 q_(j+1)`` in each view, and views are independent of each other:
    the sum over views of ``w0^2 V_j + w1^2 V_(j+1) + 2 w0 w1 C_j``.

    Args:
        variance: V_j of the bins, (B, views, bins) floating point, on any device.
        covariance: C_j of bins j and j + 1, the same shape; the last bin's is not read.
        protocol: The scanner.
        image_size: n of the images.

    Returns:
        (B, n, n), 0 outside the inscribed circle.
    """
    geometry = _Geometry(protocol, image_size)
    rows, between = geometry.to_rows(variance), geometry.to_rows(covariance)
    x, y = geometry.pixels(rows)
    columns = rows.new_zeros(len(x), rows.shape[1])
    for views in geometry.blocks():
        block = slice(views.start * protocol.bins, views.stop * protocol.bins)
        lower, weights = geometry.taps(views, x, y)
        taps = torch.stack((lower, lower + 1, lower + len(views) * protocol.bins), -1)
        products = torch.cat((weights.square(), 2 * weights.prod(-1, keepdim=True)), -1)
        columns += embedding_bag(
            taps.flatten(1),
            torch.cat((rows[block], between[block])),
            mode="sum",
            per_sample_weights=products.flatten(1),
        )
    return geometry.to_image(columns)


def back_project_pixelwise(
    sinogram: Tensor, weights: Tensor, protocol: Protocol, image_size: int
) -> Tensor:
    """Return ``back_project_views`` with a further weight for each view and pixel.

    Differentiable in both. No two views share anything, and the backward pass keeps about 24 bytes
    for each weight: this is for small images.

    Args:
        sinogram: (B, views, bins) floating point, on any device.
        weights: (views, n, n), of the same type; those outside the inscribed circle are not read.
        protocol: The scanner.
        image_size: n of the images.

    Returns:
        (B, n, n), 0 outside the inscribed circle.
    """
    geometry, bins = _Geometry(protocol, image_size), protocol.bins
    rows = sinogram.permute(1, 2, 0).flatten(0, 1)
    x, y = geometry.pixels(rows)
    circle = geometry.circle(rows.device)
    per_pixel = weights.flatten(1)[:, circle].T[..., None]
    columns = rows.new_zeros(len(x), rows.shape[1])
    for first in range(0, protocol.views, _VIEWS_PER_BLOCK):
        views = range(first, min(first + _VIEWS_PER_BLOCK, protocol.views))
        lower, shares = geometry.taps(views, x, y)
        columns = columns + embedding_bag(
            torch.stack((lower, lower + 1), -1).flatten(1),
            rows[views.start * bins : views.stop * bins],
            mode="sum",
            per_sample_weights=(shares * per_pixel[:, views.start : views.stop]).flatten(1),
        )
    image = rows.new_zeros(image_size**2, rows.shape[1]).index_copy(0, circle, columns)
    return image.view(image_size, image_size, -1).permute(2, 0, 1)


@dataclass(frozen=True)
class _Geometry(Turns):
    image_size: int

    def blocks(self) -> list[range]:
        """Ranges of base views that are handled together."""
        step = _VIEWS_PER_BLOCK
        return [
            range(first, min(first + step, self.base_views))
            for first in range(0, self.base_views, step)
        ]

    def circle(self, device: torch.device) -> Tensor:
        """Flat indices of the pixels inside the inscribed circle, (P,) int64."""
        return torch.from_numpy(inscribed_circle(self.image_size).ravel().nonzero()[0]).to(device)

    def pixels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Positions x and y of the pixels inside the inscribed circle, (P, 1) each, mm."""
        flat, n = self.circle(like.device), self.image_size
        pixel_mm, middle = self.protocol.pixel_at(n), (n - 1) / 2
        column, row = (flat % n).to(like.dtype)[:, None], (flat // n).to(like.dtype)[:, None]
        return (column - middle) * pixel_mm, (middle - row) * pixel_mm

    def taps(self, views: range, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return which detector bins a pixel reads, and with what weight.

        Args:
            views: A block of V base views.
            x: (P, 1) pixel positions, mm.
            y: (P, 1) pixel positions, mm.

        Returns:
            The lower of two neighbouring bins as a row of the block's (V * bins) rows, (P, V)
            int32; and the weights of both, (P, V, 2).
        """
        p = self.protocol
        angle = torch.from_numpy(p.view_angles[views.start : views.stop])
        sin, cos = (t.to(x) for t in (angle.sin(), angle.cos()))
        position, depth_weight = self._places(x, y, sin, cos)
        position = position.add_((p.bins - 1) / 2).clamp_(0, p.bins - 1)
        lower = position.to(torch.int32).clamp_(max=p.bins - 2)
        upper_share = position.sub_(lower)
        weights = x.new_empty(*position.shape, 2)
        torch.mul(depth_weight, upper_share, out=weights[..., 1])
        torch.sub(depth_weight, weights[..., 1], out=weights[..., 0])
        first_row = torch.arange(len(views), dtype=torch.int32, device=x.device) * p.bins
        return lower.add_(first_row), weights

    def _places(self, x: Tensor, y: Tensor, sin: Tensor, cos: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each pixel lies on the detector, in bins from its middle, and its weight.

        Args:
            x: (P, 1) pixel positions, mm.
            y: (P, 1) pixel positions, mm.
            sin: (V,) of the views' angles.
            cos: (V,) likewise.

        Returns:
            Two new tensors (P, V).
        """
        source_mm, bin_mm = self.protocol.source_mm, self.protocol.virtual_bin_mm
        depth = torch.addcmul(y * (cos / source_mm), x, sin / -source_mm).add_(1)
        if self.protocol.detector == "arc":
            across = torch.addcmul(y * (sin / source_mm), x, cos / source_mm)
            place = torch.atan2(across, depth).mul_(source_mm / bin_mm)
            return place, across.square_().add_(depth.square_()).reciprocal_()
        nearness = depth.reciprocal_()
        place = torch.addcmul(y * (sin / bin_mm), x, cos / bin_mm).mul_(nearness)
        return place, nearness.pow_(2)

    def to_image(self, columns: Tensor) -> Tensor:
        """(P, turns * B) -> (B, n, n): put pixels in place, turn each share of views, add up."""
        n = self.image_size
        image = columns.new_zeros(n * n, columns.shape[1])
        image[self.circle(columns.device)] = columns
        return self.from_planes(image.view(n, n, -1))

    def from_image(self, image: Tensor) -> Tensor:
        """The adjoint of ``to_image``: (B, n, n) -> (P, turns * B)."""
        columns = self.to_planes(image).reshape(self.image_size**2, -1)
        return columns[self.circle(image.device)]


def _gather(sinogram: Tensor, geometry: _Geometry) -> Tensor:
    """Back project: every pixel sums what it reads in every view."""
    rows, bins = geometry.to_rows(sinogram), geometry.protocol.bins
    x, y = geometry.pixels(rows)
    columns = rows.new_zeros(len(x), rows.shape[1])
    for views in geometry.blocks():
        lower, weights = geometry.taps(views, x, y)
        taps = torch.stack((lower, lower + 1), -1)
        columns += embedding_bag(
            taps.flatten(1),
            rows[views.start * bins : views.stop * bins],
            mode="sum",
            per_sample_weights=weights.flatten(1),
        )
    return geometry.to_image(columns)


def _scatter(image: Tensor, geometry: _Geometry) -> Tensor:
    """The exact adjoint of ``_gather``: every bin sums the pixels that read it."""
    columns, bins = geometry.from_image(image), geometry.protocol.bins
    x, y = geometry.pixels(columns)
    rows = columns.new_zeros(geometry.base_views * bins, columns.shape[1])
    for views in geometry.blocks():
        lower, weights = geometry.taps(views, x, y)
        sorted_rows, pixel = lower.T.sort(dim=1)  # increasing over all views of the block
        first = torch.arange(len(views) * bins, dtype=torch.int32, device=rows.device)
        bags = torch.searchsorted(sorted_rows.flatten(), first)
        block = rows[views.start * bins : views.stop * bins]
        for tap in (0, 1):
            share = weights[..., tap].T.gather(1, pixel)
            summed = embedding_bag(
                pixel.flatten(), columns, bags, mode="sum", per_sample_weights=share.flatten()
            )
            block[tap:] += summed[: len(block) - tap]
    return geometry.from_rows(rows)
