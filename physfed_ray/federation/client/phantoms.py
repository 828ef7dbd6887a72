"""Phantoms that a host scans under a protocol in place of patients, and what it measures there."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from physfed_ray.atomic import atomic_file
from physfed_ray.cache import cache_folder
from physfed_ray.code_version import code_version
from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import expect, measure
from physfed_ray.data.shards import made_with
from physfed_ray.data.store import ClientData
from physfed_ray.federation.spec import Spec, UnseenInfo
from physfed_ray.fields import Acquisition, field_of
from physfed_ray.methods.given import ClientInfo
from physfed_ray.metrics import scoring
from physfed_ray.metrics.base import Scores
from physfed_ray.metrics.phantoms import Phantom
from physfed_ray.metrics.registry import phantom_metrics
from physfed_ray.seeds import generator
from physfed_ray.window import denormalise, normalise

Scanner = ClientInfo | UnseenInfo

SCANS_AT_ONCE = 8
CODE = ("ct/*.py", "front_ends/*.py", "metrics/*.py", "federation/client/phantoms.py", "seeds.py")
"""Everything between a protocol and the scans of a phantom."""


def phantoms(spec: Spec, *, unseen: bool = False) -> list[Phantom]:
    """Return the phantoms that the experiment's metrics look at, of unseen protocols or of seen."""
    found = dict.fromkeys(metric.phantom for metric in phantom_metrics(spec.metrics))
    return [
        phantom
        for phantom in found
        if phantom is not None and phantom.fits(spec.window_hu) and (phantom.unseen or not unseen)
    ]


def phantom_scans(spec: Spec, scanner: Scanner, data: ClientData, phantom: Phantom) -> ClientData:
    """Scan a phantom under a protocol.

    Nobody has described a phantom, so that each scan has the report of one of the test slices, as
    their images and the network's modulation would go together in use.

    Args:
        spec: The federation.
        scanner: The client, or the unseen protocol.
        data: Its test slices.
        phantom: What to scan.

    Returns:
        The scans of its first object, then those of the next.
    """
    made = phantom.make(data.image_size, scanner.protocol.pixel_at(data.image_size))
    full_hu = np.repeat(made.objects, phantom.scans, axis=0)
    body = np.repeat(made.body[None], phantom.images, axis=0)
    wanted = [name for name in data.extra if name != "body"]
    if wanted:
        parts = list(_acquired(spec, scanner, phantom, full_hu, body))
        low_hu = np.concatenate([part.low_hu for part in parts])
        extra = {n: np.concatenate([field_of(n).made_of(p) for p in parts]) for n in wanted}
    else:
        low_hu, extra = _images(spec, scanner, phantom, full_hu, body), {}
    if "body" in data.extra:
        extra["body"] = body
    lent = np.linspace(0, len(data) - 1, phantom.images).round().astype(int)
    return replace(
        data,
        low=normalise(low_hu, spec.window_hu),
        full=normalise(full_hu, spec.window_hu),
        body=body,
        embedding=data.embedding[lent],
        embedding_mask=data.embedding_mask[lent],
        g=np.array([scanner.g] * phantom.images, np.float32),
        patient=["phantom"] * phantom.images,
        slice=np.arange(phantom.images, dtype=np.int32),
        scale=np.ones(phantom.images, np.float32),
        report=[data.report[k] for k in lent],
        extra=extra,
    )


def _images(
    spec: Spec,
    scanner: Scanner,
    phantom: Phantom,
    full_hu: NDArray[np.float32],
    body: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """Return the low-dose images, (K N, n, n) HU: of the cache, where a run of this seed has been.

    All runs of a suite scan the same phantoms, and scanning takes longer than most of them.
    """
    path = cache_folder() / "phantoms" / f"{_version(spec, scanner, phantom)}.npy"
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == full_hu.shape:
            return np.asarray(found, np.float32)
    except (OSError, ValueError, EOFError):
        pass  # there is none, or it is damaged
    scans = _acquired(spec, scanner, phantom, full_hu, body)
    low_hu = np.concatenate([scan.low_hu for scan in scans])
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, low_hu)
    return low_hu


def _version(spec: Spec, scanner: Scanner, phantom: Phantom) -> str:
    """Return the hash of all that a phantom's images depend on."""
    front_end = spec.method.task.front_end
    inputs = [
        spec.seed,
        scanner.id,
        asdict(scanner.protocol),
        asdict(spec.simulation),
        [front_end.name, front_end.settings.model_dump(mode="json"), dict(scanner.front)],
        [*phantom.key, phantom.scans],
        [code_version(*CODE), dict(made_with())],
    ]
    return blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


def _acquired(
    spec: Spec,
    scanner: Scanner,
    phantom: Phantom,
    full_hu: NDArray[np.float32],
    body: NDArray[np.uint8],
) -> Iterator[Acquisition]:
    """Yield the scans, a few at a time."""
    protocol, simulation = scanner.protocol, spec.simulation
    size = simulation.object_size
    expected = expect(phantom.make(size, protocol.pixel_at(size)).objects, protocol, simulation)
    for start in range(0, phantom.images, SCANS_AT_ONCE):
        numbers = range(start, min(start + SCANS_AT_ONCE, phantom.images))
        rngs = [generator(spec.seed, scanner.id, *phantom.key, k, "noise") for k in numbers]
        paths = expected[[k // phantom.scans for k in numbers]]
        measured = measure(paths, protocol, rngs, simulation)
        rows = slice(numbers.start, numbers.stop)
        yield Acquisition(
            protocol=protocol,
            full_hu=full_hu[rows],
            low_hu=spec.images_of(scanner, measured),
            body=body[rows],
            line_integrals=measured,
            expected=paths,
            simulation=simulation,
            window_hu=spec.window_hu,
        )


def score_phantom(spec: Spec, protocol: Protocol, phantom: Phantom, images: np.ndarray) -> Scores:
    """Measure what there is to measure on scans of a phantom.

    Args:
        spec: The federation.
        protocol: How it was scanned.
        phantom: The phantom.
        images: The scans, denoised or not, (K N, n, n) float32 in [0, 1] of the window.
    """
    size = images.shape[-1]
    pixel_mm = protocol.pixel_at(size)
    made = phantom.make(size, pixel_mm)
    return scoring.score_phantom(
        denormalise(images, spec.window_hu), phantom, made, spec.window_hu, pixel_mm, spec.metrics
    )


def full_dose_scores(spec: Spec, scanner: Scanner, data: ClientData, phantom: Phantom) -> Scores:
    """Measure scans of a phantom with its full dose; nothing where it has none."""
    if phantom.full_dose is None:
        return {}
    protocol = replace(scanner.protocol, photons=phantom.full_dose * scanner.protocol.photons)
    scans = phantom_scans(spec, replace(scanner, protocol=protocol), data, phantom)
    return score_phantom(spec, protocol, phantom, np.asarray(scans.low))
