"""What a host measures on denoised images, and the phantom scans on which it measures edges."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import expect, measure
from physfed_ray.data.store import ClientData
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import Acquisition, field_of
from physfed_ray.metrics import scoring
from physfed_ray.metrics.base import Scores
from physfed_ray.metrics.edges import BACKGROUND_HU, Edge, edge_phantom
from physfed_ray.metrics.registry import edge_metrics
from physfed_ray.seeds import generator
from physfed_ray.window import denormalise, normalise

EDGE_SCANS = 16
"""Scans of each edge: their mean must be quiet enough for a derivative."""


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


def edge_contrasts(spec: Spec) -> list[int]:
    """Return the contrasts of the edges that the experiment's metrics look at, HU."""
    found = (metric.edge_contrast_hu for metric in edge_metrics(spec.metrics))
    return [contrast for contrast in dict.fromkeys(found) if contrast is not None]


def edge_scans(spec: Spec, client: int, data: ClientData) -> Iterator[tuple[Edge, ClientData]]:
    """Scan phantoms with an edge under a client's protocol, in place of its patients.

    Nobody has described a phantom, so that each scan has the report of one of the client's slices,
    as their images and the network's modulation would go together in use.

    Args:
        spec: The federation.
        client: Index of the client.
        data: The client's test slices.

    Yields:
        Each phantom whose insert lies in the experiment's window, and its scans.
    """
    info, size = spec.clients[client], data.image_size
    lent = np.linspace(0, len(data) - 1, EDGE_SCANS).round().astype(int)
    for contrast in edge_contrasts(spec):
        if BACKGROUND_HU + contrast > spec.window_hu[1]:
            continue
        edge = edge_phantom(size, contrast)
        scanned = edge_phantom(spec.simulation.object_size, contrast).image
        rngs = [
            generator(spec.seed, info.id, "edge", contrast, k, "noise") for k in range(EDGE_SCANS)
        ]
        expected = expect(scanned[None], info.protocol, spec.simulation)
        sinogram = measure(expected, info.protocol, rngs, spec.simulation)
        scan = Acquisition(
            protocol=info.protocol,
            full_hu=np.repeat(edge.image[None], EDGE_SCANS, axis=0),
            low_hu=spec.images_of(client, sinogram),
            body=np.repeat(edge.body[None], EDGE_SCANS, axis=0),
            line_integrals=sinogram,
            expected=np.repeat(expected, EDGE_SCANS, axis=0),
            simulation=spec.simulation,
            window_hu=spec.window_hu,
        )
        yield (
            edge,
            replace(
                data,
                low=normalise(scan.low_hu, spec.window_hu),
                full=normalise(scan.full_hu, spec.window_hu),
                body=scan.body,
                embedding=data.embedding[lent],
                embedding_mask=data.embedding_mask[lent],
                g=np.array([info.g] * EDGE_SCANS, np.float32),
                patient=["phantom"] * EDGE_SCANS,
                slice=np.arange(EDGE_SCANS, dtype=np.int32),
                scale=np.ones(EDGE_SCANS, np.float32),
                report=[data.report[k] for k in lent],
                extra={
                    name: scan.body if name == "body" else field_of(name).made_of(scan)
                    for name in data.extra
                },
            ),
        )


def score_edge(
    spec: Spec, client: int, edge: Edge, denoised: np.ndarray, scans: ClientData
) -> Scores:
    """Measure an edge in denoised scans, and with ``input/`` in front in the scans themselves."""
    pixel_mm = spec.clients[client].protocol.pixel_at(scans.image_size)
    after, before = (
        scoring.score_edge(
            denormalise(images, spec.window_hu), edge, spec.window_hu, pixel_mm, spec.metrics
        )
        for images in (denoised, scans.low)
    )
    return after | {f"input/{name}": value for name, value in before.items()}
