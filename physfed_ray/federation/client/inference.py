"""A network at work on whole images: one code for evaluation in a run and for serving after it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import ClientData
from physfed_ray.federation.client.training import autocast, to_device
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method

EVALUATION_BATCH = 8
"""Images of a batch; part of the bits."""


@dataclass(frozen=True)
class Inference:
    """How a method's network denoises.

    Attributes:
        method: The method.
        module: Its network, with whatever parameters it has at the time.
        device: Where the network is.
        precision: What it computes in.
    """

    method: Method
    module: nn.Module
    device: str
    precision: Literal["fp32", "bf16"]

    def denoise(
        self, data: ClientData, code: Tensor | None = None, batch_size: int = EVALUATION_BATCH
    ) -> np.ndarray:
        """Return denoised images, (N, n, n) float32 in [0, 1]; ``code`` replaces that of g."""
        self.module.eval()
        entry = None if code is None else code.to(self.device)
        images = []
        with torch.inference_mode(), autocast(self.device, self.precision):
            for _, batch in whole_batches(data, batch_size):
                seen = self.method.read(self.module, to_device(batch, self.device))
                images.append(self.method.denoise(self.module, seen, entry).float())
        return _as_images(torch.cat(images))

    def features(self, batch: Batch, code: Tensor) -> tuple[Tensor, ...]:
        """Return what ``decode`` needs of a batch, modulated by a codebook's entry (code_dim,).

        Shared parameters alone are used. They are laid out as they arrive where they travel:
        convolutions round otherwise for other layouts.
        """
        self.module.eval()
        with torch.inference_mode(), autocast(self.device, self.precision):
            moved = to_device(batch, self.device)
            found = self.method.features(self.module, moved, code.to(self.device))
        return tuple(f.float().contiguous() for f in found)

    def decode(self, features: tuple[Tensor, ...]) -> np.ndarray:
        """Return denoised images, (B, n, n) float32 in [0, 1], of what ``features`` returned."""
        self.module.eval()
        with torch.inference_mode(), autocast(self.device, self.precision):
            moved = tuple(f.to(self.device) for f in features)
            return _as_images(self.method.decode(self.module, moved).float())


def _as_images(output: Tensor) -> np.ndarray:
    images: np.ndarray = output.squeeze(1).clamp(0, 1).cpu().numpy()
    return images
