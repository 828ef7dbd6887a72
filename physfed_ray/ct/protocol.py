"""The protocol: the seven numbers that say how a scanner scans, and the twelve presets.

Two further fields, the kind of detector and the arc, are for scanners that differ from the paper's:
g holds one of them only where some protocol of an experiment needs it.

Geometry: at the angle ``b`` the source stands at ``(source sin b, -source cos b)``; a ray at the
angle ``gamma`` from the central one runs along ``(-sin(b - gamma), cos(b - gamma))``, and its bin
lies at a larger ``x cos b + y sin b`` the larger ``gamma`` is.

The reference image grid has 256 x 256 pixels, so ``256 * pixel_mm`` is the side of the field of
view, at any image size. ``paper-1`` to ``paper-8`` are the public values of the training clients of
Yang et al. 2025 (SCAN-PhysFed). The unseen protocols of that paper are not public: ``unseen-1`` to
``unseen-4`` are this project's own.
"""

import difflib
import fnmatch
import math
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from physfed_ray.errors import PhysFedError

REFERENCE_SIZE = 256

Detector = Literal["flat", "arc"]
FULL_CIRCLE_DEG = 360.0

FURTHER: Mapping[str, Any] = MappingProxyType({"detector": "flat", "arc_deg": FULL_CIRCLE_DEG})
"""The fields beyond the seven numbers with their usual values, in the order that g has them in."""

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "views": (1, 100_000),
        "bins": (2, 100_000),
        "pixel_mm": (0.001, 100.0),
        "bin_mm": (0.001, 100.0),
        "source_mm": (1.0, 100_000.0),
        "detector_mm": (1.0, 100_000.0),
        "photons": (1.0, 1e16),
        "arc_deg": (1e-3, FULL_CIRCLE_DEG),
    }
)
"""Lowest and highest value of each number: far beyond any scanner, but still to be computed."""
MOST_READINGS = 50_000_000
"""Of a scan, views times bins: 200 MB of float32 a slice."""

# Entry by entry of g: the values that map to 0 and to 1 (views and photons on a log scale).
_NORM_LOW = np.array([5.0, 0.0, 0.4, 0.25, 150.0, 150.0, 4.6])
_NORM_SPAN = np.array([11.0, 4.0, 1.3, 1.55, 550.0, 450.0, 6.0]) - _NORM_LOW
_BINS_UNIT = 256.0


