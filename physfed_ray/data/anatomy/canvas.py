"""The image that a phantom's slice is painted on: soft borders, warped space, texture."""

import typing
from dataclasses import dataclass
from math import ceil, cos, floor, sin

import numpy as np

from physfed_ray.data.anatomy.shapes import Shape

AIR_HU = -1000.0
FAT_HU = -105.0
MUSCLE_HU = 52.0
SKIN_HU = 30.0
WARP_MARGIN_MM = 10.0


class SmoothField:
    """A random function of space, smooth in all three directions, of unit variance."""

    def __init__(
        self, rng: np.random.Generator, field_mm: float, length_mm: float, cell_mm: float
    ) -> None:
        """Draw a field over ``field_mm`` squared by ``length_mm``, varying over ``cell_mm``."""
        side, layers = ceil(field_mm / cell_mm) + 4, ceil(length_mm / cell_mm) + 4
        self._nodes = rng.standard_normal((layers, side, side)).astype(np.float32)
        self._cell = cell_mm
        self._field = field_mm

    def at(self, z: float, size: int) -> np.ndarray:
        """Return the section at height ``z`` mm as (size, size) float32."""
        across = (np.arange(size) + 0.5) / size * self._field / self._cell + 1.5
        weights = _weights(across, self._nodes.shape[1])
        layer = _weights(np.array([z / self._cell + 1.5]), self._nodes.shape[0])[0]
        section: np.ndarray = weights @ np.tensordot(layer, self._nodes, 1) @ weights.T
        return section


def _weights(places: np.ndarray, nodes: int) -> np.ndarray:
    """Return (places, nodes) Gaussian weights whose squares add up to 1, so variance stays 1."""
    apart = places[:, None] - np.arange(nodes)
    weights = np.exp(-0.5 * np.square(apart / 0.7))
    normed: np.ndarray = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    return normed.astype(np.float32)


@dataclass(frozen=True)
class Space:
    """What a patient's slices share: the warp that makes shapes organic, and the textures.

    Attributes:
        field_mm: Side of the square field of view.
        warps: Slow and fast displacement, x and y, each with its amplitude in mm.
        blotch: Texture over about 12 mm.
        strand: Texture over about 8 mm, whose zero lines are fat planes and septa.
        turn: How far the patient lies turned about the body axis, radians.
    """

    field_mm: float
    warps: tuple[tuple[SmoothField, SmoothField, float], ...]
    blotch: SmoothField
    strand: SmoothField
    turn: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, field_mm: float, length_mm: float, warp_mm: float = 3.5
    ) -> "Space":
        """Draw the fields of one patient."""

        def field(cell: float) -> SmoothField:
            return SmoothField(rng, field_mm, length_mm, cell)

        warps = (
            (field(60.0), field(60.0), warp_mm),
            (field(18.0), field(18.0), 0.22 * warp_mm),
        )
        return cls(field_mm, warps, field(12.0), field(8.0), rng.uniform(-0.06, 0.06))


