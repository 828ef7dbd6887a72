"""The Ray runtime: every host an actor with its slice, the parameter server an actor."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.host import Host
from physfed_ray.federation.runtime import Call, Lost, Runtime
from physfed_ray.federation.server import ParameterServer
from physfed_ray.federation.spec import Spec

GRACE_S = 5.0
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class HostActor:
    """A thin shell around ``Host``; forwards calls."""

    def __init__(self, spec: Spec, clients: Sequence[int], gpu_fraction: float) -> None:
        if gpu_fraction:
            import torch

            torch.cuda.set_per_process_memory_fraction(min(1.0, gpu_fraction))
        self._host = Host(spec, clients)

    @ray.method(num_returns=2)
    def train(self, *arguments: Any) -> tuple[Any, Any]:
        """Forward to ``Host.train``; the pieces become an object of their own."""
        return self._host.train(*arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """Forward any other call."""
        return getattr(self._host, name)(*arguments)


class ServerActor:
    """A thin shell around ``ParameterServer``; forwards calls."""

    def __init__(self, spec: Spec) -> None:
        self._server = ParameterServer(spec)

    @ray.method(num_returns=2)
    def publish(self) -> tuple[Any, Any]:
        """Put the shared vector in the object store, once for all hosts."""
        return self._server.broadcast()

    def call(self, name: str, *arguments: Any) -> Any:
        """Forward a call."""
        return getattr(self._server, name)(*arguments)


class RayRuntime(Runtime):
    """Hosts as actors; vectors travel through the object store and never through the driver.

    Args:
        spec: The federation.
        hosts: Number of hosts.
        num_cpus: CPUs of each host.
        num_gpus: GPUs of each host, may be a fraction.
    """

    def __init__(self, spec: Spec, hosts: int, *, num_cpus: float = 1, num_gpus: float = 0) -> None:
        super().__init__(spec, hosts)
        self._num_cpus, self._num_gpus = num_cpus, num_gpus
        self._spec_handle = ray.put(spec)
        environment = {"env_vars": THREADS | {"OMP_NUM_THREADS": str(spec.training.threads)}}
        self._environment = environment
        self._server: Any = (
            ray.remote(ServerActor)
            .options(num_cpus=0, runtime_env=environment)
            .remote(self._spec_handle)
        )
        self._hosts = [self._start(host) for host in range(hosts)]

    def _start(self, host: int) -> Any:
        return (
            ray.remote(HostActor)
            .options(
                num_cpus=self._num_cpus,
                num_gpus=self._num_gpus,
                runtime_env=self._environment,
                scheduling_strategy="SPREAD",
            )
            .remote(self._spec_handle, self.assignment[host], self._num_gpus)
        )

    def publish(self) -> tuple[Any, Any]:
        """See ``Runtime.publish``."""
        handles: tuple[Any, Any] = tuple(self._server.publish.remote())
        return handles

    def train(
        self, calls: Mapping[int, Sequence[Any]], timeout_s: float | None
    ) -> dict[int, tuple[Any, Any] | Lost]:
        """See ``Runtime.train``."""
        handles = {h: self._hosts[h].train.remote(*arguments) for h, arguments in calls.items()}
        ends = None if timeout_s is None else time.monotonic() + timeout_s + GRACE_S
        outcome: dict[int, tuple[Any, Any] | Lost] = {}
        for host, (results, pieces) in handles.items():
            left = None if ends is None else max(0.0, ends - time.monotonic())
            try:
                outcome[host] = ray.get(results, timeout=left), pieces
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except ray.exceptions.GetTimeoutError:
                outcome[host] = Lost(f"host {host} gave no answer before the deadline", dead=False)
            except ray.exceptions.RayActorError:
                outcome[host] = Lost(f"the process of host {host} died", dead=True)
        return outcome

    def start(self, calls: Sequence[Call]) -> list[Any]:
        """See ``Runtime.start``."""
        return [self._hosts[host].call.remote(name, *arguments) for host, name, arguments in calls]

    def fetch(self, handles: Sequence[Any]) -> list[Any]:
        """See ``Runtime.fetch``."""
        return list(_get(list(handles), "a host"))

    def server(self, name: str, *arguments: Any) -> Any:
        """See ``Runtime.server``."""
        return _get(self._server.call.remote(name, *arguments), "the parameter server")

    def restart(self, host: int) -> None:
        """See ``Runtime.restart``."""
        ray.kill(self._hosts[host])
        self._hosts[host] = self._start(host)

    def close(self) -> None:
        """Kill the actors."""
        for actor in [*self._hosts, self._server]:
            ray.kill(actor)


def _get(handle: Any, who: str) -> Any:
    try:
        return ray.get(handle)
    except ray.exceptions.RayActorError as error:
        raise PhysFedError(f"{who} died: run again with --resume") from error
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from None


def _cause(error: ray.exceptions.RayTaskError) -> Exception:
    """Return a user's mistake as it was raised, anything else with the remote traceback."""
    return error.cause if isinstance(error.cause, PhysFedError) else error
