"""What a channel is: what happens to an update between its client and the server.

An update is a vector; so is what travels, and the sum of what travels runs over the tree of
``federation.tree`` in the dtype that the channel chooses. The vector itself, losses, small uploads
and published arrays pass through the channel's hooks: nothing else leaves a client in a round.

The row that a channel writes of a round is its ``account``, not its report: a report is the text
that describes a slice's anatomy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from physfed_ray.seeds import generator


class NoSettings(BaseModel):
    """A channel without settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Cargo:
    """What an experiment would send through its channel; known before it runs.

    Attributes:
        method: Name of the method.
        uploads: Names of the small arrays that each client sends beside its update.
        publishes: Whether clients publish arrays of their data before the first round.
        linear: Whether the server needs only the sum of the updates, not each of them.
        compresses: Whether the method itself sends its updates compressed.
        pooled: Whether no client sends an update at all, because the data are in one place.
        stale: Whether updates of several earlier rounds may be in one sum.
        clients: Number of clients K.
        participation: Share of them that a round draws.
    """

    method: str
    uploads: tuple[str, ...] = ()
    publishes: bool = False
    linear: bool = True
    compresses: bool = False
    pooled: bool = False
    stale: bool = False
    clients: int = 1
    participation: float = 1.0


@dataclass(frozen=True)
class Packed:
    """What an update becomes on its way.

    Attributes:
        size: How many numbers.
        dtype: Their type, a name that NumPy knows.
    """

    size: int
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Passage:
    """One client's way through the channel in one round.

    Attributes:
        seed: Seed of the experiment.
        round: The round; 0 where arrays are published before the first.
        client: Index of the client.
        id: Its name.
        participants: Indices of all clients that the round asks, ascending. Some may fail; a
            client that repeats the round after a fault is asked among the same ones.
        weight: Weight of its update in the sum; a stale update's factor is in it.
        told: What ``Channel.tell`` sent with the shared vector that it trained on, by name.
    """

    seed: int
    round: int
    client: int
    id: str
    participants: tuple[int, ...]
    weight: float = 1.0
    told: Mapping[str, np.ndarray] = field(default_factory=dict)

    def generator(self, purpose: str) -> np.random.Generator:
        """Return the client's random stream of this round for a purpose."""
        return generator(self.seed, self.round, self.id, "channel", purpose)


@dataclass(frozen=True)
class Arrival:
    """What the server knows of the updates of a round that have come in.

    Attributes:
        seed: Seed of the experiment.
        round: The round.
        clients: Indices of the clients in the sum, ascending.
        weight: Sum of their weights, by which the sum is divided.
        size: Numbers of an update.
        state: The channel's state on the server.
    """

    seed: int
    round: int
    clients: tuple[int, ...]
    weight: float
    size: int
    state: Mapping[str, np.ndarray]

    def generator(self, purpose: str) -> np.random.Generator:
        """Return the server's random stream of this round for a purpose."""
        return generator(self.seed, self.round, "server", "channel", purpose)


class Channel:
    """A channel; by default weighted vectors travel, and the server divides their sum.

    The objects of all clients and of the server are equal and keep nothing between two calls; what
    the server has to remember is its state, which is part of every checkpoint.

    Args:
        settings: An instance of ``Settings``.

    Attributes:
        name: Its name in experiments.
        Settings: Schema of the keys under ``federation.channel:``.
        differences: Whether it needs what changed since the shared vector that the client began
            with, rather than the new parameters themselves (to bound its length, say).
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = NoSettings
    differences: ClassVar[bool] = False

    def __init__(self, settings: BaseModel) -> None:
        self.settings = settings

    def refuses(self, cargo: Cargo) -> str | None:
        """Return in one sentence why it cannot carry an experiment's cargo, None when it can.

        A channel that changes vectors cannot carry what is no vector: by default it refuses methods
        that pool the data, and those that count their updates as something smaller.
        """
        if cargo.pooled:
            return (
                f"method {cargo.method} trains on the data of all clients in one place, and the "
                f"channel '{self.name}' would have no update to carry: choose "
                "federation.channel = plain, or another method"
            )
        if cargo.compresses:
            return (
                f"method {cargo.method} compresses its updates, which the channel '{self.name}' "
                "would send in full: choose federation.channel = plain, or another method"
            )
        return None

    # The client's side.

    def outgoing(self, update: Tensor, passage: Passage) -> Tensor:
        """Return what travels of a client's update: a vector as ``packed`` says.

        The sum over clients of what this returns is all that the server sees of their updates, and
        the weight has to be in it.

        Args:
            update: The client's shared parameters, or with ``differences`` and in asynchronous
                schedules what changed of them; (size,) float32. It may be overwritten and
                returned.
            passage: The client's way.
        """
        if passage.weight != 1.0:
            update.mul_(passage.weight)
        return update

    def losses(self, values: Mapping[str, float], passage: Passage) -> dict[str, float]:
        """Return what the client reports of its mean losses, by name."""
        return dict(values)

    def uploads(self, arrays: Mapping[str, np.ndarray], passage: Passage) -> dict[str, np.ndarray]:
        """Return what the client sends of the method's small arrays, by name."""
        return dict(arrays)

    def published(
        self, arrays: Mapping[str, np.ndarray], passage: Passage
    ) -> dict[str, np.ndarray]:
        """Return what the client publishes of its arrays before the first round, by name."""
        return dict(arrays)

    # The server's side.

    def initial(self) -> dict[str, np.ndarray]:
        """Return the server's state before the first round, by name."""
        return {}

    def tell(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what clients are to know of the server's state; it travels with the vector."""
        return {}

    def incoming(self, total: Tensor, mean: Tensor, arrival: Arrival) -> Mapping[str, np.ndarray]:
        """Write the mean of the updates into ``mean``; return the server's next state.

        It is not called for methods that need each update, which ``each`` serves: under those the
        state never changes, so that a channel that needs it to refuses them.

        Args:
            total: Sum of what ``outgoing`` returned, as ``packed`` says. It is not to be written.
            mean: Where the mean goes, (size,) float32.
            arrival: Who is in the sum.
        """
        torch.div(total, arrival.weight, out=mean)
        return arrival.state

    def each(self, sent: Tensor, arrival: Arrival) -> Tensor:
        """Return one client's update, (size,) float32, for a method that is not linear.

        Args:
            sent: What ``outgoing`` returned, with a weight of 1 (of a stale update: its factor). It
                is not to be written, but may be returned.
            arrival: The client alone, with the weight 1.
        """
        update = torch.empty(arrival.size)
        self.incoming(sent, update, arrival)
        return update

    def account(self, arrival: Arrival) -> dict[str, float]:
        """Return what the channel says of a round, for the metrics; ``state`` is the next one."""
        return {}

    # What it costs.

    def packed(self, size: int) -> Packed:
        """Return what an update of so many numbers becomes."""
        return Packed(size)

    def bytes_up(self, size: int, participants: int) -> int:
        """Return the bytes that a client sends for an update of so many numbers in a round."""
        return self.packed(size).nbytes

    def bytes_down(self, participants: int) -> int:
        """Return the bytes that a client receives in a round beside the broadcast."""
        return 0
