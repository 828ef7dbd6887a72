"""The protocol: the seven numbers that say how a scanner scans, and the twelve presets.

The reference image grid has 256 x 256 pixels, so ``256 * pixel_mm`` is the side of the field of
view, at any image size. ``paper-1`` to ``paper-8`` are the public values of the training clients of
Yang et al. 2025 (SCAN-PhysFed). The unseen protocols of that paper are not public: ``unseen-1`` to
``unseen-4`` are this project's own.
"""

import difflib
import fnmatch
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physfed_ray.errors import PhysFedError

REFERENCE_SIZE = 256

# Entry by entry of g: the values that map to 0 and to 1 (views and photons on a log scale).
_NORM_LOW = np.array([5.0, 0.0, 0.4, 0.25, 150.0, 150.0, 4.6])
_NORM_SPAN = np.array([11.0, 4.0, 1.3, 1.55, 550.0, 450.0, 6.0]) - _NORM_LOW
_BINS_UNIT = 256.0


@dataclass(frozen=True)
class Protocol:
    """A full-circle fan-beam scan with a flat detector; refuses what cannot be built.

    Attributes:
        views: Number of source positions, equally spaced over 360 degrees.
        bins: Number of detector bins.
        pixel_mm: Pixel length of the 256 x 256 reference grid, mm.
        bin_mm: Length of a detector bin, mm.
        source_mm: Distance from the source to the rotation centre, mm.
        detector_mm: Distance from the rotation centre to the detector, mm.
        photons: Photons sent along each ray.

    Raises:
        PhysFedError: A number is not positive and finite, there is one bin, the source or the
            detector lies inside the image circle, or the fan does not cover that circle.
    """

    views: int
    bins: int
    pixel_mm: float
    bin_mm: float
    source_mm: float
    detector_mm: float
    photons: float

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = operator.index if field.name in ("views", "bins") else float
            _set_positive(self, field.name, kind)
        if self.bins < 2:
            raise PhysFedError("protocol: bins=1 measures no profile; give at least 2")
        self._check_distances()
        self._check_coverage()

    @property
    def field_radius_mm(self) -> float:
        """Radius of the circle inscribed in the image grid, mm."""
        return REFERENCE_SIZE / 2 * self.pixel_mm

    @property
    def covered_radius_mm(self) -> float:
        """Radius of the largest centred circle that every view sees whole, mm."""
        half_detector = self.bins * self.bin_mm / 2
        reach = math.hypot(self.source_mm + self.detector_mm, half_detector)
        return self.source_mm * half_detector / reach

    @property
    def virtual_bin_mm(self) -> float:
        """Length of a detector bin scaled to the rotation centre, mm."""
        return self.bin_mm * self.source_mm / (self.source_mm + self.detector_mm)

    def pixel_at(self, image_size: int) -> float:
        """Return the pixel length in mm of an ``image_size`` grid with the same field of view."""
        return self.pixel_mm * REFERENCE_SIZE / image_size

    def normalised(self) -> NDArray[np.float32]:
        """Return g, (7,) float32, about [0, 1]; values outside are legal (paper-4's pixel)."""
        g = np.array(astuple(self), dtype=np.float64)
        g[0], g[1], g[6] = np.log2(g[0]), g[1] / _BINS_UNIT, np.log10(g[6])
        normalised: NDArray[np.float32] = ((g - _NORM_LOW) / _NORM_SPAN).astype(np.float32)
        return normalised

    def _check_distances(self) -> None:
        radius = self.field_radius_mm
        for name in ("source_mm", "detector_mm"):
            distance = getattr(self, name)
            if distance <= radius:
                raise PhysFedError(
                    f"protocol: {name}={distance:g} lies inside the image circle of radius "
                    f"{radius:g} mm (128 x pixel_mm={self.pixel_mm:g}); "
                    f"increase {name} or reduce pixel_mm"
                )

    def _check_coverage(self) -> None:
        covered, radius = self.covered_radius_mm, self.field_radius_mm
        if covered < radius:
            needed = radius * (self.source_mm + self.detector_mm)
            needed /= math.sqrt(self.source_mm**2 - radius**2) * self.bin_mm / 2
            raise PhysFedError(
                f"protocol: the fan of {self.bins} bins x {self.bin_mm:g} mm (source_mm="
                f"{self.source_mm:g}, detector_mm={self.detector_mm:g}) covers a circle of radius "
                f"{covered:.2f} mm, but the image circle has {radius:.2f} mm (128 x pixel_mm="
                f"{self.pixel_mm:g}); use at least {math.ceil(needed)} bins or a smaller pixel_mm"
            )


def _set_positive(protocol: Protocol, name: str, kind: Callable[[Any], float]) -> None:
    """Replace a field by its plain Python number, or refuse it by name and value."""
    value = getattr(protocol, name)
    try:
        number = math.nan if isinstance(value, bool | str) else kind(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        wanted = "integer" if kind is operator.index else "finite number"
        raise PhysFedError(f"protocol: {name}={value!r} is not possible; give a positive {wanted}")
    object.__setattr__(protocol, name, number)


PRESETS: Mapping[str, Protocol] = MappingProxyType(
    {
        "paper-1": Protocol(1024, 512, 0.66, 0.72, 250, 250, 1.0e5),
        "paper-2": Protocol(128, 768, 0.78, 0.58, 350, 300, 1.0e6),
        "paper-3": Protocol(512, 768, 1.00, 1.20, 500, 400, 5.0e4),
        "paper-4": Protocol(384, 600, 1.40, 1.50, 350, 300, 1.25e5),
        "paper-5": Protocol(712, 720, 0.60, 0.82, 300, 350, 1.3e5),
        "paper-6": Protocol(200, 730, 0.88, 0.78, 350, 280, 9.0e5),
        "paper-7": Protocol(560, 755, 1.20, 1.30, 300, 400, 4.5e4),
        "paper-8": Protocol(368, 500, 1.00, 1.30, 350, 350, 1.45e5),
        "unseen-1": Protocol(864, 560, 0.70, 0.80, 280, 280, 1.1e5),
        "unseen-2": Protocol(160, 750, 0.82, 0.68, 350, 290, 9.5e5),
        "unseen-3": Protocol(530, 760, 1.15, 1.28, 400, 400, 4.2e4),
        "unseen-4": Protocol(640, 680, 0.64, 0.80, 300, 320, 2.5e5),
    }
)


def select_presets(pattern: str) -> dict[str, Protocol]:
    """Return the presets whose names match a shell pattern such as ``paper-*``, in table order.

    Raises:
        PhysFedError: No preset matches.
    """
    chosen = {n: p for n, p in PRESETS.items() if fnmatch.fnmatchcase(n, pattern)}
    if not chosen:
        near = difflib.get_close_matches(pattern, PRESETS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PhysFedError(
            f"no protocol is named {pattern!r}: {hint}the presets are {', '.join(PRESETS)}"
        )
    return chosen
