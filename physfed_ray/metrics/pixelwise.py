"""PSNR, SSIM and RMSE in a named HU window, for many slices at once.

A metric sees an image as a reader does: clipped to the window and scaled so that the window is
[0, 1] (the data range is 1). SSIM is that of Wang et al. 2004 with a Gaussian window of 11 taps
and sigma 1.5, population covariance, and the border of 5 pixels left out of the mean, which is
``skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Window = tuple[float, float]
Metric = Callable[[NDArray[np.float32], NDArray[np.float32], Window], NDArray[np.float64]]

PSNR_CAP_DB = 100.0  # two equal images would have an infinite PSNR, which no mean survives
SSIM_SIGMA_PIXELS = 1.5
SSIM_RADIUS_PIXELS = 5
_C1 = 0.01**2
_C2 = 0.03**2
_CHUNK_PIXELS = 1 << 19  # about 32 slices of 128 x 128: the working set stays near the cache
_TILE = 32  # output rows of one dense block of the banded filter matrix


def psnr(
    denoised: NDArray[np.float32], reference: NDArray[np.float32], window: Window
) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each slice in dB, at most 100 dB.

    Args:
        denoised: Images, (N, n, n) float32 HU.
        reference: Full-dose images, same shape, HU.
        window: Low and high end in HU; both images are clipped to it.

    Returns:
        (N,) float64. Equal images, whose PSNR is infinite, get the cap of 100 dB.
    """
    error = _squared_error(_scaled(denoised, window), _scaled(reference, window))
    return _decibel(error.mean(dim=(1, 2)))


def ssim(
    denoised: NDArray[np.float32], reference: NDArray[np.float32], window: Window
) -> NDArray[np.float64]:
    """Return the structural similarity of each slice (Wang et al. 2004), at most 1.

    Args:
        denoised: Images, (N, n, n) float32 HU, n at least 11.
        reference: Full-dose images, same shape, HU.
        window: Low and high end in HU; both images are clipped to it.

    Returns:
        (N,) float64.
    """
    x, y = _scaled(denoised, window), _scaled(reference, window)
    return np.asarray(_ssim_map(x, y).mean(dim=(1, 2)).numpy())


def rmse(
    denoised: NDArray[np.float32], reference: NDArray[np.float32], window: Window
) -> NDArray[np.float64]:
    """Return the root of the mean squared error of each slice in HU.

    Args:
        denoised: Images, (N, n, n) float32 HU.
        reference: Full-dose images, same shape, HU.
        window: Low and high end in HU; both images are clipped to it.

    Returns:
        (N,) float64, HU.
    """
    error = _squared_error(_scaled(denoised, window), _scaled(reference, window))
    return np.asarray(error.mean(dim=(1, 2)).sqrt().numpy() * (window[1] - window[0]))


METRICS: Mapping[str, Metric] = {"psnr": psnr, "ssim": ssim, "rmse_hu": rmse}


def metric_name(base: str, window: Window) -> str:
    """Return the name of a metric in a clinical window, such as ``psnr[-160,240]``."""
    return f"{base}[{window[0]:g},{window[1]:g}]"


def score_slices(
    denoised: NDArray[np.float32],
    reference: NDArray[np.float32],
    body: NDArray[np.uint8] | NDArray[np.bool_],
    window_hu: Window,
    clinical_windows: Mapping[str, Window],
) -> dict[str, NDArray[np.float64]]:
    """Score slices with every metric the tables know.

    Args:
        denoised: Images, (N, n, n) float32, 0 and 1 are the ends of ``window_hu``.
        reference: Full-dose images, same shape and scale.
        body: True on the patient's body, (N, n, n).
        window_hu: The experiment's window in HU.
        clinical_windows: Named windows in HU; the metric's name carries the numbers.

    Returns:
        ``psnr``, ``ssim``, ``rmse_hu`` on the whole image, ``psnr_body`` and ``ssim_body`` over the
        body's pixels (NaN where a slice has none), and ``psnr[lo,hi]``, ``ssim[lo,hi]`` for every
        clinical window; each (N,) float64.
    """
    parts: list[dict[str, NDArray[np.float64]]] = []
    step = max(1, _CHUNK_PIXELS // (denoised.shape[-1] * denoised.shape[-2]))
    for start in range(0, len(denoised), step):
        rows = slice(start, start + step)
        x = torch.from_numpy(np.array(denoised[rows], dtype=np.float64)).clamp_(0, 1)
        y = torch.from_numpy(np.array(reference[rows], dtype=np.float64)).clamp_(0, 1)
        mask = torch.from_numpy(np.array(body[rows], dtype=bool))
        parts.append(_score_chunk(x, y, mask, window_hu, clinical_windows))
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _score_chunk(
    x: Tensor, y: Tensor, body: Tensor, window_hu: Window, clinical_windows: Mapping[str, Window]
) -> dict[str, NDArray[np.float64]]:
    """Score a chunk; the images are (N, n, n) float64 in [0, 1] of the window, body is bool."""
    error = _squared_error(x, y)
    mse = error.mean(dim=(1, 2))
    similarity = _ssim_map(x, y)
    scores = {
        "psnr": _decibel(mse),
        "ssim": np.asarray(similarity.mean(dim=(1, 2)).numpy()),
        "rmse_hu": np.asarray(mse.sqrt().numpy() * (window_hu[1] - window_hu[0])),
        "psnr_body": _decibel(_masked_mean(error, body)),
        "ssim_body": np.asarray(_masked_mean(similarity, _inner(body)).numpy()),
    }
    width = window_hu[1] - window_hu[0]
    for low, high in clinical_windows.values():
        scale, shift = width / (high - low), (window_hu[0] - low) / (high - low)
        u, v = ((z * scale + shift).clamp_(0, 1) for z in (x, y))
        scores[metric_name("psnr", (low, high))] = _decibel(_squared_error(u, v).mean(dim=(1, 2)))
        scores[metric_name("ssim", (low, high))] = np.asarray(
            _ssim_map(u, v).mean(dim=(1, 2)).numpy()
        )
    return scores


def _scaled(hu: NDArray[np.float32], window: Window) -> Tensor:
    """Clip HU to the window and scale it to [0, 1], float64."""
    images = torch.from_numpy(np.array(hu, dtype=np.float64))
    return ((images - window[0]) / (window[1] - window[0])).clamp_(0, 1)


def _squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Return (x - y)^2."""
    return (x - y).square_()


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
