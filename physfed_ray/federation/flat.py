"""Parameters as views of one flat float32 vector, so that what travels is one contiguous array."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
    """The named children of a network, with every parameter and float buffer in one flat vector.

    The network's own tensors become views of ``vector``: writing the vector changes the network,
    and training the network changes the vector, without a copy. Parameters come first, child by
    child, then the persistent float buffers (running statistics), which no optimiser touches.

    Attributes:
        vector: (size,) float32, on the network's device.
        entries: Layout of the vector.
        parameters: One flat leaf a child, a view of ``vector`` whose ``grad`` is a view of one
            flat gradient: what an optimiser is given.
        gradient: (trainable size,) float32.
    """

    def __init__(self, network: nn.Module, children: Sequence[str]) -> None:
        modules = {child: network.get_submodule(child) for child in children}
        trainable = [
            (child, f"{child}.{name}", parameter)
            for child, module in modules.items()
            for name, parameter in module.named_parameters()
        ]
        buffers = list(_persistent_float_buffers(modules))
        device = next((p.device for _, _, p in trainable), torch.device("cpu"))
        total = sum(p.numel() for _, _, p in trainable)
        size = total + sum(owner.get_buffer(leaf).numel() for _, owner, leaf in buffers)
        self.vector = torch.zeros(size, device=device)
        self.gradient = torch.zeros(total, device=device)
        self.entries: list[Entry] = []
        spans: dict[str, list[int]] = {}
        offset = 0
        for child, name, parameter in trainable:
            view = self._place(name, parameter.detach(), offset)
            parameter.data = view
            parameter.grad = self.gradient[offset : offset + view.numel()].view(view.shape)
            spans.setdefault(child, [offset, offset])[1] = offset + view.numel()
            offset += view.numel()
        for name, owner, leaf in buffers:
            view = self._place(name, owner.get_buffer(leaf), offset)
            setattr(owner, leaf, view)
            offset += view.numel()
        self.parameters: dict[str, nn.Parameter] = {}
        for child, (start, stop) in spans.items():
            parameter = nn.Parameter(self.vector[start:stop])
            parameter.grad = self.gradient[start:stop]
            self.parameters[child] = parameter

    def _place(self, name: str, value: Tensor, offset: int) -> Tensor:
        entry = Entry(name, tuple(value.shape), offset)
        self.entries.append(entry)
        view = self.vector[offset : offset + entry.size].view(entry.shape)
        view.copy_(value)
        return view

    def named(self, vector: Tensor | None = None) -> dict[str, Tensor]:
        """Return the tensors of ``vector`` (default: the current one) by name, as views."""
        flat = self.vector if vector is None else vector
        return {e.name: flat[e.offset : e.offset + e.size].view(e.shape) for e in self.entries}

    def pack(self, named: Mapping[str, Tensor]) -> Tensor:
        """Return a new flat vector with the given tensors; the inverse of ``named``."""
        if not self.entries:
            return torch.zeros(0)
        return torch.cat([named[entry.name].reshape(-1).float() for entry in self.entries])


def _persistent_float_buffers(
    modules: Mapping[str, nn.Module],
) -> Iterator[tuple[str, nn.Module, str]]:
    for child, module in modules.items():
        kept = module.state_dict()
        for name, buffer in module.named_buffers():
            if name in kept and buffer.is_floating_point():
                path, _, leaf = name.rpartition(".")
                yield f"{child}.{name}", module.get_submodule(path), leaf
