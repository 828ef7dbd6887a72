"""The steps of a pretraining, which a recipe's losses take in turn."""

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from physfed_ray.assets.base import Examples, Recipe, Table
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.pretrain import PretrainTraining
from physfed_ray.federation.client.training import (
    ALONE,
    Team,
    autocast,
    seed_torch,
    to_device,
)
from physfed_ray.pretraining.checkpoint import Checkpoint, Course, pack
from physfed_ray.pretraining.slices import Slices
from physfed_ray.seeds import derive_seed

LOOK_EVERY = 50
"""Steps after which losses are read from the device, where nothing else asks for them."""


@dataclass(frozen=True)
class Job:
    """All that a process needs to train: plain, picklable values.

    Attributes:
        recipe: The recipe, whose ``constants`` have been made.
        constants: What it made.
        train: Slices to learn from.
        held_out: Slices to score on.
        seed: Of the file.
        training: Steps, batch size, learning rate, betas, threads.
        precision: Already resolved.
        device: ``cpu`` or ``cuda``.
    """

    recipe: Recipe
    constants: Mapping[str, Tensor]
    train: Slices
    held_out: Slices
    seed: int
    training: PretrainTraining
    precision: Literal["fp32", "bf16"]
    device: str


class Watch(typing.Protocol):
    """Is told how a training goes on."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Learn the losses of a step."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Learn the scores after a step."""

    def checkpoint(self, step: int, content: bytes) -> None:
        """Keep a state to go on from; the last one is the trained network."""


@dataclass(frozen=True)
class Outcome:
    """What a training ends with, beside its last checkpoint.

    Attributes:
        scores: On the held-out slices.
        tables: For the page.
    """

    scores: dict[str, float]
    tables: tuple[Table, ...]


def new_network(job: Job) -> nn.Module:
    """Return the network as it is before the first step, on the CPU."""
    seed_torch(derive_seed(job.seed, "pretrain", "network"), "cpu")
    return job.recipe.network(job.constants)


def train(job: Job, begin: bytes | None, watch: Watch, team: Team = ALONE) -> Outcome | None:
    """Train to the end, and score.

    Args:
        job: What to train.
        begin: The checkpoint to go on from, None to begin.
        watch: Is told how it goes, by the first process of a team.
        team: Who trains with this process; all call this function with the same arguments.

    Returns:
        None in all processes of a team but the first.

    Raises:
        PhysFedError: A loss is not finite.
    """
    leads = getattr(team, "rank", 0) == 0
    network = new_network(job).to(job.device)
    optimizers = [_optimizer(job, network, turn) for turn in range(job.recipe.turns)]
    course, done = Course(), 0
    if begin is not None:
        at = Checkpoint.read(begin)
        at.fill(network)
        at.fill_optimizers(optimizers)
        course, done = at.course, at.step
    waiting: list[tuple[int, dict[str, Tensor]]] = []
    network.train()
    for step in range(done, job.training.steps):
        values = _step(job, network, optimizers, step, team)
        if leads:
            waiting.append((step + 1, values))
        now = Now(step + 1, job.training)
        if leads and now.looks:
            _read(waiting, course, watch)
        if leads and now.scores and not now.ends:
            course.scores.append((now.step, _scores(job, network)))
            watch.scores(*course.scores[-1])
        if leads and now.keeps:
            watch.checkpoint(now.step, pack(network, optimizers, now.step, course))
    return _end(job, network, watch) if leads else None


@dataclass(frozen=True)
class Now:
    """What is due after a step, counted from 1."""

    step: int
    training: PretrainTraining

    @property
    def ends(self) -> bool:
        """Whether it was the last one."""
        return self.step == self.training.steps

    @property
    def scores(self) -> bool:
        """Whether the held-out patients are scored."""
        return self.step % self.training.evaluate_every == 0

    @property
    def keeps(self) -> bool:
        """Whether a checkpoint is kept."""
        return self.step % self.training.checkpoint_every == 0 or self.ends

    @property
    def looks(self) -> bool:
        """Whether losses are read."""
        return self.step % LOOK_EVERY == 0 or self.scores or self.keeps


def _end(job: Job, network: nn.Module, watch: Watch) -> Outcome:
    scores = _scores(job, network)
    watch.scores(job.training.steps, scores)
    with _judged(network):
        return Outcome(scores, tuple(job.recipe.tables(network, _there(job))))


def _optimizer(job: Job, network: nn.Module, turn: int) -> torch.optim.Optimizer:
    parameters = job.recipe.parameters(network, turn)
    return torch.optim.Adam(parameters, lr=job.training.lr, betas=job.training.betas)


def _step(
    job: Job,
    network: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    team: Team,
) -> dict[str, Tensor]:
    """Make one step of all turns; return the losses and their parts, over the whole batch."""
    seed_torch(derive_seed(job.seed, "pretrain", step, "torch"), job.device)
    numbers = job.train.draw(job.seed, step, job.training.batch_size)
    rows, weight = team.rows(len(numbers))
    examples = on_device(job.train.examples(numbers[rows.numpy()]), job.device)
    values: dict[str, Tensor] = {}
    for turn, optimizer in enumerate(optimizers):
        name = "loss" if len(optimizers) == 1 else f"loss_{turn + 1}"
        network.zero_grad(set_to_none=True)
        with autocast(job.device, job.precision):
            loss, parts = job.recipe.loss(network, examples, step, turn)
        torch.autograd.backward(loss * weight)
        _add_up(optimizer, team)
        optimizer.step()
        values |= team.mean({name: loss.detach(), **parts}, weight)
    return values


def _add_up(optimizer: torch.optim.Optimizer, team: Team) -> None:
    """Replace the gradients by the sum of all processes', in one piece."""
    if team is ALONE:
        return
    held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not held:
        return
    flat = torch.cat([p.grad.flatten().float() for p in held])
    team.add_up(flat)
    for p, part in zip(held, torch.split(flat, [p.numel() for p in held]), strict=True):
        p.grad.copy_(part.view_as(p))


def _read(waiting: list[tuple[int, dict[str, Tensor]]], course: Course, watch: Watch) -> None:
    """Read the losses of the last steps from the device, all at once.

    Raises:
        PhysFedError: One is not finite.
    """
    for step, values in waiting:
        numbers = torch.stack([value.detach().double() for value in values.values()]).tolist()
        read = dict(zip(values, numbers, strict=True))
        wrong = next((name for name, value in read.items() if not math.isfinite(value)), None)
        if wrong is not None:
            raise PhysFedError(
                f"'{wrong}' is {read[wrong]} in step {step} of the pretraining: lower training.lr, "
                "or look at the images on `physfed reports`"
            )
        course.add(step, read)
    watch.losses(step, read)
    waiting.clear()


def _scores(job: Job, network: nn.Module) -> dict[str, float]:
    with _judged(network):
        return {
            name: float(value) for name, value in job.recipe.scores(network, _there(job)).items()
        }


@contextmanager
def _judged(network: nn.Module) -> Iterator[None]:
    """Judge a network for a while: in evaluation mode, without gradients."""
    network.eval()
    with torch.no_grad():
        yield
    network.train()


def _there(job: Job) -> Sequence[Examples]:
    """Return the held-out slices, on the device, a few at a time."""
    return [on_device(examples, job.device) for examples in job.held_out.all()]


def on_device(examples: Examples, device: str) -> Examples:
    """Return examples whose images are on a device."""
    return replace(examples, batch=to_device(examples.batch, device))
