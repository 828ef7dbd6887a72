"""A client's private state between rounds: its private parameters and optimiser moments."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from physfed_ray.federation.flat import FlatState

Persistence = Literal["persist_private", "persist_all", "fresh"]
MOMENTS = ("exp_avg", "exp_avg_sq")


class PrivateStates:
    """Swaps the private state of clients in and out of one network and its optimiser.

    Attributes:
        held: For every client held in memory, the round after which it stood so, and its state.
    """

    def __init__(
        self,
        shared: FlatState,
        private: FlatState,
        optimizer: torch.optim.Optimizer,
        persistence: Persistence,
    ) -> None:
        self._private = private
        self._optimizer = optimizer
        self._initial = private.vector.clone()
        kept: dict[str, nn.Parameter] = {}
        if persistence != "fresh":
            kept.update(private.parameters)
        if persistence == "persist_all":
            kept.update(shared.parameters)
        self._kept = kept
        self.held: dict[int, tuple[int, dict[str, Tensor]]] = {}

    def swap_in(self, client: int, state: Mapping[str, Tensor] | None) -> None:
        """Load a client's state (None: the initial one) into the network and the optimiser."""
        self._optimizer.state.clear()
        if state is None:
            self._private.vector.copy_(self._initial)
            return
        self._private.vector.copy_(self._private.pack(state))
        for child, parameter in self._kept.items():
            if f"optimizer.{child}.step" in state:
                moments = {
                    name: state[f"optimizer.{child}.{name}"].to(parameter.device).clone()
                    for name in MOMENTS
                }
                step = state[f"optimizer.{child}.step"].clone().to(parameter.device)
                self._optimizer.state[parameter] = {"step": step, **moments}

    def swap_out(self, client: int, number: int) -> dict[str, Tensor]:
        """Keep the current state as the client's after round ``number`` and return it."""
        state = self._private.named(self._private.vector.clone())
        for child, parameter in self._kept.items():
            values = self._optimizer.state.get(parameter)
            if values:
                for name in ("step", *MOMENTS):
                    state[f"optimizer.{child}.{name}"] = values[name].detach().clone()
        self.held[client] = (number, state)
        return state
