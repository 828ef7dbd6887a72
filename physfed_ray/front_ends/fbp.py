"""The filtered back projection as a front end: with the scanner's kernel, or with a tuned one.

A wider kernel trades resolution for noise (Kak and Slaney 1988). Whatever learns in the projection
domain can learn that as well, so that a tuned kernel is the control without which nothing is said
of such a method.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from physfed_ray.ct.fbp import default_kernel_mm
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.device import torch_threads
from physfed_ray.front_ends.base import Choice, FrontEnd, FrontEndSettings, Measured

KERNEL_WIDTHS = (0.0, 0.5, 0.7, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5, 3.2, 4.0)
"""Pixels of the image, densest where the best widths have been found; the scan's own joins them."""
SLICES_AT_ONCE = 8


def scanner_width(protocol: Protocol, simulation: Simulation) -> float:
    """Return the width of the scan's own kernel in pixels of the image."""
    size, own = simulation.image_size, simulation.kernel_pixels
    return default_kernel_mm(protocol, size) / protocol.pixel_at(size) if own is None else own


def kernel_widths(protocol: Protocol, simulation: Simulation) -> list[float]:
    """Return the widths to choose from in pixels of the image, among them that of the scan."""
    return sorted({*KERNEL_WIDTHS, scanner_width(protocol, simulation)})


def with_kernel(
    line_integrals: NDArray[np.float32],
    protocol: Protocol,
    simulation: Simulation,
    width: float,
    *,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return images by FBP through a kernel of a width in pixels, (B, n, n) float32, HU."""
    wanted = replace(simulation, kernel_pixels=width)
    parts = []
    with torch_threads(1):  # so that the bits do not depend on who prepares the images
        for start in range(0, len(line_integrals), SLICES_AT_ONCE):
            rows = line_integrals[start : start + SLICES_AT_ONCE]
            parts.append(reconstruct(rows, protocol, wanted, device=device))
    return np.concatenate(parts)


def squared_error(hu: NDArray[np.float32], slices: Measured) -> float:
    """Return the mean over slices of log mean squared error within the window: minus their PSNR."""
    low, high = slices.window_hu
    apart = np.clip(hu, low, high).astype(np.float64) - np.clip(slices.full_hu, low, high)
    return float(np.log(np.square(apart).mean((1, 2))).mean())


def tuned_kernel(slices: Measured, widths: list[float] | None = None) -> tuple[float, float]:
    """Return the width with the highest mean PSNR, in pixels, and its ``squared_error``."""
    widths = widths or kernel_widths(slices.protocol, slices.simulation)
    errors = [
        squared_error(
            with_kernel(slices.line_integrals, slices.protocol, slices.simulation, width), slices
        )
        for width in widths
    ]
    best = int(np.argmin(errors))
    return widths[best], errors[best]


class FilteredBackProjectionSettings(FrontEndSettings):
    """Keys under ``front_end:``."""

    kernel: Literal["scanner", "tuned"] = Field(
        "scanner",
        description="scanner: as every scan is reconstructed (data.kernel_pixels); tuned: the "
        "width with the highest PSNR on validation slices, for each client",
    )


class FilteredBackProjection(FrontEnd):
    """The scanner's own images, or those through a kernel that is tuned for each client."""

    name = "fbp"
    title = "filtered back projection"
    paper = "Kak and Slaney 1988, ch. 3.4"
    Settings = FilteredBackProjectionSettings
    settings: FilteredBackProjectionSettings

    @property
    def prepares(self) -> bool:
        """Whether the kernel is another than the scanner's."""
        return self.settings.kernel == "tuned"

    @property
    def chooses(self) -> bool:
        """Whether the kernel is tuned."""
        return self.settings.kernel == "tuned"

    def choose(self, slices: Measured) -> Choice:
        """Return the kernel's width in pixels of the image."""
        return {"kernel_pixels": tuned_kernel(slices)[0]}

    def reconstruct(
        self,
        line_integrals: NDArray[np.float32],
        protocol: Protocol,
        simulation: Simulation,
        choice: Choice,
        *,
        device: str = "cpu",
    ) -> NDArray[np.float32]:
        """See ``FrontEnd``."""
        width = choice["kernel_pixels"]
        return with_kernel(line_integrals, protocol, simulation, width, device=device)
