"""The workers of pooled training: what each does, and how turns reach them.

They run in the processes of a Ray Train job; ``runtime.pooled`` starts it and gives out the turns.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch
from torch import Tensor, distributed
from torch.utils.dlpack import from_dlpack

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.optimizer import Moments
from physfed_ray.federation.client.training import ClientResult, build_network, train_client
from physfed_ray.fields import Batch
from physfed_ray.methods.given import RoundInput
from physfed_ray.runtime.files import borrow

HOST_SHARE = 0.25
"""Of the slice of one client, what the host has; a worker has the rest. One waits for the other,
and so both fit where one client would, a GPU's memory included."""


class WorkersLostError(Exception):
    """Workers are gone; the round can be done again by new ones."""


@dataclass(frozen=True)
class WorkerTurn:
    """What the workers are to do in a round.

    Attributes:
        given: What the round begins with.
        private: Private parameters, (private size,) float32.
        moments: State of the optimizer, in the CPU's memory.
        data: Handle of the training data.
        seconds: Time after which they give up; None for never.
    """

    given: RoundInput
    private: np.ndarray
    moments: list[Moments]
    data: Any
    seconds: float | None


@dataclass(frozen=True)
class Trained:
    """What the workers made of it.

    Attributes:
        vectors: Shared and private parameters, float32.
        moments: As in ``WorkerTurn``.
    """

    result: ClientResult
    vectors: list[np.ndarray]
    moments: list[Moments]


class Mailbox:
    """Where a turn waits for the workers, and what they trained for the host: a Ray actor.

    Turns have names instead of numbers, so that a mailbox that was restarted confuses nobody.
    """

    def __init__(self) -> None:
        self._news = asyncio.Condition()
        self._turn: tuple[str, Any] | None = None
        self._answer: asyncio.Future[Trained] | None = None
        self._closed = False

    async def train(self, turn: list[Any]) -> Trained:
        """Give a turn (a handle in a list) to the workers, and wait for what they make of it."""
        async with self._news:
            self._turn = uuid4().hex, turn
            self._answer = asyncio.get_running_loop().create_future()
            self._news.notify_all()
        return await self._answer

    async def take(self, last: str) -> tuple[str, Any] | None:
        """Wait for a turn after the ``last``; None when there will be no more."""
        async with self._news:
            await self._news.wait_for(lambda: self._closed or self._is_new(last))
            return None if self._closed else self._turn

    def _is_new(self, last: str) -> bool:
        waited_for = self._answer is not None and not self._answer.done()
        return waited_for and self._turn is not None and self._turn[0] != last

    async def bring(self, turn: str, trained: Trained) -> None:
        """Hand over what a turn made; nobody waits for that of a host that has died."""
        if self._turn is not None and self._turn[0] == turn and self._answer is not None:
            self._answer.set_result(trained)

    async def fail(self, error: Exception) -> None:
        """Let the host that waits know that the workers have failed."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    async def close(self) -> None:
        """Send the workers home."""
        async with self._news:
            self._closed = True
            self._news.notify_all()


def work(config: Mapping[str, Any]) -> None:
    """Train turn after turn: what each worker does.

    Args:
        config: ``spec``, ``mailbox`` and ``assets``.
    """
    borrow(config["assets"])
    spec, mailbox = config["spec"], config["mailbox"]
    torch.set_num_threads(spec.training.threads)
    if spec.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1 - HOST_SHARE)
    network, states, optimizer = build_network(spec)
    network.train()
    team = WorkerTeam()
    last = ""
    while (taken := ray.get(mailbox.take.remote(last))) is not None:
        last, (handle,) = taken
        turn: WorkerTurn = ray.get(handle)
        for flat, vector in zip(states, (turn.given.shared, turn.private), strict=True):
            flat.vector.copy_(from_dlpack(vector))
        optimizer.load(turn.moments)
        deadline = None if turn.seconds is None else time.monotonic() + turn.seconds
        with _enough_memory():
            result = train_client(
                spec, network, states, optimizer, ray.get(turn.data), turn.given, deadline, team
            )
        if team.rank == 0:
            vectors = [flat.vector.numpy(force=True) for flat in states]
            ray.get(mailbox.bring.remote(last, Trained(result, vectors, optimizer.moments())))


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PhysFedError(
            "a worker of the pooled training ran out of its GPU's memory: add GPUs (method.workers "
            "says how many share a batch), or lower training.batch_size, training.patch or "
            "backbone.channels"
        ) from error


class WorkerTeam:
    """The workers: each has every n-th image of a batch, and their gradients are added up.

    One all-reduce of the flat gradient does what DistributedDataParallel does in buckets; weighted,
    because the parts of a short batch are of different sizes, and some empty. Running statistics,
    if a backbone has any, are those of the first worker.
    """

    def __init__(self) -> None:
        self.rank, self._size = distributed.get_rank(), distributed.get_world_size()

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """See ``federation.training.Team``."""
        rows, weight = self.rows(len(batch.low))
        part = batch.each(lambda name, tensor: tensor[rows])
        return replace(part, g=batch.g[rows], origin=batch.origin[rows]), weight

    def rows(self, count: int) -> tuple[Tensor, float]:
        """See ``federation.training.Team``; who has no image takes one that counts for nothing."""
        rows = torch.arange(self.rank, count, self._size)
        weight = len(rows) / count
        return (rows if len(rows) else torch.zeros(1, dtype=torch.int64)), weight

    def mean(self, values: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
        """See ``federation.training.Team``."""
        stacked = torch.stack([value.float() for value in values.values()]) * weight
        return dict(zip(values, self._sum(stacked), strict=True))

    def add_up(self, gradient: Tensor) -> None:
        """See ``federation.training.Team``."""
        if gradient.numel():
            self._sum(gradient)

    def any(self, said: bool) -> bool:
        """See ``federation.training.Team``."""
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return bool(self._sum(torch.tensor(float(said), device=device)))

    def _sum(self, tensor: Tensor) -> Tensor:
        try:
            distributed.all_reduce(tensor)
        except RuntimeError as error:
            raise WorkersLostError(f"a worker did not hear of another: {error}") from error
        return tensor