class Canvas:
    """One slice in the making.

    Attributes:
        image: (n, n) float32, HU.
        x: (n, n) float32, warped coordinate in mm, 0 in the middle.
        y: (n, n) float32, likewise downwards.
        grain: (n, n) float32, fine texture of unit variance.
        blotch: (n, n) float32, coarse texture.
        strand: (n, n) float32, texture for planes and septa.
    """

    def __init__(self, space: Space, z: float, size: int, rng: np.random.Generator) -> None:
        """Start with air; ``rng`` draws what differs from slice to slice."""
        from scipy import ndimage  # half a second, and most processes only count patients

        self.pixel = space.field_mm / size
        self.size = size
        axis = ((np.arange(size) + 0.5) * self.pixel - space.field_mm / 2).astype(np.float32)
        self.turn = space.turn
        c, s = cos(space.turn), sin(space.turn)
        self.x = c * axis[None] + s * axis[:, None]
        self.y = c * axis[:, None] - s * axis[None]
        for across, down, amplitude in space.warps:
            self.x = self.x + amplitude * across.at(z, size)
            self.y = self.y + amplitude * down.at(z, size)
        self.image = np.full((size, size), AIR_HU, np.float32)
        self.blotch = space.blotch.at(z, size)
        self.strand = space.strand.at(z, size)
        white = rng.standard_normal((size, size), dtype=np.float32)
        self.grain = _unit(ndimage.gaussian_filter(white, 1.0, truncate=3))

    def window(self, shape: Shape, margin: float = 0.0) -> tuple[slice, slice]:
        """Return the rows and columns that can be inside ``shape``."""
        x0, y0, x1, y1 = shape.box
        margin += WARP_MARGIN_MM + abs(self.turn) * max(-x0, -y0, x1, y1)
        middle = self.size / 2

        def span(low: float, high: float) -> slice:
            first = floor((low - margin) / self.pixel + middle)
            last = ceil((high + margin) / self.pixel + middle)
            return slice(min(max(first, 0), self.size), min(max(last, 0), self.size))

        return span(y0, y1), span(x0, x1)

    def paint(
        self,
        shape: Shape,
        hu: float,
        *,
        grain: float = 0.0,
        blotch: float = 0.0,
        mask: np.ndarray | None = None,
        edge: float = 1.3,
    ) -> None:
        """Fill ``shape`` with ``hu``, with borders as soft as partial volume makes them.

        Args:
            shape: What to fill.
            hu: Mean value.
            grain: Standard deviation of the fine texture, HU.
            blotch: Standard deviation of the coarse texture, HU.
            mask: (n, n) float32 in [0, 1] that limits the painting.
            edge: Width of the border in pixels.
        """
        if shape.empty:
            return
        w = self.window(shape)
        hu = float(hu)  # a NumPy scalar would make every array below double precision
        if mask is not None and not mask[w].any():
            return
        distance = shape.distance(self.x[w], self.y[w])
        cover = np.clip(0.5 - distance / (edge * self.pixel), 0, 1)
        if mask is not None:
            cover = cover * mask[w]
        self.blend(w, cover, hu, grain, blotch)

    def blend(
        self,
        w: tuple[slice, slice],
        cover: np.ndarray,
        hu: float | np.ndarray,
        grain: float = 0.0,
        blotch: float = 0.0,
    ) -> None:
        """Mix ``hu`` into the window ``w`` where ``cover`` (0 to 1) says."""
        value: np.ndarray | float = hu
        if grain:
            value = value + grain * self.grain[w]
        if blotch:
            value = value + blotch * self.blotch[w]
        self.image[w] += cover * (value - self.image[w])

    def cover(self, shape: Shape) -> np.ndarray:
        """Return (n, n) float32: how much of each pixel lies in ``shape``."""
        whole = np.zeros_like(self.image)
        if not shape.empty:
            w = self.window(shape)
            distance = shape.distance(self.x[w], self.y[w])
            whole[w] = np.clip(0.5 - distance / (1.3 * self.pixel), 0, 1)
        return whole

    def bone(self, shape: Shape, cortex_mm: float, marrow: float, cortex: float = 1050.0) -> None:
        """Paint bone: a dense shell of ``cortex_mm`` around trabeculae of mean ``marrow`` HU."""
        if shape.empty:
            return
        w = self.window(shape)
        distance = shape.distance(self.x[w], self.y[w])
        cover = np.clip(0.5 - distance / (1.3 * self.pixel), 0, 1)
        inside = np.clip((-distance - cortex_mm) / (0.8 * cortex_mm + 0.5), 0, 1)
        spongy = marrow + max(0.2 * abs(marrow), 15.0) * (self.grain[w] + 0.7 * self.blotch[w])
        self.blend(w, cover, cortex + inside * (spongy - cortex))

    def septa(self, shape: Shape, hu: float, width: float, strength: float = 1.0) -> None:
        """Draw the zero lines of the strand texture inside ``shape``: fat planes, fat septa."""
        w = self.window(shape)
        cover = np.clip(0.5 - shape.distance(self.x[w], self.y[w]) / self.pixel, 0, 1)
        lines = np.clip(1 - np.abs(self.strand[w]) / width, 0, 1)
        self.blend(w, strength * cover * lines, hu)

    def finish(self, noise_hu: float, rng: np.random.Generator) -> np.ndarray:
        """Return the slice with the resolution and the noise of a full-dose scan."""
        from scipy import ndimage

        sharp = ndimage.gaussian_filter(self.image, 0.45, truncate=4)
        white = rng.standard_normal(self.image.shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(white, 0.7, truncate=3)
        noise -= ndimage.gaussian_filter(noise, 2.0, truncate=3)
        tissue = ndimage.gaussian_filter((sharp > -500).astype(np.float32), 2.0, truncate=3)
        noisy = sharp + noise_hu * (0.25 + 0.75 * tissue) * _unit(noise)
        result: np.ndarray = np.maximum(noisy, AIR_HU - 24.0)
        return result.astype(np.float32)


def _unit(noise: np.ndarray) -> np.ndarray:
    """Return ``noise`` with zero mean and unit variance."""
    scaled: np.ndarray = (noise - noise.mean()) / noise.std()
    return scaled


class Region(typing.Protocol):
    """One patient's region of the body.

    Attributes:
        field_mm: Side of the square field of view.
        length_mm: Extent along the body; heights run from 0 to it.
        space: Warp and textures.
        noise_hu: Noise of the full-dose image, HU.
    """

    field_mm: float
    length_mm: float
    space: Space
    noise_hu: float

    def paint(self, canvas: Canvas, z: float) -> None:
        """Paint the slice at height ``z`` mm."""
        ...


def render(region: Region, z: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the slice of ``region`` at height ``z`` mm as (size, size) float32 HU."""
    canvas = Canvas(region.space, z, size, rng)
    region.paint(canvas, z)
    return canvas.finish(region.noise_hu, rng)
