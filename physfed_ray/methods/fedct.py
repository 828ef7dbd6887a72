"""FedCT: each client learns its own sinograms, and all of them learn one image network.

Chen et al. 2023, "Federated condition generalization on low-dose CT reconstruction via cross-domain
learning", MICCAI (the paper calls its method FedCG). This is a reading of the abstract: individual
sinogram learning "as in the iRadonMAP" stays with its client, and image learning runs across
clients, in a network that generalises over their conditions and keeps what is specific to each. Its
sizes, losses and code are not public, and whether images or parameters travel is not said; here
parameters are averaged, since images would leave the hospital otherwise.

    u_k = iRadonMAP_k(p)                                private: ``front_end: iradonmap``
    y   = phi(u_k; alpha_k, beta_k)                     phi shared and averaged

alpha_k and beta_k, a scale and a shift for each channel behind each of phi's convolutions, are what
a client keeps for itself. So it is FedAvg behind a private reconstruction, with private modulation
in the place of FedBN's private normalisation. Clients cannot share the reconstruction: its filter
has the size of their detectors.

A protocol of no client is reconstructed by FBP and denoised by phi as it is, unmodulated.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.methods.hyperfed import HALVES
from physfed_ray.models.film import modulated, modulated_widths


class Specific(nn.Module):
    """A client's scale and shift of each channel; they start as 1 and 0.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels))
        self.beta = nn.Parameter(torch.zeros(1, channels))


class FedCT(Method):
    """Reconstruction and modulation are private, the image network is shared and averaged."""

    name = "fedct"
    title = "FedCT"
    paper = "Chen et al. 2023, MICCAI (a reading of the abstract)"
    group = "personalised"
    shared = HALVES
    unseen_shared = True

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return phi's halves, and what modulates them."""
        halves = super().children()
        specific = {
            f"specific_{half}": lambda make=make: Specific(sum(modulated_widths(make)))
            for half, make in halves.items()
        }
        return {**halves, **specific}

    def denoise(self, network: nn.Module, batch: Batch, code: Tensor | None = None) -> Tensor:
        """Return denoised images, (B, 1, h, w): modulated where they are the client's own scans."""
        if batch.protocol is None:
            return super().denoise(network, batch, code)
        encoder, decoder = (_of_client(network, half) for half in HALVES)
        f, skips = self.encode(encoder, batch)
        image: Tensor = decoder(f, skips)
        return image


def _of_client(network: nn.Module, half: str) -> Callable[..., Any]:
    module, specific = network.get_submodule(half), network.get_submodule(f"specific_{half}")
    assert isinstance(specific, Specific)
    return partial(modulated, module, specific.alpha, specific.beta)
