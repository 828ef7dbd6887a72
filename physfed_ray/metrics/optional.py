"""Metrics that cost more than they say for most experiments: computed where they are asked for.

``evaluation.metrics`` of an experiment names them. They are measured in the last evaluation alone,
beside the metrics of ``score_slices``. ``mtf`` is not here: it looks at a phantom of its own, not
at patients' slices (``physfed_ray.metrics.sharpness``).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.metrics.fsim import fsim
from physfed_ray.metrics.noise_power import noise_power
from physfed_ray.metrics.pixelwise import Window, metric_name

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Slices:
    """What an optional metric looks at.

    Attributes:
        denoised: Images, (N, n, n) float32 HU.
        reference: Full-dose images, same shape, HU.
        body: Not 0 on the patient's body, (N, n, n).
        pixel_mm: Pixel length, mm.
        window_hu: The experiment's window.
        clinical_windows: Named windows.
    """

    denoised: NDArray[np.float32]
    reference: NDArray[np.float32]
    body: NDArray[np.uint8]
    pixel_mm: float
    window_hu: Window
    clinical_windows: Mapping[str, Window]


def _fsim(slices: Slices) -> Scores:
    """Return ``fsim`` in the experiment's window, and ``fsim[lo,hi]`` in the clinical ones."""
    windows = {"fsim": slices.window_hu}
    windows |= {metric_name("fsim", window): window for window in slices.clinical_windows.values()}
    return {
        name: fsim(slices.denoised, slices.reference, window) for name, window in windows.items()
    }


def _noise_power(slices: Slices) -> Scores:
    return noise_power(slices.denoised, slices.reference, slices.body, slices.pixel_mm)


OPTIONAL: Mapping[str, Callable[[Slices], Scores]] = {"fsim": _fsim, "nps": _noise_power}


def optional_scores(names: Iterable[str], slices: Slices) -> Scores:
    """Score slices with those of the named metrics that look at slices; each value is (N,)."""
    scores: Scores = {}
    for name in names:
        if name in OPTIONAL:
            scores |= OPTIONAL[name](slices)
    return scores
