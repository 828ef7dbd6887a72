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

import numpy as np
from numpy.typing import NDArray

from physfed_ray.metrics.base import Context, Images, Metric
from physfed_ray.metrics.edges import Edge, EdgePhantom

CONTRASTS_HU = (120, 900)
"""Those of acrylic and of bone against soft tissue: an edge near the noise, and one far above."""
LEVELS = (50, 10)
"""Per cent of modulation at which the frequency is given."""
_BINS_A_PIXEL = 5
_MARGIN_PIXELS, _MARGIN_RADII = 12, 0.75  # how far to either side the edge is looked at, at most
_HIGHEST_PER_PIXEL = 0.5  # half the sampling rate
_FREQUENCIES = 501
_LEAST_CONTRAST = 0.1  # share of the insert's contrast without which there is no edge to measure


class EdgeSharpness(Metric):
    """Frequency at which an edge of a contrast has lost its modulation down to a level.

    Half the sampling rate where the modulation does not fall that far, NaN where less than a tenth
    of the contrast is left.

    Args:
        level: Per cent of modulation.
        contrast_hu: Insert minus background, HU.
    """

    unit, decimals = "1/mm", 3
    needs = ("phantom", "pixel_mm")
    note = (
        "frequency per mm at which an edge of the given contrast has lost its modulation down to "
        "50% or 10%, phantoms scanned under the clients' protocols"
    )
    source = "Richard et al. 2012"

    def __init__(self, level: int, contrast_hu: int) -> None:
        self.level, self.phantom = level, EdgePhantom(contrast_hu)
        self.name = f"mtf{level}_{contrast_hu}hu_per_mm"
        self.heading = f"{level}% at {contrast_hu} HU"

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the frequency per mm over the mean of all scans, (1,)."""
        modulation = context.shared(_modulation, denoised, reference)
        frequency = np.nan if modulation is None else _falls_below(modulation, self.level / 100)
        return np.array([frequency / context.pixel_mm])


SHARPNESS: tuple[Metric, ...] = tuple(
    EdgeSharpness(level, contrast) for contrast in CONTRASTS_HU for level in LEVELS
)


def _modulation(
    denoised: Images, reference: Images, context: Context
) -> NDArray[np.float64] | None:
    """Return the MTF of the context's edge, None where it is gone."""
    if not isinstance(context.made, Edge):
        raise TypeError("sharpness is measured on the phantom with an edge")
    return transfer_function(denoised, context.made)


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
