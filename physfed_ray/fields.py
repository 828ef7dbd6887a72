"""The fields of a slice: every array that a client may hold of it, and what a batch has of them.

Files, client data and batches follow from this one list. The standard fields are in the file of
every client. Any other field is made by its own function, and stored, only for experiments whose
method or backbone declares it. A package adds a field through the entry-point group
``physfed_ray.fields``.

The list stands below methods and backbones, which name fields, so it is no part of ``data``.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as default
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.registry import Registry
from physfed_ray.window import normalise

if TYPE_CHECKING:
    from torch import Tensor

    from physfed_ray.ct.base_image import Explained


@dataclass(frozen=True)
class Sizes:
    """What the shape of a field follows from, beside the protocol.

    Attributes:
        image_size: Side n of a whole image in pixels.
        tokens: Tokens T of a report's embedding; 0 where nothing has been described yet.
        dim: Length d of a token, likewise.
    """

    image_size: int
    tokens: int = 0
    dim: int = 0


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What is known of N slices under one protocol while they are scanned.

    Attributes:
        protocol: How they are scanned.
        full_hu: Full-dose images on the protocol's grid, (N, n, n) float32, HU; cut off at the
            ends of the window where noise is drawn again in a round.
        low_hu: Their reconstructions, (N, n, n) float32, HU, not clipped.
        body: 1 inside the patient, (N, n, n) uint8.
        line_integrals: What the detector measured, (N, views, bins) float32, dimensionless;
            (N, 0, 0) where the low dose was measured elsewhere and nothing was simulated.
        expected: What it would measure without noise, likewise.
        simulation: How the scan was simulated.
        window_hu: HU that become 0 and 1 for the network.
    """

    protocol: Protocol
    full_hu: np.ndarray
    low_hu: np.ndarray
    body: np.ndarray
    line_integrals: np.ndarray
    expected: np.ndarray
    simulation: Simulation
    window_hu: tuple[float, float]


@dataclass(frozen=True)
class Field:
    """One named array of a slice.

    Attributes:
        name: Its name in files, batches and declarations.
        dtype: Of its numbers; files and client data hold bool as uint8.
        shape: (sizes, protocol) -> shape of one slice. A batch has (B, ...), and images
            (n, n) get a channel in front, (B, 1, n, n).
        crop: What a patch has of it: ``image`` the patch's window of the last two axes, which are
            then n x n; ``whole`` all of it; ``none`` nothing, it has no place in patches.
        reason: Why it cannot be cropped, in words that end a sentence; for ``none`` alone.
        make: Makes it, of N slices (N, ...), while they are scanned; at most
            ``data.shards.SLICES_AT_ONCE`` come at a time. None for the standard fields.
        packed: Protocol -> a smaller type for files and client data, whose rounding error the
            field can bear; None: they hold the type itself. A batch has the type itself.
        version: Changes whenever ``make`` would give other numbers for the same slices.
        simulated: It follows from a simulated scan, its rays or its photons, so that measured pairs
            of images cannot give it; False if ``make`` reads images alone.

    Raises:
        PhysFedError: The declaration contradicts itself.
    """

    name: str
    dtype: Any
    shape: Callable[[Sizes, Protocol], tuple[int, ...]]
    crop: Literal["image", "whole", "none"]
    reason: str = ""
    make: Callable[[Acquisition], np.ndarray] | None = None
    packed: Callable[[Protocol], Any] | None = None
    version: str = "1"
    simulated: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise PhysFedError(
                f"the field '{self.name}' needs a name of small letters, digits and underscores"
            )
        if (self.crop == "none") != bool(self.reason):
            raise PhysFedError(
                f"the field '{self.name}' needs a 'reason' if it cannot be cropped, and none if it "
                "can"
            )

    @property
    def stored(self) -> np.dtype:
        """The type of its numbers in files and client data, unless they are packed."""
        return np.dtype(np.uint8) if self.dtype == bool else self.dtype

    def stored_under(self, protocol: Protocol) -> np.dtype:
        """Return the type of its numbers in files and client data, of slices under a protocol."""
        return np.dtype(self.packed(protocol)) if self.packed else self.stored

    @property
    def follows_protocol(self) -> bool:
        """Whether a slice has it in another shape under another protocol, as sinograms have."""
        sizes = Sizes(64, 1, 1)
        one, other = (self.shape(sizes, PRESETS[name]) for name in ("paper-1", "paper-2"))
        return one != other

    def made_of(self, scan: Acquisition) -> np.ndarray:
        """Make the field of N slices, (N, ...) of the type that files hold.

        Raises:
            PhysFedError: What it makes is not what it declares.
        """
        if self.make is None:
            raise PhysFedError(f"the field '{self.name}' has no 'make', so a scan cannot give it")
        made = self.make(scan)
        sizes = Sizes(scan.full_hu.shape[-1])
        wanted = (len(scan.full_hu), *self.shape(sizes, scan.protocol))
        if made.dtype != self.dtype or made.shape != wanted:
            raise PhysFedError(
                f"the field '{self.name}' declares {self.dtype} numbers of shape {wanted}, but its "
                f"'make' returns {made.dtype} of shape {made.shape}; mend one of them"
            )
        return np.asarray(made, self.stored_under(scan.protocol))


