"""Filtered back projection for fan beams: flat or curved, of a full circle or an arc.

Torch, batched over slices, on CPU and GPU, differentiable in the sinogram (Kak & Slaney, ch. 3.4).
Everything happens on the virtual detector through the rotation centre, where a bin is
``bin * source / (source + detector)`` long. On a curved one a place is ``s = source * gamma``; both
kinds share the ramp and differ in what is multiplied by

                  each ray                       the ramp                 each pixel of a view
    flat          source / hypot(source, s)      1                        1 / U^2
    curved        cos(gamma)                     (gamma / sin(gamma))^2   1 / L^2

U is the distance from the source to the pixel along the central ray and L the whole distance, both
in units of the source distance. Rays that measure one line share it (``ct.redundancy``).

An arc of 180 degrees and the angle under which the source sees the image circle measures every
line through that circle. A shorter arc leaves lines out: an edge along one of them is lost, and no
weights bring it back.
"""

import math

import torch
from torch import Tensor

from physfed_ray.ct.backprojection import back_project_views
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.redundancy import ray_shares

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

    Cosine weight and each ray's share of its line, ramp filter averaged over the kernel, back
    projection with the weight of the distance from the source.

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
        Of a shape that broadcasts to (views, bins): the cosine of the ray to the central one, times
        its share among the rays along the same line.
    """
    return cosine(protocol, like) * ray_shares(protocol).to(like)


def filter_response(protocol: Protocol, image_size: int, kernel_mm: float | None) -> Tensor:
    """Return the frequency response of the filter of ``fbp``, as ``ramp_filter`` does."""
    kernel_mm = default_kernel_mm(protocol, image_size) if kernel_mm is None else kernel_mm
    curved_mm = protocol.source_mm if protocol.detector == "arc" else None
    return ramp_filter(protocol.bins, protocol.virtual_bin_mm, kernel_mm, curved_mm)


def filter_matrix(protocol: Protocol, image_size: int, kernel_mm: float | None) -> Tensor:
    """Return the filter of ``fbp`` as a matrix, (bins, bins) float64, per mm.

    A row of bins times its transpose is that row filtered: entry (i, j) is what bin j gives to bin
    i. It depends on i - j alone, and its length L holds every lag without wrapping around.
    """
    response = filter_response(protocol, image_size, kernel_mm)
    kernel: Tensor = torch.fft.irfft(response, n=2 * (len(response) - 1))
    bins = torch.arange(protocol.bins)
    return kernel[bins[:, None] - bins]


def view_weight(protocol: Protocol) -> float:
    """Return what the back projection of each view is multiplied with: its angle, rad."""
    return protocol.arc / protocol.views


def cosine(protocol: Protocol, like: Tensor) -> Tensor:
    """Return the cosine of each ray's angle to the central one, (bins,), as ``like``'s type."""
    if protocol.detector == "arc":
        return torch.from_numpy(protocol.ray_angles).cos().to(like)
    position = detector_mm(protocol).to(like)
    return protocol.source_mm / torch.hypot(position, position.new_tensor(protocol.source_mm))


def ramp_filter(
    bins: int, bin_mm: float, kernel_mm: float, curved_mm: float | None = None
) -> Tensor:
    """Return the frequency response of the band-limited ramp, averaged over a width.

    The ramp is defined in space (Kak & Slaney, eq. 3.61), so that a uniform object keeps its value.

    Args:
        bins: Number of detector bins.
        bin_mm: Bin length on the virtual detector, mm.
        kernel_mm: Width of the average on the virtual detector, mm; 0 for none.
        curved_mm: Radius of a curved virtual detector (Kak & Slaney, ch. 3.4.1), mm; None: flat.

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
    if curved_mm is not None:  # no row of bins reads beyond a lag of bins - 1
        gamma = lag.clamp(max=bins - 1) * (bin_mm / curved_mm)
        kernel *= torch.sinc(gamma / math.pi).square().reciprocal()
    frequency = torch.fft.rfftfreq(length, bin_mm, dtype=torch.float64)
    response: Tensor = torch.fft.rfft(kernel).real * bin_mm * torch.sinc(frequency * kernel_mm)
    return response


def detector_mm(protocol: Protocol) -> Tensor:
    """Bin centres on the virtual detector, (bins,) float64, mm; along the arc of a curved one."""
    bins = torch.arange(protocol.bins, dtype=torch.float64) - (protocol.bins - 1) / 2
    return bins * protocol.virtual_bin_mm
