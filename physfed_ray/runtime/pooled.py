"""Pooled training: the workers of one Ray Train job share every batch, round after round.

A host that trains pooled data hands the round to the workers through a mailbox, and takes what
they trained from there, so that checkpoints, deadlines and evaluation are those of any other
client. The job lives as long as the run: ``TorchTrainer.fit`` of an empty function took 10 to 20 s
(measured on two busy cores, one and two workers), which a small round does not last. The first
round pays for it, so ``federation.deadline_s`` must be longer than that. The workers write no
checkpoints of their own, and their job's folder is in memory.

The data travel through the object store, where they take as much memory again as in the host;
every node of workers holds one copy. They travel once, or in each round where its noise is fresh.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem
from pydantic import BaseModel
from torch import nn
from torch.utils.dlpack import from_dlpack

from physfed_ray.data.store import ClientData
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Federation
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.client.training import ClientResult
from physfed_ray.federation.flat import FlatState
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.given import RoundInput
from physfed_ray.methods.pooled import PooledSettings
from physfed_ray.runtime.cluster import Slots, alive_nodes, choose_slots, rooms_of
from physfed_ray.runtime.files import Lent
from physfed_ray.runtime.pooled_worker import (
    HOST_SHARE,
    Mailbox,
    Trained,
    WorkersLostError,
    WorkerTurn,
    work,
)

END_S = 30.0
"""Time for the workers to end by themselves."""


def pooled_slots(
    settings: BaseModel, federation: Federation, threads: int, nodes: Sequence[Mapping[str, float]]
) -> Slots:
    """Return the slot of the one host, which evaluates; the workers' places are Ray Train's.

    Args:
        settings: The method's.
        federation: Its ``gpus_per_host`` says whether GPUs are used, by 0 and not 0.
        threads: CPU threads of a worker.
        nodes: Resources of each node, ``CPU`` and ``GPU``.

    Raises:
        PhysFedError: The workers do not fit.
    """
    alone = federation.model_copy(update={"clients_per_host": "auto"})
    on_gpu = choose_slots(1, alone, threads, nodes).num_gpus > 0
    count_workers(settings, threads, on_gpu, nodes)
    return Slots((1,), HOST_SHARE * threads, HOST_SHARE if on_gpu else 0)


def count_workers(
    settings: BaseModel, threads: int, on_gpu: bool, nodes: Sequence[Mapping[str, float]]
) -> int:
    """Return the number of workers.

    Raises:
        PhysFedError: The cluster has no room for so many.
    """
    wanted = settings.workers if isinstance(settings, PooledSettings) else "auto"
    room = sum(rooms_of(nodes, threads, on_gpu, 1.0))
    if wanted == "auto":
        return room if on_gpu else 1
    if wanted > room:
        what = "GPUs" if on_gpu else f"processes of {threads} CPU(s)"
        raise PhysFedError(
            f"method.workers = {wanted} asks for {wanted} {what}, but the Ray cluster has room for "
            f"{room}: lower it, or set it to auto"
        )
    return wanted


class DataParallel:
    """How a host trains pooled data: does what ``train_client`` does, with all workers.

    Args:
        mailbox: Handle of the mailbox.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._data: tuple[ClientData, Any] | None = None

    def __call__(
        self,
        spec: Spec,
        network: nn.Module,
        states: tuple[FlatState, FlatState],
        optimizer: FlatOptimizer,
        data: ClientData,
        given: RoundInput,
        deadline: float | None,
    ) -> ClientResult:
        """See ``federation.training.train_client``."""
        if self._data is None or self._data[0] is not data:
            self._data = None  # so that those of the last round make room
            self._data = data, ray.put(data)
        turn = WorkerTurn(
            given,
            states[1].vector.numpy(force=True),
            optimizer.moments(),
            self._data[1],
            None if deadline is None else deadline - time.monotonic(),
        )
        try:
            trained: Trained = ray.get(self._mailbox.train.remote([ray.put(turn)]))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        for flat, vector in zip(states, trained.vectors, strict=True):
            flat.vector.copy_(from_dlpack(vector))
        optimizer.load(trained.moments)
        return trained.result


