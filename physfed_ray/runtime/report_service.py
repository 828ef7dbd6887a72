"""Reports for whoever asks, one slice at a time: the pool's actors behind Ray Serve.

Here requests come when they come and somebody waits for each, so latency counts: Ray Serve joins
the requests of different callers to batches, adds and removes reporters with the queue, and holds
the queue's length. A job whose slices are all known beforehand goes through Ray Data instead
(``physfed_ray.runtime.reports``), which needs no service and streams at full throughput. Both run
``physfed_ray.runtime.pool.PoolReporter``. There is no HTTP proxy: reports are asked for by a
handle, within the cluster.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
import ray

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.reports.base import Described
from physfed_ray.runtime.pool import PoolReporter, PoolShare, as_sentence, share

DEPLOYMENT = "reporters"
MORE_AFTER_S = 2.0
LESS_AFTER_S = 60.0
"""Seconds of a longer or shorter queue until there are more or fewer reporters."""
ASK_AGAIN_S = 0.05
"""How long to wait when the queue is full or a reporter has died."""


class ReportService:
    """Reporters that answer while the block lasts.

    Several threads may ask at once; their slices share batches.

    Args:
        reports: What they describe with, and ``reports.pool``.

    Raises:
        PhysFedError: On entering: no machine can carry a reporter, or its model is not there.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports, self._name = reports, f"reports-{uuid4().hex[:8]}"
        self._handle: Any = None

    def __enter__(self) -> Self:
        serve = _quiet_serve()
        each = share(self._reports)
        serve.start(proxy_location="Disabled", logging_config=_LOGGING)
        application = _deployment(serve, self._reports, each)
        self._handle = serve.run(application, name=self._name, route_prefix=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Serve itself stays: it belongs to the cluster, where others may use it.
        # Its router goes: it would start a new Ray if it asked after this one's end.
        self._handle.shutdown()
        _quiet_serve().delete(self._name)

    def describe(self, hu: np.ndarray) -> Described:
        """Return reports and embeddings of B slices, (B, n, n) float32 in HU.

        Who asks while ``max_queued`` requests wait is held up.

        Raises:
            PhysFedError: A slice got no answer in time, or failed.
        """
        ends = time.monotonic() + self._reports.pool.timeout_s
        requests = [_Request(self._handle, image, self._reports, ends) for image in hu]
        try:
            answers = [request.answer() for request in requests]
        finally:
            for request in requests:
                request.cancel()
        reports, embeddings, masks = zip(*answers, strict=True)
        return Described(list(reports), np.stack(embeddings), np.stack(masks))

    def health(self) -> str:
        """Return who is at work, in words."""
        application = _quiet_serve().status().applications[self._name]
        states = application.deployments[DEPLOYMENT].replica_states
        running = states.get("RUNNING", 0)
        words = [f"{running} reporter{'s' * (running != 1)}"]
        words += [f"{n} {state.lower()}" for state, n in states.items() if state != "RUNNING"]
        return ", ".join(words)


class _Request:
    """A slice that is asked for, again and again if need be.

    Args:
        handle: Where to ask.
        image: The slice, (n, n).
        reports: As in ``ReportService``.
        ends: When to give up, in seconds of ``time.monotonic``.
    """

    def __init__(self, handle: Any, image: np.ndarray, reports: Reports, ends: float) -> None:
        self._handle, self._image, self._ends = handle, image, ends
        self._pool = reports.pool
        self._response = handle.describe.remote(image)
        self._done = False

    def answer(self) -> Any:
        """Wait for the report, the embedding (T, d) and the mask (T,).

        Raises:
            PhysFedError: There is none in time, or it failed.
        """
        from ray.serve.exceptions import BackPressureError, RayServeException

        deaths, full = 0, False
        while True:
            try:
                answer = self._response.result(timeout_s=max(0.0, self._ends - time.monotonic()))
                self._done = True
                return answer
            except TimeoutError:
                raise PhysFedError(self._late(full)) from None
            except BackPressureError:
                full = True
            except ray.exceptions.RayTaskError as error:
                raise as_sentence(error, self._pool) from error
            except (ray.exceptions.RayError, RayServeException) as error:
                deaths, full = deaths + 1, False
                if deaths > self._pool.retries:
                    raise as_sentence(error, self._pool) from error
            time.sleep(ASK_AGAIN_S)
            if time.monotonic() > self._ends:
                raise PhysFedError(self._late(full))
            self._response = self._handle.describe.remote(self._image)

    def cancel(self) -> None:
        """Let nobody work for it any more; nothing happens if the answer is there."""
        if not self._done:
            self._response.cancel()

    def _late(self, full: bool) -> str:
        why = f"{self._pool.max_queued} others were waiting" if full else "no answer came"
        return (
            f"a slice was not described within reports.pool.timeout_s = {self._pool.timeout_s:g}"
            f" ({why}): raise it, or let reports.pool.max_size have more reporters"
        )


class Replica:
    """A reporter that joins the requests of several callers to batches.

    Args:
        reports: What it describes with.
        gpus: GPUs of the actor.
    """

    def __init__(self, reports: Reports, gpus: float) -> None:
        self._reporter = PoolReporter(reports, gpus)

    def describe(self, images: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Return report, embedding (T, d) and mask (T,) of each slice (n, n), n may differ."""
        answers: dict[int, tuple[str, np.ndarray, np.ndarray]] = {}
        for shape in {image.shape for image in images}:
            rows = [row for row, image in enumerate(images) if image.shape == shape]
            hu = np.stack([images[row] for row in rows])
            made = self._reporter.describe(hu, [None] * len(rows))
            answers |= zip(
                rows, zip(made.report, made.embedding, made.mask, strict=True), strict=True
            )
        return [answers[row] for row in range(len(images))]


def _deployment(serve: Any, reports: Reports, each: PoolShare) -> Any:
    """Return the application: replicas that grow in number with the requests in progress."""
    pool = reports.pool

    class Batching(Replica):
        @serve.batch(max_batch_size=pool.max_batch, batch_wait_timeout_s=pool.max_wait_s)  # type: ignore[untyped-decorator]
        async def describe(self, images: list[np.ndarray]) -> list[Any]:
            # In a thread, so that the replica can take requests and answer that it is alive.
            return await asyncio.to_thread(Replica.describe, self, images)

    deployment = serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=2 * pool.max_batch,
        max_queued_requests=pool.max_queued,
        autoscaling_config={
            "min_replicas": pool.min_size,
            "max_replicas": each.most,
            "target_ongoing_requests": pool.max_batch,
            "upscale_delay_s": MORE_AFTER_S,
            "downscale_delay_s": LESS_AFTER_S,
            "look_back_period_s": MORE_AFTER_S,
            "metrics_interval_s": MORE_AFTER_S / 4,
        },
        ray_actor_options={"num_cpus": each.cpus, "num_gpus": each.gpus},
        logging_config=_LOGGING,
    )(Batching)
    return deployment.bind(reports, each.gpus)


_LOGGING = {"log_level": "ERROR", "enable_access_log": False}


def _quiet_serve() -> Any:
    """Return ``ray.serve``, which prints nothing here; its log files have it all."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.CRITICAL + 1)
    return serve
