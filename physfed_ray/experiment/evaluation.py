"""Keys under ``evaluation``: what is measured beside PSNR, SSIM and RMSE."""

from pydantic import field_validator

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.settings import Settings, operational
from physfed_ray.metrics.registry import STANDARD, metrics_of


class Evaluation(Settings):
    """What the last evaluation measures beside PSNR, SSIM and RMSE."""

    metrics: tuple[str, ...] = operational(
        (),
        description="names that `physfed metrics` prints, such as fsim: feature similarity; nps: "
        "noise power spectrum in the body; mtf: edge sharpness, and detectability: whether "
        "faint discs are seen, on a phantom; pd_efflite0 and fd_efflite0: perceptual and Frechet "
        "distance on a vision network (docs/metrics.md)",
    )

    @field_validator("metrics")
    @classmethod
    def _optional_ones(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in STANDARD:
                raise ValueError(f"'{name}' is always measured; leave it out")
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is named twice")
            try:
                missing = {metric.missing() for metric in metrics_of(name)} - {""}
            except PhysFedError as error:
                raise ValueError(str(error)) from None
            if missing:
                raise ValueError(f"'{name}' needs what is not installed: {'; '.join(missing)}")
        return names
