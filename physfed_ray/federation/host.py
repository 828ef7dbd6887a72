"""A host: one copy of the network that serves one or more clients in turn.

Plain Python. A Ray actor holds one of these, and the inline runtime holds one itself.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import ClientData, concatenate, read_client_data
from physfed_ray.device import device_words
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.orders import Evaluation, Job, Order, Scores, Watch
from physfed_ray.federation.private import PrivateStates, State
from physfed_ray.federation.run_directory import RunDirectory, client_file
from physfed_ray.federation.scoring import edge_scans, score, score_edge
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.training import (
    ClientResult,
    Train,
    autocast,
    build_network,
    publish_client,
    to_device,
    train_client,
)
from physfed_ray.federation.tree import Node, TreeSum
from physfed_ray.methods.base import RoundInput

EVALUATION_BATCH = 8


class Host:
    """Runs clients: trains them, evaluates them, and decodes with their private parts.

    Args:
        spec: The federation.
        watch: Is told about each client's training.
        locate: Where this machine keeps a file of ``spec.files``.
        train: How a client is trained.
    """

    def __init__(
        self,
        spec: Spec,
        watch: Watch | None = None,
        locate: Callable[[Path], Path] = lambda path: path,
        train: Train = train_client,
    ) -> None:
        torch.set_num_threads(spec.training.threads)
        self._spec = spec
        self._watch, self._locate, self._train_client = watch, locate, train
        self._network, (self._shared, self._private), self._optimizer = build_network(spec)
        self._states = PrivateStates(
            self._shared,
            self._private,
            self._optimizer,
            spec.optimizer_state,
            spec.private_memory_mb * 1e6,
        )
        self._unsaved: dict[int, int] = {}
        self._tree, self._merged = TreeSum(), TreeSum()

    @cached_property
    def _directory(self) -> RunDirectory | None:
        return RunDirectory(self._spec.run_root) if self._spec.run_root else None

    def train(
        self, order: Order, *given: Any
    ) -> tuple[list[ClientResult], dict[Node, np.ndarray | None]]:
        """Train the clients of an order in turn.

        Args:
            order: What to do.
            given: For each base of the order the shared vector, (shared size,) float32, and the
                small arrays that go with it.

        Returns:
            A result for each job, and the pieces of the aggregation tree over the order's clients
            (float32 vectors, (shared size,)).
        """
        deadline = None if order.deadline_s is None else time.monotonic() + order.deadline_s
        broadcast = dict(zip(order.bases, zip(given[::2], given[1::2], strict=True), strict=True))
        self._optimizer.learning_rate = order.learning_rate
        self._tree.release()
        results: dict[int, ClientResult] = {}
        jobs = {job.client: job for job in order.jobs}
        for client in order.clients:
            if client not in jobs:
                self._tree.add(client, None)
                continue
            vector, extras = broadcast[jobs[client].base]
            if self._watch is not None:
                self._watch.begin(self._spec.clients[client].id, len(jobs) - len(results) - 1)
            self._load(vector, jobs[client])
            results[client] = self._train(order, client, vector, extras, deadline)
            self._add(order, jobs[client], vector, results[client])
            if self._watch is not None:
                self._watch.done(results[client])
        if self._directory is not None:
            self._directory.sync()
        pieces = {n: None if v is None else v.cpu().numpy() for n, v in self._tree.pieces().items()}
        return [results[job.client] for job in order.jobs], pieces

    def _add(self, order: Order, job: Job, vector: np.ndarray, result: ClientResult) -> None:
        """Add a client's update to the tree."""
        if result.missing:
            self._tree.add(job.client, None)
            return
        if order.difference:
            self._shared.vector.sub_(from_dlpack(vector).to(self._spec.device))
        weight = self._spec.method.weight(self._spec.clients[job.client]) * job.factor
        if weight != 1.0:
            self._shared.vector.mul_(weight)
        buffer = self._tree.add(job.client, self._shared.vector)
        if buffer is not None and buffer is not self._shared.vector:
            self._shared.rebind(buffer)

    def _train(
        self,
        order: Order,
        client: int,
        vector: np.ndarray,
        extras: Mapping[str, np.ndarray],
        deadline: float | None,
    ) -> ClientResult:
        spec = self._spec
        info = spec.clients[client]
        self._network.train()
        result = self._train_client(
            spec,
            self._network,
            (self._shared, self._private),
            self._optimizer,
            self._data(*spec.trained_on(client)),
            RoundInput(order.round, info, vector, extras),
            deadline,
        )
        if result.missing or not self._states.swap_out(client, order.round):
            return result
        self._unsaved[client] = order.round
        if order.save:
            self._save(client)
        return replace(result, kept=True)

    def publish(self, clients: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return what clients tell the server of their data before the first round."""
        return [
            publish_client(self._spec, self._spec.clients[c], self._data(*self._spec.trained_on(c)))
            for c in clients
        ]

    def save(self, clients: Sequence[int]) -> None:
        """Write those private states of these clients that no checkpoint has yet."""
        for client in clients:
            self._save(client)
        if self._directory is not None:
            self._directory.sync()

    def _save(self, client: int) -> None:
        number = self._unsaved.pop(client, None)
        if number is None or self._directory is None:
            return
        state = self._states.get(client, number)
        if state is None:
            raise ValueError(f"the state of client {client} after round {number} is gone")
        name = client_file(number, self._spec.clients[client].id)
        self._directory.write_tensors(name, state, later=True)

    def merge(self, *parts: Mapping[Node, np.ndarray | None]) -> dict[Node, np.ndarray | None]:
        """Add up the pieces of several hosts of one node, so that one node sends once."""
        self._merged.release()
        for part in parts:
            self._merged.absorb({n: None if v is None else from_dlpack(v) for n, v in part.items()})
        return {n: None if v is None else v.numpy() for n, v in self._merged.pieces().items()}

    def device_words(self) -> str:
        """Name the device that this host computes on."""
        return device_words(self._spec.device)

    def evaluate(
        self,
        vector: np.ndarray,
        job: Job,
        split: str,
        other_code: np.ndarray | None = None,
        detail: bool = False,
        pictured: bool = False,
    ) -> Evaluation:
        """Evaluate a client's personalised model on its own validation or test images.

        Args:
            vector: Shared parameters.
            job: The client.
            split: "validation" or "test".
            other_code: Protocol code (code_dim,) to use instead of the client's own.
            detail: Also score the undenoised input (names with ``input/``), and score with the
                optional metrics.
            pictured: Also return the images of one slice.
        """
        self._load(vector, job)
        path: Path | None = getattr(self._spec.files[job.client], split)
        data = self._data(*([path] if path else []))
        denoised = self._denoise(data, None if other_code is None else torch.tensor(other_code))
        scores = self._score(denoised, data, detail)
        examples = {}
        if detail:
            low = np.asarray(data.low)
            before = self._score(low, data, detail)
            scores |= {f"input/{name}": values for name, values in before.items()}
        if pictured:
            middle = len(data.low) // 2
            examples = {
                "low": np.asarray(data.low)[middle],
                "full": np.asarray(data.full)[middle],
                "denoised": denoised[middle],
            }
        return Evaluation(
            list(data.patient), [int(s) for s in data.slice], scores, examples, self._inspect(data)
        )

    def sharpness(self, vector: np.ndarray, job: Job) -> Scores:
        """Measure what a client's model does to edges, on phantoms scanned under its protocol.

        Returns:
            Each sharpness, (1,), and with ``input/`` in front that of the undenoised scans.
        """
        self._load(vector, job)
        path = self._spec.files[job.client].test
        data = self._data(*([path] if path else []))
        scores: Scores = {}
        for edge, scans in edge_scans(self._spec, job.client, data):
            scores |= score_edge(self._spec, edge, self._denoise(scans, None), scans)
        return scores

    def features(
        self, vector: np.ndarray, unseen: int, code: np.ndarray, start: int
    ) -> tuple[np.ndarray, ...]:
        """Compute the modulated features of a batch of an unseen protocol's images.

        Only shared parameters are used: this is what the unseen scanner itself can do.

        Args:
            vector: Shared parameters.
            unseen: Index of the unseen protocol.
            code: Codebook entry to modulate with, (code_dim,).
            start: First slice of the batch of ``EVALUATION_BATCH``.
        """
        self._load_shared(vector)
        self._network.eval()
        data = self._data(self._spec.unseen[unseen].test)
        entry = torch.tensor(code, device=self._spec.device)
        with torch.inference_mode(), autocast(self._spec):
            batches = whole_batches(data, EVALUATION_BATCH)
            _, batch = next(islice(batches, start // EVALUATION_BATCH, None))
            features = self._spec.method.features(
                self._network, to_device(batch, self._spec.device), entry
            )
        return tuple(f.float().cpu().numpy() for f in features)

    def decode(self, vector: np.ndarray, job: Job, features: tuple[np.ndarray, ...]) -> np.ndarray:
        """Decode features with a client's private decoder, which does not leave its host.

        Returns:
            Denoised images, (B, n, n) float32.
        """
        self._load(vector, job)
        self._network.eval()
        with torch.inference_mode(), autocast(self._spec):
            tensors = tuple(from_dlpack(f).to(self._spec.device) for f in features)
            images = self._spec.method.decode(self._network, tensors).float()
        return images.squeeze(1).clamp(0, 1).cpu().numpy()

    def denoise_unseen(self, vector: np.ndarray, unseen: int) -> np.ndarray:
        """Denoise an unseen protocol's images by shared parameters alone, (N, n, n) float32."""
        self._load_shared(vector)
        return self._denoise(self._data(self._spec.unseen[unseen].test), None)

    def serve(
        self, vector: np.ndarray, jobs: Sequence[Job], unseen: int
    ) -> tuple[dict[int, Scores], dict[Node, np.ndarray | None]]:
        """Denoise an unseen protocol's images with each client's whole local model.

        Returns:
            Per client the scores, and the pieces of the tree sum of the denoised images.
        """
        data = self._data(self._spec.unseen[unseen].test)
        scores: dict[int, Scores] = {}
        tree = TreeSum()
        for job in jobs:
            self._load(vector, job)
            g = np.asarray(self._spec.clients[job.client].g, np.float32)
            denoised = self._denoise(replace(data, g=g), None)
            scores[job.client] = self._score(denoised, data, True)
            tree.add(job.client, torch.from_numpy(denoised))
        return scores, {n: None if v is None else v.numpy() for n, v in tree.pieces().items()}

    def score_unseen(
        self, unseen: int, denoised: np.ndarray | None, detail: bool = False
    ) -> Evaluation:
        """Score denoised images of an unseen protocol; None scores the input itself.

        Args:
            unseen: Index of the unseen protocol.
            denoised: (N, n, n) float32, or None.
            detail: Return examples, and score with the optional metrics.
        """
        data = self._data(self._spec.unseen[unseen].test)
        images = np.asarray(data.low) if denoised is None else denoised
        middle = len(images) // 2
        examples = {"denoised": images[middle]} if detail and denoised is not None else {}
        if detail:
            examples["low"] = np.asarray(data.low)[middle]
            examples["full"] = np.asarray(data.full)[middle]
        return Evaluation(
            list(data.patient),
            [int(s) for s in data.slice],
            self._score(images, data, detail),
            examples,
            {},
        )

    def _load(self, vector: np.ndarray, job: Job) -> None:
        self._load_shared(vector)
        state: State | None = None
        if job.private_round > 0:
            state = self._states.get(job.client, job.private_round)
            if state is None:
                state = self._read_state(job)
                self._states.keep(job.client, job.private_round, state)
        self._states.swap_in(state)

    def _read_state(self, job: Job) -> State:
        name = self._spec.clients[job.client].id
        if self._directory is None:
            raise ValueError(f"the private state of {name} is gone, and no run directory has it")
        return self._directory.read_tensors(client_file(job.private_round, name))

    def _load_shared(self, vector: np.ndarray) -> None:
        expected = self._shared.vector.numel()
        if vector.size != expected:
            raise PhysFedError(
                f"the method shares {expected:,} numbers on node {os.uname().nodename} and "
                f"{vector.size:,} on the parameter server's: every node must run the same version "
                "of physfed_ray and of the method; mend it and run again with --resume"
            )
        self._shared.vector.copy_(from_dlpack(vector))

    def _denoise(self, data: ClientData, code: Tensor | None) -> np.ndarray:
        spec = self._spec
        self._network.eval()
        entry = None if code is None else code.to(spec.device)
        images = []
        with torch.inference_mode(), autocast(spec):
            for _, batch in whole_batches(data, EVALUATION_BATCH):
                output = spec.method.denoise(self._network, to_device(batch, spec.device), entry)
                images.append(output.float())
        return torch.cat(images).squeeze(1).clamp(0, 1).cpu().numpy()

    def _inspect(self, data: ClientData) -> dict[str, float]:
        _, batch = next(iter(whole_batches(data, EVALUATION_BATCH)))
        with torch.inference_mode():
            return self._spec.method.inspect(self._network, to_device(batch, self._spec.device))

    def _score(self, denoised: np.ndarray, data: ClientData, optional: bool) -> Scores:
        return score(self._spec, denoised, data, optional=optional)

    def _data(self, *paths: Path) -> ClientData:
        if not paths:
            raise ValueError("this client has no images of the split asked for")
        return _read(*(self._locate(path) for path in paths))


@lru_cache(maxsize=64)
def _read(*paths: Path) -> ClientData:
    parts = [read_client_data(path) for path in paths]
    return parts[0] if len(parts) == 1 else concatenate(parts)
