"""FedMRI: a shared encoder held near the average and away from the clients' last encoders.

Feng et al. 2023, "Specificity-preserving federated learning for MR image reconstruction", IEEE
Trans. Med. Imaging 42(7). The encoder is shared and averaged, every client keeps a decoder of its
own, and a weighted contrastive regularisation, which is the paper's word for

    l_con = |theta - theta_g|_1 / sum_j |theta - theta_j|_1
    loss  = l_rec + mu l_con

steers client k's encoder theta in round t: theta_g is the averaged encoder that the round began
with, and theta_j the one with which client j ended round t - 1, before the average, for all clients
that took part in it, k included. In the first round there is none, and no l_con. l_con has no
gradient at theta = theta_g, where a round begins.

**Encoders leave the clients one by one**: the server hands every client those of all others, K
times the traffic downwards; ``extras_like`` counts it. Upwards nothing is added, for the encoder is
what is shared.

The paper reconstructs from k-space, with one such pair of networks there and one in the image. Here
the images are given and the second alone is left; l_rec is the experiment's objective, by default
the mean squared error to the full dose, as in the authors' code. That code takes the weight of
l_con from a configuration that was not published, so that the default of mu is this project's: with
a mean squared error of 5e-4 on the scale of the window, l_con's gradient is about a third of the
error's at 1e-4, and drowns it from 1e-2 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import Aggregation, RoundInput, shaped

EPSILON = 1e-14
"""Of the authors' code, for theta equal to every theta_j."""


class FedMRISettings(MethodSettings):
    """Keys under ``method:`` for FedMRI."""

    mu: float = Field(1e-4, ge=0, description="weight of the contrastive regularisation l_con")


@dataclass(frozen=True)
class Encoders:
    """What l_con compares with, float32.

    Attributes:
        average: theta_g, (size,).
        previous: theta_j, (clients of the last round, size).
    """

    average: Tensor
    previous: Tensor


class FedMRI(Method):
    """The encoder is shared and averaged, the decoder stays with its client."""

    name = "fedmri"
    title = "FedMRI"
    paper = "Feng et al. 2023, IEEE TMI"
    group = "personalised"
    shared = ("encoder",)
    uploads = ("encoder",)
    Settings = FedMRISettings
    settings: FedMRISettings

    def begin(self, network: nn.Module, round_input: RoundInput) -> Encoders | None:
        """Return the encoders that l_con compares with, None in the first round."""
        if "encoders" not in round_input.extras:
            return None
        average = _flat(network).detach()
        return Encoders(
            average, torch.tensor(round_input.extras["encoders"], device=average.device)
        )

    def loss(
        self, network: nn.Module, batch: Batch, state: Encoders | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return l_rec + mu l_con, and the parts of l_rec and ``contrastive``."""
        l_rec, parts = self.reconstruction(self.denoise(network, batch), batch)
        if state is None:
            return l_rec, parts | {"contrastive": torch.zeros_like(l_rec)}
        theta = _flat(network)
        near = (theta - state.average).abs().sum()
        far = (theta - state.previous).abs().sum()
        contrastive = near / (far + EPSILON)
        loss = l_rec + self.settings.mu * contrastive
        return loss, parts | {"contrastive": contrastive.detach()}

    @torch.no_grad()
    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Any, steps: int
    ) -> dict[str, np.ndarray]:
        """Return the encoder as it is now, which the server else sees in the average alone."""
        return {"encoder": _flat(network).cpu().numpy()}

    def upload_like(self) -> dict[str, np.ndarray]:
        """Return an array of the encoder's size."""
        return {"encoder": shaped(self._size)}

    def extras_like(self, participants: int) -> dict[str, np.ndarray]:
        """Return an array of the size of all participants' encoders."""
        return {"encoders": shaped(participants, self._size)}

    @cached_property
    def _size(self) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in self.children()["encoder"]().parameters())

    def bytes_up(self, shared: int, upload: Mapping[str, np.ndarray]) -> int:
        """Return the bytes of the encoder, which need not be sent twice."""
        return shared

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the average, and every encoder that is in it."""
        sent = aggregation.uploads.values()
        return aggregation.mean, {"encoders": np.stack([upload["encoder"] for upload in sent])}


def _flat(network: nn.Module) -> Tensor:
    """Return a copy of the encoder's parameters, (size,)."""
    return torch.cat([p.flatten() for p in network.get_submodule("encoder").parameters()])
