"""The selective scan of state-space layers, by plain torch operations on any device.

Gu and Dao 2023, "Mamba: linear-time sequence modelling with selective state spaces", eq. 2 with
the discretisation of their section 3.6. For a sequence x_1 ... x_L of each of D channels, with N
states each,

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t        y_t = <C_t, h_t> + D x_t

``recurrence`` computes h without a loop over L: the sequence is cut into about sqrt(L) chunks, all
of which are scanned at once; then the last states are carried from chunk to chunk, and what comes
in is added to every position (Blelloch 1990, "Prefix sums and their applications", section 1.2).
That takes about 2 sqrt(L) operations on large arrays, and is exact: nothing is divided.
"""

import math
from typing import Any

import torch
from torch import Tensor


def selective_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Scan K sequences of each of G images, in float32 whatever the precision around is.

    Args:
        x: (G, L, K, D), the sequences.
        dt: (G, L, K, D), step sizes, positive.
        a: (K, D, N), negative.
        b: (G, L, K, N), how the states read x.
        c: (G, L, K, N), how they are read.
        d: (K, D), what of x passes by.

    Returns:
        (G, L, K, D) float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, dt, a, b, c, d = (tensor.float() for tensor in (x, dt, a, b, c, d))
        decay = torch.exp(dt[..., None] * a)
        driven = (dt * x)[..., None] * b[..., None, :]
        states = recurrence(decay.flatten(2), driven.flatten(2)).view(decay.shape)
        return (states @ c[..., None]).squeeze(-1) + d * x


def recurrence(decay: Tensor, driven: Tensor) -> Tensor:
    """Return h with h_t = decay_t h_{t-1} + driven_t and h_0 = 0, differentiable.

    Args:
        decay: (G, L, M) float32.
        driven: (G, L, M) float32.
    """
    states: Tensor = _Recurrence.apply(decay, driven)  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    """The gradient of a scan is a scan from the end: G_t = g_t + decay_{t+1} G_{t+1}."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, driven: Tensor) -> Tensor:
        states = _scan(decay, driven)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        total = _scan(decay[:, 1:], gradient, backwards=True)
        of_decay = torch.zeros_like(decay)
        torch.mul(total[:, 1:], states[:, :-1], out=of_decay[:, 1:])
        return of_decay, total


def _scan(decay: Tensor, driven: Tensor, backwards: bool = False) -> Tensor:
    """See ``recurrence``; without gradients.

    Args:
        decay: (G, L, M), or one fewer where the last position is not needed.
        driven: (G, L, M).
        backwards: From the last position to the first: h_t = decay_t h_{t+1} + driven_t.
    """
    batch, length, width = driven.shape
    chunk = max(1, math.isqrt(length))
    shape = batch, -1, chunk, width
    kept = _padded(decay, length + -length % chunk).view(shape)
    states = _padded(driven, length + -length % chunk).view(shape)
    # The product of the decays up to a position is made beside the states, in place of the decays.
    step, first, last = (-1, chunk - 1, 0) if backwards else (1, 0, chunk - 1)
    for t in range(first + step, last + step, step):
        states[:, :, t].addcmul_(kept[:, :, t], states[:, :, t - step])
        kept[:, :, t].mul_(kept[:, :, t - step])
    carried = states[:, :, last].clone()
    chunks = range(carried.shape[1])[::step]
    for s in chunks[1:]:
        carried[:, s].addcmul_(kept[:, s, last], carried[:, s - step])
    into, out_of = (slice(None, -1), slice(1, None))[::step]
    states[:, out_of].addcmul_(kept[:, out_of], carried[:, into, None])
    return states.view(batch, -1, width)[:, :length]


def _padded(tensor: Tensor, length: int) -> Tensor:
    """Return a copy (G, length, M) with zeros at the end."""
    longer = tensor.new_zeros(tensor.shape[0], length, tensor.shape[2])
    longer[:, : tensor.shape[1]] = tensor
    return longer
