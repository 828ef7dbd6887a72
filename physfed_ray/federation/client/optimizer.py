"""Adam and SGD over flat parameters, by torch's own fused functions.

The classes of ``torch.optim`` import what ``torch.compile`` needs, which takes every process that
trains about as much CPU again as importing torch. Their functions do not.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from physfed_ray.experiment import Training
from physfed_ray.federation.flat import FlatState

Moments = dict[str, Tensor]
"""Of one parameter, by the names that ``torch.optim`` gives them."""


class FlatOptimizer:
    """The optimizer of an experiment over flat parameters, as ``torch.optim`` bit for bit.

    Args:
        training: Which optimizer, and its settings.
        states: What it trains.
        scale: Factors on the learning rate by the network's children; 1 for the others.

    Attributes:
        learning_rate: Of the next step.
        state: Moments of each parameter, none before its first step.
    """

    def __init__(
        self, training: Training, states: Sequence[FlatState], scale: Mapping[str, float]
    ) -> None:
        self.learning_rate = training.lr
        self.state: dict[nn.Parameter, Moments] = {}
        self._scales = {
            parameter: scale.get(part.partition(".")[0], 1.0)
            for state in states
            for part, parameter in state.parameters.items()
        }
        self._update = (
            partial(_adam, eps=training.adam_eps)
            if training.optimizer == "adam"
            else partial(_sgd, momentum=training.momentum)
        )

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter by its gradient."""
        for parameter, scale in self._scales.items():
            moments = self.state.setdefault(parameter, {})
            self._update(parameter, moments, self.learning_rate * scale)

    def moments(self) -> list[Moments]:
        """Return the moments of each parameter, in the CPU's memory."""
        return [
            {name: value.cpu() for name, value in self.state.get(parameter, {}).items()}
            for parameter in self._scales
        ]

    def load(self, moments: Sequence[Moments]) -> None:
        """Go on from what ``moments`` returned, of which copies are made."""
        self.state = {
            parameter: {n: value.to(parameter.device, copy=True) for n, value in values.items()}
            for parameter, values in zip(self._scales, moments, strict=True)
        }


def _adam(parameter: nn.Parameter, moments: Moments, lr: float, eps: float) -> None:
    if not moments:
        moments["step"] = torch.zeros((), device=parameter.device)
        moments["exp_avg"] = torch.zeros_like(parameter)
        moments["exp_avg_sq"] = torch.zeros_like(parameter)
    adam(
        [parameter], [_gradient(parameter)], [moments["exp_avg"]], [moments["exp_avg_sq"]], [],
        [moments["step"]], fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=lr,
        weight_decay=0.0, eps=eps, maximize=False,
    )  # fmt: skip


def _sgd(parameter: nn.Parameter, moments: Moments, lr: float, momentum: float) -> None:
    buffers = [moments.get("momentum_buffer")]
    sgd(
        [parameter], [_gradient(parameter)], buffers, fused=True, weight_decay=0.0,
        momentum=momentum, lr=lr, dampening=0.0, nesterov=False, maximize=False,
    )  # fmt: skip
    if momentum and buffers[0] is not None:
        moments["momentum_buffer"] = buffers[0]


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError("a flat parameter without its gradient")
    return parameter.grad
