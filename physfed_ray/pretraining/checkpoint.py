"""Where a pretraining stands, as one safetensors file: resuming gives the same bits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

NETWORK, OPTIMIZER, COURSE = "network:", "optimizer:", "course:"
"""In front of the names of tensors."""


@dataclass
class Course:
    """What was measured so far.

    Attributes:
        losses: Steps, counted from 1, and values of each loss and part, by name.
        scores: Steps and scores on held-out patients.
    """

    losses: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    scores: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Note the losses of a step."""
        for name, value in values.items():
            steps, found = self.losses.setdefault(name, ([], []))
            steps.append(step)
            found.append(value)

    def rows(self) -> list[tuple[int, str, str, float]]:
        """Return everything as rows, sorted: step, split, name, value."""
        found = [
            (step, "train", name, value)
            for name, (steps, values) in self.losses.items()
            for step, value in zip(steps, values, strict=True)
        ]
        found += [
            (step, "held out", name, value)
            for step, scores in self.scores
            for name, value in scores.items()
        ]
        return sorted(found)


def pack(
    network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], step: int, course: Course
) -> bytes:
    """Return the state after a number of steps."""
    tensors = {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    for turn, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{OPTIMIZER}{turn}:{index}:{key}": v for key, v in state.items()}
    for name, (steps, values) in course.losses.items():
        tensors[f"{COURSE}{name}:steps"] = torch.tensor(steps)
        tensors[f"{COURSE}{name}:values"] = torch.tensor(values, dtype=torch.float64)
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    said = {"step": str(step), "scores": json.dumps(course.scores)}
    return safetensors.torch.save(whole, said)


@dataclass(frozen=True)
class Checkpoint:
    """A state that was packed.

    Attributes:
        step: Steps that were made.
        course: What was measured up to it.
        tensors: All tensors by their names in the file.
    """

    step: int
    course: Course
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, content: bytes) -> "Checkpoint":
        """Return the state that ``pack`` returned as bytes."""
        size = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + size])["__metadata__"]
        tensors = safetensors.torch.load(content)
        course = Course(scores=[(step, scores) for step, scores in json.loads(said["scores"])])
        for name in tensors:
            if name.startswith(COURSE) and name.endswith(":steps"):
                plain = name.removeprefix(COURSE).removesuffix(":steps")
                values = tensors[f"{COURSE}{plain}:values"]
                course.losses[plain] = tensors[name].tolist(), values.tolist()
        return cls(int(said["step"]), course, tensors)

    def fill(self, network: nn.Module) -> None:
        """Give a network its weights."""
        network.load_state_dict(
            {
                name.removeprefix(NETWORK): value
                for name, value in self.tensors.items()
                if name.startswith(NETWORK)
            }
        )

    def fill_optimizers(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Give optimizers their moments."""
        for turn, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, Any]] = {}
            for name, value in self.tensors.items():
                if name.startswith(f"{OPTIMIZER}{turn}:"):
                    index, key = name.split(":")[2:]
                    state.setdefault(int(index), {})[key] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
