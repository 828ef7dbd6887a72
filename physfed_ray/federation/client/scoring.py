"""What a host measures on denoised images of patients."""

import math

import numpy as np

from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.store import ClientData
from physfed_ray.federation.spec import Spec
from physfed_ray.metrics import scoring
from physfed_ray.metrics.base import Scores


def score(
    spec: Spec, denoised: np.ndarray, data: ClientData, protocol: Protocol, *, optional: bool
) -> Scores:
    """Score denoised images of a client or protocol against their full dose.

    Args:
        spec: The federation.
        denoised: (N, n, n) float32 in [0, 1] of the window.
        data: The slices.
        protocol: How they were scanned.
        optional: Also score with the metrics that the experiment names.
    """
    names = spec.metrics if optional else ()
    return scoring.score_slices(
        denoised,
        data.full,
        data.body,
        spec.window_hu,
        spec.clinical_windows,
        protocol.pixel_at(data.image_size) if names else math.nan,
        names,
    )
