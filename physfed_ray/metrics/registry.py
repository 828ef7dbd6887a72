"""Metrics by name: the project's own, and those that other packages register.

A name stands for one metric, or for several that are measured together (``nps``, ``mtf``).
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from physfed_ray.errors import PhysFedError
from physfed_ray.metrics.base import Metric, metric_name
from physfed_ray.registry import Registry
from physfed_ray.window import Window

METRICS: Registry[type[Metric] | tuple[Metric, ...]] = Registry(
    "metric",
    {
        "psnr": "physfed_ray.metrics.pixelwise:Psnr",
        "ssim": "physfed_ray.metrics.pixelwise:Ssim",
        "rmse_hu": "physfed_ray.metrics.pixelwise:Rmse",
        "psnr_body": "physfed_ray.metrics.pixelwise:BodyPsnr",
        "ssim_body": "physfed_ray.metrics.pixelwise:BodySsim",
        "fsim": "physfed_ray.metrics.fsim:Fsim",
        "nps": "physfed_ray.metrics.noise_power:NOISE_POWER",
        "mtf": "physfed_ray.metrics.sharpness:SHARPNESS",
        "detectability": "physfed_ray.metrics.detectability:DETECTABILITY",
        "pd_efflite0": "physfed_ray.metrics.trunk_distances:PerceptualDistance",
        "fd_efflite0": "physfed_ray.metrics.trunk_distances:FrechetDistance",
    },
)
STANDARD = ("psnr", "ssim", "rmse_hu", "psnr_body", "ssim_body")
"""Names that every evaluation measures; an experiment asks for any other."""
HEADLINE = ("psnr", "ssim")
"""Names that the paper's tables, the boxes and the courses of training show."""


def metrics_of(name: str) -> tuple[Metric, ...]:
    """Return the metrics that a name stands for.

    Raises:
        PhysFedError: There is no such name, or another package's metric does not fit its entry
            point.
    """
    METRICS.find(name)
    return _loaded(name)


@lru_cache
def _loaded(name: str) -> tuple[Metric, ...]:
    entry = METRICS[name]
    if isinstance(entry, tuple):
        return entry
    metric = entry()
    if metric.name != name:
        raise PhysFedError(
            f"the metric '{name}' calls itself '{metric.name}': give its class that name, or "
            "register it under the other"
        )
    return (metric,)


def slice_metrics(names: Iterable[str]) -> list[Metric]:
    """Return those metrics of some names that look at patients' slices."""
    return [m for name in names for m in metrics_of(name) if m.phantom is None]


def phantom_metrics(names: Iterable[str], kind: str | None = None) -> list[Metric]:
    """Return those metrics of some names that look at scans of a phantom, of one kind or of any."""
    found = [(m, m.phantom) for name in names for m in metrics_of(name)]
    return [m for m, phantom in found if phantom is not None and kind in (None, phantom.kind)]


def measured(
    names: Iterable[str], clinical_windows: Mapping[str, Window]
) -> Iterator[tuple[str, Metric, Window | None]]:
    """Yield what is measured on slices: the number's name, its metric, and its clinical window.

    Args:
        names: Names of the registry.
        clinical_windows: Named windows in HU.
    """
    metrics = slice_metrics(names)
    for metric in metrics:
        yield metric.name, metric, None
    for window in clinical_windows.values():
        for metric in metrics:
            if metric.clinical:
                yield metric_name(metric.name, window), metric, window


def owner(number: str) -> tuple[str, Metric] | None:
    """Return which name of the registry a measured number belongs to, and its metric.

    Args:
        number: Such as ``psnr[-160,240]`` or ``nps_area_hu2``.
    """
    base = number.partition("[")[0]
    first = [base] if base in METRICS else []
    for name in dict.fromkeys([*first, *STANDARD, *METRICS]):
        for metric in metrics_of(name):
            if metric.name == base and (base == number or metric.clinical):
                return name, metric
    return None
