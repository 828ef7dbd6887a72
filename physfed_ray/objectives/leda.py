"""LEDA: images agree in a frozen encoder's features, and in the words that these are nearest to.

Z. Chen, T. Chen, C. Wang, C. Niu, G. Wang, H. Shan. Low-dose CT Denoising with Language-engaged
Dual-space Alignment. 2024, arXiv 2403.06128, eq. (3), with lambda = 0.5:

    L = |y - y'|^2 + lambda (|z - z'|^2 + |z_q - z'_q|^2)          means over elements

z = E(y) are the features of the full-dose image y, z' those of the denoised y', and z_q the
average embedding of the pyramid's tokens. The quantizer passes gradients straight through, so that
the gradient of the discrete term is 2 (z'_q - z_q) / n with respect to z'.

E and the codebook are an asset, trained before by ``physfed pretrain`` (``assets/leda``).
``encoder: random`` is a control: the same network and codebook, its weights not trained.
"""

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.assets.leda.autoencoder import Eye, Leda
from physfed_ray.assets.leda.settings import LARGEST_FACTOR
from physfed_ray.assets.reference import AssetReference
from physfed_ray.assets.store import read_asset
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective, ObjectiveSettings
from physfed_ray.objectives.registry import make_objective
from physfed_ray.seeds import derive_seed

NETWORK = "leda"
SMOOTH = (16, 1, 8, 8)
"""Shape of the noise from which smooth images are made, to size the features of a control."""


class LedaSettings(ObjectiveSettings):
    """Keys under ``training.objective:`` for LEDA."""

    asset: AssetReference = Field(
        description="the autoencoder: its name, or a path relative to this file"
    )
    weight: float = Field(0.5, ge=0, description="lambda, of both terms; 0.5 in the paper")
    terms: Literal["both", "continuous", "discrete"] = Field(
        "both", description="whether features, token embeddings, or both are compared"
    )
    base: Literal["mse", "l1", "charbonnier", "ssim_mixed"] = Field(
        "mse",
        description="objective that LEDA is added to, with its own defaults; mse in the paper",
    )
    encoder: Literal["trained", "random"] = Field(
        "trained", description="random: the same network with random weights, as a control"
    )
    seed: int = Field(0, ge=0, description="of random weights")


class LedaObjective(Objective):
    """The base loss, and lambda times what a frozen encoder and its codebook see."""

    name = "leda"
    title = "language-engaged dual-space alignment"
    paper = "Chen et al. 2024, arXiv 2403.06128"
    Settings = LedaSettings
    settings: LedaSettings

    def __init__(self, settings: LedaSettings) -> None:
        super().__init__(settings)
        self.base = make_objective(settings.base)

    @property
    def smallest_side(self) -> int:
        """One position of the coarsest latent grid that there can be; the asset is not read."""
        return max(LARGEST_FACTOR, self.base.smallest_side)

    def assets(self) -> tuple[str, ...]:
        """Return the autoencoder's asset."""
        return (self.settings.asset,)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return how to make the encoder with its codebook."""
        return {NETWORK: self._make}

    def _make(self) -> nn.Module:
        asset = read_asset(self.settings.asset)
        if asset.about.recipe != NETWORK:
            raise PhysFedError(
                f"training.objective.asset: {asset.name} is an asset of the recipe "
                f"{asset.about.recipe}: name one that was trained as {NETWORK}"
            )
        network = asset.network()
        eye = Eye(cast(Leda, network))
        if self.settings.encoder == "random":
            torch.manual_seed(derive_seed("leda", "random encoder", self.settings.seed))
            forget(eye)
        return eye

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss; its parts are the base's, ``continuous`` and ``discrete``."""
        network = self.frozen()[NETWORK]
        loss, parts = self.base(denoised, batch)
        with torch.autocast(denoised.device.type, enabled=False):
            z, q = network(denoised.float())
            with torch.no_grad():
                z_full, q_full = network(batch.full.float())
            pairs = {"continuous": (z, z_full), "discrete": (q, q_full)}
            for name, (found, wanted) in pairs.items():
                if self.settings.terms in ("both", name):
                    term = functional.mse_loss(found, wanted)
                    loss = loss + self.settings.weight * term
                    parts = {**parts, name: term.detach()}
        return loss, parts


def forget(eye: Eye) -> None:
    """Give all layers random weights again; statistics of features become those of smooth images.

    Without fresh statistics the control would have features of another size than the trained
    encoder, and differ in more than its training.
    """
    for layer in eye.modules():
        if isinstance(layer, nn.Conv2d | nn.GroupNorm):
            layer.reset_parameters()
    statistics = [layer for layer in eye.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in statistics:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of what it sees
        layer.train()
    images = functional.interpolate(torch.rand(*SMOOTH), scale_factor=8.0, mode="bicubic")
    with torch.no_grad():
        eye(images)
    for layer in statistics:
        layer.eval()
