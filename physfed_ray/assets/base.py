"""What a recipe is: a network that ``physfed pretrain`` trains once, and how.

The trained network is an asset: frozen, read by an objective or a backbone, never shared by a
method (a part of the network would travel in every round, and be kept once for every client).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from physfed_ray.ct.protocol import Protocol
from physfed_ray.fields import Batch


class RecipeSettings(BaseModel):
    """Keys under ``asset:`` beside ``name``; a recipe adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Examples:
    """Slices to learn from, B of them.

    Attributes:
        batch: Their images; ``full`` is the full dose, ``low`` what the protocol made of it.
        protocols: How each was scanned.
        patients: The pseudonym of each one's patient.
        slices: The place of each in its patient.
        reports: What the reporter says of each.
        regions: Region of the body of each, as the reporter or the phantom names it.
        window_hu: HU that are 0 and 1 in the images.
    """

    batch: Batch
    protocols: tuple[Protocol, ...]
    patients: tuple[str, ...]
    slices: tuple[int, ...]
    reports: tuple[str, ...]
    regions: tuple[str, ...]
    window_hu: tuple[float, float]

    def __len__(self) -> int:
        return len(self.patients)

    def rows(self, kept: Sequence[int]) -> "Examples":
        """Return some of the slices."""
        rows = torch.tensor(kept, dtype=torch.int64)
        batch = self.batch.each(lambda name, tensor: tensor[rows.to(tensor.device)])
        g, origin = (t[rows.to(t.device)] for t in (self.batch.g, self.batch.origin))
        return Examples(
            replace(batch, g=g, origin=origin),
            tuple(self.protocols[row] for row in kept),
            tuple(self.patients[row] for row in kept),
            tuple(self.slices[row] for row in kept),
            tuple(self.reports[row] for row in kept),
            tuple(self.regions[row] for row in kept),
            self.window_hu,
        )


@dataclass(frozen=True)
class Table:
    """A table of an asset's page.

    Attributes:
        title: What it shows, a sentence.
        columns: Names of its columns.
        rows: Its cells, as words and numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


class Recipe(ABC):
    """How a frozen network is trained.

    Args:
        settings: An instance of ``Settings``.

    Attributes:
        name: Its name in files.
        title: What it is, in words.
        paper: Citation, and how faithful this is to it.
        Settings: Schema of the keys under ``asset:``.
        scanned: Whether it reads low-dose images. Its file then names ``protocols``, under each of
            which every slice is scanned; otherwise ``low`` is ``full``.
        fixed_size: Whether its network fits images of the size alone that it learned from.
        turns: How many losses take turns in a step, each with an optimizer of its own: 2 with a
            discriminator.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = RecipeSettings
    scanned: ClassVar[bool] = False
    fixed_size: ClassVar[bool] = False

    def __init__(self, settings: BaseModel) -> None:
        self.settings = settings

    @property
    def turns(self) -> int:
        """See the class."""
        return 1

    def constants(self, examples: Sequence[Examples], seed: int) -> Mapping[str, Tensor]:
        """Return what is made once of all training slices and kept with the asset, by name.

        Args:
            examples: All training slices, in order.
            seed: Of the file.
        """
        return {}

    def words(self) -> Mapping[str, Sequence[str]]:
        """Return lists of words that ``constants`` has chosen, kept with the asset, by name."""
        return {}

    @abstractmethod
    def network(self, constants: Mapping[str, Tensor]) -> nn.Module:
        """Return a new network; torch's generator has been seeded.

        Everything that an objective or a backbone will read is in it, the constants as buffers.
        Parts that only training needs are children named ``training_only``; they are not kept.
        """

    def parameters(self, network: nn.Module, turn: int) -> list[nn.Parameter]:
        """Return what the optimizer of a turn changes: all that has gradients."""
        return [p for p in network.parameters() if p.requires_grad]

    @abstractmethod
    def loss(
        self, network: nn.Module, examples: Examples, step: int, turn: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch in a turn, and its detached parts by name.

        Args:
            network: In training mode.
            examples: Whole slices, drawn without regard to patient or protocol.
            step: Steps made before this one.
            turn: Which of ``turns``.
        """

    @abstractmethod
    def scores(self, network: nn.Module, held_out: Sequence[Examples]) -> dict[str, float]:
        """Return how good the trained network is, on patients that it has not seen."""

    def tables(self, network: nn.Module, held_out: Sequence[Examples]) -> Sequence[Table]:
        """Return what the asset's page shows beside settings, losses and scores."""
        return ()


def frozen(network: nn.Module) -> nn.Module:
    """Return a network without what only its training needs, in evaluation mode and without grads.

    Args:
        network: What ``Recipe.network`` returned; changed in place.
    """
    if hasattr(network, "training_only"):
        del network.training_only
    network = network.requires_grad_(False).eval()
    tensors = (*network.parameters(), *network.buffers())
    # Tensors without content, on which operations are counted, cannot be moved.
    if any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors):
        network.to(torch.float32)
    return network
