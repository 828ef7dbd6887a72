"""Filtered back projection for full-circle fan beams with a flat detector (Kak & Slaney, ch. 3.4).

Torch, batched over slices, on CPU and GPU, differentiable in the sinogram. Everything happens on
the virtual detector through the rotation centre, where a bin is ``bin * source / (source +
detector)`` long.
"""

import math

import torch
from torch import Tensor

from physfed_ray.ct.backprojection import back_project_views
from physfed_ray.ct.protocol import Protocol

KERNEL_PIXELS = 0.85
"""Width of the default kernel in pixels.

A detector finer than the image grid holds frequencies that the grid cannot show and that come back
as aliases of edges and of noise. A wider average blurs and hides noise, a narrower one keeps
streaks and aliases: docs/physics.md has the numbers.
"""

_ROWS_AT_ONCE = 128
"""Rows that a CPU filters together: their spectra, about a megabyte, stay in its cache. That is
four times as fast as all rows of 8 slices at once, and bit for bit the same."""


def default_kernel_mm(protocol: Protocol, image_size: int) -> float:
    """Return the width of the default kernel, mm.

    ``KERNEL_PIXELS`` pixels of the grid in use, as a scanner reconstructs for its voxel; but never
    finer than those of the reference grid, the scanner's own.
    """
    return KERNEL_PIXELS * max(protocol.pixel_mm, protocol.pixel_at(image_size))


def fbp(
    sinogram: Tensor, protocol: Protocol, image_size: int, kernel_mm: float | None = None
) -> Tensor:
    """Reconstruct attenuation from line integrals.

    Cosine weight, ramp filter averaged over the kernel, back projection with weight 1 / U^2.

    Args:
        sinogram: (B, views, bins) float32 or float64, dimensionless.
        protocol: The scanner.
        image_size: n of the grid over the protocol's field of view.
        kernel_mm: Width that the filter averages over, mm; 0 for the plain ramp (Ram-Lak); by
            default ``default_kernel_mm``.

    Returns:
        (B, n, n), attenuation per mm, 0 outside the inscribed circle; negative values are kept.
    """
    response = filter_response(protocol, image_size, kernel_mm)
    filtered = _filtered(sinogram * ray_weights(protocol, sinogram), response)
    return back_project_views(filtered, protocol, image_size) * view_weight(protocol)


def _filtered(sinogram: Tensor, response: Tensor) -> Tensor:
    """Return the rows (..., bins) of a sinogram through a filter of a ``ramp_filter`` response."""
    rows, response = sinogram.flatten(0, -2), response.to(sinogram)
    bins, length = sinogram.shape[-1], 2 * (len(response) - 1)
    at_once = _ROWS_AT_ONCE if rows.device.type == "cpu" else len(rows)
    parts = []
    for first in range(0, len(rows), at_once):
        spectrum = torch.fft.rfft(rows[first : first + at_once], n=length) * response
        parts.append(torch.fft.irfft(spectrum, n=length)[:, :bins])
    return torch.cat(parts).view_as(sinogram)


def ray_weights(protocol: Protocol, like: Tensor) -> Tensor:
    """Return what each line integral is multiplied with before the filter.

    Args:
        protocol: The scanner.
        like: Gives type and device.

    Returns:
        Of a shape that broadcasts to (views, bins): the cosine of the ray to the central one.
    """
    position = detector_mm(protocol).to(like)
    return protocol.source_mm / torch.hypot(position, position.new_tensor(protocol.source_mm))


def filter_response(protocol: Protocol, image_size: int, kernel_mm: float | None) -> Tensor:
    """Return the frequency response of the filter of ``fbp``, as ``ramp_filter`` does."""
    kernel_mm = default_kernel_mm(protocol, image_size) if kernel_mm is None else kernel_mm
    return ramp_filter(protocol.bins, protocol.virtual_bin_mm, kernel_mm)


def view_weight(protocol: Protocol) -> float:
    """Return what the back projection of each view is multiplied with: half of its angle, rad."""
    return math.pi / protocol.views


def ramp_filter(bins: int, bin_mm: float, kernel_mm: float) -> Tensor:
    """Return the frequency response of the band-limited ramp, averaged over a width.

    The ramp is defined in space (Kak & Slaney, eq. 3.61), so that a uniform object keeps its value.

    Args:
        bins: Number of detector bins.
        bin_mm: Bin length on the virtual detector, mm.
        kernel_mm: Width of the average on the virtual detector, mm; 0 for none.

    Returns:
        (L/2 + 1,) float64, per mm, for a real FFT of even length L that holds the linear
        convolution of two rows of ``bins``.
    """
    from scipy.fft import next_fast_len  # half of SciPy: only for those who reconstruct

    length = 2 * next_fast_len(bins, real=True)
    lag = torch.arange(length)
    lag = torch.minimum(lag, length - lag).to(torch.float64)
    kernel = torch.where(lag % 2 == 1, -1 / (math.pi * lag * bin_mm).square(), 0.0)
    kernel[0] = 1 / (4 * bin_mm**2)
    frequency = torch.fft.rfftfreq(length, bin_mm, dtype=torch.float64)
    response: Tensor = torch.fft.rfft(kernel).real * bin_mm * torch.sinc(frequency * kernel_mm)
    return response


def detector_mm(protocol: Protocol) -> Tensor:
    """Bin centres on the virtual detector, (bins,) float64, mm."""
    bins = torch.arange(protocol.bins, dtype=torch.float64) - (protocol.bins - 1) / 2
    return bins * protocol.virtual_bin_mm
