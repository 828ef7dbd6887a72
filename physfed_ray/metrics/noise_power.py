"""The noise power spectrum (NPS) of what a denoised slice still has wrong, inside the body.

The error, denoised minus full dose, is cut into square regions that lie wholly in the body, and in
each region less its mean

    NPS(u, v) = pixel^2 / m^2 |DFT(error)|^2        HU^2 mm^2

is averaged over the slice's regions, so that its integral over the frequencies is the variance of
the error (ICRU report 87, 2012, section 5; Dolly et al. 2016 on regions and detrending). One number
says how much error is left, and two on which scale it lives: as a denoiser blurs, the noise turns
coarser and its frequencies fall (AAPM task group 233, 2019).

The full dose is known here, so that no uniform phantom is needed; but the error also holds what a
denoiser has lost of the anatomy, not noise alone. A millimetre is one of the scanner's, at the
protocol's pixel length. All is computed in float64.
"""

from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from physfed_ray.metrics.base import Context, Images, Metric

SMALLEST_REGION_PIXELS = 16
REGIONS_A_SIDE = 8  # a region is an eighth of the image, about 20 mm, and they overlap by half


class _NoisePower(Metric):
    """What the three numbers have in common."""

    needs = ("body", "pixel_mm")
    note = (
        "NPS: the noise power spectrum of the error inside the body, its area and its mean and "
        "strongest frequency"
    )
    source = "ICRU report 87"
    place: ClassVar[int]
    """Its place among the three."""

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the number of each slice, (N,)."""
        numbers: NDArray[np.float64] = context.shared(_noise_power, denoised, reference)[self.place]
        return numbers


class NoiseArea(_NoisePower):
    """Integral of the error's noise power spectrum: its variance within a region of the body."""

    name, heading, unit, decimals = "nps_area_hu2", "NPS area", "HU²", 1
    better = "lower"
    place = 0


class NoiseMean(_NoisePower):
    """Mean frequency of the radial average of the error's noise power spectrum."""

    name, heading, unit, decimals = "nps_mean_per_mm", "NPS mean", "1/mm", 3
    better = "neither"
    place = 1


class NoisePeak(_NoisePower):
    """Strongest frequency of the radial average of the error's noise power spectrum."""

    name, heading, unit, decimals = "nps_peak_per_mm", "NPS peak", "1/mm", 3
    better = "neither"
    place = 2


NOISE_POWER: tuple[Metric, ...] = (NoiseArea(), NoiseMean(), NoisePeak())


def _noise_power(denoised: Images, reference: Images, context: Context) -> NDArray[np.float64]:
    """Sum up the spectrum of each slice: area, mean and peak, (3, N).

    NaN for a slice whose body has no room for a region, the frequencies also where there is no
    error at all.
    """
    numbers = np.full((3, len(denoised)), np.nan)
    for k in range(len(denoised)):
        error = np.asarray(denoised[k], np.float64) - reference[k]
        spectrum = power_spectrum(error, np.asarray(context.body[k]) != 0, context.pixel_mm)
        if spectrum is not None:
            numbers[:, k] = _summary(spectrum, context.pixel_mm)
    return numbers


def power_spectrum(
    error: NDArray[np.float64], body: NDArray[np.bool_], pixel_mm: float
) -> NDArray[np.float64] | None:
    """Return the mean two-dimensional spectrum of the regions inside the body.

    Args:
        error: (n, n) HU.
        body: (n, n) bool.
        pixel_mm: Pixel length, mm.

    Returns:
        (m, m) float64, HU^2 mm^2, frequency 0 first; None without a region.
    """
    side = max(SMALLEST_REGION_PIXELS, error.shape[-1] // REGIONS_A_SIDE)
    step = side // 2
    inside = sliding_window_view(body, (side, side))[::step, ::step].all(axis=(2, 3))
    regions = sliding_window_view(error, (side, side))[::step, ::step][inside]
    if not len(regions):
        return None
    centred = regions - regions.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(centred)) ** 2
    return np.asarray(power.mean(axis=0) * (pixel_mm / side) ** 2)


def radial_average(
    spectrum: NDArray[np.float64], pixel_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average a spectrum over directions, in rings from frequency 0 to half the sampling rate.

    Args:
        spectrum: (m, m), frequency 0 first.
        pixel_mm: Pixel length, mm.

    Returns:
        Frequencies per mm, and the averages there, (m // 2 + 1,) each.
    """
    side = len(spectrum)
    rings = _rings(side)
    kept = rings <= side // 2
    count = np.bincount(rings[kept])
    average = np.bincount(rings[kept], weights=spectrum[kept]) / count
    return np.arange(len(average)) / (side * pixel_mm), average


def _summary(spectrum: NDArray[np.float64], pixel_mm: float) -> tuple[float, float, float]:
    """Return the integral, and the mean and the strongest frequency of the radial average."""
    area = float(spectrum.sum() / (len(spectrum) * pixel_mm) ** 2)
    frequency, average = radial_average(spectrum, pixel_mm)
    if area == 0.0:
        return area, np.nan, np.nan
    mean = float((frequency * average).sum() / average.sum())
    return area, mean, float(frequency[average.argmax()])


@lru_cache(maxsize=8)
def _rings(side: int) -> NDArray[np.intp]:
    """Return the ring of each frequency, (side, side): its distance from 0, rounded."""
    one = np.fft.fftfreq(side, 1 / side)
    return np.asarray(np.rint(np.hypot(one[:, None], one[None])), dtype=np.intp)
