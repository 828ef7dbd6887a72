"""The pyramid of tokens: coarse layers first, each hands on what its tokens have missed.

L. Yu et al. SPAE: Semantic Pyramid AutoEncoder for Multimodal Generation with Frozen LLMs. NeurIPS
2023, as LEDA uses it: three layers of 2 x 2, 8 x 8 and all positions of the latent grid. With
M_l the positions of layer l and e the codebook:

    z_1     = z
    q_l     = the row of e nearest to z_l                              at M_l
    z_{l+1} = z_l + (z - q_l) at M_l, z_l elsewhere
    avg_l   = sum of q_i over the layers i <= l that are there / how many are there
    output  = z + sg(avg_D - z)                                       straight through

On a grid of 32 x 32 the rows and columns are LEDA's 7, 23 and 3, 7, ..., 31. Any other grid has as
many, as evenly, and a grid of fewer positions has all of its own.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SIDES = (2, 8)
"""Positions of the coarse layers along a side; the last layer has all."""
LAYERS = len(SIDES) + 1


@dataclass(frozen=True)
class Pyramid:
    """Images in tokens.

    Attributes:
        z: Continuous features, (B, N, d) with N = h w.
        positions: Of each layer on the grid, (n_l,) int64.
        layers: z_l at the positions of each layer, (B, n_l, d).
        tokens: Row of the codebook of each, (B, n_l) int64.
        embeddings: q_l, (B, n_l, d); they have a gradient where the codebook is learned.
        output: What the decoder gets, (B, d, h, w).
    """

    z: Tensor
    positions: tuple[Tensor, ...]
    layers: tuple[Tensor, ...]
    tokens: tuple[Tensor, ...]
    embeddings: tuple[Tensor, ...]
    output: Tensor

    def counts(self, layers: int = LAYERS) -> Tensor:
        """Return how many of the first layers have each position, (N,) float32."""
        found = self.z.new_zeros(self.z.shape[1])
        for positions in self.positions[:layers]:
            found = found.index_add(0, positions, found.new_ones(len(positions)))
        return found

    def sums(self, layers: int = LAYERS) -> Tensor:
        """Return the sum of the first layers' embeddings at each position, (B, N, d)."""
        found = torch.zeros_like(self.z)
        for positions, q in zip(self.positions[:layers], self.embeddings, strict=False):
            found = found.index_add(1, positions, q)
        return found

    def average(self, layers: int = LAYERS) -> Tensor:
        """Return avg_l, (B, N, d); 0 where none of the first layers is."""
        return self.sums(layers) / self.counts(layers).clamp_min(1)[:, None]


def places(side: int, count: int) -> list[int]:
    """Return ``count`` rows of a grid of ``side``, or all of them where it has no more.

    Layer 1 has the row before the middle of each of its cells, layer 2 the last of each cell.
    """
    count = min(side, count)
    cells = [(i * side // count, (2 * i + 1) * side // (2 * count)) for i in range(count)]
    if count == SIDES[0]:
        return [max(first, middle - 1) for first, middle in cells]
    return [(i + 1) * side // count - 1 for i in range(count)]


def grid_positions(height: int, width: int) -> list[list[int]]:
    """Return the positions of each layer, row by row, as numbers below height x width."""
    counts = (*SIDES, max(height, width))
    return [
        [row * width + column for row in places(height, count) for column in places(width, count)]
        for count in counts
    ]


def quantize(z: Tensor, table: Tensor) -> Pyramid:
    """Return features in tokens.

    Args:
        z: (B, d, h, w) float32.
        table: The codebook, (K, d) float32.
    """
    flat = z.flatten(2).transpose(1, 2)
    positions = tuple(
        torch.tensor(places, device=z.device) for places in grid_positions(*z.shape[-2:])
    )
    handed, layers, tokens, embeddings = flat, [], [], []
    for here in positions:
        layers.append(handed[:, here])
        tokens.append(nearest(layers[-1].detach(), table))
        q = table[tokens[-1]]
        handed = handed.index_add(1, here, flat[:, here] - q.detach())
        embeddings.append(q)
    pyramid = Pyramid(flat, positions, tuple(layers), tuple(tokens), tuple(embeddings), z)
    average = pyramid.average().detach().transpose(1, 2).reshape(z.shape)
    return replace(pyramid, output=z + (average - z).detach())


def nearest(z: Tensor, table: Tensor) -> Tensor:
    """Return the rows of a codebook nearest to vectors (..., d) by Euclidean distance, (...)."""
    return squared_distances(z, table).argmin(dim=-1)


def squared_distances(z: Tensor, table: Tensor) -> Tensor:
    """Return the squared distances of vectors (..., d) to the rows of a codebook, (..., K)."""
    return (
        z.square().sum(dim=-1, keepdim=True) - 2 * z @ table.T + table.square().sum(dim=-1)
    ).clamp_min(0)


def token_counts(pyramid: Pyramid, rows: int) -> Tensor:
    """Return how often each row of a codebook of so many is used, (rows,) int64."""
    used = torch.cat([tokens.flatten() for tokens in pyramid.tokens])
    return torch.bincount(used, minlength=rows)


def perplexity(counts: Tensor) -> float:
    """Return of how many tokens, equally often used, the use is worth: exp of its entropy."""
    shares = counts[counts > 0].double() / counts.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))
