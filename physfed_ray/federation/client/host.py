"""A host: one copy of the network that serves one or more clients in turn.

Plain Python. A Ray actor holds one of these, and the inline runtime holds one itself.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from physfed_ray.device import device_words
from physfed_ray.errors import PhysFedError, at_work
from physfed_ray.federation.channel.base import Passage
from physfed_ray.federation.client.network import ClientNetwork
from physfed_ray.federation.client.seen import SeenEvaluation
from physfed_ray.federation.client.training import ClientResult, Train, publish_client, train_client
from physfed_ray.federation.client.unseen import UnseenService
from physfed_ray.federation.names import split_told
from physfed_ray.federation.orders import ClientTurn, Order, Watch
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.tree import Node, TreeSum
from physfed_ray.methods.given import ClientInfo, Member, RoundInput
from physfed_ray.rundir.run_directory import client_file


class Host:
    """Runs clients: trains them, evaluates them, and decodes with their private parts.

    Args:
        spec: The federation.
        watch: Is told about each client's training.
        locate: Where this machine keeps a file of ``spec.files``.
        train: How a client is trained.

    Attributes:
        network: The network and the clients' states.
        seen: Evaluates the clients.
        unseen: Serves unseen protocols.
    """

    def __init__(
        self,
        spec: Spec,
        watch: Watch | None = None,
        locate: Callable[[Path], Path] = lambda path: path,
        train: Train = train_client,
    ) -> None:
        self.network = ClientNetwork(spec, locate)
        self.seen, self.unseen = SeenEvaluation(self.network), UnseenService(self.network)
        self._spec, self._watch, self._train_client = spec, watch, train
        self._unsaved: dict[int, int] = {}
        self._tree = TreeSum()
        self._apart: dict[Node, torch.Tensor | None] = {}

    def train(
        self, order: Order, *given: Any
    ) -> tuple[list[ClientResult], dict[Node, np.ndarray | None]]:
        """Train the clients of an order in turn.

        Args:
            order: What to do.
            given: For each base of the order the shared vector, (shared size,) float32, and the
                small arrays that go with it.

        Returns:
            A result for each turn, and the pieces of the aggregation tree over the order's clients:
            what the channel sends, added up, or of each client where the method is not linear.
        """
        deadline = None if order.deadline_s is None else time.monotonic() + order.deadline_s
        broadcast = dict(zip(order.bases, zip(given[::2], given[1::2], strict=True), strict=True))
        self.network.optimizer.learning_rate = order.learning_rate
        results: dict[int, ClientResult] = {}
        turns = {turn.client: turn for turn in order.turns}
        for client in order.clients:
            if client not in turns:
                self._add(client, None)
                continue
            vector, extras = broadcast[turns[client].base]
            member = self._spec.members[client]
            if self._watch is not None:
                self._watch.begin(member.id, len(turns) - len(results) - 1)
            who = "the server" if member.role == "server" else f"client {member.id}"
            with at_work(f"while training {who} in round {order.round}"):
                self.network.load(vector, turns[client], trains=True)
                told, own = split_told(extras)
                result = self._train(order, member, vector, own, deadline)
                if member.role == "client":
                    passage = self._passage(order, turns[client], member, told)
                    result = self._send(order, passage, vector, result)
                else:
                    self._add(client, None)  # what it has to say is in the result's uploads
                results[client] = result
            if self._watch is not None:
                self._watch.done(results[client])
        if self.network.directory is not None:
            self.network.directory.sync()
        kept = self._apart or self._tree.pieces()
        self._tree, self._apart = TreeSum(), {}
        pieces = {n: None if v is None else v.cpu().numpy() for n, v in kept.items()}
        return [results[turn.client] for turn in order.turns], pieces

    def _passage(
        self, order: Order, turn: ClientTurn, info: ClientInfo, told: Mapping[str, np.ndarray]
    ) -> Passage:
        """Return a client's way through the channel, of which it was told some arrays."""
        spec = self._spec
        # Where each vector is needed, the server weighs it.
        weight = spec.method.weight(info) if spec.method.linear else 1.0
        asked = order.participants or tuple(t.client for t in order.turns)
        return Passage(
            spec.seed, order.round, turn.client, info.id, asked, weight * turn.factor, told
        )

    def _send(
        self, order: Order, passage: Passage, vector: np.ndarray, result: ClientResult
    ) -> ClientResult:
        """Send a client's update, and what it reports, through the channel."""
        if result.missing:
            self._add(passage.client, None)
            return result
        channel, method, shared = self._spec.channel, self._spec.method, self.network.shared
        if result.uploads.keys() != set(method.uploads):
            raise PhysFedError(
                f"method {method.name} sends {_listed(result.uploads)} beside its update and "
                f"declares {_listed(method.uploads)}: list in 'uploads' every array that 'finish' "
                "returns, because channels and the estimate of traffic rely on it"
            )
        if order.difference:
            shared.vector.sub_(from_dlpack(vector).to(self._spec.device))
        self._add(passage.client, channel.outgoing(shared.vector, passage))
        return replace(
            result,
            losses=channel.losses(result.losses, passage),
            uploads=channel.uploads(result.uploads, passage),
        )

    def _add(self, client: int, sent: torch.Tensor | None) -> None:
        """Add what a client sends to the tree, or keep it where vectors are needed one by one."""
        shared = self.network.shared
        own = sent is shared.vector  # the network's tensors are views of it
        if not self._spec.method.linear:
            self._apart[0, client] = sent
            if own:
                shared.rebind(torch.empty_like(shared.vector))
        elif own:
            buffer = self._tree.add(client, sent)
            if buffer is not None and buffer is not sent:
                shared.rebind(buffer)
        else:
            self._tree.absorb({(0, client): sent})

    def _train(
        self,
        order: Order,
        info: Member,
        vector: np.ndarray,
        extras: Mapping[str, np.ndarray],
        deadline: float | None,
    ) -> ClientResult:
        spec, client = self._spec, info.index
        began = time.monotonic()
        data = self.network.training_data(client, order.round)
        reading = time.monotonic() - began
        self.network.module.train()
        result = self._train_client(
            spec,
            self.network.module,
            (self.network.shared, self.network.private),
            self.network.optimizer,
            data,
            RoundInput(order.round, info, vector, extras),
            deadline,
        )
        if not result.missing:
            result = replace(result, seconds=result.seconds + reading)
        if result.missing or not self.network.states.swap_out(client, order.round):
            return result
        self._unsaved[client] = order.round
        saved = self._save(client) if order.save else {}
        return replace(result, kept=True, part="".join(saved.values()))

    def publish(self, clients: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return what clients tell the server of their data before the first round."""
        return [self._published(client) for client in clients]

    def _published(self, client: int) -> dict[str, np.ndarray]:
        spec, everybody = self._spec, tuple(range(len(self._spec.clients)))
        info = spec.clients[client]
        with at_work(f"while client {info.id} published, before round 1"):
            data = self.network.data(*spec.trained_on(client))
            return spec.channel.published(
                publish_client(spec, info, data), Passage(spec.seed, 0, client, info.id, everybody)
            )

    def save(self, clients: Sequence[int]) -> dict[str, str]:
        """Write those private states of these clients that no checkpoint has yet.

        Returns:
            The checksum of each file.
        """
        saved: dict[str, str] = {}
        for client in clients:
            saved |= self._save(client)
        if self.network.directory is not None:
            self.network.directory.sync()
        return saved

    def _save(self, client: int) -> dict[str, str]:
        number = self._unsaved.pop(client, None)
        if number is None or self.network.directory is None:
            return {}
        state = self.network.states.get(client, number)
        if state is None:
            raise ValueError(f"the state of client {client} after round {number} is gone")
        name = client_file(number, self._spec.members[client].id)
        return {name: self.network.directory.write_tensors(name, state, later=True)}

    def merge(self, *parts: Mapping[Node, np.ndarray | None]) -> dict[Node, np.ndarray | None]:
        """Add up the pieces of several hosts of one node, so that one node sends once."""
        tree = TreeSum()
        for part in parts:
            tree.absorb({n: None if v is None else from_dlpack(v) for n, v in part.items()})
        return {n: None if v is None else v.numpy() for n, v in tree.pieces().items()}

    def device_words(self) -> str:
        """Name the device that this host computes on."""
        return device_words(self._spec.device)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
