"""The measures of a study over beta, as words."""

from collections.abc import Sequence

import numpy as np

from physfed_ray.surrogates.file import SurrogateFile
from physfed_ray.surrogates.rows import ATTACK, Rows

SHARES = {
    "reid": "re-identified",
    "reid_known_hosts": "by whoever knows the hosts",
}
"""Measures of attacks that are shares, printed in %."""
CORRELATIONS = {
    "unet_correlation": "U-Net",
    "ridge_correlation": "ridge",
    "ridge_hosts_correlation": "ridge, hosts known",
    "surrogate_correlation": "surrogate itself",
}
"""Correlations of images with the patient."""
INVERSIONS = {"unet": "U-Net", "ridge": "ridge", "ridge_hosts": "ridge, hosts known"}
CONTROLS = {
    "host_correlation": "host",
    "mean_correlation": "mean image",
    "region_mean_correlation": "mean of the region",
}
"""What images without anything of the patient correlate to, the same at every beta."""


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation; 0 for a single value, NaN for none."""
    if not values:
        return float("nan"), float("nan")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def words(values: Sequence[float], scale: float = 100.0, digits: int = 1) -> str:
    """Return mean and standard deviation over seeds, "" where there is nothing."""
    if not values:
        return ""
    mean, spread = mean_and_spread([scale * value for value in values])
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(values) > 1 else "")


def betas_of(file: SurrogateFile) -> list[float]:
    """Return all betas in order, 0 (the hosts alone) first."""
    return [0.0, *sorted(file.betas)]


def headings(file: SurrogateFile) -> list[str]:
    """Return the heading of every column."""
    return [
        "beta",
        *(f"{task}, accuracy %" for task in file.tasks),
        *(f"{name} %" for name in SHARES.values()),
        *(f"r, {name}" for name in CORRELATIONS.values()),
    ]


def table_rows(file: SurrogateFile, rows: Rows) -> list[list[str]]:
    """Return a row for each beta, then one for the patients' own images and one for chance."""
    table = []
    for beta in betas_of(file):
        accuracies = [words(rows.over_seeds(file.seeds, t, beta, "accuracy")) for t in file.tasks]
        attacks = [
            *(words(rows.over_seeds(file.seeds, ATTACK, beta, m)) for m in SHARES),
            *(words(rows.over_seeds(file.seeds, ATTACK, beta, m), 1, 3) for m in CORRELATIONS),
        ]
        table.append([f"{beta:g}" if beta else "0 (host)", *accuracies, *attacks])
    own = [words(rows.over_seeds(file.seeds, task, None, "accuracy")) for task in file.tasks]
    table.append(["own images", *own, *[""] * (len(SHARES) + len(CORRELATIONS))])
    luck = [words(rows.over_seeds(file.seeds, task, 0.0, "chance")) for task in file.tasks]
    guess = words(rows.over_seeds(file.seeds, ATTACK, 0.0, "reid_chance"))
    table.append(["chance", *luck, *[guess] * len(SHARES), *[""] * len(CORRELATIONS)])
    return table


def control_rows(file: SurrogateFile, rows: Rows) -> list[list[str]]:
    """Return what the controls of the inversion reach: name, correlation, SSIM, PSNR."""
    return [_likeness(file, rows, name.removesuffix("_correlation"), label, 0.0)
            for name, label in CONTROLS.items()]  # fmt: skip


def inversion_rows(file: SurrogateFile, rows: Rows) -> list[list[str]]:
    """Return what each inversion reaches at each beta: name, correlation, SSIM, PSNR."""
    return [
        _likeness(file, rows, name, f"{label}, beta {beta:g}", beta)
        for beta in betas_of(file)
        for name, label in INVERSIONS.items()
    ]


def _likeness(file: SurrogateFile, rows: Rows, name: str, label: str, beta: float) -> list[str]:
    kinds = (("correlation", 1.0, 3), ("ssim", 100.0, 1), ("psnr", 1.0, 1))
    found = (
        words(rows.over_seeds(file.seeds, ATTACK, beta, f"{name}_{kind}"), scale, digits)
        for kind, scale, digits in kinds
    )
    return [label, *found]
