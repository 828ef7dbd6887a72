"""Structural similarity mixed with the mean absolute error.

Zhao et al. 2017, "Loss functions for image restoration with neural networks", IEEE Trans. Comput.
Imaging 3(1), section III:

    loss = alpha (1 - SSIM(y, y_full)) + (1 - alpha) mean |y - y_full|,   alpha = 0.84

SSIM is that of Wang et al. 2004, as the metric of the same name computes it: a Gaussian window of
11 taps and sigma 1.5, population covariance, no border, data range 1 (the HU window). With more
than one scale it is the MS-SSIM of Wang et al. 2003, "Multiscale structural similarity for image
quality assessment": each scale halves the images by the mean of 2 x 2 pixels, all contribute
contrast and structure, the coarsest luminance too.

    SSIM_M = SSIM(coarsest)^w_M  prod_{j < M} cs_j^w_j

with the weights w of that paper, divided by their sum where there are fewer than its five scales.

Zhao et al. mix with MS-SSIM and make its scales by five widths of the Gaussian instead of halving.
They also weigh the absolute error by the widest Gaussian, which over whole images moves weight from
the border inwards and is left out.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective, ObjectiveSettings

WINDOW_PIXELS = 11
SIGMA_PIXELS = 1.5
C1, C2 = 0.01**2, 0.03**2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of Wang et al. 2003, from the finest scale to the coarsest."""
SMALLEST_FACTOR = 1e-6
"""Instead of factors below it: a negative number has no root."""


class SSIMMixedSettings(ObjectiveSettings):
    """Keys under ``training.objective:`` for the mixed loss."""

    alpha: float = Field(
        0.84, ge=0, le=1, description="weight of 1 - SSIM; the mean absolute error has the rest"
    )
    scales: int = Field(
        1,
        ge=1,
        le=len(SCALE_WEIGHTS),
        description="scales of the similarity: 1 is SSIM, up to 5 MS-SSIM; each halves the "
        "images, whose side must be at least 11, 22, 44, 88 or 176 pixels",
    )


class SSIMMixed(Objective):
    """alpha (1 - SSIM) + (1 - alpha) L1."""

    name = "ssim_mixed"
    title = "structural similarity and mean absolute error"
    paper = "Zhao et al. 2017, IEEE TCI"
    Settings = SSIMMixedSettings
    settings: SSIMMixedSettings

    @property
    def smallest_side(self) -> int:
        """The window on the coarsest scale, in pixels of the finest."""
        return WINDOW_PIXELS << (self.settings.scales - 1)

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its two parts, ``ssim_loss`` (1 - SSIM) and ``l1``."""
        alpha = self.settings.alpha
        x, y = denoised.float(), batch.full.float()
        ssim_loss = 1 - structural_similarity(x, y, self.settings.scales).mean()
        l1 = functional.l1_loss(x, y)
        parts = {"ssim_loss": ssim_loss.detach(), "l1": l1.detach()}
        return alpha * ssim_loss + (1 - alpha) * l1, parts


def structural_similarity(x: Tensor, y: Tensor, scales: int = 1) -> Tensor:
    """Return SSIM (one scale) or MS-SSIM of each image, differentiable, (B,).

    Args:
        x: (B, 1, h, w) float32 or float64, data range 1; sides as ``SSIMMixed.smallest_side``.
        y: The same.
        scales: 1 to 5.
    """
    with torch.autocast(x.device.type, enabled=False):
        if scales == 1:
            return _ssim_and_contrast(x, y)[0]
        weights = [w / sum(SCALE_WEIGHTS[:scales]) for w in SCALE_WEIGHTS[:scales]]
        product = x.new_ones(len(x))
        for scale, weight in enumerate(weights):
            if scale:
                x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
            ssim, contrast = _ssim_and_contrast(x, y)
            factor = ssim if scale == scales - 1 else contrast
            product = product * factor.clamp(min=SMALLEST_FACTOR) ** weight
        return product


def _ssim_and_contrast(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return, of each image, the means of l cs and of cs over its pixels, (B,) both."""
    means = _smooth(torch.cat((x, y, x * x, y * y, x * y)))
    mean_x, mean_y, xx, yy, xy = means.chunk(5)
    variances = (xx - mean_x.square()) + (yy - mean_y.square())
    contrast = (2 * (xy - mean_x * mean_y) + C2) / (variances + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _smooth(images: Tensor) -> Tensor:
    """Return (N, 1, h - 10, w - 10): the Gaussian window's mean where it lies inside the image."""
    places = torch.arange(WINDOW_PIXELS, device=images.device, dtype=images.dtype)
    taps = torch.exp(-0.5 * ((places - WINDOW_PIXELS // 2) / SIGMA_PIXELS).square())
    taps = taps / taps.sum()
    rows = functional.conv2d(images, taps.view(1, 1, -1, 1))
    return functional.conv2d(rows, taps.view(1, 1, 1, -1))
