"""The parameter server: the shared parameters, their aggregation, and the codebook."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from physfed_ray.errors import DivergedError, PhysFedError
from physfed_ray.federation.channel.base import Arrival, Channel
from physfed_ray.federation.flat import FlatState
from physfed_ray.federation.names import PUBLISHED, TOLD, split_told
from physfed_ray.federation.routes import Route, nearest_code, serves_locally
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.tree import Node, TreeSum
from physfed_ray.federation.vectors import Vectors
from physfed_ray.methods.given import Aggregation
from physfed_ray.rundir.run_directory import RunDirectory, round_name


class ParameterServer:
    """Holds what is shared; never sees a private parameter, an image, a report or an embedding.

    The codebook is not uploaded: the server knows every client's normalised protocol g and, after
    each aggregation, computes all codes with the aggregated protocol hypernetwork, so that no
    entry is stale.
    """

    def __init__(self, spec: Spec) -> None:
        torch.set_num_threads(spec.training.threads)
        self._spec = spec
        self._network = spec.method.build(spec.seed)
        self._shared = FlatState(self._network, spec.method.shared)
        self._codes = self._compute_codes([client.g for client in spec.clients])
        self._extras: dict[str, np.ndarray] = {}
        self._state: Mapping[str, np.ndarray] = spec.channel.initial()
        self._account: dict[str, float] = {}

    def broadcast(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the shared vector and the small arrays that go with it."""
        codes = {} if self._codes is None else {"codes": self._codes}
        told = self._spec.channel.tell(self._state)
        named = {TOLD + name: array for name, array in told.items()}
        return self._shared.vector.numpy(), codes | self._extras | named

    def collect(self, published: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Take what the clients, in their order, publish once; return the bytes each then gets."""
        collected = self._spec.method.collect(published)
        self._extras |= {PUBLISHED + name: array for name, array in collected.items()}
        return sum(array.nbytes for array in collected.values())

    def recall(self, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return what was broadcast after an earlier round, from its checkpoint."""
        if number == 0:
            vector, codes = ParameterServer(replace(self._spec, run_root=None)).broadcast()
            return vector, codes | self._published
        vector = self._shared.vector.numpy()
        if self._shared.entries:
            name = f"{round_name(number)}/server.safetensors"
            directory = RunDirectory(str(self._spec.run_root))
            vector = self._shared.pack(directory.read_tensors(name)).numpy()
        return vector, self._read(number, "codebook")

    @property
    def _published(self) -> dict[str, np.ndarray]:
        return {name: a for name, a in self._extras.items() if name.startswith(PUBLISHED)}

    def _read(self, number: int, kind: str) -> dict[str, np.ndarray]:
        """Return the arrays of one file of a checkpoint, none where it is not there."""
        directory = RunDirectory(str(self._spec.run_root))
        name = f"{round_name(number)}/{kind}.safetensors"
        tensors = directory.read_tensors(name) if directory.exists(name) else {}
        return {name: value.numpy() for name, value in tensors.items()}

    def _write(self, number: int, kind: str, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Write the file that ``_read`` reads; return its checksum."""
        if not arrays:
            return {}
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        name = f"{round_name(number)}/{kind}.safetensors"
        return {name: RunDirectory(str(self._spec.run_root)).write_tensors(name, tensors)}

    def aggregate(
        self,
        number: int,
        participants: Sequence[int],
        uploads: Mapping[str, Mapping[str, np.ndarray]],
        absent: Sequence[int],
        difference: bool,
        *pieces: Mapping[Node, np.ndarray | None],
    ) -> tuple[int, int]:
        """Aggregate a round, and return ``sizes``; where all weights are 0, nothing moves.

        Args:
            number: The round.
            participants: Indices of the clients whose updates are in the sum.
            uploads: Each participant's small arrays, and those of the server as a member.
            absent: Clients of hosts that sent no pieces.
            difference: The sum is of differences from the clients' bases, already weighted for
                staleness; the mean is then the present vector plus the sum over the clients'
                weights (Nguyen et al. 2022, alg. 1).
            pieces: Pieces of the aggregation tree, one mapping a node; of each client alone where
                the method is not linear.

        Raises:
            PhysFedError: An update has the wrong size, or the result is not finite; the server is
                as it was before.
        """
        for part in pieces:
            for node, vector in part.items():
                self._check_size(node, vector)
        spec, method = self._spec, self._spec.method
        clients = tuple(spec.clients[i] for i in participants)
        weights = {client.id: method.weight(client) for client in clients}
        size = self._shared.vector.numel()
        arrival = Arrival(
            spec.seed, number, tuple(participants), sum(weights.values()), size, self._state
        )
        tree, vectors = TreeSum(), self._vectors(arrival, difference, pieces)
        for part in pieces:
            for node, sent in part.items():
                tree.absorb({node: self._addend(node, sent, vectors, weights)})
        for client in absent:
            tree.add(client, None)
        total = tree.total(len(spec.members))
        if total is not None and size and arrival.weight > 0:
            mean, state = self._take_mean(total, tree.is_mine, arrival, difference)
            self._move(
                Aggregation(
                    round=number,
                    previous=self._shared.vector.numpy(),
                    mean=mean.numpy(),
                    clients=clients,
                    weights=weights,
                    uploads=uploads,
                    named=self._named,
                    vectors=vectors,
                )
            )
            self._state = state
            self._account = spec.channel.account(replace(arrival, state=state))
        self._codes = self._compute_codes([client.g for client in self._spec.clients])
        return self.sizes()

    def _move(self, aggregation: Aggregation) -> None:
        """Go to the shared vector that the method makes of a round.

        Raises:
            DivergedError: It is not finite; nothing has changed.
        """
        vector, extras = self._spec.method.aggregate(aggregation)
        new = torch.from_numpy(vector)
        if not torch.isfinite(new.sum()):
            raise DivergedError(
                f"round {aggregation.round}: the aggregated parameters are not finite; nothing of "
                "the round was kept: lower training.lr, or look at the losses in metrics.parquet"
            )
        self._shared.vector.copy_(new)
        self._extras = self._published | extras

    def _vectors(
        self,
        arrival: Arrival,
        difference: bool,
        pieces: Sequence[Mapping[Node, np.ndarray | None]],
    ) -> Mapping[str, np.ndarray]:
        """Return each participant's vector by id, none where the method is linear."""
        spec = self._spec
        if spec.method.linear:
            return {}
        found = {client: v for part in pieces for (_, client), v in part.items() if v is not None}
        index = {spec.clients[client].id: client for client in sorted(found)}

        def decode(id: str, sent: np.ndarray) -> np.ndarray:
            alone = replace(arrival, clients=(index[id],), weight=1.0)
            update = spec.channel.each(from_dlpack(sent), alone)
            return (update + self._shared.vector if difference else update).numpy()

        return Vectors({id: found[client] for id, client in index.items()}, decode)

    def _addend(
        self,
        node: Node,
        sent: np.ndarray | None,
        vectors: Mapping[str, np.ndarray],
        weights: Mapping[str, float],
    ) -> torch.Tensor | None:
        """Return what a node of the tree adds: where vectors came one by one, they are weighed."""
        if sent is None or self._spec.method.linear:
            return None if sent is None else from_dlpack(sent)
        id = self._spec.clients[node[1]].id
        return torch.from_numpy(vectors[id] * np.float32(weights[id]))

    def _take_mean(
        self, total: torch.Tensor, mine: bool, arrival: Arrival, difference: bool
    ) -> tuple[torch.Tensor, Mapping[str, np.ndarray]]:
        """Return the mean of a sum, and the channel's next state.

        The mean takes the place of the sum where that is nobody else's and all that is to be done
        is to divide it: one vector fewer.
        """
        channel, linear = self._spec.channel, self._spec.method.linear
        divides = not linear or type(channel).incoming is Channel.incoming
        mean = total if mine and divides else torch.empty_like(self._shared.vector)
        if not linear:
            torch.div(total, arrival.weight, out=mean)
            return mean, self._state
        state = channel.incoming(total, mean, arrival)
        if difference:
            mean.add_(self._shared.vector)
        return mean, state

    def account(self) -> dict[str, float]:
        """Return what the channel says of the last round that was aggregated."""
        return self._account

    def _named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        return {n: v.numpy() for n, v in self._shared.named(torch.from_numpy(vector)).items()}

    def _check_size(self, node: Node, vector: np.ndarray | None) -> None:
        shared = self._shared.vector.numel()
        expected = self._spec.channel.packed(shared)
        if vector is None or (
            vector.size == expected.size and vector.dtype == np.dtype(expected.dtype)
        ):
            return
        level, position = node
        clients = self._spec.clients[position << level : (position + 1) << level]
        raise PhysFedError(
            f"the update of {', '.join(client.id for client in clients[:4])} has {vector.size:,} "
            f"numbers ({vector.dtype}) where the channel '{self._spec.channel.name}' makes "
            f"{expected.size:,} ({expected.dtype}) of the {shared:,} shared parameters; nothing of "
            "the round was kept: every node must run the same version of physfed_ray and of the "
            "method, and a method must build the same network for every client"
        )

    def save(self, number: int) -> dict[str, str]:
        """Write the server's part of a round's checkpoint; return the checksum of each file."""
        saved = self.save_base(number, *self.broadcast())
        if self._spec.run_root is not None:
            saved |= self._write(number, "channel", self._state)
        return saved

    def save_base(
        self, number: int, vector: np.ndarray, extras: Mapping[str, np.ndarray]
    ) -> dict[str, str]:
        """Write what was broadcast after a round, which clients may still be training on.

        Args:
            number: The round.
            vector: Shared parameters, (shared size,) float32.
            extras: The small arrays that went with them.

        Returns:
            The checksum of each file.
        """
        if self._spec.run_root is None:
            return {}
        directory, saved = RunDirectory(self._spec.run_root), {}
        if self._shared.entries:
            name = f"{round_name(number)}/server.safetensors"
            named = self._shared.named(from_dlpack(vector))
            saved[name] = directory.write_tensors(name, named)
        return saved | self._write(number, "codebook", extras)

    def restore(self, number: int) -> None:
        """Go back to the state after a completed round; 0 is the initial state."""
        self._extras, self._state = {}, self._spec.channel.initial()
        if number == 0:
            fresh = FlatState(self._spec.method.build(self._spec.seed), self._spec.method.shared)
            self._shared.vector.copy_(fresh.vector)
        elif self._shared.entries and self._spec.run_root is not None:
            directory = RunDirectory(self._spec.run_root)
            named = directory.read_tensors(f"{round_name(number)}/server.safetensors")
            self._shared.vector.copy_(self._shared.pack(named))
        if number > 0 and self._spec.run_root is not None:
            _, self._extras = split_told(self._read(number, "codebook"))
            self._extras.pop("codes", None)
            self._state = self._read(number, "channel")
        self._codes = self._compute_codes([client.g for client in self._spec.clients])

    def codebook(self) -> np.ndarray | None:
        """Return the codebook, (K, code_dim), None for a method that keeps none."""
        return self._codes

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the shared vector, and those that a client receives in a round."""
        vector, extras = self.broadcast()
        each_round = {name: array for name, array in extras.items() if name not in self._published}
        return vector.nbytes, self._spec.method.bytes_down(vector.nbytes, each_round)

    def inspect_codes(self) -> dict[str, float]:
        """Return how differently the network treats the clients, as the method sees it."""
        if self._codes is None:
            return {}
        with torch.inference_mode():
            codes = torch.from_numpy(self._codes)
            return self._spec.method.inspect_codes(self._network, codes)

    def serves_locally(self) -> bool:
        """Say whether a protocol of no client is served with clients' own parts."""
        return serves_locally(self._spec.method, self._network)

    def route(self, g: Sequence[float]) -> Route | None:
        """Return where PVQS sends an unseen protocol, None without a codebook."""
        codes = self._compute_codes([g])
        if codes is None or self._codes is None:
            return None
        return nearest_code(self._codes, codes[0])

    def _compute_codes(self, protocols: Sequence[Sequence[float]]) -> np.ndarray | None:
        with torch.inference_mode():
            codes = self._spec.method.codes(self._network, torch.tensor(protocols))
        return None if codes is None else codes.numpy()
