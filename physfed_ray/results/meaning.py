"""Whether the embeddings of reports mean anything: what near ones have in common beside chance."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from physfed_ray.results.neighbours import Corpus, Rows, Vectors, first_sentence

MOST_QUERIES = 1_000
PAIRS = 20_000
GRID = 32
"""Pictures are compared as so many block averages a side."""
FEWEST_BLOCKS = 8


@dataclass(frozen=True)
class Shares:
    """How often neighbours have something in common, beside slices drawn by lot.

    Attributes:
        neighbours: Mean over slices, each with its nearest neighbour; NaN without any.
        chance: Mean over slices, each with every slice that could have been its neighbour, or
            with one of them drawn by lot.
    """

    neighbours: float
    chance: float


@dataclass(frozen=True)
class Meaning:
    """What the embeddings are like as a whole.

    Attributes:
        texts: Different reports.
        repeated: Share of the slices whose report another patient's slice has as well.
        words: Fewest, median and most words of a report.
        plain: Cosine of two slices' embeddings, median and 5th and 95th percentile of pairs.
        standard: The same after standardisation.
        rescanned: Median cosine, standardised, of a slice's embeddings under two protocols, and
            the share of such pairs with the very same text; None without such pairs.
        patient: Whether the nearest slice elsewhere in the body or of another patient has the
            same patient.
        client: Whether the nearest slice of another patient has the same client.
        picture: Correlation of the full-dose pictures with that slice's.
        openings: The commonest first sentences, with their slices and patients.
    """

    texts: int
    repeated: float
    words: tuple[int, float, int]
    plain: tuple[float, float, float]
    standard: tuple[float, float, float]
    rescanned: tuple[float, float] | None
    patient: Shares
    client: Shares
    picture: Shares
    openings: list[tuple[str, int, int]]


def meaning(corpus: Corpus, seed: int) -> Meaning:
    """Measure what the embeddings are like."""
    rng = np.random.default_rng(seed)
    one, two = rng.integers(len(corpus), size=(2, PAIRS))
    one, two = one[one != two], two[one != two]
    owners: dict[str, set[str]] = {}
    for text, patient in zip(corpus.report, corpus.patient.tolist(), strict=True):
        owners.setdefault(text, set()).add(patient)
    words = [len(text.split()) for text in corpus.report]
    return Meaning(
        texts=len(owners),
        repeated=float(np.mean([len(owners[text]) > 1 for text in corpus.report])),
        words=(min(words), float(np.median(words)), max(words)),
        plain=_spread(corpus.plain, one, two),
        standard=_spread(corpus.standard, one, two),
        rescanned=_rescanned(corpus, rng),
        openings=_openings(corpus),
        **_shares(corpus, rng),
    )


def _spread(vectors: Vectors, one: Rows, two: Rows) -> tuple[float, float, float]:
    if not len(one):
        return np.nan, np.nan, np.nan
    cosines = np.einsum("ij,ij->i", vectors[one], vectors[two])
    middle, low, high = np.percentile(cosines, (50, 5, 95))
    return float(middle), float(low), float(high)


def _rescanned(corpus: Corpus, rng: np.random.Generator) -> tuple[float, float] | None:
    groups: dict[tuple[str, int], list[int]] = {}
    for k, key in enumerate(zip(corpus.patient.tolist(), corpus.position.tolist(), strict=True)):
        groups.setdefault(key, []).append(k)
    pairs = [rng.choice(group, 2, replace=False) for group in groups.values() if len(group) > 1]
    if not pairs:
        return None
    one, two = np.array(pairs).T
    same = [corpus.report[a] == corpus.report[b] for a, b in pairs]
    return _spread(corpus.standard, one, two)[0], float(np.mean(same))


def _openings(corpus: Corpus, most: int = 10) -> list[tuple[str, int, int]]:
    firsts = [first_sentence(text) for text in corpus.report]
    patients: dict[str, set[str]] = {}
    for first, patient in zip(firsts, corpus.patient.tolist(), strict=True):
        patients.setdefault(first, set()).add(patient)
    return [(text, n, len(patients[text])) for text, n in Counter(firsts).most_common(most)]


def _shares(corpus: Corpus, rng: np.random.Generator) -> dict[str, Shares]:
    count = min(MOST_QUERIES, len(corpus))
    queries = rng.choice(len(corpus), count, replace=False)
    found: dict[str, list[tuple[float, float]]] = {"patient": [], "client": [], "picture": []}
    for k in queries.tolist():
        cosines = corpus.standard @ corpus.standard[k]
        own = corpus.patient == corpus.patient[k]
        elsewhere = ~own | (corpus.position != corpus.position[k])
        if elsewhere.any():
            best = int(np.where(elsewhere, cosines, -np.inf).argmax())
            found["patient"].append((float(own[best]), float(own[elsewhere].mean())))
        if own.all():
            continue
        best = int(np.where(own, -np.inf, cosines).argmax())
        mates = corpus.client == corpus.client[k]
        found["client"].append((float(mates[best]), float(mates[~own].mean())))
        drawn = int(rng.choice(np.flatnonzero(~own)))
        found["picture"].append((_alike(corpus, k, best), _alike(corpus, k, drawn)))
    return {
        name: Shares(*(np.mean(pairs, 0).tolist() if pairs else (np.nan, np.nan)))
        for name, pairs in found.items()
    }


def _alike(corpus: Corpus, one: int, other: int) -> float:
    """Return the correlation of two full-dose pictures where both show the body."""
    blocks, shares = zip(*(_coarse(*corpus.anatomy(k)) for k in (one, other)), strict=True)
    both = (shares[0] > 0.5) & (shares[1] > 0.5)
    if both.sum() < FEWEST_BLOCKS:
        return 0.0
    x, y = (block[both] - block[both].mean() for block in blocks)
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / norms) if norms > 0 else 0.0


def _coarse(image: Vectors, body: NDArray[np.bool_]) -> tuple[Vectors, Vectors]:
    """Return the block averages of an image and of its body."""
    side = max(1, image.shape[0] // GRID)
    n = image.shape[0] // side
    means = [
        x[: n * side, : n * side].astype(np.float32).reshape(n, side, n, side).mean((1, 3))
        for x in (image, body)
    ]
    return np.asarray(means[0]), np.asarray(means[1])
