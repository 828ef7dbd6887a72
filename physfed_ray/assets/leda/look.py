"""How good a trained autoencoder is, and which words it has found for slices."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from physfed_ray.assets.base import Examples, Table
from physfed_ray.assets.leda.autoencoder import Leda
from physfed_ray.assets.leda.candidates import Candidates, token_names, whole_words
from physfed_ray.assets.leda.pyramid import LAYERS, Pyramid, perplexity, token_counts
from physfed_ray.seeds import generator

SHUFFLES = 999
"""Of regions, for the probability that words fit their own region by chance."""
SHOWN_PER_REGION = 2
SHOWN_WORDS = 12


def candidate_rows(network: Leda, examples: Examples, candidates: Candidates) -> list[list[Tensor]]:
    """Return the rows of the codebook that are candidates of each slice and layer.

    A candidate of a slice that was not trained on may have no row; it is left out.
    """
    row_of = {int(token): row for row, token in enumerate(network.tokens.tolist())}
    numbers = whole_words()

    def rows(places: np.ndarray) -> Tensor:
        tokens = (numbers[candidates.words[int(place)]] for place in places)
        return torch.tensor([row_of[t] for t in tokens if t in row_of], dtype=torch.int64)

    return [[rows(places) for places in layers] for layers in candidates.of(examples)]


def scores(
    network: Leda, held_out: Sequence[Examples], candidates: Candidates | None
) -> dict[str, float]:
    """Return the scores of held-out slices by name.

    Returns:
        ``psnr`` of what is left of the slices after the tokens, in dB of the whole window, and
        ``psnr_bicubic`` of the slices made smaller by the latent grid's factor and larger again;
        ``perplexity`` of the tokens of all layers, and ``used`` and ``perplexity_share``, the share
        of the codebook that is used at all, and that the perplexity is; with words also those of
        ``region_scores``.
    """
    counts = torch.zeros(len(network.table), dtype=torch.int64, device=network.table.device)
    errors: dict[str, list[float]] = {"psnr": [], "psnr_bicubic": []}
    for examples, image, tokens in _seen(network, held_out):
        full = examples.batch.full
        counts += token_counts(tokens, len(counts))
        errors["psnr"] += _psnr(image, full)
        errors["psnr_bicubic"] += _psnr(_bicubic(full, network.factor), full)
    used = perplexity(counts)
    found = {name: float(np.mean(values)) for name, values in errors.items()}
    found |= {
        "perplexity": used,
        "perplexity_share": used / len(counts),
        "used": float((counts > 0).float().mean()),
    }
    return found if candidates is None else found | region_scores(network, held_out, candidates)


def region_scores(
    network: Leda, held_out: Sequence[Examples], candidates: Candidates
) -> dict[str, float]:
    """Return how often words of layer 1 are among the candidates of their slice's region.

    The candidates of a region are the layer-1 candidates of all its held-out slices. A unit is a
    region of one patient. ``words_p`` is the probability of words that fit so much better than
    those of another region, were regions dealt to the units by chance.

    Returns:
        ``words_own``, ``words_other`` and ``words_p``; none with fewer than two regions.
    """
    of_region: dict[str, set[int]] = {}
    words: dict[tuple[str, str], list[int]] = {}
    for examples, _, tokens in _seen(network, held_out):
        for row, layers in enumerate(candidate_rows(network, examples, candidates)):
            region = examples.regions[row]
            of_region.setdefault(region, set()).update(layers[0].tolist())
            unit = words.setdefault((examples.patients[row], region), [])
            unit.extend(tokens.tokens[0][row].tolist())
    regions = sorted(of_region)
    if len(regions) < 2:
        return {}
    shares = np.array(
        [[np.mean([w in of_region[r] for w in unit]) for r in regions] for unit in words.values()]
    )
    own = np.array([regions.index(region) for _, region in words])
    return own_against_other(shares, own)


def own_against_other(shares: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Compare shares of words in the own region's candidates with those in other regions'.

    Args:
        shares: Of each unit's words in each region's candidates, (units, regions).
        own: Region of each unit, (units,).
    """

    def gap(regions: np.ndarray) -> tuple[float, float]:
        mine = shares[np.arange(len(shares)), regions]
        others = (shares.sum(axis=1) - mine) / (shares.shape[1] - 1)
        return float(mine.mean()), float(others.mean())

    mine, others = gap(own)
    rng = generator("leda", "shuffled regions")
    shuffled = [gap(rng.permutation(own)) for _ in range(SHUFFLES)]
    as_good = sum(m - o >= mine - others - 1e-12 for m, o in shuffled)
    return {
        "words_own": mine,
        "words_other": others,
        "words_p": (1 + as_good) / (1 + SHUFFLES),
    }


def word_tables(network: Leda, held_out: Sequence[Examples], candidates: Candidates) -> list[Table]:
    """Return the most frequent words of some slices of each region, layer by layer."""
    names, rows, shown = token_names(), [], Counter[str]()
    numbers = network.tokens.tolist()
    for examples, _, tokens in _seen(network, held_out):
        allowed = candidate_rows(network, examples, candidates)
        for row, region in enumerate(examples.regions):
            shown[region] += 1
            if shown[region] > SHOWN_PER_REGION:
                continue
            for layer in range(LAYERS):
                found = Counter(tokens.tokens[layer][row].tolist())
                fitting = set(allowed[row][layer].tolist())
                share = sum(n for w, n in found.items() if w in fitting) / found.total()
                words = ", ".join(
                    f"{names[numbers[w]]} {n}" for w, n in found.most_common(SHOWN_WORDS)
                )
                slice_name = f"{examples.patients[row]}, slice {examples.slices[row]}"
                rows.append((slice_name, region, layer + 1, words, round(share, 3)))
    title = (
        "Words of held-out slices: tokens nearest to the features, with how often each is there; "
        "the last column is the share that was among the slice's candidates"
    )
    return [Table(title, ("slice", "region", "layer", "words", "candidates"), tuple(rows))]


def _seen(
    network: Leda, held_out: Sequence[Examples]
) -> Iterator[tuple[Examples, Tensor, Pyramid]]:
    """Yield batches with what is left of them, and their tokens."""
    for examples in held_out:
        full = examples.batch.full.float()
        with torch.inference_mode(), torch.autocast(full.device.type, enabled=False):
            image, tokens = network(full)
        yield examples, image, tokens


def _psnr(image: Tensor, full: Tensor) -> list[float]:
    """Return the PSNR of each image in dB, data range 1."""
    errors = (image - full).double().square().mean(dim=(1, 2, 3)).clamp_min(1e-12)
    return (-10 * errors.log10()).tolist()


def _bicubic(images: Tensor, factor: int) -> Tensor:
    """Return images made smaller and larger again, (B, 1, h, w)."""
    height, width = images.shape[-2:]
    small = functional.interpolate(
        images,
        (-(-height // factor), -(-width // factor)),
        mode="bicubic",
        antialias=True,
    )
    return functional.interpolate(small, (height, width), mode="bicubic")
