"""What pulls features to candidate words, and the commitment to the tokens that were chosen.

LEDA's paper, eq. (1), over layers l, positions of z_l, and a slice's candidates c in C_l:

    semantic   = mean of -log  exp(-|z_l - e(c)|^2 / T) / sum_k exp(-|z_l - e(k)|^2 / T)
    commitment = sum over l of mean (z - sg(avg_l))^2                 at the positions of layer l

T, a temperature, is this project's addition; 1 is the paper's. With squared distances near 1 the
softmax over a thousand words is almost flat.

The public code (d99fe8b) computes something else, which ``variant: public_code`` repeats:

    semantic   = mean over slices and layers of
                 -log exp(-mean (z_l - e(c_p))^2) / sum_{b, p, k} exp(-[p in M_l] |z_l - e(k)|^2)
    commitment = sum over l of mean ([p in M_l] z - sg(sum of q_i, i <= l, / layers at p))^2

with one candidate c_p drawn for every position, and both means over all positions of the grid. The
denominator runs over the whole batch, and a position outside the layer counts exp(0) = 1 for every
word; the divisor of the average counts all layers from the first on.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from physfed_ray.assets.leda.pyramid import LAYERS, Pyramid, squared_distances

NEAREST = 0.02
"""Temperature at which a softmax over rows of length 1 almost is the choice of the nearest one.
At 0.1 it is not: the use looks even while a few rows are the nearest to everything."""


def semantic_loss(
    pyramid: Pyramid,
    table: Tensor,
    candidates: Sequence[Sequence[Tensor]],
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return eq. (1), and the mean entropy of its softmax in nats, detached.

    Args:
        pyramid: B slices in tokens.
        table: The codebook, (K, d).
        candidates: Rows of the codebook for each slice and layer; a layer of a slice that has none
            is left out of the mean.
        temperature: T.
    """
    losses, entropies = [], []
    for number, layer in enumerate(pyramid.layers):
        weights = _weights([rows[number] for rows in candidates], table)
        log_p = (-squared_distances(layer, table) / temperature).log_softmax(dim=-1)
        each = -torch.einsum("bnk,bk->b", log_p, weights) / layer.shape[1]
        losses.append(each.sum() / weights.sum().clamp_min(1))
        with torch.no_grad():
            entropies.append(-(log_p.exp() * log_p).sum(dim=-1).mean())
    return torch.stack(losses).mean(), torch.stack(entropies).mean()


def _weights(rows: Sequence[Tensor], table: Tensor) -> Tensor:
    """Return (B, K): one over the number of a slice's candidates at each of them."""
    weights = table.new_zeros(len(rows), len(table))
    for row, chosen in zip(weights, rows, strict=True):
        if len(chosen):
            row[chosen.to(table.device)] = 1 / len(chosen)
    return weights


def semantic_loss_of_the_public_code(
    pyramid: Pyramid,
    table: Tensor,
    candidates: Sequence[Sequence[Tensor]],
    draws: torch.Generator,
) -> Tensor:
    """Return what the public code computes in place of eq. (1).

    Args:
        pyramid: B slices in tokens.
        table: The codebook, (K, d).
        candidates: Rows of the codebook for each slice and layer; none of them empty.
        draws: Draws one candidate for each position.
    """
    slices, positions = pyramid.z.shape[:2]
    loss = pyramid.z.new_zeros(())
    for number, layer in enumerate(pyramid.layers):
        inside = torch.logsumexp(-squared_distances(layer, table).flatten(), dim=0)
        outside = slices * (positions - layer.shape[1]) * len(table)
        nothing = inside.new_tensor(math.log(outside) if outside else -math.inf)
        denominator = torch.logaddexp(inside, nothing)
        for z, rows in zip(layer, candidates, strict=True):
            drawn = torch.randint(len(rows[number]), (len(z),), generator=draws)
            c = table[rows[number][drawn].to(table.device)]
            loss = loss + (z - c).square().mean() + denominator
    return loss / (slices * LAYERS)


def commitment(pyramid: Pyramid) -> Tensor:
    """Return the sum over layers of mean (z - sg(avg_l))^2, at each layer's own positions."""
    return torch.stack(
        [
            (pyramid.z[:, here] - pyramid.average(number + 1)[:, here].detach()).square().mean()
            for number, here in enumerate(pyramid.positions)
        ]
    ).sum()


def commitment_of_the_public_code(pyramid: Pyramid) -> Tensor:
    """Return the same with z masked, the sums not, and a divisor of all layers."""
    all_layers = pyramid.counts()[:, None]
    losses = []
    for number, here in enumerate(pyramid.positions):
        mask = pyramid.z.new_zeros(len(all_layers), 1).index_fill(0, here, 1.0)
        average = pyramid.sums(number + 1).detach() / all_layers
        losses.append((mask * pyramid.z - average).square().mean())
    return torch.stack(losses).sum()


def codebook_loss(pyramid: Pyramid) -> Tensor:
    """Return what trains a learned codebook (VQGAN): the sum over l of mean (sg(z) - avg_l)^2."""
    return torch.stack(
        [
            (pyramid.z[:, here].detach() - pyramid.average(number + 1)[:, here]).square().mean()
            for number, here in enumerate(pyramid.positions)
        ]
    ).sum()


def unused(pyramid: Pyramid, table: Tensor, temperature: float = NEAREST) -> Tensor:
    """Return log K less the entropy of the mean softmax over all positions of the last layer.

    It is 0 if the features of a batch are, on the whole, as close to every one of the K rows, and
    log K if one row is nearest to all. LEDA has no such term: it is the entropy penalty of L. Yu et
    al. Language Model Beats Diffusion: Tokenizer is Key to Visual Generation. ICLR 2024.

    Args:
        pyramid: B slices in tokens.
        table: The codebook, (K, d).
        temperature: Divides the squared distances.
    """
    distances = squared_distances(pyramid.layers[-1], table).flatten(0, 1)
    p = (-distances / temperature).softmax(dim=-1).mean(dim=0)
    entropy: Tensor = -torch.special.xlogy(p, p).sum()
    return math.log(len(table)) - entropy
