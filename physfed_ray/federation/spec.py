"""All that a host or the parameter server needs to build itself: plain, picklable values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from physfed_ray.ct.protocol import Protocol
from physfed_ray.ct.scan import reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.experiment import Training
from physfed_ray.federation.channel.base import Channel, NoSettings
from physfed_ray.federation.channel.plain import Plain
from physfed_ray.front_ends.base import Choice
from physfed_ray.methods.base import Method
from physfed_ray.methods.given import ClientInfo, Member, ServerInfo


@dataclass(frozen=True)
class ClientFiles:
    """Prepared Arrow files of one client; None where it has no data for a split."""

    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None


@dataclass(frozen=True)
class UnseenInfo:
    """A protocol that no client trained on, with its test images.

    Attributes:
        id: Its name in the experiment.
        protocol: How its scanner scans.
        test: Arrow file of its test images.
        slices: Number of its test slices.
        further: Names of the further fields of a protocol that g holds, as in ``Task``.
        front: What a fixed front end does with its protocol.
    """

    id: str
    protocol: Protocol
    test: Path
    slices: int
    further: tuple[str, ...] = ()
    front: Choice = field(default_factory=dict)

    @property
    def g(self) -> tuple[float, ...]:
        """The normalised protocol: seven values and the further ones."""
        return tuple(self.protocol.normalised(self.further).tolist())


@dataclass(frozen=True)
class Spec:
    """One federation.

    Attributes:
        precision: Already resolved, so that a resumed run computes as the first one did.
        run_root: Run directory, None when nothing is to be written (benchmarks).
        device: Where hosts compute, ``cpu`` or ``cuda``; the parameter server is always on a CPU.
        private_memory_mb: Memory of a host for private states.
        simulation: How scans are simulated, for those that are made while a run goes on.
        noise: Whether training slices keep the noise that they were prepared with, or get new
            noise in each round.
        metrics: Optional metrics that the last evaluation measures.
        channel: What happens to updates on their way to the server.
        server: The server as a member that trains; None where the method does not ask for it, or
            it has no images. It is none of ``clients``.
        server_file: Its paired images.
        assets: Files of the frozen networks that the backbone and the objective read.
    """

    seed: int
    method: Method
    training: Training
    precision: Literal["fp32", "bf16"]
    clients: tuple[ClientInfo, ...]
    files: tuple[ClientFiles, ...]
    unseen: tuple[UnseenInfo, ...]
    window_hu: tuple[float, float]
    clinical_windows: dict[str, tuple[float, float]]
    run_root: str | None
    simulation: Simulation
    device: str = "cpu"
    private_memory_mb: float = 2048.0
    metrics: tuple[str, ...] = ()
    noise: Literal["fixed", "fresh"] = "fixed"
    channel: Channel = field(default_factory=lambda: Plain(NoSettings()))
    server: ServerInfo | None = None
    server_file: Path | None = None
    assets: tuple[Path, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody who may train: the clients, and behind them the server if it does."""
        return self.clients if self.server is None else (*self.clients, self.server)

    @property
    def trainable(self) -> tuple[ClientInfo, ...]:
        """The clients that the method can train: some methods need the full dose."""
        return tuple(c for c in self.clients if c.labels or self.method.unlabelled)

    def is_client(self, member: int) -> bool:
        """Say whether a member, by its index, is a client."""
        return member < len(self.clients)

    def all_files(self, member: int) -> tuple[Path, ...]:
        """Return every file of a member, by its index."""
        if not self.is_client(member):
            return () if self.server_file is None else (self.server_file,)
        files = self.files[member]
        return tuple(p for p in (files.train, files.validation, files.test) if p is not None)

    def trained_on(self, member: int) -> tuple[Path, ...]:
        """Return the files of a member's turn: its own, or where the method pools everybody's."""
        if not self.is_client(member):
            return self.all_files(member)
        return tuple(path for _, path in self.training_files(member))

    def training_files(self, client: int) -> list[tuple[int, Path]]:
        """Return the files of a client's turn, each with the index of the client who owns it.

        Pooled are those of all clients who can train.
        """
        owners = [c.index for c in self.trainable] if self.method.pooled else [client]
        files = ((owner, self.files[owner].train) for owner in owners)
        return [(owner, path) for owner, path in files if path is not None]

    def images_of(
        self, scanner: "ClientInfo | UnseenInfo", line_integrals: np.ndarray
    ) -> np.ndarray:
        """Return what a network reads of what a detector measures later than its data.

        Args:
            scanner: The client, or the unseen protocol.
            line_integrals: (B, views, bins) float32, dimensionless.

        Returns:
            (B, n, n) float32 HU, not clipped: the scanner's FBP, or a fixed front end's images.
        """
        protocol, front_end = scanner.protocol, self.method.task.front_end
        if not front_end.prepares:
            return reconstruct(line_integrals, protocol, self.simulation)
        return front_end.reconstruct(line_integrals, protocol, self.simulation, scanner.front)

    def scanner_of(self, paths: Sequence[Path]) -> Protocol | None:
        """Return the protocol of the client whose files these are, None where there is not one."""
        owners = [
            client.protocol
            for client, files in zip(self.clients, self.files, strict=True)
            if {files.train, files.validation, files.test} & {*paths}
        ]
        return owners[0] if len(owners) == 1 else None

    @property
    def optimizer_state(self) -> Literal["persist_private", "persist_all", "fresh"]:
        """Which moments survive a round.

        Those of a shared part start anew because an average has replaced the weights that they
        belong to. Nothing is averaged where the data are pooled: all moments are kept.
        """
        chosen = self.training.optimizer_state
        return "persist_all" if self.method.pooled and chosen == "persist_private" else chosen


