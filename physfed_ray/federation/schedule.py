"""Who trains in each round, and on the shared vector of which round.

Everything follows from seeds and a simulated clock, never from how fast this machine is, so that
a run has the same schedule on any cluster and after any interruption. The clock's unit is one
local step of a client of speed 1: a client's turn takes steps / speed.

* ``schedule: sync``: clients are drawn among those that can be reached (McMahan et al. 2017). A
  client that needs longer than ``deadline_steps`` is left out, or merged into the round in which
  its update arrives.
* ``schedule: async``: a share of the clients trains at any time, each starting as soon as another
  one ends, and ``buffer`` updates make a round (FedBuff, Nguyen et al. 2022, AISTATS, alg. 1). A
  client gives at most one update to a round.
"""

import heapq
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from physfed_ray.experiment.federation import Federation
from physfed_ray.federation.availability import make_availability
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.given import ClientInfo
from physfed_ray.seeds import generator


@dataclass(frozen=True)
class PlannedTurn:
    """One client's training whose update counts in a round.

    Attributes:
        client: Index of the client.
        base: Round after which the shared vector stood that it trains on.
    """

    client: int
    base: int


@dataclass(frozen=True)
class Plan:
    """One round.

    Attributes:
        turns: Whose updates are aggregated, by client.
        missing: Clients that were drawn and do not count, and why.
        time: Simulated time at the end of the round.
        bases: Earlier rounds whose shared vector a later turn trains on.
        server: The server's turn, where it is a member that trains: on the newest shared vector.
    """

    turns: tuple[PlannedTurn, ...]
    missing: dict[int, str]
    time: float
    bases: frozenset[int]
    server: PlannedTurn | None = None

    @property
    def all_turns(self) -> tuple[PlannedTurn, ...]:
        """Everybody who trains in the round."""
        return self.turns if self.server is None else (*self.turns, self.server)


def weight_of_staleness(staleness: int, exponent: float) -> float:
    """Return (1 + s)^-a, the weight of an update whose base is s rounds old.

    The polynomial function of Xie et al. 2019, which FedBuff uses with a = 0.5.
    """
    return float((1 + staleness) ** -exponent)


class Schedule:
    """The plan of every round.

    Args:
        settings: Participation, sampling, availability, deadline or buffer.
        seed: The experiment's.
        clients: All clients.
        steps: Local steps of each in one turn.
        server: Index of the server where it is a member that trains: it does so in every round.
        idle: Indices of clients that never train.
    """

    def __init__(
        self,
        settings: Federation,
        seed: int,
        clients: Sequence[ClientInfo],
        steps: Sequence[int],
        server: int | None = None,
        idle: Collection[int] = (),
    ) -> None:
        self._settings, self._seed, self._clients = settings, seed, clients
        self._steps = list(steps)
        self._duration = [n / c.speed for n, c in zip(steps, clients, strict=True)]
        self._available = make_availability(settings.availability, seed, [c.id for c in clients])
        self._server, self._idle = server, frozenset(idle)
        trainable = len(clients) - len(self._idle)
        self._count = max(1, math.ceil(settings.participation * trainable - 1e-9))
        self._plans: list[Plan] = []
        kind = _Rounds if settings.schedule == "sync" else _Buffer
        self._next: Callable[[int], Plan] = kind(self).plan

    @property
    def stale(self) -> bool:
        """Say whether a base may be older than the round before, so that differences travel."""
        return self._settings.schedule == "async" or self._settings.late == "merge"

    def plan(self, number: int) -> Plan:
        """Return the plan of a round, 1 for the first."""
        while len(self._plans) < number:
            plan = self._next(len(self._plans) + 1)
            if self._server is not None:
                plan = replace(plan, server=PlannedTurn(self._server, len(self._plans)))
            self._plans.append(plan)
        return self._plans[number - 1]

    def factor(self, number: int, turn: PlannedTurn) -> float:
        """Return the weight of a turn's update for its staleness."""
        return weight_of_staleness(number - 1 - turn.base, self._settings.staleness_exponent)

    def draw(self, count: int, number: int, excluded: set[int], *purpose: int | str) -> list[int]:
        """Draw clients that can be reached in a round, in the order of their index."""
        barred = self._idle | excluded
        free = [
            c for c in range(len(self._clients)) if c not in barred and self._available(c, number)
        ]
        if count >= len(free):
            return free
        chances = None
        if self._settings.sampling == "by_size":
            sizes = np.array([max(1, self._clients[c].slices) for c in free], float)
            chances = sizes / sizes.sum()
        rng = generator(self._seed, *purpose, "participants")
        return sorted(free[int(i)] for i in rng.choice(len(free), count, replace=False, p=chances))


