"""What a new client trains, and what it takes from the run as it is."""

from typing import Any

import torch
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.flat import private_parts
from physfed_ray.federation.routes import has_private
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import RoundInput
from physfed_ray.serving.enrol.one_shot import weighted

DECODER = "decoder"


class OwnDecoder(Method):
    """Goes in front of a method that shares its whole network: the decoder becomes private.

    What such a method adds to the objective (a proximal term, a teacher, borrowed spectra) serves
    the shared parameters, and those stand still here. So the objective alone is trained on, and
    what only the method's own training uses is left out of the network.
    """

    pooled = False
    uploads = ()

    def build(self, seed: int) -> nn.Module:
        """Return the method's network without what only its training uses."""
        network = super().build(seed)
        for name in self.training_only:
            delattr(network, name)
        return network

    def begin(self, network: nn.Module, round_input: RoundInput) -> None:
        """Need nothing of the server."""

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective, and its parts."""
        return self.fit(network, batch)

    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Any, steps: int
    ) -> dict[str, Any]:
        """Send nothing."""
        return {}


def keeps_private(method: Method) -> bool:
    """Say whether the method itself leaves a part of the network with its client."""
    return has_private(method, _on_paper(method))


def for_newcomer(method: Method, *, one_shot: bool = False) -> Method:
    """Return the method as a new client trains it: what ``shared`` names stands still.

    A method with a private part is returned as it is. One that shares its whole network comes
    back with ``OwnDecoder`` in front of it.

    Args:
        method: The run's.
        one_shot: Whether the client has weights of a diffusion network's steps alone.

    Raises:
        PhysFedError: It shares its whole network, and no part of it is a decoder; or one slice
            cannot tell it what ``one_shot`` asks for.
    """
    if method.task.front_end.fields:
        raise PhysFedError(
            f"each client of the run has its own {method.task.front_end.title}, learned for one "
            "geometry together with all else, and enrolling leaves what is shared as it is: add "
            "the client to the experiment and run it again"
        )
    if keeps_private(method):
        if one_shot:
            raise PhysFedError(
                f"--one-shot needs a network that stands still, and under {method.title} a new "
                "client trains a part of its own: leave it out"
            )
        return method
    if one_shot:
        return weighted(method)
    kind: Any = type(f"{type(method).__name__}WithOwnDecoder", (OwnDecoder, type(method)), {})
    own: Method = kind(method.settings, method.task)
    own.shared = tuple(part for part in method.shared if part.partition(".")[0] != DECODER)
    if own.shared == tuple(method.shared):
        raise PhysFedError(
            f"{method.title} shares its whole network and has no part named '{DECODER}' that a new "
            "client could train: serve it with `denoise --protocol`, or choose another method"
        )
    return own


def trained_parts(method: Method) -> tuple[str, ...]:
    """Return the paths of what a new client trains under a method of ``for_newcomer``."""
    return tuple(private_parts(_on_paper(method), method.shared))


def _on_paper(method: Method) -> nn.Module:
    """Return the method's network, of which only the names of the parts are looked at."""
    with torch.no_grad():
        return method.build(0)
