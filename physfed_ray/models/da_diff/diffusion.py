"""Residual diffusion: from the full-dose image to the low-dose one and pure noise.

Liu et al. 2024, "Residual denoising diffusion models", CVPR, as the code of FoundDiff uses it. With
images on [-1, 1], the residual r = low - x_0 and noise e of unit deviation,

    x_t = x_0 + a_t r + b_t e        a_t = 1 - sqrt(s_t)     b_t = sqrt(1 - s_t)

where s_t is the product of 1 - beta up to t, and beta rises linearly from 1e-4 to 0.02 in 1,000
steps (the paper's abar_t is a_t here). The network predicts r from x_t, the low-dose image and a_t.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

STEPS = 1000
"""Steps T of training."""
FIRST_BETA, LAST_BETA = 1e-4, 0.02

Predict = Callable[[Tensor, Tensor], Tensor]
"""x_t and a_t (B,) -> residual (B, 1, h, w), on [-2, 2]."""


@lru_cache(maxsize=1)
def schedule() -> tuple[np.ndarray, np.ndarray]:
    """Return a_t and b_t, (T,) float64 each."""
    kept = np.cumprod(1 - np.linspace(FIRST_BETA, LAST_BETA, STEPS))
    return 1 - np.sqrt(kept), np.sqrt(1 - kept)


def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a_t and b_t of steps (B,), float32, on their device."""
    a, b = (torch.tensor(part, dtype=torch.float32, device=t.device)[t] for part in schedule())
    return a, b


def noised(clean: Tensor, low: Tensor, a: Tensor, b: Tensor, noise: Tensor) -> Tensor:
    """Return x_t.

    Args:
        clean: x_0, (B, 1, h, w) on [-1, 1].
        low: Low-dose images, likewise.
        a: a_t, (B,).
        b: b_t, (B,).
        noise: e, (B, 1, h, w).
    """
    a, b = a[:, None, None, None], b[:, None, None, None]
    return clean + a * (low - clean) + b * noise


def sampling_times(steps: int) -> list[int]:
    """Return the steps t at which the network is asked, the last first: 999 and 499 of two."""
    return [int(t) for t in np.linspace(-1, STEPS - 1, steps + 1)[:0:-1]]


def sample(predict: Predict, low: Tensor, start: Tensor, steps: int) -> list[Tensor]:
    """Return the images after each step, (B, 1, h, w) on [-1, 1], not clamped.

    A step moves x by what a_t changes of the residual; the last gives the low-dose image without
    the residual, the estimate of the full dose. So that depends on the images between only as the
    network's input.

    Args:
        predict: The network.
        low: Low-dose images, (B, 1, h, w) on [-1, 1].
        start: Noise that is added to them at the start, (B, 1, h, w).
        steps: Times that the network is asked.
    """
    a = schedule()[0]
    times = sampling_times(steps)
    x, images = low + start, list[Tensor]()
    for t, following in zip(times, [*times[1:], None], strict=True):
        residual = predict(x, torch.full((len(low),), float(a[t]), device=low.device))
        if following is not None:
            x = x - float(a[t] - a[following]) * residual
        images.append(low - residual if following is None else x)
    return images


def noise_of(low: Tensor) -> Tensor:
    """Return noise of unit deviation for each image, which follows from its own pixels alone.

    A slice's low-dose pixels follow from seed, client, patient and slice, so that it meets the same
    noise in any batch, on any host and after the run, and other slices meet other noise.

    Args:
        low: (B, 1, h, w) float32.

    Returns:
        The same shape and device, drawn on the CPU.
    """
    drawn = [_drawn(image) for image in low.detach().float().cpu().contiguous()]
    return torch.stack(drawn).to(low.device) if drawn else torch.zeros_like(low)


def _drawn(image: Tensor) -> Tensor:
    digest = blake2b(image.numpy().tobytes(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randn(image.shape, generator=generator)