def on_server(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of some fields that slices of several protocols have in one file."""
    return tuple(name for name in names if not field_of(name).follows_protocol)


def _image(sizes: Sizes, protocol: Protocol) -> tuple[int, ...]:
    return sizes.image_size, sizes.image_size


def _sinogram(sizes: Sizes, protocol: Protocol) -> tuple[int, ...]:
    return protocol.views, protocol.bins


LOW = Field("low", np.float32, _image, "image")
FULL = Field("full", np.float32, _image, "image")
BODY = Field("body", np.uint8, _image, "image")
HU = Field("hu", np.int16, _image, "image")
EMBEDDING = Field(
    "embedding", np.float32, lambda sizes, protocol: (sizes.tokens, sizes.dim), "whole"
)
EMBEDDING_MASK = Field("embedding_mask", np.bool_, lambda sizes, protocol: (sizes.tokens,), "whole")
EXPECTED = Field(
    "expected",
    np.float32,
    _sinogram,
    "none",
    reason="every ray crosses the whole image",
    make=lambda scan: scan.expected,
)
"""What the detector would measure without noise; training files have it where noise is fresh."""


def _noise_of_low(scan: Acquisition) -> np.ndarray:
    from physfed_ray.ct.noise_map import noise_map_hu  # the operator: for those who need it

    (low, high), simulation = scan.window_hu, scan.simulation
    kernel_mm = simulation.kernel_mm(scan.protocol)
    noise_hu = noise_map_hu(scan.low_hu, scan.protocol, simulation.electronic_noise, kernel_mm)
    return noise_hu / (high - low)


SIGMA = Field("sigma", np.float32, _image, "image", make=_noise_of_low)
"""Standard deviation of the noise of ``low``, on the scale of the window: all of it is 1. It is
computed of what a hospital has, the low-dose image and the protocol (``ct.noise_map``)."""


@lru_cache(maxsize=1)
def _explained(scan: Acquisition) -> "Explained":
    """Return what three fields are made of: they are made one after the other."""
    from physfed_ray.ct.base_image import explain
    from physfed_ray.ct.noise_map import noise_map_hu

    seen, simulation = np.clip(scan.low_hu, *scan.window_hu), scan.simulation
    kernel_mm = simulation.kernel_mm(scan.protocol)
    noise_hu = noise_map_hu(seen, scan.protocol, simulation.electronic_noise, kernel_mm)
    return explain(seen, noise_hu, scan.protocol, kernel_mm)


def _streaks_of_low(scan: Acquisition) -> np.ndarray:
    low, high = scan.window_hu
    return _explained(scan).streaks / np.float32(high - low)


def _base_of_low(scan: Acquisition) -> np.ndarray:
    return normalise(_explained(scan).base, scan.window_hu)


def _smooth_of_low(scan: Acquisition) -> np.ndarray:
    return normalise(_explained(scan).smooth, scan.window_hu)


STREAKS = Field("streaks", np.float32, _image, "image", make=_streaks_of_low)
"""The part of ``low`` that its views' small number explains, on the scale of the window."""

BASE = Field("base", np.float32, _image, "image", make=_base_of_low)
"""``low`` without ``streaks`` and without noise, by total variation (``ct.base_image``)."""

SMOOTH = Field("smooth", np.float32, _image, "image", make=_smooth_of_low)
"""``low`` without noise, its streaks left in, likewise."""

HALF_PRECISION_PHOTONS = 1.4e6
"""Up to so many photons a ray, rounding a line integral to 11 bits adds less than a quarter of its
noise, wherever it lies: at most 0.21 sqrt(photons / 1e6), just above p = 2 (tests/test_fields.py).
All of the paper's protocols have fewer."""


def _sinogram_type(protocol: Protocol) -> Any:
    return np.float16 if protocol.photons <= HALF_PRECISION_PHOTONS else np.float32


SINOGRAM = Field(
    "sinogram",
    np.float32,
    _sinogram,
    "none",
    reason="every ray crosses the whole image",
    make=lambda scan: scan.line_integrals,
    packed=_sinogram_type,
    version="2",
)
"""The line integrals that the detector measured, dimensionless: 0.2 to 1.1 MB a slice under the
paper's protocols, in half precision where that is far below their noise."""

SCANNED = (LOW, FULL, BODY, HU)
"""What a scan stores of every slice."""

STANDARD = (LOW, FULL, BODY, EMBEDDING, EMBEDDING_MASK)
"""What the file of every client holds. Embeddings are there for all methods, also those that read
none: the runs of a suite share one data set, whichever their methods."""

BATCHED = (LOW, FULL, EMBEDDING, EMBEDDING_MASK)
"""The fields of every batch."""

_OWN = {field.name: field for field in STANDARD}

FIELDS: Registry[Field] = Registry(
    "field",
    {
        name: f"physfed_ray.fields:{name.upper()}"
        for name in (*_OWN, *(f.name for f in (EXPECTED, SIGMA, STREAKS, BASE, SMOOTH, SINOGRAM)))
    },
)
"""What a method or a backbone may declare."""


def field_of(name: str) -> Field:
    """Return a field.

    Raises:
        PhysFedError: There is no such field.
    """
    return _OWN[name] if name in _OWN else FIELDS.find(name)


def extra_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of some fields that not every batch has, each once."""
    batched = {field.name for field in BATCHED}
    return tuple(dict.fromkeys(name for name in names if name not in batched))


def made_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of some fields that are made for the ones who declare them, each once."""
    return tuple(dict.fromkeys(name for name in names if name not in _OWN))


@dataclass(frozen=True)
class Batch:
    """A batch of patches or whole images: of one client, or of several where they are pooled.

    Attributes:
        low: Low-dose images, (B, 1, h, w) float32, 0 and 1 are the ends of the HU window.
        full: Full-dose images, same shape and scale.
        g: Normalised protocol of each image, (B, G) float32.
        embedding: Report embeddings f_t, (B, T, d) float32, not standardised.
        embedding_mask: (B, T) bool, True where a token is real.
        origin: (B, 2) int64, row and column of the patch's top-left pixel in its image.
        image_size: Side n of the whole image in pixels.
        extra: The other fields that method, backbone and front end declare, by name, (B, ...).
        protocol: How the client's own scanner measured them, for its learned front end; None for
            slices that no client of the federation has scanned, and for those of several scanners.
    """

    low: "Tensor"
    full: "Tensor"
    g: "Tensor"
    embedding: "Tensor"
    embedding_mask: "Tensor"
    origin: "Tensor"
    image_size: int
    extra: "Mapping[str, Tensor]" = default(default_factory=dict)
    protocol: Protocol | None = None

    @property
    def own_g(self) -> "Tensor":
        """Normalised protocol of the first image, (1, G): of all of them where one client's."""
        return self.g[0][None]

    @property
    def whole(self) -> tuple[int, int]:
        """Height and width of the whole image in pixels."""
        return self.image_size, self.image_size

    def __getitem__(self, name: str) -> "Tensor":
        """Return a field by its name."""
        if name in self.extra:
            return self.extra[name]
        if name in (field.name for field in BATCHED):
            tensor: Tensor = getattr(self, name)
            return tensor
        raise KeyError(f"the batch has no field '{name}': a method names it in its 'fields'")

    def each(self, change: "Callable[[str, Tensor], Tensor]") -> Self:
        """Return a batch with every field changed by a function of its name and tensor."""
        own: dict[str, Any] = {f.name: change(f.name, getattr(self, f.name)) for f in BATCHED}
        extra = {name: change(name, tensor) for name, tensor in self.extra.items()}
        return replace(self, **own, extra=extra)
