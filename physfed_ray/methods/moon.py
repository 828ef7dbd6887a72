"""MOON: local features are drawn to the global network's and away from the client's last ones.

Li et al. 2021, "Model-contrastive federated learning", CVPR. For an image x with the features z of
the network in training, z_glob of the network that the round began with, and z_prev of the client's
own network at the end of its last round:

    l_con = -log exp(sim(z, z_glob) / tau) / (exp(sim(z, z_glob) / tau) + exp(sim(z, z_prev) / tau))
    loss  = l_sup + mu l_con                              eq. 3 and 4, algorithm 1

with the cosine as sim. For denoising l_sup is the experiment's objective, by default the mean
squared error to the full dose. The paper's representation is what its classifier reads: the
encoder's pooled features behind a projection head, a perceptron that ends in a linear layer. A
denoiser's decoder reads a map of features, so z is the average of that map over the image, before
the activation that the decoder begins with: signed, as the output of a linear layer. There is no
head, for only l_con would train it, and it could satisfy l_con in the encoder's place.

The previous encoder is private state: a frozen copy that ``finish`` writes. It starts as the
initial network, so that in the first round z_prev = z_glob and l_con has no gradient; in the
authors' code the term is absent then, and a client that is drawn later has its initial network for
the previous one, as here.

mu is 1 by default, as in the authors' code; the paper takes it from 0.1, 1, 5 and 10 (5, 1 and 1
for its three data sets). It weighs l_con, about log 2, against a cross-entropy near 1, where a mean
squared error on the scale of the window is hundreds of times smaller: mu belongs to what a
comparison tunes, and the authors' advice for other settings is to try it down to 0.001.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import RoundInput

PREVIOUS = "previous_encoder"


class MoonSettings(MethodSettings):
    """Keys under ``method:`` for MOON."""

    mu: float = Field(
        1.0, ge=0, description="weight of the contrastive loss, eq. 4; 1 or 5 in the paper"
    )
    temperature: float = Field(
        0.5, gt=0, description="temperature tau of the contrastive loss, eq. 3"
    )


class Moon(Method):
    """All that denoises is shared and averaged; each client keeps its previous encoder."""

    name = "moon"
    title = "MOON"
    paper = "Li et al. 2021, CVPR"
    group = "generic"
    shared = ("encoder", "decoder")
    training_only = (PREVIOUS,)
    Settings = MoonSettings
    settings: MoonSettings

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the backbone's two halves and the frozen previous encoder."""
        made = dict(super().children())
        encoder = made["encoder"]
        return made | {PREVIOUS: lambda: encoder().requires_grad_(False)}

    def build(self, seed: int) -> nn.Module:
        """Return a new network, whose previous encoder is its encoder."""
        network = super().build(seed)
        _keep(network)
        return network

    def begin(self, network: nn.Module, round_input: RoundInput) -> nn.Module:
        """Return the global encoder, a frozen copy of the shared one."""
        network.get_submodule(PREVIOUS).eval()
        return _frozen_copy(network.get_submodule("encoder"))

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return eq. 4, and the parts of l_sup and ``contrastive``."""
        features = self.features(network, batch)
        l_sup, parts = self.reconstruction(self.decode(network, features), batch)
        z = _represent(features[0])
        with torch.no_grad():
            z_glob, z_prev = (
                _represent(self.encode(encoder, batch)[0])
                for encoder in (state, network.get_submodule(PREVIOUS))
            )
        near, far = (functional.cosine_similarity(z, other) for other in (z_glob, z_prev))
        contrastive = functional.softplus((far - near) / self.settings.temperature).mean()
        loss = l_sup + self.settings.mu * contrastive
        return loss, parts | {"contrastive": contrastive.detach()}

    @torch.no_grad()
    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Any, steps: int
    ) -> dict[str, np.ndarray]:
        """Keep the encoder as it is now for the client's next round; nothing more is sent."""
        _keep(network)
        return {}


def _keep(network: nn.Module) -> None:
    network.get_submodule(PREVIOUS).load_state_dict(network.get_submodule("encoder").state_dict())


def _frozen_copy(module: nn.Module) -> nn.Module:
    # Left to itself, deepcopy fails on the tensors without content that FLOPs are counted on.
    copies: dict[int, Any] = {id(buffer): buffer.clone() for buffer in module.buffers()}
    for p in module.parameters():
        copies[id(p)] = nn.Parameter(p.detach().clone(), requires_grad=False)
    return copy.deepcopy(module, copies).eval()


def _represent(f: Tensor) -> Tensor:
    """Return z, (B, C) float32, of features (B, C, h, w)."""
    return f.float().mean((2, 3))
