"""A client's private state between rounds: its private parameters and optimiser moments."""

import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import IO, Literal

import safetensors.torch
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.optimizer import FlatOptimizer
from physfed_ray.federation.flat import FlatState

Persistence = Literal["persist_private", "persist_all", "fresh"]
State = Mapping[str, Tensor]
OUTDATED = -1


class PrivateStates:
    """Swaps the private state of clients in and out of one network and its optimiser.

    What is held in memory stays below a budget; beyond it the states that were used least
    recently lie in a file on the host's disk, so that memory does not grow with the clients.

    Args:
        shared: The shared part of the network.
        private: The private part.
        optimizer: Over both.
        persistence: Which of the optimiser's moments belong to the state.
        budget_bytes: Memory for states; the one in use does not count.
    """

    def __init__(
        self,
        shared: FlatState,
        private: FlatState,
        optimizer: FlatOptimizer,
        persistence: Persistence,
        budget_bytes: float,
    ) -> None:
        self._private = private
        self._optimizer = optimizer
        self._initial = private.vector.clone()
        kept: dict[str, nn.Parameter] = {}
        if persistence != "fresh":
            kept.update(private.parameters)
        if persistence == "persist_all":
            kept.update(shared.parameters)
        self._kept = kept
        self._budget = budget_bytes
        self._held: OrderedDict[int, tuple[int, State]] = OrderedDict()
        self._held_bytes = 0
        self._file = _StateFile()

    def get(self, client: int, number: int) -> State | None:
        """Return a client's state after round ``number``, None when it is not at hand."""
        if client in self._held:
            self._held.move_to_end(client)
            held, state = self._held[client]
            return state if held == number else None
        state_on_disk = self._file.get(client, number)
        if state_on_disk is not None:
            self._hold(client, number, state_on_disk)
        return state_on_disk

    def keep(self, client: int, number: int, state: State) -> None:
        """Keep a state as the client's after round ``number``, in memory or in the file."""
        self._file.outdate(client)  # a round that is repeated may end in another state
        self._hold(client, number, state)

    def _hold(self, client: int, number: int, state: State) -> None:
        if client in self._held:
            self._held_bytes -= _size(self._held.pop(client)[1])
        self._held[client] = number, state
        self._held_bytes += _size(state)
        while self._held_bytes > self._budget:
            oldest, (when, old) = self._held.popitem(last=False)
            self._held_bytes -= _size(old)
            if self._file.round_of(oldest) != when:
                self._file.put(oldest, when, old)

    def swap_in(self, state: State | None) -> None:
        """Load a client's state (None: the initial one) into the network and the optimiser."""
        self._optimizer.state.clear()
        if state is None:
            self._private.vector.copy_(self._initial)
            return
        self._private.vector.copy_(self._private.pack(state))
        for part, parameter in self._kept.items():
            prefix = f"optimizer.{part}."
            kept = {
                name.removeprefix(prefix): value.to(parameter.device, copy=True)
                for name, value in state.items()
                if name.startswith(prefix)
            }
            if kept:
                self._optimizer.state[parameter] = kept

    def swap_out(self, client: int, number: int) -> State:
        """Keep a copy, in the CPU's memory, of the current state as the client's after a round.

        A GPU's memory is for the clients that share it to train in, not to wait in.
        """
        state = self._private.named(self._private.vector.to("cpu", copy=True))
        for part, parameter in self._kept.items():
            for name, value in self._optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{part}.{name}"] = value.to("cpu", copy=True)
        self.keep(client, number, state)
        return state


class _StateFile:
    """States on this machine's disk, in one file without a name: it vanishes with the process."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[int, _Place] = {}

    def round_of(self, client: int) -> int | None:
        """Return the round after which the client's state stood that lies here, if one does."""
        return self._places[client].round if client in self._places else None

    def outdate(self, client: int) -> None:
        """Forget what the client's state was, but not its place."""
        if client in self._places:
            self._places[client] = replace(self._places[client], round=OUTDATED)

    def put(self, client: int, number: int, state: State) -> None:
        """Write a state over the client's former one.

        Raises:
            PhysFedError: The disk is full, or refuses.
        """
        content = safetensors.torch.save({name: v.cpu() for name, v in state.items()})
        place = self._places.pop(client, _Place(0, self._end, 0, 0))
        if place.room < len(content):
            place = _Place(0, self._end, 0, len(content))
            self._end += len(content)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, closed with self
            self._file.seek(place.offset)
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            raise PhysFedError(
                f"private states do not fit on the disk under {tempfile.tempdir or '/tmp'} "
                f"({error.strerror}): free space there or set TMPDIR, or raise "
                "federation.private_memory_mb; then run again with --resume"
            ) from error
        self._places[client] = replace(place, round=number, length=len(content))

    def get(self, client: int, number: int) -> State | None:
        """Read a client's state, None when there is none of that round."""
        if self._file is None or self.round_of(client) != number:
            return None
        place = self._places[client]
        self._file.seek(place.offset)
        return safetensors.torch.load(self._file.read(place.length))


@dataclass(frozen=True)
class _Place:
    """Where a state lies in the file, bytes, and the round after which it stood so."""

    round: int
    offset: int
    length: int
    room: int


def _size(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())
