"""Edge sharpness: the modulation transfer function (MTF) on the edge of a phantom's insert.

A denoiser is not linear, so that it has no one MTF: it may keep a strong edge and smear a weak one,
and more so in more noise. What is measured is therefore the task transfer function of S. Richard,
D. B. Husarik, G. Yadava, S. N. Murphy, E. Samei. Towards task-based assessment of CT performance.
Medical Physics 39(7), 2012: the MTF for an insert of a named contrast, at the protocol's noise. A
soft-tissue disk with one round insert is scanned several times; over the mean of the images, the
pixels' distances from the insert's centre sample the edge far finer than the grid does (edge spread
function), its derivative is the line spread function, and the Fourier transform of that the MTF.

The insert's edge is taken for straight. An image shows nothing finer than half its sampling rate,
so that no frequency above 0.5 / pixel is given. All but the images is float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.ct.attenuation import AIR_HU

BACKGROUND_HU = 40.0
CONTRASTS_HU = (120, 900)
"""Those of acrylic and of bone against soft tissue: an edge near the noise, and one far above."""
LEVELS = (50, 10)
"""Per cent of modulation at which the frequency is given."""
BODY_RADIUS, INSERT_RADIUS = 0.42, 0.16
"""In sides of the image."""
INSERT_CENTRE = (0.0213, 0.0371)
"""Beside the image's centre, in sides of the image, so that no pixel grid is met twice."""
_BINS_A_PIXEL = 5
_MARGIN_PIXELS, _MARGIN_RADII = 12, 0.75  # how far to either side the edge is looked at, at most
_SUPERSAMPLING = 8
_HIGHEST_PER_PIXEL = 0.5  # half the sampling rate
_FREQUENCIES = 501
_LEAST_CONTRAST = 0.1  # share of the insert's contrast without which there is no edge to measure


@dataclass(frozen=True)
class Edge:
    """A phantom and where its edge is.

    Attributes:
        image: (n, n) float32 HU.
        radius: Radius of the insert in pixels.
        distance: Each pixel's distance from the insert's centre in pixels, (n, n).
        contrast_hu: Insert minus background.
    """

    image: NDArray[np.float32]
    radius: float
    distance: NDArray[np.float64]
    contrast_hu: float

    @property
    def body(self) -> NDArray[np.uint8]:
        """1 on the phantom, (n, n)."""
        return (self.image > (AIR_HU + BACKGROUND_HU) / 2).astype(np.uint8)


def edge_phantom(image_size: int, contrast_hu: float) -> Edge:
    """Return a soft-tissue disk in air with one round insert.

    Args:
        image_size: Side n in pixels.
        contrast_hu: Insert minus background, HU.
    """
    insert = _disk(image_size, INSERT_CENTRE, INSERT_RADIUS)
    body = _disk(image_size, (0.0, 0.0), BODY_RADIUS)
    image = AIR_HU + (BACKGROUND_HU - AIR_HU) * body + contrast_hu * insert
    axis = (np.arange(image_size) + 0.5) / image_size - 0.5
    rows, columns = axis[:, None] - INSERT_CENTRE[0], axis[None] - INSERT_CENTRE[1]
    distance = np.hypot(rows, columns) * image_size
    return Edge(image.astype(np.float32), INSERT_RADIUS * image_size, distance, contrast_hu)


def _disk(image_size: int, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """Return the share of each pixel that a disk covers, (n, n)."""
    fine = image_size * _SUPERSAMPLING
    axis = (np.arange(fine) + 0.5) / fine - 0.5
    inside = (axis[:, None] - centre[0]) ** 2 + (axis[None] - centre[1]) ** 2 <= radius**2
    blocks = inside.reshape(image_size, _SUPERSAMPLING, image_size, _SUPERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)))


def edge_sharpness(
    images: NDArray[np.float32], edge: Edge, pixel_mm: float
) -> dict[str, NDArray[np.float64]]:
    """Return the frequencies at which the modulation has fallen to 50% and to 10%.

    Args:
        images: Repeated scans of the edge's phantom, (K, n, n) float32 HU.
        edge: The phantom.
        pixel_mm: Pixel length, mm.

    Returns:
        ``mtf50_120hu_per_mm`` and ``mtf10_120hu_per_mm`` for a contrast of 120 HU, (1,) each: one
        number for all scans. Half the sampling rate where the modulation does not fall that far,
        NaN where less than a tenth of the contrast is left.
    """
    modulation = transfer_function(images, edge)
    found = {}
    for level in LEVELS:
        frequency = np.nan if modulation is None else _falls_below(modulation, level / 100)
        found[mtf_name(level, edge.contrast_hu)] = np.array([frequency / pixel_mm])
    return found


def mtf_name(level: int, contrast_hu: float) -> str:
    """Return the name of a sharpness, such as ``mtf50_120hu_per_mm``."""
    return f"mtf{level}_{contrast_hu:g}hu_per_mm"


def transfer_function(images: NDArray[np.float32], edge: Edge) -> NDArray[np.float64] | None:
    """Return the MTF at ``np.linspace(0, 0.5, 501)`` cycles a pixel; None without an edge."""
    from scipy.signal.windows import tukey  # half a second that every host would wait

    place, step = _edge_steps(np.mean(images, axis=0, dtype=np.float64), edge)
    spread = step * tukey(len(step), 0.5)
    if spread.sum() < _LEAST_CONTRAST * edge.contrast_hu:
        return None
    frequency = np.linspace(0, _HIGHEST_PER_PIXEL, _FREQUENCIES)
    phases = np.exp(-2j * np.pi * np.outer(frequency, place))
    modulation = np.abs(phases @ spread) / spread.sum()
    # Averaging over a bin and taking differences of bins each multiply by a known sinc.
    return np.asarray(modulation / np.sinc(frequency / _BINS_A_PIXEL) ** 2)


def _edge_steps(
    image: NDArray[np.float64], edge: Edge
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the fall of the mean image from one ring to the next: places from the edge, and HU."""
    margin = min(_MARGIN_PIXELS, _MARGIN_RADII * edge.radius)
    bins = round(margin * _BINS_A_PIXEL)
    centres = np.arange(-bins, bins + 1) / _BINS_A_PIXEL
    ring = np.rint((edge.distance - edge.radius) * _BINS_A_PIXEL).astype(np.intp) + bins
    inside = (ring >= 0) & (ring < len(centres))
    count = np.bincount(ring[inside], minlength=len(centres))
    total = np.bincount(ring[inside], weights=image[inside], minlength=len(centres))
    some = count > 0
    profile = np.interp(centres, centres[some], total[some] / count[some])
    return (centres[1:] + centres[:-1]) / 2, -np.diff(profile)


def _falls_below(modulation: NDArray[np.float64], level: float) -> float:
    """Return where the modulation first falls below a level, in cycles a pixel."""
    below = np.flatnonzero(modulation < level)
    if not len(below):
        return _HIGHEST_PER_PIXEL
    k = int(below[0])
    high, low = modulation[k - 1], modulation[k]
    part = (high - level) / (high - low)
    return float((k - 1 + part) * _HIGHEST_PER_PIXEL / (_FREQUENCIES - 1))
