"""The frozen DA-CLIP that tells DA-Diff the dose and the anatomy of an image."""

from typing import Any

import torch
from torch import Tensor, nn

from physfed_ray.assets.store import read_asset
from physfed_ray.errors import PhysFedError

RECIPE = "da_clip"


class Perception:
    """An asset's network, made when it is first asked for.

    It is no ``nn.Module``, so that a module which holds it does not have the network as a child: it
    would travel with the shared parameters, or be kept once for every client.

    Args:
        reference: Name or path of the asset.

    Attributes:
        dose_dim: Length of the dose embedding e_d.
        anatomy_dim: Length of the anatomy embedding e_a.

    Raises:
        PhysFedError: There is no such asset, or it is of another recipe.
    """

    def __init__(self, reference: str) -> None:
        self._asset = read_asset(reference)
        about = self._asset.about
        if about.recipe != RECIPE:
            raise PhysFedError(
                f"backbone.asset: {self._asset.name} is an asset of the recipe '{about.recipe}', "
                f"and da_diff needs one of '{RECIPE}': train it with `physfed pretrain`"
            )
        self.dose_dim = int(about.settings["dose_dim"])
        self.anatomy_dim = int(about.settings["anatomy_dim"])
        self._network: nn.Module | None = None

    def __call__(self, low: Tensor) -> tuple[Tensor, Tensor]:
        """Return e_d (B, dose_dim) and e_a (B, anatomy_dim), of unit length, without gradients.

        Args:
            low: Low-dose images or patches, (B, 1, h, w) on [0, 1].
        """
        if self._network is None:
            # Weights made in inference mode could not be used in training.
            with torch.inference_mode(False), torch.random.fork_rng(devices=()):
                self._network = self._asset.network()
        # Weights without content, on which operations are counted, are never moved.
        if any(weight.device != low.device for weight in self._network.parameters()):
            self._network.to(low.device)
        with torch.no_grad(), torch.autocast(low.device.type, enabled=False):
            dose, anatomy = self._network(low.float())
        return dose, anatomy

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network behind: every process makes its own."""
        return {**self.__dict__, "_network": None}
