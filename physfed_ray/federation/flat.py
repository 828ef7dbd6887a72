"""Parameters as views of one flat float32 vector, so that what travels is one contiguous array."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from physfed_ray.methods.base import Method


@dataclass(frozen=True)
class Entry:
    """Where one tensor of a network lies in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class FlatState:
    """Parts of a network, with every parameter and float buffer in one flat vector.

    The network's own tensors become views of ``vector``: writing the vector changes the network,
    and training the network changes the vector, without a copy. Trained parameters come first,
    part by part, then what no optimiser touches: frozen parameters (``requires_grad`` off) and the
    persistent float buffers (running statistics).

    Args:
        network: The network.
        parts: Paths of its submodules, such as ``encoder`` or ``encoder.layers``.

    Attributes:
        vector: (size,) float32, on the network's device.
        entries: Layout of the vector.
        parameters: One flat leaf a part, a view of ``vector`` whose ``grad`` is a view of
            ``gradient``: what an optimiser is given.
    """

    def __init__(self, network: nn.Module, parts: Sequence[str]) -> None:
        modules = {part: network.get_submodule(part) for part in parts}
        named = [
            (part, f"{part}.{name}", parameter)
            for part, module in modules.items()
            for name, parameter in module.named_parameters()
        ]
        self._trained = [entry for entry in named if entry[2].requires_grad]
        self._frozen = [(name, p) for _, name, p in named if not p.requires_grad]
        self._buffers = list(_persistent_float_buffers(modules))
        self.entries: list[Entry] = []
        for _, name, parameter in self._trained:
            self._append(name, parameter)
        self._trainable = self._size
        for name, parameter in self._frozen:
            self._append(name, parameter)
        for name, owner, leaf in self._buffers:
            self._append(name, owner.get_buffer(leaf))
        values = [p.detach() for _, _, p in self._trained] + [p.detach() for _, p in self._frozen]
        values += [owner.get_buffer(leaf) for _, owner, leaf in self._buffers]
        device = values[0].device if values else torch.device("cpu")
        self.parameters = {
            part: nn.Parameter(torch.empty(0, device=device)) for part, _, _ in self._trained
        }
        empty = torch.zeros(0, device=device)
        self.rebind(torch.cat([v.reshape(-1).float() for v in values]) if values else empty)

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of what is trained, (trainable size,) float32, zeros at first.

        It is made when it is first asked for, because the parameter server never needs it, and a
        host only where something trains.
        """
        gradient = torch.zeros(self._trainable, device=self.vector.device)
        views = self.named(gradient, trained=True)
        for _, name, parameter in self._trained:
            parameter.grad = views[name]
        for part, (start, stop) in self._spans().items():
            self.parameters[part].grad = gradient[start:stop]
        return gradient

    def zero_gradient(self) -> None:
        """Make the gradient zeros, before a loss is differentiated."""
        self.gradient.zero_()

    @property
    def _size(self) -> int:
        return self.entries[-1].offset + self.entries[-1].size if self.entries else 0

    def _append(self, name: str, value: Tensor) -> None:
        self.entries.append(Entry(name, tuple(value.shape), self._size))

    def rebind(self, vector: Tensor) -> None:
        """Make the network a view of another vector (of the same size and device)."""
        self.vector = vector
        views = self.named()
        for _, name, parameter in self._trained:
            parameter.data = views[name]
        for name, parameter in self._frozen:
            parameter.data = views[name]
        for name, owner, leaf in self._buffers:
            setattr(owner, leaf, views[name])
        for part, (start, stop) in self._spans().items():
            self.parameters[part].data = vector[start:stop]

    def _spans(self) -> dict[str, tuple[int, int]]:
        spans: dict[str, tuple[int, int]] = {}
        for (part, _, _), entry in zip(self._trained, self.entries, strict=False):
            start, _ = spans.get(part, (entry.offset, 0))
            spans[part] = start, entry.offset + entry.size
        return spans

    def named(self, vector: Tensor | None = None, *, trained: bool = False) -> dict[str, Tensor]:
        """Return the tensors of ``vector`` (default: the current one) by name, as views.

        Args:
            vector: Another vector of this layout.
            trained: Leave out what no optimiser touches.
        """
        flat = self.vector if vector is None else vector
        entries = self.entries[: len(self._trained)] if trained else self.entries
        return {e.name: flat[e.offset : e.offset + e.size].view(e.shape) for e in entries}

    def pack(self, named: Mapping[str, Tensor]) -> Tensor:
        """Return a new flat vector with the given tensors; the inverse of ``named``."""
        if not self.entries:
            return torch.zeros(0)
        return torch.cat([named[entry.name].reshape(-1).float() for entry in self.entries])


def _persistent_float_buffers(
    modules: Mapping[str, nn.Module],
) -> Iterator[tuple[str, nn.Module, str]]:
    for part, module in modules.items():
        kept = module.state_dict()
        for name, buffer in module.named_buffers():
            if name in kept and buffer.is_floating_point():
                path, _, leaf = name.rpartition(".")
                yield f"{part}.{name}", module.get_submodule(path), leaf


def flat_network(
    method: Method, seed: int, device: str
) -> tuple[nn.Module, tuple[FlatState, FlatState]]:
    """Return a new network of a method, and its shared and private part as flat states."""
    network = method.build(seed).to(device)
    private = private_parts(network, method.shared)
    return network, (FlatState(network, method.shared), FlatState(network, private))


def private_parts(network: nn.Module, shared: Sequence[str]) -> list[str]:
    """Return the paths of the largest submodules without anything shared, in the network's order.

    Args:
        network: A network whose parameters all lie in modules that are shared or private whole.
        shared: Paths of the submodules that are shared.
    """
    return [path for path in _without(network, "", frozenset(shared)) if path]


def _without(module: nn.Module, path: str, shared: frozenset[str]) -> Iterator[str]:
    if path in shared:
        return
    if path and not any(name.startswith(f"{path}.") for name in shared):
        yield path
        return
    if any(True for _ in module.parameters(recurse=False)):
        raise ValueError(f"'{path}' has parameters of its own and is neither shared nor private")
    for name, child in module.named_children():
        yield from _without(child, f"{path}.{name}" if path else name, shared)
