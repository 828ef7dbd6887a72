"""FSIM of grey images: what phase congruency and gradients say is alike in two slices.

L. Zhang, L. Zhang, X. Mou, D. Zhang. FSIM: A Feature Similarity Index for Image Quality
Assessment. IEEE Transactions on Image Processing 20(8), 2011. The phase congruency is PC2 of
P. Kovesi. Image Features from Phase Congruency. Videre 1(3), 1999, with the paper's 4 scales and 4
orientations.

The paper's constants are for grey values of 0 to 255, so the window is scaled to those. All is
computed in float64. Two departures from the authors' program, neither of which shows in images of
an even side up to 640 pixels: frequencies are exact for odd sides as well, and the blocks that are
averaged before the comparison (2 x 2 pixels from a side of 384 on) never reach outside the image.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from physfed_ray.metrics.base import Context, Images, Metric
from physfed_ray.window import Window

GREY_LEVELS = 255.0
T1_CONGRUENCY = 0.85
T2_GRADIENT = 160.0
SIDE_PIXELS = 256  # larger images are averaged down to about this side
SCALES, ORIENTATIONS = 4, 4
SHORTEST_WAVELENGTH_PIXELS = 6.0
WAVELENGTH_RATIO = 2.0
SIGMA_ON_FREQUENCY = 0.55  # width of a log-Gabor filter over its centre frequency
SIGMA_THETA = math.pi / ORIENTATIONS / 1.2
LOWPASS_CUTOFF, LOWPASS_ORDER = 0.45, 15
NOISE_SIGMAS = 2.0  # k: noise energy beyond its mean that still counts as noise
NOISE_SCALE = 1.7  # Kovesi's empirical factor between the noise of PC1 and that of PC2
_EPSILON = 1e-4
_SLICES_AT_ONCE = 4  # 4 x 4 scales x 256 x 256 complex numbers are 16 MiB


class Fsim(Metric):
    """Feature similarity, at most 1; NaN where neither image has any feature in the window."""

    name, heading, unit, scale = "fsim", "FSIM", "%", 100.0
    clinical = True
    note = "FSIM: feature similarity, in the window given where there is one"
    source = "Zhang et al. 2011"

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the similarity of each slice, both images clipped to the window, (N,)."""
        scores = np.empty(len(denoised))
        for start in range(0, len(denoised), _SLICES_AT_ONCE):
            x, y = (
                _grey(images[start : start + _SLICES_AT_ONCE], context.window)
                for images in (denoised, reference)
            )
            scores[start : start + _SLICES_AT_ONCE] = _fsim(x, y)
        return scores


def _grey(hu: NDArray[np.float32], window: Window) -> Tensor:
    """Clip to the window, scale it to 0 to 255, and average blocks of large images, float64."""
    low, high = window
    images = torch.from_numpy(np.array(hu, dtype=np.float64))
    grey = ((images - low) / (high - low)).clamp_(0, 1).mul_(GREY_LEVELS)
    block = max(1, math.floor(min(grey.shape[-2:]) / SIDE_PIXELS + 0.5))
    return avg_pool2d(grey[:, None], block)[:, 0]


def _fsim(x: Tensor, y: Tensor) -> NDArray[np.float64]:
    """Return FSIM, eq. 4 to 8, of (B, h, w) grey images."""
    congruency_x, congruency_y = phase_congruency(x), phase_congruency(y)
    similarity = _alike(congruency_x, congruency_y, T1_CONGRUENCY)
    similarity *= _alike(_gradient(x), _gradient(y), T2_GRADIENT)
    weight = torch.maximum(congruency_x, congruency_y)
    score = (similarity * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))
    return np.asarray(score.numpy())


def _alike(x: Tensor, y: Tensor, constant: float) -> Tensor:
    """Compare two maps pixel by pixel, eq. 4 and 5."""
    return (2 * x * y + constant) / (x.square() + y.square() + constant)


def _gradient(grey: Tensor) -> Tensor:
    """Return the gradient magnitude by Scharr's operator, the outside taken for 0."""
    across = grey.new_tensor([[3.0, 0.0, -3.0], [10.0, 0.0, -10.0], [3.0, 0.0, -3.0]]) / 16
    both = conv2d(grey[:, None], torch.stack((across, across.T))[:, None], padding=1)
    return both.square().sum(dim=1).sqrt()


