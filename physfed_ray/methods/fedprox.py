"""FedProx: local training held near the network that the server sent.

Li et al. 2020, "Federated optimization in heterogeneous networks", MLSys. Client i minimises

    h_i(w; w^t) = F_i(w) + mu / 2 ||w - w^t||^2      eq. 2 and algorithm 2

where w^t is what the round was broadcast with. For denoising F_i is the experiment's objective, by
default the mean squared error to the full dose. It is solved inexactly, as in the paper: by as many
epochs as the experiment says, with the experiment's optimizer (SGD in the paper; Adam rescales the
sum of both gradients).

The paper has no default for mu: it is chosen from 0.001, 0.01, 0.1 and 1, and was 1 for three of
its data sets, 0.001 and 0.01 for the other two. Its losses are cross-entropies near 1, where a mean
squared error on the scale of the window is hundreds of times smaller. So the smallest of these
values is the default here, and mu belongs to what a comparison tunes.
"""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import RoundInput


class FedProxSettings(MethodSettings):
    """Keys under ``method:`` for FedProx."""

    mu: float = Field(
        0.001, ge=0, description="weight of the proximal term; the paper: 0.001 to 1 by data set"
    )


class FedProx(Method):
    """All parameters are shared and averaged; the loss keeps them near the broadcast ones."""

    name = "fedprox"
    title = "FedProx"
    paper = "Li et al. 2020, MLSys"
    group = "generic"
    diffusion = True
    shared = ("encoder", "decoder")
    Settings = FedProxSettings
    settings: FedProxSettings

    def begin(self, network: nn.Module, round_input: RoundInput) -> list[Tensor]:
        """Return w^t, a copy of the shared parameters in their order."""
        return [parameter.detach().clone() for parameter in self._parameters(network)]

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return h_i, and the parts of F_i and ``proximal``, ||w - w^t||^2."""
        f_i, parts = self.fit(network, batch)
        pairs = zip(self._parameters(network), state, strict=True)
        proximal = sum((w - w_t).square().sum() for w, w_t in pairs)
        loss = f_i + self.settings.mu / 2 * proximal
        return loss, parts | {"proximal": proximal.detach()}

    def _parameters(self, network: nn.Module) -> list[nn.Parameter]:
        return [p for part in self.shared for p in network.get_submodule(part).parameters()]