@dataclass(frozen=True)
class Protocol:
    """A fan-beam scan; refuses what cannot be built.

    Attributes:
        views: Number of source positions, equally spaced over the arc from 0 on.
        bins: Number of detector bins.
        pixel_mm: Pixel length of the 256 x 256 reference grid, mm.
        bin_mm: Length of a detector bin, mm; along the arc of a curved detector.
        source_mm: Distance from the source to the rotation centre, mm.
        detector_mm: Distance from the rotation centre to the detector, mm.
        photons: Photons sent along each ray.
        detector: ``flat``, or ``arc``: part of a circle around the source, so that the rays are
            equally spaced in angle.
        arc_deg: What the source travels, degrees: 360 for the full circle, about 180 and the fan's
            angle for a short scan, less for a limited angle.

    Raises:
        PhysFedError: A number is not positive and finite, or lies outside ``LIMITS``; there is one
            bin, the detector or the arc is none that there is, the source or the detector lies
            inside the image circle, or the fan does not cover that circle.
    """

    views: int
    bins: int
    pixel_mm: float
    bin_mm: float
    source_mm: float
    detector_mm: float
    photons: float
    detector: Detector = "flat"
    arc_deg: float = FULL_CIRCLE_DEG

    def __post_init__(self) -> None:
        for name in (*SEVEN, "arc_deg"):
            kind = operator.index if name in ("views", "bins") else float
            _set_positive(self, name, kind)
        if self.bins < 2:
            raise PhysFedError("protocol: bins=1 measures no profile; give at least 2")
        if self.detector not in get_args(Detector):
            raise PhysFedError(
                f"protocol: detector={self.detector!r} is not possible; give "
                f"{' or '.join(get_args(Detector))}"
            )
        if self.arc_deg > FULL_CIRCLE_DEG:
            raise PhysFedError(
                f"protocol: arc_deg={self.arc_deg:g} is more than a full circle; give at most 360"
            )
        self._check_limits()
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
        reach = self.source_mm + self.detector_mm
        if self.detector == "arc":
            return self.source_mm * math.sin(min(half_detector / reach, math.pi / 2))
        return self.source_mm * half_detector / math.hypot(reach, half_detector)

    @property
    def virtual_bin_mm(self) -> float:
        """Length of a bin scaled to the rotation centre, mm."""
        return self.bin_mm * self.source_mm / (self.source_mm + self.detector_mm)

    @property
    def ray_angles(self) -> NDArray[np.float64]:
        """Angle gamma between each bin's ray and the central one, (bins,), rad, ascending."""
        bins = np.arange(self.bins, dtype=np.float64) - (self.bins - 1) / 2
        place = bins * self.virtual_bin_mm / self.source_mm
        return place if self.detector == "arc" else np.arctan(place)

    @property
    def arc(self) -> float:
        """What the source travels, rad."""
        return math.radians(self.arc_deg)

    @property
    def view_angles(self) -> NDArray[np.float64]:
        """Angle b of each view, (views,), rad."""
        return np.arange(self.views, dtype=np.float64) * (self.arc / self.views)

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the further fields in which this is not a flat detector on a full circle."""
        return tuple(name for name, usual in FURTHER.items() if getattr(self, name) != usual)

    def values(self) -> dict[str, Any]:
        """Return the fields by name; the further ones only where they are not the usual ones."""
        return {k: v for k, v in asdict(self).items() if k in SEVEN or k in self.further}

    def pixel_at(self, image_size: int) -> float:
        """Return the pixel length in mm of an ``image_size`` grid with the same field of view."""
        return self.pixel_mm * REFERENCE_SIZE / image_size

    def normalised(self, further: tuple[str, ...] = ()) -> NDArray[np.float32]:
        """Return g, about [0, 1]; values outside are legal (paper-4's pixel).

        Args:
            further: Names of the further fields that g holds (``further_of``).

        Returns:
            (7,) float32, and one entry for each further field: the arc in full circles; 0 for a
            flat detector, 1 for a curved one.

        Raises:
            PhysFedError: The protocol is unusual in a field that g does not hold.
        """
        for name in self.further:
            if name not in further:
                usual = FURTHER[name]
                raise PhysFedError(
                    f"protocol: {name}={_word(getattr(self, name))} cannot be told to this model, "
                    f"which knows protocols of {name}={_word(usual)} alone; train one with such a "
                    "client or unseen protocol"
                )
        g = np.array([getattr(self, name) for name in SEVEN], dtype=np.float64)
        g[0], g[1], g[6] = np.log2(g[0]), g[1] / _BINS_UNIT, np.log10(g[6])
        known = {"detector": float(self.detector == "arc"), "arc_deg": self.arc_deg / 360}
        normalised = [*((g - _NORM_LOW) / _NORM_SPAN), *(known[name] for name in further)]
        return np.array(normalised).astype(np.float32)

    def _check_limits(self) -> None:
        for name, (lowest, highest) in LIMITS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise PhysFedError(
                    f"protocol: {name}={value:g} is no scanner's; give {lowest:g} to {highest:g}"
                )
        if self.views * self.bins > MOST_READINGS:
            raise PhysFedError(
                f"protocol: views={self.views} times bins={self.bins} makes "
                f"{self.views * self.bins:g} readings a slice; give at most {MOST_READINGS:g}"
            )

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
        reach = self.source_mm + self.detector_mm
        if covered < radius:
            half = math.asin(radius / self.source_mm)
            needed = half if self.detector == "arc" else math.tan(half)
            needed *= reach / (self.bin_mm / 2)
            raise PhysFedError(
                f"protocol: the fan of {self.bins} bins x {self.bin_mm:g} mm (source_mm="
                f"{self.source_mm:g}, detector_mm={self.detector_mm:g}) covers a circle of radius "
                f"{covered:.2f} mm, but the image circle has {radius:.2f} mm (128 x pixel_mm="
                f"{self.pixel_mm:g}); use at least {math.ceil(needed)} bins or a smaller pixel_mm"
            )
        fan_deg = math.degrees(self.bins * self.bin_mm / reach)
        if self.detector == "arc" and fan_deg >= 180:
            raise PhysFedError(
                f"protocol: an arc of {self.bins} bins x {self.bin_mm:g} mm spans {fan_deg:.0f} "
                f"degrees around the source, {reach:g} mm away, but must stay below 180; use fewer "
                "bins or a smaller bin_mm"
            )


SEVEN = tuple(field.name for field in fields(Protocol) if field.name not in FURTHER)
"""Names of the seven numbers, in the order of g."""


def further_of(protocols: Iterable[Protocol]) -> tuple[str, ...]:
    """Return the names of the further fields that g must hold to tell these protocols apart."""
    used = {name for protocol in protocols for name in protocol.further}
    return tuple(name for name in FURTHER if name in used)


def nearest_protocol(protocol: Protocol, others: Mapping[str, Protocol]) -> str:
    """Return whose normalised protocol is nearest (Euclidean), of others by name."""
    further = further_of((protocol, *others.values()))
    g = protocol.normalised(further)
    return min(others, key=lambda id: float(np.linalg.norm(others[id].normalised(further) - g)))


def normalisation(further: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return how ``Protocol.normalised`` makes each entry of g, in plain values.

    Entry = (scaled value - low) / (high - low), where ``scale`` says how the value is scaled.
    """
    scales = {"views": "log2", "bins": "/256", "photons": "log10"}
    entries: list[dict[str, Any]] = [
        {"name": name, "scale": scales.get(name, "none"), "low": low, "high": low + span}
        for name, low, span in zip(SEVEN, _NORM_LOW.tolist(), _NORM_SPAN.tolist(), strict=True)
    ]
    own = {"detector": "flat 0, arc 1", "arc_deg": "/360"}
    return entries + [
        {"name": name, "scale": own[name], "low": 0.0, "high": 1.0} for name in further
    ]


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _set_positive(protocol: Protocol, name: str, kind: Callable[[Any], float]) -> None:
    """Replace a field by its plain Python number, or refuse it by name and value."""
    value = getattr(protocol, name)
    try:
        number = math.nan if isinstance(value, bool | str) else kind(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1e100:
        wanted = "integer" if kind is operator.index else "finite number"
        huge = isinstance(value, int) and value.bit_length() > 64
        written = f"(a number of {value.bit_length()} bits)" if huge else reprlib.repr(value)
        raise PhysFedError(f"protocol: {name}={written} is not possible; give a positive {wanted}")
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
