"""PSNR, SSIM and RMSE in a HU window, on the whole image or over the body's pixels alone.

A metric sees an image as a reader does: clipped to the window and scaled so that the window is
[0, 1] (the data range is 1). SSIM is that of Wang et al. 2004 with a Gaussian window of 11 taps
and sigma 1.5, population covariance, and the border of 5 pixels left out of the mean, which is
``skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from physfed_ray.metrics.base import Context, Images, Metric
from physfed_ray.window import Window

PSNR_CAP_DB = 100.0  # two equal images would have an infinite PSNR, which no mean survives
SSIM_SIGMA_PIXELS = 1.5
SSIM_RADIUS_PIXELS = 5
_C1 = 0.01**2
_C2 = 0.03**2
_TILE = 32  # output rows of one dense block of the banded filter matrix
_WANG = "Wang et al. 2004"


class Psnr(Metric):
    """Peak signal-to-noise ratio, at most 100 dB, which equal images get."""

    name, heading, unit = "psnr", "PSNR", "dB"
    clinical = True

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return -10 log10 of the mean squared error, (N,)."""
        return _decibel(context.shared(mean_squared_error, denoised, reference))


class Ssim(Metric):
    """Structural similarity, at most 1; images have 11 pixels a side or more."""

    name, heading, unit, scale = "ssim", "SSIM", "%", 100.0
    clinical = True
    source = _WANG

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the mean of the similarity map, (N,)."""
        similarity = context.shared(ssim_map, denoised, reference)
        return np.asarray(similarity.mean(dim=(1, 2)).numpy())


class Rmse(Metric):
    """Root of the mean squared error."""

    name, heading, unit, decimals = "rmse_hu", "RMSE", "HU", 1
    better = "lower"

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the root in HU, (N,)."""
        mse = context.shared(mean_squared_error, denoised, reference)
        return np.asarray(mse.sqrt().numpy() * (context.window[1] - context.window[0]))


class BodyPsnr(Metric):
    """PSNR over the body's pixels alone; NaN for a slice without any."""

    name, heading, unit = "psnr_body", "PSNR", "dB"
    needs = ("body",)

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return -10 log10 of the mean squared error over the body, (N,)."""
        error = context.shared(squared_error, denoised, reference)
        return _decibel(_masked_mean(error, context.shared(_body, denoised, reference)))


class BodySsim(Metric):
    """SSIM over the body's pixels alone; NaN for a slice without any."""

    name, heading, unit, scale = "ssim_body", "SSIM", "%", 100.0
    needs = ("body",)
    source = _WANG

    def __call__(
        self, denoised: Images, reference: Images, context: Context
    ) -> NDArray[np.float64]:
        """Return the mean of the similarity map over the body, (N,)."""
        similarity = context.shared(ssim_map, denoised, reference)
        mask = _inner(context.shared(_body, denoised, reference))
        return np.asarray(_masked_mean(similarity, mask).numpy())


def in_window(denoised: Images, reference: Images, context: Context) -> tuple[Tensor, Tensor]:
    """Clip both images to the context's window and scale it to [0, 1], float64.

    In a clinical window they are what the experiment's window has left of them.
    """
    if context.outer is None:
        return _scaled(denoised, context.window), _scaled(reference, context.window)
    x, y = context.outer.shared(in_window, denoised, reference)
    (low, high), outer = context.window, context.outer.window
    scale, shift = (outer[1] - outer[0]) / (high - low), (outer[0] - low) / (high - low)
    return (x * scale + shift).clamp_(0, 1), (y * scale + shift).clamp_(0, 1)


def squared_error(denoised: Images, reference: Images, context: Context) -> Tensor:
    """Return the squared difference in units of the window, (N, n, n) float64."""
    x, y = context.shared(in_window, denoised, reference)
    return (x - y).square_()


def mean_squared_error(denoised: Images, reference: Images, context: Context) -> Tensor:
    """Return the mean squared difference in units of the window, (N,) float64."""
    return context.shared(squared_error, denoised, reference).mean(dim=(1, 2))


def ssim_map(denoised: Images, reference: Images, context: Context) -> Tensor:
    """Return the SSIM of every pixel whose window lies inside, (N, n - 10, n - 10) float64."""
    return _ssim_map(*context.shared(in_window, denoised, reference))


def _body(denoised: Images, reference: Images, context: Context) -> Tensor:
    """Return the body as a mask, (N, n, n) bool."""
    return torch.from_numpy(np.array(context.body, dtype=bool))


def _scaled(hu: NDArray[np.float32], window: Window) -> Tensor:
    """Clip HU to the window and scale it to [0, 1], float64."""
    images = torch.from_numpy(np.array(hu, dtype=np.float64))
    return ((images - window[0]) / (window[1] - window[0])).clamp_(0, 1)


def _decibel(mse: Tensor) -> NDArray[np.float64]:
    """Turn mean squared errors of a data range of 1 into dB, capped."""
    floor = 10.0 ** (-PSNR_CAP_DB / 10.0)
    return np.asarray(-10.0 * torch.log10(mse.clamp_min(floor)).numpy())


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average (N, h, w) values over a mask per slice; NaN where the mask is empty."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def _inner(images: Tensor) -> Tensor:
    """Cut off the border where the SSIM window would reach outside the image."""
    r = SSIM_RADIUS_PIXELS
    return images[:, r:-r, r:-r]


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Return the SSIM of every pixel whose window lies inside, (N, n - 10, n - 10)."""
    mean_x, mean_y = _blur(x), _blur(y)
    product = mean_x * mean_y
    squares = mean_x.square_().add_(mean_y.square_())
    covariance = _blur(x * y).sub_(product)
    variances = _blur(x.square().add_(y.square())).sub_(squares)
    above = product.mul_(2).add_(_C1).mul_(covariance.mul_(2).add_(_C2))
    below = squares.add_(_C1).mul_(variances.add_(_C2))
    return above.div_(below)


def _blur(images: Tensor) -> Tensor:
    """Filter (N, h, w) with the Gaussian window, keeping the pixels it fits around.

    A dense product with tiles of the banded filter matrix runs at the speed of BLAS and beats a
    separable convolution several times on the CPU, though it multiplies by zeros.
    """
    return _filter_rows(_filter_rows(images).transpose(1, 2)).transpose(1, 2)


def _filter_rows(images: Tensor) -> Tensor:
    """Filter along the second axis: (N, h, w) -> (N, h - 10, w)."""
    height = images.shape[1] - 2 * SSIM_RADIUS_PIXELS
    tiles = [
        torch.matmul(
            _band(min(_TILE, height - top)),
            images[:, top : top + min(_TILE, height - top) + 2 * SSIM_RADIUS_PIXELS],
        )
        for top in range(0, height, _TILE)
    ]
    return torch.cat(tiles, dim=1)


@lru_cache(maxsize=64)
def _band(rows: int) -> Tensor:
    """Return the filter matrix for ``rows`` outputs, (rows, rows + 10) float64."""
    offsets = torch.arange(-SSIM_RADIUS_PIXELS, SSIM_RADIUS_PIXELS + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (offsets / SSIM_SIGMA_PIXELS).square())
    taps /= taps.sum()
    matrix = torch.zeros(rows, rows + 2 * SSIM_RADIUS_PIXELS, dtype=torch.float64)
    for row in range(rows):
        matrix[row, row : row + len(taps)] = taps
    return matrix
