"""What an objective is: the loss of denoised images, and the frozen networks that it needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.seeds import derive_seed


class ObjectiveSettings(BaseModel):
    """Keys under ``training.objective:`` beside ``name``; an objective adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Objective(ABC):
    """The reconstruction loss of every method.

    Args:
        settings: An instance of ``Settings``.

    Attributes:
        name: Its name in experiments.
        title: What it is, in words.
        paper: Citation.
        Settings: Schema of the keys under ``training.objective:`` beside ``name``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[BaseModel]] = ObjectiveSettings

    def __init__(self, settings: BaseModel) -> None:
        self.settings = settings
        self._frozen: dict[str, nn.Module] = {}

    @abstractmethod
    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts by the names that they have in the metrics of a run.

        The loss is a float32 scalar whatever the precision of training is, and a mean over the
        images of the batch: workers that share a batch then agree on the mean of their losses.

        Args:
            denoised: (B, 1, h, w), 0 and 1 are the ends of the HU window.
            batch: What was denoised; ``full`` is the target.
        """

    @property
    def smallest_side(self) -> int:
        """Side in pixels of the smallest image that it can judge."""
        return 1

    def assets(self) -> tuple[str, ...]:
        """Return the assets that its settings name: names or paths, as ``read_asset`` takes them.

        An experiment checks them before it begins, and Ray brings them to the hosts.
        """
        return ()

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the frozen networks that it needs: name -> how to make it.

        They are no part of the method's network: nothing of them is shared, trained or saved.
        """
        return {}

    def prepare(self, device: str) -> None:
        """Make the frozen networks and move them to a device; a host does so once."""
        target = torch.device(device)
        for name, make in self.networks().items():
            if name not in self._frozen:
                with torch.random.fork_rng(devices=()):
                    torch.manual_seed(derive_seed("objective", self.name, name))
                    self._frozen[name] = make().requires_grad_(False).eval()
            network = self._frozen[name]
            # Tensors without content, on which operations are counted, cannot be moved.
            if any(t.device != target for t in (*network.parameters(), *network.buffers())):
                network.to(target)

    def frozen(self) -> Mapping[str, nn.Module]:
        """Return the networks that ``prepare`` has made."""
        return self._frozen

    def __getstate__(self) -> dict[str, Any]:
        """Leave the networks behind: every process makes its own."""
        return {**self.__dict__, "_frozen": {}}
