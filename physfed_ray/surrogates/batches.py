"""Batches in a seeded order, and what a network makes of many images."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

AT_ONCE = 64
"""Images that go through a network together where nothing is learned."""


def batches(count: int, size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Yield the indices of batches: every epoch once through all, in an order of its own.

    Args:
        count: How many there are to draw from.
        size: Of a batch; the last of an epoch may be smaller.
        epochs: How often.
        seed: Of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        yield from (order[start : start + size] for start in range(0, count, size))


@torch.no_grad()
def in_parts(network: nn.Module, images: Tensor) -> Tensor:
    """Return what a network makes of images (N, 1, n, n), in parts that fit in memory."""
    return torch.cat([network(images[k : k + AT_ONCE]) for k in range(0, len(images), AT_ONCE)])
