"""How the two levels of SCAN-PhysFed act on the features (Yang et al. 2025, eq. 4 and 6)."""

import torch
from torch import Tensor

from physfed_ray.fields import Batch


def map_on_features(m: Tensor, f: Tensor, batch: Batch, stride: int) -> Tensor:
    """Sample maps, each of which covers a whole image's features, at the features of a patch.

    Args:
        m: (B, 1, s, s) float32.
        f: Features of the batch's patches, (B, C, h, w).
        batch: Says where the patches lie in their images.
        stride: Distance of two neighbouring features in pixels.

    Returns:
        (B, 1, h, w) float32.
    """
    height, width = f.shape[-2:]
    patch = batch.low.shape[-2:]
    beyond = [(side - own) / stride for side, own in zip(batch.whole, patch, strict=True)]
    whole = height + beyond[0], width + beyond[1]
    return map_at(m, (height, width), whole, batch.origin / stride)


def map_at(m: Tensor, size: tuple[int, int], whole: tuple[float, float], offset: Tensor) -> Tensor:
    """Sample maps over the whole image's features at some of those features.

    Bilinear with the edge repeated: for a whole image the same as
    ``interpolate(m, whole, mode="bilinear")``, for a patch the same as cropping that. As two
    matrix products it is deterministic on every device, gradients included.

    Args:
        m: (B, 1, s, s) float32.
        size: Height and width of the patch's features.
        whole: Height and width of the whole image's features.
        offset: (B, 2), row and column of the patch's first feature in the whole image's.

    Returns:
        (B, 1, *size) float32.
    """
    # Outside of autocast, which changes no such arithmetic: a graph in a file has no place for
    # sizes that are still open within it.
    rows, columns = (
        _interpolation(m.shape[-1], size[axis], whole[axis], offset[:, axis]) for axis in (0, 1)
    )
    with torch.autocast(m.device.type, enabled=False):
        sampled = rows @ m.float().squeeze(1) @ columns.transpose(1, 2)
    return sampled.unsqueeze(1)


def _interpolation(source: int, count: int, whole: float, offset: Tensor) -> Tensor:
    """Return the tent weights (B, count, source) of ``count`` features from ``offset`` on."""
    feature = offset.float()[:, None] + torch.arange(count, device=offset.device)
    place = ((feature + 0.5) * (source / whole) - 0.5).clamp(0, source - 1)
    distance = place[:, :, None] - torch.arange(source, device=offset.device)
    return (1 - distance.abs()).clamp(min=0)


def by_protocol(f: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return alpha * f + beta, channel by channel (eq. 6).

    Args:
        f: (B, C, h, w).
        alpha: (1 or B, C).
        beta: (1 or B, C).
    """
    scale, shift = (x.to(f.dtype)[:, :, None, None] for x in (alpha, beta))
    return f * scale + shift


def modulate_paper(f: Tensor, m: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return alpha * (f . m) + beta: first the anatomy, then the protocol (eq. 4 and 6).

    Args:
        f: Features, (B, C, h, w).
        m: Maps at the features' places, (B, 1, h, w).
        alpha: (1 or B, C).
        beta: (1 or B, C).
    """
    return by_protocol(f * m.to(f.dtype), alpha, beta)
