"""Scores of one way to serve a new client's test patients."""

from typing import Any

import numpy as np

from physfed_ray.data.store import ClientData
from physfed_ray.federation.client.scoring import score
from physfed_ray.federation.spec import Spec
from physfed_ray.serving.enrol.card import Result

Row = tuple[Any, ...]
"""Client, split, patient, slice, metric, value."""


def scored(
    split: str, says: str, spec: Spec, data: ClientData, images: np.ndarray
) -> tuple[Result, list[Row]]:
    """Return the means over each patient's slices, and a row for every slice and metric.

    Args:
        split: Name in ``scores.parquet``.
        says: In words.
        spec: Of the new client alone.
        data: Its test slices.
        images: What they became, (N, n, n) float32 in [0, 1] of the window.
    """
    (client,) = spec.clients
    scores = score(spec, images, data, client.protocol, optional=False)
    rows = [
        (client.id, split, patient, int(index), metric, float(value))
        for metric, values in scores.items()
        for patient, index, value in zip(data.patient, data.slice, values, strict=True)
    ]
    names = np.array(data.patient)
    means = {
        metric: {str(p): float(np.mean(values[names == p])) for p in dict.fromkeys(data.patient)}
        for metric, values in scores.items()
    }
    return Result(split=split, says=says, scores=means), rows