def assign(slices: Sequence[int], groups: Sequence[int]) -> list[list[range]]:
    """Deal clients to hosts as contiguous ranges of nearly equal load, node by node.

    Contiguous ranges keep subtrees of the aggregation tree whole on one host and one node, so
    that few pieces travel. Between nodes a boundary may move by a sixteenth of a node's load to
    the client index with the most trailing zero bits, where the fewest subtrees are cut; within
    a node the largest load is the smallest that any contiguous dealing allows.

    Args:
        slices: Training slices of each client.
        groups: Hosts of each node; not more hosts than clients in all.

    Returns:
        For each node, one non-empty range of client indices a host.
    """
    loads = [max(1, s) for s in slices]
    cuts = [0]
    reached = [0, *accumulate(loads)]
    for node in range(1, len(groups)):
        ideal = reached[-1] * sum(groups[:node]) / sum(groups)
        slack = reached[-1] / len(groups) / 16
        low, high = cuts[-1] + groups[node - 1], len(loads) - sum(groups[node:])
        nearest = min(range(low, high + 1), key=lambda cut: abs(reached[cut] - ideal))
        near = [c for c in range(low, high + 1) if abs(reached[c] - ideal) <= slack] or [nearest]
        cuts.append(max(near, key=lambda cut: (cut & -cut, -abs(reached[cut] - ideal))))
    cuts.append(len(loads))
    return [
        [range(start + r.start, start + r.stop) for r in _balance(loads[start:stop], hosts)]
        for start, stop, hosts in zip(cuts, cuts[1:], groups, strict=False)
    ]


def _balance(loads: Sequence[int], hosts: int) -> list[range]:
    low, high = max(loads), sum(loads)
    while low < high:
        middle = (low + high) // 2
        if _hosts_needed(loads, middle) <= hosts:
            high = middle
        else:
            low = middle + 1
    ranges: list[range] = []
    start = 0
    for left in reversed(range(hosts)):
        stop, load = start + 1, loads[start]
        while stop < len(loads) - left and load + loads[stop] <= low:
            load += loads[stop]
            stop += 1
        ranges.append(range(start, stop))
        start = stop
    return ranges


def _hosts_needed(loads: Sequence[int], limit: int) -> int:
    hosts, load = 1, 0
    for value in loads:
        if load + value > limit:
            hosts, load = hosts + 1, 0
        load += value
    return hosts
