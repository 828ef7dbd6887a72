"""What the noise of an image is: its standard deviation in every pixel, without drawing any noise.

The FBP is linear, so that the variance of a pixel is a sum over rays: the ray's own variance times
the square of what it counts for in that pixel. The squares factor as the FBP does: weight of the
ray, filter, back projection. Only the interpolation between two bins mixes neighbours, whose noise
the filter has correlated. To first order in the noise this is exact for the discrete ``ct.fbp``;
``docs/physics.md`` compares it with Monte Carlo.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from physfed_ray.ct.attenuation import MU_WATER_PER_MM, hu_to_mu
from physfed_ray.ct.backprojection import back_project_variance
from physfed_ray.ct.fbp import filter_response, ray_weights, view_weight
from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS, FLOOR_COUNTS
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import Protocol


def noise_map_hu(
    hu: NDArray[np.floating],
    protocol: Protocol,
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
    kernel_mm: float | None = None,
) -> NDArray[np.float32]:
    """Return ``noise_map`` in HU, (B, n, n) float32.

    Args:
        hu: (B, n, n), HU, full or low dose; what is below air counts as air.
        protocol: The scanner.
        electronic_noise: Standard deviation in counts.
        kernel_mm: As in ``fbp``.
    """
    mu = torch.from_numpy(hu_to_mu(hu))[:, None]
    noise = noise_map(mu, protocol, electronic_noise, kernel_mm)
    hu_noise: NDArray[np.float32] = noise[:, 0].mul_(1000 / MU_WATER_PER_MM).numpy()
    return hu_noise


@torch.no_grad()
def noise_map(
    image: Tensor,
    protocol: Protocol,
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS,
    kernel_mm: float | None = None,
) -> Tensor:
    """Return the standard deviation of the noise that a scan of an image would have after FBP.

    Args:
        image: (B, 1, n, n) float32 or float64, attenuation per mm. A low-dose image serves as
            well: projecting averages its noise.
        protocol: The scanner.
        electronic_noise: Standard deviation in counts.
        kernel_mm: As in ``fbp``.

    Returns:
        (B, 1, n, n), attenuation per mm, 0 outside the inscribed circle.

    Raises:
        ValueError: The image has another shape or type.
    """
    n = image.shape[-1]
    line_integrals = FanBeam(protocol, n).project(image)[:, 0]
    variance = ray_variance(line_integrals, protocol.photons, electronic_noise)
    return propagate(variance, protocol, n, kernel_mm).sqrt_()[:, None]


def ray_variance(line_integrals: Tensor, photons: float, electronic_noise: float) -> Tensor:
    """Return the variance of measured line integrals to first order, ``(l + se^2) / l^2``.

    Args:
        line_integrals: p, any shape, dimensionless.
        photons: I0; of these, l = I0 exp(-p) are expected, taken for at least one.
        electronic_noise: se, standard deviation in counts.
    """
    expected = (-line_integrals).exp().mul(photons).clamp_(min=FLOOR_COUNTS)
    return (expected + electronic_noise**2) / expected.square()


@torch.no_grad()
def propagate(
    variance: Tensor, protocol: Protocol, image_size: int, kernel_mm: float | None = None
) -> Tensor:
    """Return the variance of each pixel of ``fbp`` when rays have independent noise.

    Args:
        variance: Of each line integral, (B, views, bins) float32 or float64.
        protocol: The scanner.
        image_size: n of the image.
        kernel_mm: As in ``fbp``.

    Returns:
        (B, n, n), per mm^2, never negative; 0 outside the inscribed circle.
    """
    weighted = variance * ray_weights(protocol, variance).square()
    own, between = _filtered(weighted, protocol, image_size, kernel_mm)
    image = back_project_variance(own, between, protocol, image_size)
    return image.mul_(view_weight(protocol) ** 2).clamp_(min=0)


def _filtered(
    variance: Tensor, protocol: Protocol, image_size: int, kernel_mm: float | None
) -> tuple[Tensor, Tensor]:
    """Return the variance of filtered bins, and the covariance of each with the next one.

    Args:
        variance: Of independent bins, (B, views, bins) floating point.
        protocol: The scanner.
        image_size: As in ``propagate``.
        kernel_mm: As in ``fbp``.
    """
    kernel = torch.fft.irfft(
        filter_response(protocol, image_size, kernel_mm)
    )  # by lag, negative ones last
    spectrum = torch.fft.rfft(variance, n=len(kernel))
    own, between = (
        torch.fft.irfft(spectrum * torch.fft.rfft(product).to(spectrum))[..., : protocol.bins]
        for product in (kernel.square(), kernel * kernel.roll(-1))
    )
    return own, between
