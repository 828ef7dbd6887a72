"""What the rounds and the hosts say to each other: plain, picklable values."""

import typing
from dataclasses import dataclass

import numpy as np

from physfed_ray.federation.client.training import ClientResult
from physfed_ray.metrics.base import Scores


@dataclass(frozen=True)
class ClientTurn:
    """One client's turn on its host.

    Attributes:
        client: Index of the client.
        private_round: Round after which its private state is to be taken (0: the initial one).
        base: In training, the round after which the shared vector stood that it starts from.
        factor: In training, the weight of its update for being stale.
        part: The checksum of the file of its private state, None where none was taken.
    """

    client: int
    private_round: int
    base: int = 0
    factor: float = 1.0
    part: str | None = None


@dataclass(frozen=True)
class Order:
    """What a host is to do in a round.

    Attributes:
        round: Number of the round.
        learning_rate: Of this round.
        clients: Clients that the host's sum accounts for, ascending; those without a turn count
            as absent.
        turns: Clients to train.
        bases: Rounds of the shared vectors that go with the order, in their order.
        difference: Send what changed since the base instead of the parameters themselves, so that
            updates of different bases can be added, or the channel can bound them.
        save: Write the private states into the run directory.
        deadline_s: Seconds after which clients give up; None for never.
        participants: Clients that the round asks, on all hosts, ascending; empty for those with
            turns.
    """

    round: int
    learning_rate: float
    clients: tuple[int, ...]
    turns: tuple[ClientTurn, ...]
    bases: tuple[int, ...]
    difference: bool = False
    save: bool = True
    deadline_s: float | None = None
    participants: tuple[int, ...] = ()


class Watch(typing.Protocol):
    """Is told which client is in training."""

    def begin(self, client: str, waiting: int) -> None:
        """A client starts, and so many wait behind it."""

    def done(self, result: ClientResult) -> None:
        """A client has ended."""


@dataclass(frozen=True)
class ClientEvaluation:
    """Scores of one set of images.

    Attributes:
        patients: Pseudonym of each slice's patient.
        slices: Slice number of each.
        scores: Each metric, (N,) or (), see ``Scores``.
        examples: Images by name, see ``examples.kept``.
        inspection: State of the method's modulation.
    """

    patients: list[str]
    slices: list[int]
    scores: Scores
    examples: dict[str, np.ndarray]
    inspection: dict[str, float]
