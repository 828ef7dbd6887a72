"""One copy of the network, on which the clients of a host are at work in turn."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import ClientData, concatenate, read_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.fresh import rescan
from physfed_ray.federation.client.inference import EVALUATION_BATCH, Inference
from physfed_ray.federation.client.private import PrivateStates, State
from physfed_ray.federation.client.training import build_network, to_device
from physfed_ray.federation.orders import ClientTurn
from physfed_ray.federation.spec import Spec
from physfed_ray.fields import EXPECTED, on_server
from physfed_ray.rundir.run_directory import RunDirectory, client_file


class ClientNetwork:
    """The network of a host, with the states of its clients and their data.

    Args:
        spec: The federation.
        locate: Where this machine keeps a file of ``spec.files``.

    Attributes:
        module: The network; its tensors are views of ``shared`` and ``private``.
        optimizer: Over both.
        states: The clients' private states.
        inference: Denoises with the network as it is.
    """

    def __init__(self, spec: Spec, locate: Callable[[Path], Path] = lambda path: path) -> None:
        torch.set_num_threads(spec.training.threads)
        self.spec, self._locate = spec, locate
        self._data: dict[tuple[Path, ...], ClientData] = {}
        self._own: torch.Tensor | None = None  # set aside while the network reads a mapped vector
        self.module, (self.shared, self.private), self.optimizer = build_network(spec)
        self.inference = Inference(spec.method, self.module, spec.device, spec.precision)
        self.states = PrivateStates(
            self.shared,
            self.private,
            self.optimizer,
            spec.optimizer_state,
            spec.private_memory_mb * 1e6,
        )

    @cached_property
    def directory(self) -> RunDirectory | None:
        """The run directory, None when nothing is to be written."""
        return RunDirectory(self.spec.run_root) if self.spec.run_root else None

    def load(self, vector: np.ndarray, turn: ClientTurn, *, trains: bool = False) -> None:
        """Load the shared vector, and the private state of a client.

        Args:
            vector: As in ``load_shared``.
            turn: The client.
            trains: Whether it will train, and so change the shared parameters.
        """
        self.load_shared(vector, trains=trains)
        state: State | None = None
        if turn.private_round > 0:
            state = self.states.get(turn.client, turn.private_round)
            if state is None:
                state = self._read_state(turn)
                self.states.keep(turn.client, turn.private_round, state)
        self.states.swap_in(state)

    def _read_state(self, turn: ClientTurn) -> State:
        name = self.spec.members[turn.client].id
        if self.directory is None:
            raise ValueError(f"the private state of {name} is gone, and no run directory has it")
        return self.directory.read_tensors(client_file(turn.private_round, name), turn.part)

    def load_shared(self, vector: np.ndarray, *, trains: bool = False) -> None:
        """Load the shared vector, (shared size,) float32.

        A network that trains has a vector of its own, and the shared one is copied there. One that
        only denoises on a CPU reads the shared vector where it is, in memory that all hosts of a
        machine map and nobody may write to.

        Raises:
            PhysFedError: The vector has another size.
        """
        expected = self.shared.vector.numel()
        if vector.size != expected:
            raise PhysFedError(
                f"the method shares {expected:,} numbers on node {os.uname().nodename} and "
                f"{vector.size:,} on the parameter server's: every node must run the same version "
                "of physfed_ray and of the method; mend it and run again with --resume"
            )
        given = from_dlpack(vector)
        if not trains and self.spec.device == "cpu":
            self._own = self.shared.vector if self._own is None else self._own
            self.shared.rebind(given)
            return
        if self._own is not None:
            self.shared.rebind(self._own)
            self._own = None
        self.shared.vector.copy_(given)

    def inspect(self, data: ClientData) -> dict[str, float]:
        """Return the state of the method's modulation on some of the images."""
        _, batch = next(iter(whole_batches(data, EVALUATION_BATCH)))
        method = self.spec.method
        with torch.inference_mode():
            seen = method.read(self.module, to_device(batch, self.spec.device))
            return method.inspect(self.module, seen)

    def training_data(self, client: int, number: int) -> ClientData:
        """Return the slices of a member's turn in a round, with the noise of that round.

        The server's keep their noise: its file has no line integrals, whose shape would change with
        the protocol. Pooled slices are scanned under the protocol of the client who owns them.
        Nothing of a round's noise is kept, and the noise-free line integrals stay in their mapped
        files.
        """
        data, spec = self.data(*self.spec.trained_on(client)), self.spec
        if spec.noise == "fixed" or not spec.is_client(client):
            return data
        wanted = dict.fromkeys((*spec.method.extra_fields, EXPECTED.name))
        parts = [
            rescan(spec, owner, number, read_client_data(self._locate(path), wanted))
            for owner, path in spec.training_files(client)
        ]
        new = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        low = new.pop("low")
        extra = {name: new.get(name, old) for name, old in data.extra.items()}
        return replace(data, low=low, extra=extra)

    def data(self, *paths: Path) -> ClientData:
        """Read prepared files, all as one.

        They are kept as long as the host: mapped files take no memory, and the one concatenation,
        of pooled data, is read in every round.
        """
        if not paths:
            raise ValueError("this client has no images of the split asked for")
        if paths not in self._data:
            extra = self.spec.method.extra_fields
            if paths == (self.spec.server_file,):
                extra = on_server(extra)
            parts = [read_client_data(self._locate(path), extra) for path in paths]
            data = parts[0] if len(parts) == 1 else concatenate(parts)
            self._data[paths] = replace(data, protocol=self.spec.scanner_of(paths))
        return self._data[paths]
