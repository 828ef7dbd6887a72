"""Token states to at most T vectors a text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # cached runs need no torch
    import torch


def pool_tokens(
    hidden: "torch.Tensor", mask: "torch.Tensor", tokens: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Average each text's token states in at most ``tokens`` groups of neighbours.

    A text with more tokens is cut into exactly ``tokens`` consecutive groups, whose sizes differ by
    at most one, the larger ones first; a shorter text keeps its tokens as they are. Nothing is left
    out. A text's vectors depend, to the bit, on its own real states alone: neither on the padding,
    on either side, nor on the other texts.

    Args:
        hidden: States of N texts, (N, L, d), any floating type, on any device.
        mask: 1 or True where a state is of a real token, (N, L).
        tokens: T, at least 1.

    Returns:
        Vectors (N, T, d) float32, 0 where there is none, and their mask (N, T) uint8, on the same
        device. A text without any token gets one vector of zeros, so that there is something to
        attend to.
    """
    import torch

    count, _, dim = hidden.shape
    vectors = hidden.new_zeros((count, tokens, dim), dtype=torch.float32)
    kept = torch.zeros((count, tokens), dtype=torch.uint8, device=hidden.device)
    kept[:, 0] = 1
    for text, (states, real) in enumerate(zip(hidden, mask.bool(), strict=True)):
        own = states[real].float()
        groups = own.tensor_split(min(tokens, len(own))) if len(own) else ()
        for place, group in enumerate(groups):
            vectors[text, place] = group.mean(0)
        kept[text, : len(groups)] = 1
    return vectors, kept
