"""Images through a fixed front end: chosen for each client on slices of other patients, then made.

An unseen protocol has nobody to choose for it and takes what the client with the nearest protocol
has chosen, as it does with a classical denoiser. So does a client without full dose.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from physfed_ray.ct.protocol import Protocol, nearest_protocol
from physfed_ray.data.description import Progress
from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.shards import Front, Shard
from physfed_ray.data.store import read_field, read_scans
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import SINOGRAM
from physfed_ray.front_ends.base import Measured
from physfed_ray.window import denormalise

CHOOSING_SLICES = 12
"""Slices on which a client chooses, evenly spaced over its validation patients' slices."""


def choose_fronts(todo: PreparePlan, unusable: Collection[str]) -> dict[str, Front]:
    """Return the front end of every protocol, none where the network reads the scanner's FBP.

    Args:
        todo: The data set, whose scans and sinograms lie in the cache.
        unusable: Pseudonyms of the patients who cannot be used.
    """
    end = todo.front_end
    if not end.prepares:
        return {}
    choosing = {c: p for c, p in todo.clients.items() if c not in todo.unlabelled} or todo.clients
    fronts = {}
    for client, protocol in choosing.items():
        slices = _slices(todo, client, unusable) if end.chooses else _none(protocol, todo)
        fronts[client] = Front(end, end.choose(slices))
    for other, protocol in {**todo.clients, **todo.unseen}.items():
        if other not in fronts:
            fronts[other] = fronts[nearest_protocol(protocol, choosing)]
    return fronts


def with_fronts(shards: Sequence[Shard], fronts: Mapping[str, Front]) -> list[Shard]:
    """Return the shards whose images a front end is to make, with that front end."""
    return [replace(s, front=fronts[s.client]) for s in shards if s.client in fronts]


def tell_fronts(progress: Progress | None, fronts: Mapping[str, Front]) -> None:
    """Say what each client has chosen."""
    for client, front in fronts.items():
        if progress is not None and front.choice:
            words = ", ".join(f"{name} {value:.3g}" for name, value in front.choice.items())
            text = f"front end of {client}: {front.end.title}, {words}"
            progress({"event": "message", "text": text})


def _slices(todo: PreparePlan, client: str, unusable: Collection[str]) -> Measured:
    """Return validation slices of a client, or training slices where there are none of these."""
    split = next((s for s in ("validation", "train") if (s, client) in todo.files), "")
    shards = [
        shard
        for shard in (todo.shards_of(split, client) if split else ())
        if shard.patient.pseudonym not in unusable
    ]
    if not shards:
        raise PhysFedError(
            f"front_end: {client} has no slice on which {todo.front_end.title} could be chosen; "
            "give data.validation_patients"
        )
    measured, full = [], []
    for shard in shards:
        measured += list(read_field(todo.field_path_of(shard, SINOGRAM.name)))
        full += list(read_scans(todo.path_of(shard)).full)
    rows = np.linspace(0, len(full) - 1, min(CHOOSING_SLICES, len(full))).round().astype(int)
    window = todo.settings.window_hu
    return Measured(
        line_integrals=np.stack([np.asarray(measured[k], np.float32) for k in np.unique(rows)]),
        full_hu=denormalise(np.stack([full[k] for k in np.unique(rows)]), window),
        protocol=todo.clients[client],
        simulation=todo.settings.simulation,
        window_hu=window,
    )


def _none(protocol: Protocol, todo: PreparePlan) -> Measured:
    """Return no slices, for a front end whose settings are all given."""
    simulation, n = todo.settings.simulation, todo.settings.simulation.image_size
    sinograms = np.empty((0, protocol.views, protocol.bins), np.float32)
    images = np.empty((0, n, n), np.float32)
    return Measured(sinograms, images, protocol, simulation, todo.settings.window_hu)
