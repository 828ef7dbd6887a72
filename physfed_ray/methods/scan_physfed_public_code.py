"""SCAN-PhysFed as its authors published it in code: what departs from the paper.

The repository of Yang et al. 2025, CVPR. With the features f of an image, the map m of its anatomy,
the own modulation alpha, beta and that of one random client, alpha', beta':

    p    = relu(alpha * f + beta),  p' = relu(alpha' * f + beta')      the protocol comes first
    f_per = 0.9 p + 0.1 p . m                                          instead of eq. 4 and 6
    orth = mean |cos(p, p')|, over channels                            instead of eq. 8

and half of the protocol hypernetwork's activations are dropped in training. The random client is
drawn for each image and may be the client itself. ``scan_physfed`` does this, and everything that
both have in common, with ``variant: public_code``.

The code makes p' by a second pass of the whole network. That is not needed, for the features before
the modulation are the same. It also computes the random client's code with gradients; here it is an
entry of the codebook.
"""

import torch
from torch import Tensor
from torch.nn import functional

from physfed_ray.models.modulation import by_protocol

DROPOUT = 0.5
PLAIN, MAPPED = 0.9, 0.1
"""The fixed mix of plain and of map-weighted features."""

Modulation = tuple[Tensor, Tensor]
"""alpha and beta, (1 or B, C) each; values behind the first C are for skips."""


def by_protocol_relu(f: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return p = relu(alpha * f + beta), what the code calls its code; see ``by_protocol``."""
    return functional.relu(by_protocol(f, alpha, beta))


def modulate(f: Tensor, m: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return f_per = 0.9 p + 0.1 p . m.

    Args:
        f: Features, (B, C, h, w).
        m: Maps at the features' places, (B, 1, h, w).
        alpha: (1 or B, C).
        beta: (1 or B, C).
    """
    p = by_protocol_relu(f, alpha, beta)
    return p * (PLAIN + MAPPED * m).to(f.dtype)


def draw(codes: Tensor, images: int) -> Tensor:
    """Return the code of a random client for each image, (images, code_dim), of (K, code_dim)."""
    return codes[torch.randint(len(codes), (images,), device=codes.device)]


def orthogonal_loss(f: Tensor, own: Modulation, other: Modulation) -> Tensor:
    """Return the mean absolute cosine, over channels, of p under the own and another code.

    Args:
        f: Features, (B, C, h, w).
        own: The client's own modulation.
        other: That of another code, for each image.
    """
    channels = f.shape[1]
    p, other_p = (
        by_protocol_relu(f, alpha[:, :channels], beta[:, :channels]) for alpha, beta in (own, other)
    )
    return feature_cosine_loss(p, other_p)


def feature_cosine_loss(own: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute cosine, over channels, of two modulations of the same features.

    Args:
        own: Features modulated by the client's own code, (B, C, h, w).
        other: The same features modulated by another code.
    """
    return functional.cosine_similarity(own.float(), other.float(), dim=1).abs().mean()
