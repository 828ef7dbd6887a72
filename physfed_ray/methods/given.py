"""What a method is given: its task, its clients, the start and the end of a round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from physfed_ray.ct.protocol import SEVEN, Protocol
from physfed_ray.front_ends.base import Choice, FrontEnd, Scanners
from physfed_ray.front_ends.registry import make_front_end
from physfed_ray.models.base import Backbone
from physfed_ray.objectives.base import Objective
from physfed_ray.objectives.registry import make_objective


@dataclass(frozen=True)
class LocalOptimizer:
    """What the clients train with.

    Attributes:
        name: Which optimizer.
        momentum: Of SGD.
    """

    name: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.0


@dataclass(frozen=True)
class Task:
    """What a method must know of the data before it can build a network.

    Attributes:
        image_size: Side n of a whole image in pixels.
        clients: Number of training clients K.
        input_mean: Mean of the training inputs, on the scale of the HU window.
        input_std: Their standard deviation.
        tokens: Tokens T of a report's embedding f_t.
        dim: Length d of a token.
        embedding_mean: Mean of the embeddings over the training set, d values.
        embedding_std: Their standard deviation, d values.
        backbone: The imaging network.
        optimizer: What the clients train with.
        rounds: Number of rounds to come, for schedules.
        objective: What training minimises.
        front_end: What makes the images that the network reads.
        scanners: Those of the training clients, for a front end that is learned.
        further: Names of the further fields of a protocol that g holds
            (``physfed_ray.ct.protocol.further_of`` the clients and unseen protocols).
    """

    image_size: int
    clients: int
    input_mean: float
    input_std: float
    tokens: int
    dim: int
    embedding_mean: tuple[float, ...]
    embedding_std: tuple[float, ...]
    backbone: Backbone
    optimizer: LocalOptimizer = LocalOptimizer()
    rounds: int = 1
    objective: Objective = field(default_factory=make_objective)
    further: tuple[str, ...] = ()
    front_end: FrontEnd = field(default_factory=make_front_end)
    scanners: Scanners | None = None

    @property
    def g_size(self) -> int:
        """Number of entries of g."""
        return len(SEVEN) + len(self.further)


@dataclass(frozen=True)
class ClientInfo:
    """A training client as the server knows it.

    Attributes:
        index: Its place i among the K clients.
        id: Its name in the experiment.
        protocol: How its scanner scans.
        slices: Number of its training slices.
        speed: Simulated local steps in the time in which a client of speed 1 makes one.
        further: Names of the further fields of a protocol that g holds, as in ``Task``.
        front: What a fixed front end has chosen for its protocol.
        labels: Whether its training images have a full dose; where they do not, it is not a number.
        role: What tells it from the server as a member (``ServerInfo``).
    """

    role: ClassVar[Literal["client"]] = "client"

    index: int
    id: str
    protocol: Protocol
    slices: int
    speed: float = 1.0
    further: tuple[str, ...] = ()
    front: Choice = field(default_factory=dict)
    labels: bool = True

    @property
    def g(self) -> tuple[float, ...]:
        """Its normalised protocol: seven values and the further ones."""
        return tuple(self.protocol.normalised(self.further).tolist())


@dataclass(frozen=True)
class ServerInfo:
    """The server as a member of the federation that trains on paired images of its own.

    It has no protocol: its images are of all training clients' scanners, each with its g.

    Attributes:
        index: Its place, K: behind the K clients.
        slices: Number of its slices, each patient's under every protocol.
        id: Its name.
        role: What tells it from a client.
    """

    role: ClassVar[Literal["server"]] = "server"
    index: int
    slices: int
    id: str = "server"


Member = ClientInfo | ServerInfo
"""Who trains in a round; ``role`` says which of both it is."""


@dataclass(frozen=True)
class RoundInput:
    """What a member is given at the start of a round.

    Attributes:
        round: Number of the round.
        client: The member itself: a client, or for a method that ``trains_on_server`` the server.
        shared: The global shared parameters as one flat float32 vector, read-only.
        extras: Arrays that the server broadcasts: ``codes`` (K, code_dim), and what
            ``aggregate`` and ``collect`` return.
    """

    round: int
    client: Member
    shared: np.ndarray
    extras: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Aggregation:
    """What the server has at the end of a round, for ``Method.aggregate``.

    Attributes:
        round: Number of the round.
        previous: The vector that was broadcast last, (size,) float32.
        mean: Mean of the participants' vectors, weighted by ``weights``, (size,) float32.
        clients: The participants, by index.
        weights: The participants' weights in the mean, by id; their sum is what it was divided by.
        uploads: What ``finish`` returned, by id; also the server's, under ``server``, where it
            trained.
        named: The tensors of such a vector by name, as views of it.
        vectors: For a method that is not linear, every participant's vector by id, in the order of
            ``clients``; empty otherwise. One is decoded each time that it is asked for, and none is
            kept: go through them once, and hold what you need. None may be written.
    """

    round: int
    previous: np.ndarray
    mean: np.ndarray
    clients: tuple[ClientInfo, ...]
    weights: Mapping[str, float]
    uploads: Mapping[str, Mapping[str, np.ndarray]]
    named: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)


def shaped(*shape: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Return an array of zeros of a shape that takes no memory: for sizes that are only counted."""
    return np.broadcast_to(np.zeros((), dtype), shape)