class Workers:
    """The Ray Train job of a run, in a thread of the driver.

    The driver starts it, not the host: a host may die and be replaced while the workers live on.

    Args:
        spec: The federation.
        environment: Runtime environment of the workers.
        assets: Frozen networks that their nodes may lack.

    Attributes:
        mailbox: Handle of the mailbox, on the driver's node.
    """

    def __init__(self, spec: Spec, environment: Mapping[str, Any], assets: Lent = ()) -> None:
        self._assets = assets
        self._spec, self._environment = spec, dict(environment)
        self._thread: threading.Thread | None = None
        self._running = False
        here = ray.get_runtime_context().get_node_id()
        place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": place}
        self.mailbox: Any = ray.remote(Mailbox).options(**options).remote()

    def ensure(self) -> None:
        """Start the job, unless it runs.

        Raises:
            PhysFedError: The cluster has no room for the workers.
        """
        if not self._running:
            trainer = self._trainer()
            self._running = True
            self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
            self._thread.start()

    def _trainer(self) -> Any:
        spec, on_gpu = self._spec, self._spec.device == "cuda"
        threads, share = spec.training.threads, 1 - HOST_SHARE
        workers = count_workers(spec.method.settings, threads, on_gpu, alive_nodes())
        config = {"spec": spec, "mailbox": self.mailbox, "assets": self._assets}
        resources = {"CPU": share * threads} | ({"GPU": share} if on_gpu else {})
        return torch_trainer("pooled", work, config, workers, resources, self._environment)

    def _fit(self, trainer: Any) -> None:
        try:
            trainer.fit()
            error: Exception = WorkersLostError("the workers ended")
        except Exception as found:
            error = failure(found)
        self._running = False
        self.mailbox.fail.remote(error)

    def close(self) -> None:
        """End the job, so that its places are given back."""
        self.mailbox.close.remote()
        if self._thread is not None:
            self._thread.join(END_S)
        ray.kill(self.mailbox)


def torch_trainer(
    name: str,
    work: Callable[[Mapping[str, Any]], None],
    config: Mapping[str, Any],
    workers: int,
    resources: Mapping[str, float],
    environment: Mapping[str, Any],
) -> Any:
    """Return a Ray Train job, which writes no files and repeats nothing by itself.

    Args:
        name: Of the job.
        work: What each worker does with ``config``.
        config: Handles and small values.
        workers: How many.
        resources: Of each; with ``GPU`` they compute there.
        environment: Runtime environment of the workers.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        work,
        train_loop_config=dict(config),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in resources,
            resources_per_worker=dict(resources),
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # typed as the one before Ray 2.43
            name=name,
            storage_path="physfed",
            storage_filesystem=PyFileSystem(FSSpecHandler(MemoryFileSystem())),
            failure_config=FailureConfig(  # type: ignore[call-arg]  # likewise
                max_failures=0, max_preemption_failures=0
            ),
            worker_runtime_env=dict(environment),
        ),
    )


def failure(error: Exception) -> Exception:
    """Return what an error of the job means: a user's mistake, a bug, or lost workers."""
    from ray.train import WorkerGroupError

    if not isinstance(error, WorkerGroupError):
        return WorkersLostError(str(error))
    found = list(error.worker_failures.values())
    ours = [e for e in found if isinstance(e, PhysFedError)]
    bugs = [e for e in found if not isinstance(e, WorkersLostError) and not _is_ray(e)]
    return next(iter(ours + bugs), WorkersLostError(str(error)))


def _is_ray(error: Exception) -> bool:
    """Say whether Ray itself says that a worker is not well."""
    return type(error).__module__.partition(".")[0] == "ray"
