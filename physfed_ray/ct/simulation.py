"""What a simulated scan depends on beside the protocol: object, rays, kernel, electronic noise."""

import math
from dataclasses import dataclass, replace

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.protocol import Protocol

OBJECT_PIXELS = 512
"""Side of the grid that an object has by default, where that is 2 to 4 times the image's."""


def default_object_scale(image_size: int) -> int:
    """Return how many pixels of the object make one of the image along each side: 2 to 4."""
    return min(4, max(2, math.ceil(OBJECT_PIXELS / image_size)))


@dataclass(frozen=True)
class Simulation:
    """How scans are simulated, the same for all protocols.

    Attributes:
        image_size: Side n of the reconstructed images in pixels.
        object_scale: Pixels of the scanned object along one pixel of the image. At 1 the object is
            the image itself, made of square pixels, as in the papers: its edges are then those of
            the grid on which the result is judged.
        kernel_pixels: Width of the reconstruction kernel in pixels of the image; None for the
            default of ``ct.fbp.default_kernel_mm``.
        electronic_noise: Standard deviation in counts.
    """

    image_size: int
    object_scale: int = 1
    kernel_pixels: float | None = None
    electronic_noise: float = ELECTRONIC_NOISE_COUNTS

    @property
    def object_size(self) -> int:
        """Side of the scanned object in pixels."""
        return self.image_size * self.object_scale

    def kernel_mm(self, protocol: Protocol) -> float | None:
        """Return the width of the kernel, mm; None for the default."""
        if self.kernel_pixels is None:
            return None
        return self.kernel_pixels * protocol.pixel_at(self.image_size)

    def rays(self, protocol: Protocol) -> int:
        """Return how many rays make a bin: as many as object pixels lie across it.

        One, where the object is the image, as in the papers.
        """
        if self.object_scale == 1:
            return 1
        across = protocol.virtual_bin_mm / protocol.pixel_at(self.object_size)
        return max(1, math.ceil(across))


def fine_detector(protocol: Protocol, rays: int) -> Protocol:
    """Return the protocol with each bin divided into ``rays`` bins."""
    return replace(protocol, bins=protocol.bins * rays, bin_mm=protocol.bin_mm / rays)
