"""The two hypernetworks of SCAN-PhysFed (Yang et al. 2025, eq. 2, 3 and 5).

Both compute in float32 under autocast: in bfloat16 a scale near 1 moves in steps of 0.004 to
0.008, as large as the modulation itself can be.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.ct.protocol import SEVEN

G_CENTRE, G_SCALE = 0.5, 0.25
"""Fixed standardisation of g, whose entries lie in about [0, 1]."""

POOLING = 4
"""Reduction of f_t's length before the first linear layer, eq. 2."""


class ProtocolHypernetwork(nn.Module):
    """Three linear layers from a protocol to a scale and a shift per channel, eq. 5.

    The code is what the second layer returns, before its activation: codes can have either sign,
    so that orthogonal codes need not have disjoint supports, and none can vanish in a ReLU. The
    head, the third layer, begins with that ReLU, and starts at alpha = 1 and beta = 0.

    The first two layers start with He et al.'s variance and see a standardised g: with a raw g and
    smaller weights the paper's eight clients start with small and nearly parallel codes (mean
    cosine 0.92 instead of 0.39).

    Args:
        code_dim: Length of a code.
        hidden_dim: Width of the first layer.
        channels: Channels C of the features to modulate.
        dropout: Probability of dropping an activation, after both ReLUs.
        g_size: Number G of entries of g.
    """

    def __init__(
        self,
        code_dim: int,
        hidden_dim: int,
        channels: int,
        dropout: float = 0.0,
        g_size: int = len(SEVEN),
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(g_size, hidden_dim)
        self.to_code = nn.Linear(hidden_dim, code_dim)
        self.to_modulation = nn.Linear(code_dim, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.hidden, self.to_code):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.to_modulation.weight)
        with torch.no_grad():
            self.to_modulation.bias.copy_(torch.arange(2 * channels) < channels)

    def code(self, g: Tensor) -> Tensor:
        """Return the codes (K, code_dim) of normalised protocols (K, G)."""
        with torch.autocast(g.device.type, enabled=False):
            standardised = (g.float() - G_CENTRE) / G_SCALE
            code: Tensor = self.to_code(self.dropout(functional.relu(self.hidden(standardised))))
        return code

    def head(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, (K, C) each, of codes (K, code_dim)."""
        with torch.autocast(code.device.type, enabled=False):
            out = self.to_modulation(self.dropout(functional.relu(code.float())))
        alpha, beta = out.chunk(2, dim=-1)
        return alpha, beta

    def forward(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, (K, C) each, of normalised protocols (K, G)."""
        return self.head(self.code(g))


class AnatomyHypernetwork(nn.Module):
    """From a report's embedding f_t to a map over the image, eq. 2 and 3.

    Average pooling of each token to a quarter of its length, a linear layer, multi-head
    self-attention over the tokens, their mean, a linear layer, and a reshape to the map. With a
    single token the softmax is over one score and always 1: only the value and the output
    projections are built, the same function without weights that can never learn.

    The map starts at the constant 1.

    Args:
        dim: Length d of a token.
        tokens: Largest number of tokens T.
        hidden_dim: Width h, a multiple of ``heads``.
        heads: Attention heads.
        map_size: Side s of the map.
        mean: Mean of the embeddings over the training set, d values.
        std: Their standard deviation, d values; 0 is taken as 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        dim: int,
        tokens: int,
        hidden_dim: int,
        heads: int,
        map_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.heads, self.map_size = heads, map_size
        spread = torch.tensor(std)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", spread.where(spread > 0, 1.0), persistent=False)
        self.reduce = nn.Linear(dim // POOLING, hidden_dim)
        self.query_key = nn.Linear(hidden_dim, 2 * hidden_dim) if tokens > 1 else None
        self.value = nn.Linear(hidden_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)
        self.to_map = nn.Linear(hidden_dim, map_size**2)
        nn.init.zeros_(self.to_map.weight)
        nn.init.ones_(self.to_map.bias)

    def forward(self, f_t: Tensor, mask: Tensor) -> Tensor:
        """Return the maps of reports.

        Args:
            f_t: Embeddings, (B, T, d) float32, not standardised.
            mask: (B, T) bool, True where a token is real.

        Returns:
            (B, 1, s, s) float32. A report without any real token gets the map of a zero feature.
        """
        with torch.autocast(f_t.device.type, enabled=False):
            standardised = (f_t.float() - self.mean) / self.std
            tokens = self.reduce(functional.avg_pool1d(standardised, POOLING))
            attended = self.out(self._attend(tokens, mask))
            weight = mask.unsqueeze(-1).float()
            f_an = (attended * weight).sum(1) / weight.sum(1).clamp(min=1)
            maps: Tensor = self.to_map(f_an)
        return maps.view(-1, 1, self.map_size, self.map_size)

    def _attend(self, tokens: Tensor, mask: Tensor) -> Tensor:
        value: Tensor = self.value(tokens)
        if self.query_key is None:
            return value
        query, key = self.query_key(tokens).chunk(2, dim=-1)
        allowed = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return mixed.transpose(1, 2).flatten(2)
