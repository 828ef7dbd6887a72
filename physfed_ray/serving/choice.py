"""Which of a run's models serves a protocol that no client trained on.

The policies are those of the run's own last evaluation (``federation/serving.py``) that need one
model and no knowledge of the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.routes import nearest_client, nearest_code, serves_locally
from physfed_ray.methods.base import Method
from physfed_ray.rundir.model import NamedProtocol

Policy = Literal["shared", "pvqs", "nearest_protocol"]


@dataclass(frozen=True)
class Choice:
    """A model of a run, and why it was chosen.

    Attributes:
        policy: ``own``: a client's model on its own images; ``shared``: the one network of all;
            ``pvqs``: the codebook's nearest entry, decoded by its client (Yang et al. 2025, eq. 7);
            ``nearest_protocol``: the model of the client whose normalised protocol is nearest.
        client: Whose private part it has; None for the shared network.
        g: The normalised protocol that the network is told, (G,).
        cosine: For ``pvqs``, of the two codes.
        distance: For ``nearest_protocol``, between the two normalised protocols.
        code: For ``pvqs``, the codebook's entry, (code_dim,).
        protocol: For ``own``, how the client's own scanner scans.
    """

    policy: Literal["own"] | Policy
    client: str | None
    g: np.ndarray
    cosine: float | None = None
    distance: float | None = None
    code: np.ndarray | None = None
    protocol: Protocol | None = None

    def __str__(self) -> str:
        if self.policy == "own":
            return f"the model of client {self.client}"
        if self.policy == "shared":
            return "the shared network"
        if self.policy == "pvqs":
            return f"PVQS: the decoder of client {self.client}, cosine {self.cosine:.4f}"
        return f"the model of client {self.client}, the nearest at distance {self.distance:.4f}"


def own_model(method: Method, client: NamedProtocol) -> Choice:
    """Return a client's own model under the run's method."""
    g = client.protocol.normalised(method.task.further)
    return Choice("own", client.id, g, protocol=client.protocol)


def choose(
    method: Method,
    network: nn.Module,
    clients: Sequence[NamedProtocol],
    codes: np.ndarray | None,
    protocol: Protocol,
    policy: Policy | None = None,
) -> Choice:
    """Choose the model for a protocol.

    Args:
        method: The run's method.
        network: Its network with the shared parameters, on the CPU.
        clients: The training clients.
        codes: The codebook, (K, code_dim), None without one.
        protocol: How the images were scanned.
        policy: None: ``shared`` where nothing is private, else ``pvqs`` where there is a codebook,
            else ``nearest_protocol``.

    Raises:
        PhysFedError: The method cannot serve by that policy, or the protocol is unusual in what
            no protocol of the run was.
    """
    private = serves_locally(method, network)
    fitting = "shared" if not private else "nearest_protocol" if codes is None else "pvqs"
    further = method.task.further
    g = protocol.normalised(further)
    chosen = policy or fitting
    if chosen == "shared" and not private:
        return Choice("shared", None, g)
    if chosen == "pvqs" and codes is not None:
        own = method.codes(network, torch.tensor(g[None]))
        assert own is not None  # a method with a codebook computes any protocol's code
        route = nearest_code(codes, own.numpy()[0])
        client = clients[route.client].id
        return Choice("pvqs", client, g, cosine=route.cosine, code=route.code)
    if chosen == "nearest_protocol":
        known = [tuple(float(v) for v in c.protocol.normalised(further)) for c in clients]
        index, distance = nearest_client(tuple(float(v) for v in g), known)
        nearest = clients[index]
        g = nearest.protocol.normalised(further)
        return Choice("nearest_protocol", nearest.id, g, distance=distance)
    reasons = {
        "shared": f"{method.title} keeps a part of its network with each client",
        "pvqs": f"{method.title} has no codebook",
    }
    if chosen not in reasons:
        raise PhysFedError(f"unknown policy '{chosen}'; there are: shared, pvqs, nearest_protocol")
    raise PhysFedError(
        f"policy '{chosen}' is not possible: {reasons[chosen]}; leave the policy out "
        f"('{fitting}' is taken then), or name another"
    )