def phase_congruency(grey: Tensor) -> Tensor:
    """Return PC2 of (B, h, w) float64 images of 0 to 255: 0 without a feature, at most 1."""
    spectrum = torch.fft.fft2(grey)[:, None]
    energy, amplitude = torch.zeros_like(grey), torch.zeros_like(grey)
    size = grey.shape[-2:]
    for filters, gain in zip(_log_gabor(*size), _noise_gains(*size), strict=True):
        responses = torch.fft.ifft2(spectrum * filters)
        energy += (_energy(responses) - _noise(responses[:, 0], gain)).clamp_min_(0)
        amplitude += _power(responses).sqrt_().sum(dim=1)
    return energy / amplitude.clamp_min(torch.finfo(amplitude.dtype).tiny)


def _energy(responses: Tensor) -> Tensor:
    """Sum amplitude (cos - |sin|) of the phase deviation over the scales.

    Args:
        responses: (B, scales, h, w) complex: even and odd filters' responses.
    """
    total = responses.sum(dim=1, keepdim=True)
    direction = total / (_power(total).sqrt_() + _EPSILON)
    turned = responses * direction.conj()
    return (turned.real - turned.imag.abs()).sum(dim=1)


def _power(responses: Tensor) -> Tensor:
    """Return squared amplitudes."""
    return responses.real.square() + responses.imag.square()


def _noise(finest: Tensor, gain: Tensor) -> Tensor:
    """Return the energy (B, 1, 1) below which a response is taken for noise.

    White noise answers the finest filter with a squared amplitude whose median is ln 2 times its
    mean; from that follows its power, and from the filters' sum the Rayleigh parameter of the
    energy over all scales.

    Args:
        finest: Response of the finest scale, (B, h, w) complex.
        gain: One of ``_noise_gains``.
    """
    median = torch.from_numpy(np.median(_power(finest).flatten(1).numpy(), axis=1))
    rayleigh = (median / math.log(2) * gain).sqrt()
    sigmas = math.sqrt(math.pi / 2) + NOISE_SIGMAS * math.sqrt(2 - math.pi / 2)
    threshold: Tensor = (rayleigh * sigmas / NOISE_SCALE)[:, None, None]
    return threshold


@lru_cache(maxsize=4)
def _noise_gains(height: int, width: int) -> Tensor:
    """Return (orientations,): energy of the filters' summed even part over the finest's."""
    filters = _log_gabor(height, width)
    even = torch.fft.ifft2(filters.sum(dim=1)).real
    finest = filters[:, 0].square().sum(dim=(1, 2))
    gains: Tensor = even.square().sum(dim=(1, 2)) * (height * width) / finest
    return gains


@lru_cache(maxsize=4)
def _log_gabor(height: int, width: int) -> Tensor:
    """Return the filters in frequency, (orientations, scales, height, width) float64."""
    v = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    u = torch.fft.fftfreq(width, dtype=torch.float64)[None]
    radius, theta = torch.hypot(u, v), torch.atan2(-v, u)
    lowpass = 1 / (1 + (radius / LOWPASS_CUTOFF) ** (2 * LOWPASS_ORDER))
    radius[0, 0] = 1.0
    scales = []
    for scale in range(SCALES):
        wavelength = SHORTEST_WAVELENGTH_PIXELS * WAVELENGTH_RATIO**scale
        octaves = torch.log(radius * wavelength) / math.log(SIGMA_ON_FREQUENCY)
        radial = torch.exp(-0.5 * octaves.square()) * lowpass
        radial[0, 0] = 0.0
        scales.append(radial)
    orientations = []
    for orientation in range(ORIENTATIONS):
        away = theta - orientation * math.pi / ORIENTATIONS
        away = torch.atan2(torch.sin(away), torch.cos(away))
        orientations.append(torch.exp(-0.5 * (away / SIGMA_THETA).square()))
    return torch.stack(orientations)[:, None] * torch.stack(scales)[None]
