"""FedNova: clients that make more local steps do not pull the average their way.

Wang et al. 2020, "Tackling the objective inconsistency problem in heterogeneous federated
optimization", NeurIPS. What client i changes in a round is -eta G_i a_i, its gradients (columns of
G_i) weighted by the vector a_i that its optimizer and its number of steps tau_i decide. The server
averages directions that are normalised by it, and goes on as far as the clients went on average:

    d_i     = G_i a_i / ||a_i||_1                         section 4
    x^{t+1} = x^t - tau_eff sum_i p_i eta d_i,   tau_eff = sum_i p_i ||a_i||_1

with the weights p_i of the participants. Nothing of it depends on the task; for denoising the
gradients are those of the experiment's objective. A client sends x^t - eta d_i and ||a_i||_1, so
that the sum over clients is FedAvg's.

||a_i||_1 of the optimizers at hand, whose moments start anew in every round:

* SGD with momentum rho: (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho), the paper's; tau
  without momentum.
* Adam: the paper does not treat it. With the bias correction, the first moment is in every step a
  mean of the round's gradients whose weights sum to 1, so that ||a_i||_1 = tau. The division by the
  root of the second moment counts as part of the gradients (a preconditioner), though it differs
  between clients: FedNova corrects for the number of steps, not for that.

With ``optimizer_state: persist_all`` moments also carry gradients of earlier rounds. Adam's weights
still sum to 1, but SGD's momentum then moves a client further than ||a_i||_1 says.
"""

from collections.abc import Iterator
from math import fsum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from physfed_ray.methods.base import Method
from physfed_ray.methods.given import Aggregation, LocalOptimizer, RoundInput


def accumulation_norm(optimizer: LocalOptimizer, steps: int) -> float:
    """Return ||a_i||_1 of so many local steps (Wang et al. 2020, section 4)."""
    rho = optimizer.momentum if optimizer.name == "sgd" else 0.0
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)


class FedNova(Method):
    """All parameters are shared; their changes are normalised, averaged and scaled back."""

    name = "fednova"
    title = "FedNova"
    paper = "Wang et al. 2020, NeurIPS"
    group = "generic"
    diffusion = True
    shared = ("encoder", "decoder")
    uploads = ("norm",)

    def begin(self, network: nn.Module, round_input: RoundInput) -> list[Tensor]:
        """Return x^t, a copy of all that travels."""
        return [value.clone() for value in self._travelling(network)]

    @torch.no_grad()
    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Any, steps: int
    ) -> dict[str, np.ndarray]:
        """Replace what is sent by x^t - eta d_i; return ||a_i||_1."""
        norm = accumulation_norm(self.task.optimizer, steps)
        for value, start in zip(self._travelling(network), state, strict=True):
            value.sub_(start).div_(norm).add_(start)
        return {"norm": np.array(norm)}

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return x^{t+1}: tau_eff times as far from ``previous`` as the mean of what was sent."""
        weights, sent = aggregation.weights, aggregation.uploads
        steps = fsum(weight * float(sent[client]["norm"]) for client, weight in weights.items())
        tau_eff = steps / fsum(weights.values())
        x = aggregation.previous
        return x + np.float32(tau_eff) * (aggregation.mean - x), {}

    def _travelling(self, network: nn.Module) -> Iterator[Tensor]:
        """Yield the shared parameters and float buffers, as views without gradients."""
        for part in self.shared:
            for value in network.get_submodule(part).state_dict().values():
                if value.is_floating_point():
                    yield value
