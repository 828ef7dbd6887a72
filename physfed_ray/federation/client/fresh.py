"""Fresh noise: in each round a client's training slices are scanned again.

The objects and the scanner are those of the first scan, which left the line integrals that a
detector without noise would measure. What a reader of the first image wrote, its embedding, and the
constants of standardisation stay as they are.
"""

import numpy as np

from physfed_ray.ct.scan import measure
from physfed_ray.data.store import ClientData
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import EXPECTED, Acquisition, field_of
from physfed_ray.seeds import generator
from physfed_ray.window import denormalise, normalise

SLICES_AT_ONCE = 8
"""Slices that are reconstructed together: as fast as 16, in half of the memory."""


def rescan(spec: Spec, client: int, number: int, data: ClientData) -> dict[str, np.ndarray]:
    """Scan a client's training slices once more.

    The noise of a slice depends on the experiment's seed, the client, the place of its patient
    among the client's, the slice and the round alone. Pseudonyms differ between users, so they do
    not count.

    Args:
        spec: The federation.
        client: Index of the client whose slices they are.
        number: The round.
        data: The slices, with the field ``expected``.

    Returns:
        ``low`` and those fields of ``data.extra`` that are made from a scan, by name, (N, ...);
        not ``expected``, which does not change.
    """
    place = {patient: k for k, patient in enumerate(dict.fromkeys(data.patient))}
    rngs = [
        generator(spec.seed, spec.clients[client].id, place[patient], int(index), number, "noise")
        for patient, index in zip(data.patient, data.slice, strict=True)
    ]
    others = (name for name in data.extra if name != EXPECTED.name)
    made = [name for name in others if field_of(name).make is not None]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("low", *made)}
    for start in range(0, len(data), SLICES_AT_ONCE):
        rows = slice(start, start + SLICES_AT_ONCE)
        scan = _acquired(spec, client, data, rows, rngs[rows])
        parts["low"].append(normalise(scan.low_hu, spec.window_hu))
        for name in made:
            parts[name].append(field_of(name).made_of(scan))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _acquired(
    spec: Spec, client: int, data: ClientData, rows: slice, rngs: list[np.random.Generator]
) -> Acquisition:
    protocol, expected = spec.clients[client].protocol, data.extra[EXPECTED.name][rows]
    measured = measure(expected, protocol, rngs, spec.simulation)
    return Acquisition(
        protocol=protocol,
        full_hu=denormalise(data.full[rows], spec.window_hu),
        low_hu=spec.images_of(spec.clients[client], measured),
        body=data.body[rows],
        line_integrals=measured,
        expected=expected,
        simulation=spec.simulation,
        window_hu=spec.window_hu,
    )
