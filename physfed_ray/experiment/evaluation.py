"""Keys under ``evaluation``: what is measured beside PSNR, SSIM and RMSE."""

from typing import Literal

from pydantic import Field

from physfed_ray.experiment.settings import Settings


class Evaluation(Settings):
    """What the last evaluation measures beside PSNR, SSIM and RMSE."""

    metrics: tuple[Literal["fsim", "nps", "mtf"], ...] = Field(
        (),
        description="fsim: feature similarity; nps: noise power spectrum in the body; mtf: edge "
        "sharpness on a phantom (docs/metrics.md)",
    )
