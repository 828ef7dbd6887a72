"""Denoisers that learn nothing: the FBP's own kernel, total variation, non-local means.

They answer whether a network was worth training. Each has one strength. Sources: Kak and Slaney
1988 (a wider kernel trades resolution for noise); Chambolle 2004; Buades, Coll and Morel 2005; the
last two as implemented in scikit-image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.simulation import Simulation
from physfed_ray.fields import SINOGRAM
from physfed_ray.front_ends.fbp import SLICES_AT_ONCE, kernel_widths, with_kernel
from physfed_ray.window import Window, normalise

STRENGTHS = tuple(0.002 * 1.5**k for k in range(-4, 11))  # 1 to 346 HU of a window of 3000 HU

Images = NDArray[np.float32]
"""(N, n, n) float32, 0 and 1 are the ends of the window."""


@dataclass(frozen=True)
class Slices:
    """N slices of one protocol, as a denoiser sees them.

    Attributes:
        low: Low-dose images.
        full: Full-dose images, for those who choose a strength.
        protocol: How the slices were scanned.
        simulation: How that was simulated.
        window_hu: HU that 0 and 1 stand for.
        extra: The fields that the denoiser names, by name, each one array a slice: ``sinogram``
            is N of (views, bins) float32.
    """

    low: Images
    full: Images
    protocol: Protocol
    simulation: Simulation
    window_hu: Window
    extra: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.low)

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the slices."""
        low, full = (images[list(rows)] for images in (self.low, self.full))
        extra = {name: [values[row] for row in rows] for name, values in self.extra.items()}
        return replace(self, low=low, full=full, extra=extra)


@dataclass(frozen=True)
class Denoiser:
    """A classical denoiser.

    Attributes:
        title: What tables call it.
        unit: What its strength is, and in what it is counted.
        strengths: Slices -> the strengths to choose from.
        apply: Slices and a strength -> their images, denoised.
        fields: Names of what it reads beside the images.
    """

    title: str
    unit: str
    strengths: Callable[[Slices], Sequence[float]]
    apply: Callable[[Slices, float], Images]
    fields: tuple[str, ...] = ()


def _kernel_widths(slices: Slices) -> list[float]:
    return kernel_widths(slices.protocol, slices.simulation)


def _reconstruct(slices: Slices, width: float) -> Images:
    """Reconstruct through a kernel of a width in pixels of the image."""
    images = np.empty_like(slices.low)
    measured = slices.extra[SINOGRAM.name]
    for start in range(0, len(slices), SLICES_AT_ONCE):
        rows = slice(start, start + SLICES_AT_ONCE)
        hu = with_kernel(np.stack(measured[rows]), slices.protocol, slices.simulation, width)
        images[rows] = normalise(hu, slices.window_hu)
    return images


def _total_variation(slices: Slices, strength: float) -> Images:
    chambolle: Callable[..., Images] = denoise_tv_chambolle
    denoised = [chambolle(np.array(image), weight=strength) for image in slices.low]
    return np.asarray(denoised, dtype=np.float32)


def _non_local_means(slices: Slices, strength: float) -> Images:
    denoised = [
        denoise_nl_means(
            np.array(image), patch_size=5, patch_distance=6, h=strength, fast_mode=True
        )
        for image in slices.low
    ]
    return np.asarray(denoised, dtype=np.float32)


def _of_window(_: Slices) -> Sequence[float]:
    return STRENGTHS


DENOISERS: Mapping[str, Denoiser] = {
    "fbp_tuned": Denoiser(
        "FBP, tuned kernel",
        "width in pixels",
        _kernel_widths,
        _reconstruct,
        fields=(SINOGRAM.name,),
    ),
    "tv": Denoiser(
        "Total variation", "weight, as a part of the window", _of_window, _total_variation
    ),
    "nlm": Denoiser("Non-local means", "h, as a part of the window", _of_window, _non_local_means),
}
