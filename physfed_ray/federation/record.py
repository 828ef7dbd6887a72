"""What is written down of a round: rows of metrics, and the event that shows its progress."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from physfed_ray.events import Event
from physfed_ray.federation.client.training import ClientResult
from physfed_ray.federation.schedule import Plan
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.traffic import round_bytes
from physfed_ray.rundir.long_table import MetricRow


@dataclass
class RoundOutcome:
    """Who took part in a round, who did not and why, and the parts of the sum.

    Attributes:
        pieces: Hosts and handles on what they added up.
        covered: Clients that those pieces account for.
        diverged: Whether a client is missing because its numbers were not finite.
        server: The server's own result by its index, where it is a member and trained; in no sum.
    """

    missing: dict[int, str]
    results: dict[int, ClientResult] = field(default_factory=dict)
    pieces: list[tuple[int, Any]] = field(default_factory=list)
    covered: set[int] = field(default_factory=set)
    diverged: bool = False
    server: dict[int, ClientResult] = field(default_factory=dict)

    @property
    def all_results(self) -> dict[int, ClientResult]:
        """The results of all members that trained, by index."""
        return self.results | self.server

    def has_heard_of(self, member: int) -> bool:
        """Say whether a member has answered, or will not any more."""
        return member in self.all_results or member in self.missing


@dataclass(frozen=True)
class RoundRecord:
    """A round that was completed.

    Attributes:
        sizes: Bytes of the shared vector, and of all that a client received in this round.
        published: Bytes that all clients sent, and received, before the first round.
        account: What the channel says of the round.
    """

    spec: Spec
    number: int
    plan: Plan
    outcome: RoundOutcome
    seconds: float
    sizes: tuple[int, int]
    published: tuple[int, int] = 0, 0
    account: Mapping[str, float] = field(default_factory=dict)

    def rows(self) -> list[MetricRow]:
        """Return each member's losses, and the round's own figures as ``server``."""
        rows: list[MetricRow] = []
        for member, result in sorted(self.outcome.all_results.items()):
            values = result.losses | {"steps": float(result.steps), "seconds": result.seconds}
            rows += [
                (self.number, self.spec.members[member].id, "train", name, value)
                for name, value in values.items()
            ]
        down, up = self._bytes()
        system = {
            "seconds": self.seconds,
            "bytes_down": float(down),
            "bytes_up": float(up),
            "participants": float(len(self.outcome.results)),
            "missing": float(len(self.outcome.missing)),
            "simulated_steps": self.plan.time,
        }
        if self.plan.turns:
            ages = [self.number - 1 - turn.base for turn in self.plan.turns]
            system["staleness"] = float(np.mean(ages))
        return rows + [
            (self.number, "server", split, name, value)
            for split, values in (("system", system), ("channel", self.account))
            for name, value in values.items()
        ]

    def event(self) -> Event:
        """Return the ``round`` event."""
        down, up = self._bytes()
        results = sorted(self.outcome.results.items())
        names = [member.id for member in self.spec.members]
        return {
            "event": "round",
            "round": self.number,
            "rounds": self.spec.training.rounds,
            "seconds": self.seconds,
            "loss": {names[c]: result.losses.get("loss", math.nan) for c, result in results},
            "participants": len(results),
            "missing": {names[c]: why for c, why in sorted(self.outcome.missing.items())},
            "slices_per_s": sum(r.images for _, r in results) / max(self.seconds, 1e-9),
            "bytes_down": down,
            "bytes_up": up,
            "eta_s": self.seconds * (self.spec.training.rounds - self.number),
        }

    def _bytes(self) -> tuple[int, int]:
        """Bytes that the participants would receive and send in a federation over a network."""
        shared, received = self.sizes
        results = self.outcome.results.values()
        up, down = self.published
        sent, heard = round_bytes(
            self.spec.method,
            self.spec.channel,
            shared // 4,
            [result.uploads for result in results],
            received,
        )
        return down + heard, up + sent


def score_rows(
    number: int, client: str, split: str, scores: Mapping[str, np.ndarray]
) -> list[MetricRow]:
    """Return the mean of each metric; names with ``input/`` go to the split's input."""
    rows: list[MetricRow] = []
    for name, values in scores.items():
        prefix, _, metric = name.rpartition("/")
        where = f"{split}/{prefix}" if prefix else split
        rows.append((number, client, where, metric, mean_score(values)))
    return rows


def mean_score(values: np.ndarray) -> float:
    """Average over slices; those without a value (NaN) do not count, unless none has one."""
    kept = values[~np.isnan(values)]
    return float(np.mean(kept)) if len(kept) else math.nan
