"""Pretraining by the workers of one Ray Train job, who share every batch.

The job's first worker tells the driver of losses and scores and sends it the checkpoints, through
an actor on the driver's node. Where workers are lost, new ones go on from the last checkpoint.
"""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import ray
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.pretraining.training import Job, Outcome, Watch, train
from physfed_ray.runtime.cluster import alive_nodes, rooms_of
from physfed_ray.runtime.pooled import END_S, failure, torch_trainer
from physfed_ray.runtime.pooled_worker import WorkersLostError, WorkerTeam

STARTS = 4
"""Times that workers may be lost, without a further checkpoint between them."""
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


class Post:
    """Where the first worker leaves what it has to tell: a Ray actor."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[str, tuple[Any, ...]]] = asyncio.Queue()

    async def put(self, kind: str, *said: Any) -> None:
        """Leave something."""
        await self._waiting.put((kind, said))

    async def take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Wait for something, and return all that is there."""
        found = [await self._waiting.get()]
        while not self._waiting.empty():
            found.append(self._waiting.get_nowait())
        return found


class _Told:
    """Forwards what a ``Watch`` is told to the post, in order, and waits for its arrival."""

    def __init__(self, post: Any) -> None:
        self._post = post

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Watch``."""
        ray.get(self._post.put.remote("losses", step, dict(values)))

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Watch``."""
        ray.get(self._post.put.remote("scores", step, dict(values)))

    def checkpoint(self, step: int, content: bytes) -> None:
        """See ``Watch``."""
        ray.get(self._post.put.remote("checkpoint", step, content))


def work(config: Mapping[str, Any]) -> None:
    """Train with the others: what each worker does.

    Args:
        config: ``job`` and ``begin``, handles in lists, and ``post``.
    """
    (handle,), (begin,) = config["job"], config["begin"]
    job: Job = ray.get(handle)
    torch.set_num_threads(job.training.threads)
    outcome = train(job, ray.get(begin), _Told(config["post"]), WorkerTeam())
    if outcome is not None:
        ray.get(config["post"].put.remote("done", outcome))


def train_on_ray(job: Job, begin: bytes | None, watch: Watch) -> Outcome:
    """Do what ``train`` does, with as many workers as the file asks for.

    Raises:
        PhysFedError: The cluster has no room for them, they are lost again and again, or the
            training fails.
    """
    on_gpu, threads = job.device == "cuda", job.training.threads
    room = sum(rooms_of(alive_nodes(), threads, on_gpu, 1.0))
    if job.training.workers > room:
        what = "GPUs" if on_gpu else f"processes of {threads} CPU(s)"
        raise PhysFedError(
            f"training.workers = {job.training.workers} asks for so many {what}, but the Ray "
            f"cluster has room for {room}: lower it"
        )
    handle, lost = ray.put(job), 0
    while True:
        attempt = _Attempt(job, handle, begin, watch)
        try:
            return attempt.run()
        except WorkersLostError as error:
            lost = 1 if attempt.last is not begin else lost + 1
            begin = attempt.last
            if lost == STARTS:
                raise PhysFedError(
                    f"the workers of the pretraining were lost {STARTS} times ({error}): look into "
                    "its cause (memory, a machine that goes away), and run again with --resume"
                ) from error


class _Attempt:
    """One Ray Train job.

    Attributes:
        last: The last checkpoint that arrived.
    """

    def __init__(self, job: Job, handle: Any, begin: bytes | None, watch: Watch) -> None:
        self._job, self._handle, self._watch, self.last = job, handle, watch, begin
        here = ray.get_runtime_context().get_node_id()
        place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self._post: Any = ray.remote(Post).options(num_cpus=0, scheduling_strategy=place).remote()

    def run(self) -> Outcome:
        """Train to the end.

        Raises:
            WorkersLostError: Workers died.
        """
        thread = threading.Thread(target=self._fit, daemon=True)
        thread.start()
        try:
            while True:
                for kind, said in ray.get(self._post.take.remote()):
                    if kind == "done":
                        outcome: Outcome = said[0]
                        thread.join(END_S)
                        return outcome
                    if kind == "failed":
                        raise said[0]
                    if kind == "checkpoint":
                        self.last = said[1]
                    getattr(self._watch, kind)(*said)
        finally:
            ray.kill(self._post)

    def _fit(self) -> None:
        on_gpu, threads = self._job.device == "cuda", self._job.training.threads
        config = {"job": [self._handle], "begin": [ray.put(self.last)], "post": self._post}
        resources = {"CPU": float(threads)} | ({"GPU": 1.0} if on_gpu else {})
        environment = {"env_vars": THREADS | {"OMP_NUM_THREADS": str(threads)}}
        workers = self._job.training.workers
        trainer = torch_trainer("pretrain", work, config, workers, resources, environment)
        try:
            trainer.fit()
        except Exception as found:
            self._post.put.remote("failed", failure(found))