class _Rounds:
    """Synchronous rounds; late clients keep their place until their update arrives."""

    def __init__(self, schedule: Schedule) -> None:
        self._s = schedule
        self._arriving: dict[int, list[PlannedTurn]] = {}
        self._time = 0.0

    def plan(self, number: int) -> Plan:
        s, settings = self._s, self._s._settings
        busy = {turn.client for turns in self._arriving.values() for turn in turns}
        turns = self._arriving.pop(number, [])
        missing: dict[int, str] = {}
        longest = 0.0
        for client in s.draw(s._count, number, busy, number):
            duration, deadline = s._duration[client], settings.deadline_steps or math.inf
            longest = max(longest, min(duration, deadline))
            late = max(0, math.ceil(duration / deadline - 1e-9) - 1)
            if late == 0:
                turns.append(PlannedTurn(client, number - 1))
            elif settings.late == "drop" or late > settings.max_staleness:
                missing[client] = (
                    f"late: its {s._steps[client]} steps at speed {s._clients[client].speed:g} "
                    f"take {duration:g}, the deadline is {deadline:g}"
                )
            else:
                self._arriving.setdefault(number + late, []).append(PlannedTurn(client, number - 1))
        self._time += longest
        return Plan(
            tuple(sorted(turns, key=lambda turn: turn.client)),
            missing,
            self._time,
            frozenset(turn.base for late in self._arriving.values() for turn in late),
        )


class _Buffer:
    """Asynchronous rounds: an event queue on the simulated clock."""

    def __init__(self, schedule: Schedule) -> None:
        self._s = schedule
        self._time = 0.0
        self._flying: list[tuple[float, int, int]] = []  # end, client, base
        self._draws = 0

    def plan(self, number: int) -> Plan:
        settings = self._s._settings
        turns: dict[int, PlannedTurn] = {}
        missing: dict[int, str] = {}
        while len(turns) < settings.buffer:
            self._fill(number, {*turns, *missing})
            if not self._flying:
                break
            end, client, base = heapq.heappop(self._flying)
            self._time = max(self._time, end)
            staleness = number - 1 - base
            if staleness > settings.max_staleness:
                missing[client] = (
                    f"its update is {staleness} rounds old, more than federation.max_staleness "
                    f"({settings.max_staleness})"
                )
            else:
                turns[client] = PlannedTurn(client, base)
        bases = frozenset(base for _, _, base in self._flying)
        ordered = tuple(turns[client] for client in sorted(turns))
        return Plan(ordered, missing, self._time, bases)

    def _fill(self, number: int, excluded: set[int]) -> None:
        """Start clients on the newest vector until the share that trains at once does."""
        flying = {client for _, client, _ in self._flying}
        count = self._s._count - len(flying)
        if count <= 0:
            return
        self._draws += 1
        for client in self._s.draw(count, number, flying | excluded, "async", self._draws):
            end = self._time + self._s._duration[client]
            heapq.heappush(self._flying, (end, client, number - 1))


def make_schedule(spec: Spec, settings: Federation) -> Schedule:
    """Return who trains when in this federation.

    Where the method pools the data there is one turn a round, over everybody's, and nobody who
    could be absent, slow or late.
    """
    training, clients, trainable = spec.training, spec.clients, spec.trainable
    server = None if spec.server is None else spec.server.index
    idle = {c.index for c in clients} - {c.index for c in trainable}
    if spec.method.pooled:
        everybody = replace(clients[0], slices=sum(c.slices for c in trainable), speed=1.0)
        settings, clients, idle = Federation(), (everybody,), set()
    steps = [training.steps_per_round(client.slices) for client in clients]
    return Schedule(settings, spec.seed, clients, steps, server, idle)
