"""Slices by the embeddings of their reports: which to look at, and who is near whom."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from physfed_ray.data.prepared import Prepared
from physfed_ray.data.store import ClientData, read_client_data

MOST_SLICES = 20_000
"""Of more slices, evenly spaced ones are compared."""

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """M slices of a data set with their reports.

    Attributes:
        file: File that each slice lies in.
        row: Its row there.
        client: Client, or unseen protocol, whose scanner it is.
        split: ``train``, ``validation``, ``test`` or ``unseen``.
        patient: Pseudonym of its patient.
        position: Index among its patient's slices.
        report: Its report.
        plain: Mean of the real vectors of its embedding, (M, d), of unit length.
        standard: The same after the standardisation that the network sees, of unit length.
        total: Slices of the whole data set.
    """

    file: list[Path]
    row: Rows
    client: NDArray[np.str_]
    split: list[str]
    patient: NDArray[np.str_]
    position: Rows
    report: list[str]
    plain: Vectors
    standard: Vectors
    total: int

    def __len__(self) -> int:
        return len(self.report)

    def low(self, k: int) -> Vectors:
        """Return the low-dose image of slice ``k``, (n, n) in [0, 1] of the window."""
        return np.asarray(_read(self.file[k]).low[self.row[k]])

    def anatomy(self, k: int) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return the full-dose image of slice ``k`` likewise, and the body in it.

        Of a client without full dose it is the low-dose image.
        """
        data, row = _read(self.file[k]), self.row[k]
        full = np.asarray(data.full[row])
        return full if np.isfinite(full).all() else self.low(k), data.body[row] > 0


@lru_cache(maxsize=64)
def _read(path: Path) -> ClientData:
    return read_client_data(path)


def gather(prepared: Prepared, most: int = MOST_SLICES) -> Corpus:
    """Read the reports and embeddings of a data set, at most about ``most`` evenly spaced slices.

    Raises:
        PhysFedError: A file cannot be read.
    """
    files = [
        (client.id, "unseen" if client in prepared.unseen else split, path)
        for client in (*prepared.clients, *prepared.unseen)
        for split in ("train", "validation", "test")
        if (path := getattr(client, split)) is not None
    ]
    total = sum(len(read_client_data(path)) for _, _, path in files)
    step = max(1, -(-total // most))
    columns: list[tuple[Any, ...]] = []
    vectors: list[Vectors] = []
    for client, split, path in files:
        data = read_client_data(path)
        rows = np.arange(0, len(data), step)
        mask = data.embedding_mask[::step, :, None].astype(np.float32)
        vectors.append((data.embedding[::step] * mask).sum(1) / mask.sum(1))
        columns += [
            (path, r, client, split, data.patient[r], data.slice[r], data.report[r]) for r in rows
        ]
    file, row, owner, splits, patient, position, report = zip(*columns, strict=True)
    plain, constants = np.concatenate(vectors), prepared.statistics
    standard = (plain - np.array(constants.embedding_mean)) / np.array(constants.embedding_std)
    return Corpus(
        file=list(file),
        row=np.array(row),
        client=np.array(owner),
        split=list(splits),
        patient=np.array(patient),
        position=np.array(position, np.int64),
        report=list(report),
        plain=_unit(plain),
        standard=_unit(standard),
        total=total,
    )


def _unit(vectors: NDArray[np.floating]) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def choose(corpus: Corpus, count: int, seed: int) -> list[int]:
    """Choose slices of clients as different as can be, then of patients, then of positions."""
    last = {p: corpus.position[corpus.patient == p].max() for p in set(corpus.patient.tolist())}
    place = corpus.position / np.maximum([last[p] for p in corpus.patient.tolist()], 1)
    lot = np.random.default_rng(seed).random(len(corpus))
    of_client, of_patient = np.zeros(len(corpus)), np.zeros(len(corpus))
    gap = np.full(len(corpus), np.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(corpus))):
        free = np.ones(len(corpus), bool)
        free[chosen] = False
        best = np.lexsort((lot, -gap.round(2), of_patient, of_client, ~free))[0]
        chosen.append(int(best))
        of_client += corpus.client == corpus.client[best]
        of_patient += corpus.patient == corpus.patient[best]
        gap = np.minimum(gap, np.abs(place - place[best]))
    return chosen


@dataclass(frozen=True)
class Neighbour:
    """A slice near another one.

    Attributes:
        index: Which slice of the corpus.
        cosine: Of the standardised embeddings.
        plain: Of the embeddings as the encoder gives them.
    """

    index: int
    cosine: float
    plain: float


def nearest(corpus: Corpus, k: int, count: int) -> tuple[list[Neighbour], Neighbour | None]:
    """Find the neighbours of slice ``k``.

    Returns:
        The nearest slice of each of the ``count`` nearest other patients, and the nearest other
        slice of the same patient: of another place in the body, if there is any.
    """
    cosines = corpus.standard @ corpus.standard[k]
    own = corpus.patient == corpus.patient[k]
    others: list[Neighbour] = []
    away = ~own
    while away.any() and len(others) < count:
        best = int(np.where(away, cosines, -np.inf).argmax())
        others.append(_neighbour(corpus, k, best, cosines))
        away &= corpus.patient != corpus.patient[best]
    elsewhere = own & (corpus.position != corpus.position[k])
    if not elsewhere.any():
        elsewhere = own & (np.arange(len(corpus)) != k)
    if not elsewhere.any():
        return others, None
    best = int(np.where(elsewhere, cosines, -np.inf).argmax())
    return others, _neighbour(corpus, k, best, cosines)


def _neighbour(corpus: Corpus, k: int, best: int, cosines: Vectors) -> Neighbour:
    return Neighbour(best, float(cosines[best]), float(corpus.plain[best] @ corpus.plain[k]))


def first_sentence(text: str) -> str:
    """Return a report's first sentence or line."""
    line = text.strip().split("\n", 1)[0]
    head, dot, _ = line.partition(". ")
    return head + dot.rstrip()
