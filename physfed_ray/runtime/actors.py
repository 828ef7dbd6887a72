"""The Ray actors: thin shells around ``Host`` and ``ParameterServer`` that forward calls."""

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from physfed_ray.device import enough_memory
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.client.training import ClientResult, Train, train_client
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec
from physfed_ray.runtime import files
from physfed_ray.runtime.metrics import HostMetrics
from physfed_ray.runtime.pooled import DataParallel


class HostActor:
    """A host's process, which answers questions about itself while it trains.

    Args:
        spec: The federation.
        run: Name of the run.
        name: Name of the host, with its clients.
        gpus: GPUs of the host; below 1 it may not use more of the GPU's memory than that share.
        mailbox: Of the workers that train in its place, None where it trains itself.
        assets: Frozen networks that its node may lack.
    """

    def __init__(
        self,
        spec: Spec,
        run: str,
        name: str,
        gpus: float,
        mailbox: Any | None = None,
        assets: files.Lent = (),
    ) -> None:
        files.borrow(assets)
        self._name, self._run = name, run
        self._client: str | None = None
        if 0 < gpus < 1:
            torch.cuda.set_per_process_memory_fraction(gpus)
        self._metrics = HostMetrics(run, name)
        train: Train = train_client if mailbox is None else DataParallel(mailbox)
        self._host = Host(spec, watch=self, locate=files.locate, train=train)

    def __repr__(self) -> str:
        return f"{self._run}/{self._name}"

    def begin(self, client: str, waiting: int) -> None:
        """Note which client trains."""
        self._client = client
        self._metrics.begin(client, waiting)

    def done(self, result: ClientResult) -> None:
        """Note that it has ended."""
        self._client = None
        self._metrics.done(result)

    @ray.method(num_returns=2)
    def train(self, *arguments: Any) -> tuple[Any, Any]:
        """Forward to ``Host.train``; the pieces become an object of their own."""
        with enough_memory(self._name):
            return self._host.train(*arguments)

    def merge(self, *parts: Any) -> Any:
        """Forward to ``Host.merge``."""
        return self._host.merge(*parts)

    def call(self, name: str, *arguments: Any) -> Any:
        """Forward any other call."""
        with enough_memory(self._name):
            return attrgetter(name)(self._host)(*arguments)

    def missing(self, sizes: Mapping[Path, int]) -> list[Path]:
        """Forward to ``files.missing``."""
        return files.missing(sizes)

    def receive(self, path: Path, chunk: np.ndarray, start: int, size: int) -> None:
        """Forward to ``files.receive``."""
        files.receive(path, chunk, start, size)

    def sees(self, path: Path) -> bool:
        """Forward to ``files.sees``."""
        return files.sees(path)

    def node(self) -> str:
        """Return the id of the node that this host is on."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="watch")
    def doing(self) -> str | None:
        """Return the client in training."""
        return self._client

    @ray.method(concurrency_group="watch")
    def ping(self) -> None:
        """Answer."""


class ServerActor:
    """The parameter server's process.

    Args:
        spec: The federation.
        run: Name of the run.
        assets: As of a host.
    """

    def __init__(self, spec: Spec, run: str, assets: files.Lent = ()) -> None:
        files.borrow(assets)
        self._run = run
        self._server = ParameterServer(spec)

    def __repr__(self) -> str:
        return f"{self._run}/parameter-server"

    @ray.method(num_returns=2)
    def publish(self, number: int | None) -> tuple[Any, Any]:
        """Put the shared vector of now, or of an earlier round, in the object store, once."""
        return self._server.broadcast() if number is None else self._server.recall(number)

    def call(self, name: str, *arguments: Any) -> Any:
        """Forward a call."""
        return getattr(self._server, name)(*arguments)

    def node(self) -> str:
        """Return the id of the node that the server is on."""
        return str(ray.get_runtime_context().get_node_id())

    def ping(self) -> None:
        """Answer."""


def remote_host() -> Any:
    """Return the class of hosts for Ray; questions have a thread of their own."""
    return ray.remote(concurrency_groups={"watch": 1})(HostActor)  # type: ignore[call-overload]
