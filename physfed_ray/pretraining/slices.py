"""The slices of a pretraining, as files hold them, and the examples that recipes get of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch

from physfed_ray.assets.base import Examples
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.prepared import Prepared
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.fields import BATCHED, Batch
from physfed_ray.reports.regions import name_region
from physfed_ray.seeds import generator
from physfed_ray.window import denormalise

AT_ONCE = 16
"""Slices of one element of ``Slices.all``."""
UNKNOWN = "unknown"
"""Region of a slice where none can be named."""


@dataclass(frozen=True)
class Scanned:
    """All slices under one protocol.

    Attributes:
        protocol: How they were scanned.
        data: The slices.
        regions: Region of the body of each.
    """

    protocol: Protocol
    data: ClientData
    regions: tuple[str, ...]


@dataclass(frozen=True)
class Slices:
    """N slices under all protocols, one protocol after the other.

    Attributes:
        parts: The slices under each protocol.
        scanned: Whether a recipe sees what the scanner made of them; else ``low`` is ``full``.
        window_hu: HU that are 0 and 1.
    """

    parts: tuple[Scanned, ...]
    scanned: bool
    window_hu: tuple[float, float]

    def __len__(self) -> int:
        return sum(len(part.data) for part in self.parts)

    def examples(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """Return some slices, by their numbers."""
        ends = np.cumsum([len(part.data) for part in self.parts])
        owners = np.searchsorted(ends, rows, side="right")
        places = [
            (self.parts[owner], int(row - (ends[owner - 1] if owner else 0)))
            for owner, row in zip(owners, rows, strict=True)
        ]
        fields = {
            f.name: torch.from_numpy(
                np.stack([getattr(part.data, f.name)[row] for part, row in places]).astype(f.dtype)
            )
            for f in BATCHED
        }
        full = fields["full"].unsqueeze(1)
        batch = Batch(
            low=fields["low"].unsqueeze(1) if self.scanned else full.clone(),
            full=full,
            g=torch.from_numpy(np.stack([part.data.g[row] for part, row in places])),
            embedding=fields["embedding"],
            embedding_mask=fields["embedding_mask"],
            origin=torch.zeros(len(places), 2, dtype=torch.int64),
            image_size=full.shape[-1],
        )
        return Examples(
            batch,
            tuple(part.protocol for part, _ in places),
            tuple(part.data.patient[row] for part, row in places),
            tuple(int(part.data.slice[row]) for part, row in places),
            tuple(part.data.report[row] for part, row in places),
            tuple(part.regions[row] for part, row in places),
            self.window_hu,
        )

    def draw(self, seed: int, step: int, size: int) -> np.ndarray:
        """Return the numbers of the slices of a step's batch, (B,), none twice."""
        count = len(self)
        rng = generator(seed, "pretrain", step, "batch")
        return rng.choice(count, min(size, count), replace=False)

    def all(self) -> Sequence[Examples]:
        """Return all slices in order, a few at a time; they are read when they are asked for."""
        return _InOrder(self)


class _InOrder(Sequence[Examples]):
    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def __len__(self) -> int:
        return -(-len(self._slices) // AT_ONCE)

    @overload
    def __getitem__(self, index: int) -> Examples: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Examples]: ...
    def __getitem__(self, index: int | slice) -> Examples | Sequence[Examples]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        start = numbers * AT_ONCE
        return self._slices.examples(range(start, min(start + AT_ONCE, len(self._slices))))


def read_slices(
    todo: PreparePlan, prepared: Prepared, split: Literal["train", "test"], scanned: bool
) -> Slices:
    """Read the slices of a split, and name the region of each.

    Args:
        todo: Who was scanned as whom.
        prepared: What became of it.
        split: ``train``, or ``test`` for the held-out patients.
        scanned: As in ``Slices``.
    """
    name = _regions(todo, prepared.window_hu)
    parts = []
    for client in prepared.clients:
        path: Path | None = getattr(client, split)
        assert path is not None
        data = read_client_data(path)
        parts.append(Scanned(client.protocol, data, tuple(name(data, k) for k in range(len(data)))))
    return Slices(tuple(parts), scanned, prepared.window_hu)


def _regions(todo: PreparePlan, window_hu: tuple[float, float]) -> Callable[[ClientData, int], str]:
    """Return what names the region of a slice: the generator of phantoms, or measurements.

    A slice's is measured once, on its full dose, whatever the number of protocols.
    """
    if isinstance(todo.source, PhantomSource):
        order = list(REGIONS)
        people = {patient for files in todo.files.values() for patient in files}
        of = {p.pseudonym: order[int(p.id.split("-")[1]) % len(order)] for p in people}
        return lambda data, row: of[data.patient[row]]
    known: dict[tuple[str, int], str] = {}

    def measured(data: ClientData, row: int) -> str:
        from physfed_ray.reports.measurements import measure, smooth  # SciPy

        place = data.patient[row], int(data.slice[row])
        if place not in known:
            found = measure(smooth(denormalise(data.full[row][None], window_hu))[0])
            known[place] = (found and name_region(found)) or UNKNOWN
        return known[place]

    return measured
