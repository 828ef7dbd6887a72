"""Linear maps whose derivative is given as a map, not traced."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def apply_linear(x: Tensor, forward: Map, adjoint: Map) -> Tensor:
    """Return ``forward(x)``, differentiable any number of times; nothing is kept for the backward.

    Args:
        x: Any floating point tensor that ``forward`` takes.
        forward: A linear map.
        adjoint: Its adjoint, which serves as its derivative; and its own is ``forward``.
    """
    result: Tensor = _Linear.apply(x, forward, adjoint)  # type: ignore[no-untyped-call]
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Map, adjoint: Map) -> Tensor:
        ctx.maps = adjoint, forward
        return forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return apply_linear(grads[0], *ctx.maps), None, None
