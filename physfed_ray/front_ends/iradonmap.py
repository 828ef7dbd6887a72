"""iRadonMAP: an inverse Radon transform that is learned (He, Wang, Ma 2020).

A linear layer filters each row of bins, the same for all views and without a bias; a back
projection along the sinusoids follows it; an image network comes after both:

    q = W p          W = (I + step D) R              R: ramp filter of the scanner's own FBP
    x = sum over views v of  a(v) or a(v, pixel)  times q, interpolated at each pixel

The image network is the experiment's backbone. Everything that follows from the geometry is
computed from the client's protocol. Learned are D, and ``a - 1``: both start at zero, and with them
the network at the FBP.

Departures from the paper: its back projection reads the nearest bin, this one interpolates between
two, as the FBP does; its tanh behind the filter is left out, with which no network starts at the
FBP. Leuschner's dival leaves it out as well, because results were worse with it.

D acts on filtered rows. As a change of R's own entries it would be next to impossible to train by
Adam, which moves all entries alike: line integrals are positive and R all but removes their mean,
so that a step of 1e-3 in each entry of R outshines the image a hundred times.

Source: "Radon inversion via deep learning", IEEE TMI 39(6):2076; arXiv 1808.03015.
"""

from functools import lru_cache
from typing import Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.ct.attenuation import AIR_HU, MU_WATER_PER_MM
from physfed_ray.ct.backprojection import back_project_pixelwise, back_project_views
from physfed_ray.ct.fbp import filter_matrix, ray_weights, view_weight
from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.front_ends.base import FrontEnd, FrontEndSettings, Scanners

MOST_WEIGHTS = 20_000_000
"""Of a back projection by view and pixel. Every client keeps them, with Adam's two moments: 240 MB;
a training step takes 480 MB more."""


class IRadonMAPSettings(FrontEndSettings):
    """Keys under ``front_end:``."""

    filter: Literal["learned", "fixed"] = Field(
        "learned",
        description="along the detector: a matrix that starts as the scanner's ramp, or that ramp",
    )
    back_projection: Literal["fixed", "view", "pixel"] = Field(
        "view",
        description="fixed: by geometry alone; view: a learned gain for each view; pixel: a "
        "learned weight for each view and pixel, for small images",
    )
    filter_step: float = Field(
        0.01,
        gt=0,
        le=1,
        description="what a change of 1 in a learned entry changes in the filter, relative to the "
        "ramp: the learning rate of the filter is training.lr times this",
    )

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.filter == self.back_projection == "fixed":
            raise ValueError(
                "filter: fixed and back_projection: fixed leave nothing to learn; for the FBP as "
                "it is, leave front_end out"
            )
        return self


class RadonInversion(nn.Module):
    """From sinograms of any of the scanners to images.

    Parameters are as large as the largest scanner wants them, so that the clients of a host can
    take turns on one network; what a client's own scanner has no place for stays zero.

    Args:
        settings: What is learned.
        scanners: For which scanners.
    """

    def __init__(self, settings: IRadonMAPSettings, scanners: Scanners) -> None:
        super().__init__()
        self.settings, self.scanners = settings, scanners
        views = max(protocol.views for protocol in scanners.protocols)
        bins = max(protocol.bins for protocol in scanners.protocols)
        if settings.filter == "learned":
            self.filter = nn.Parameter(torch.zeros(bins, bins))
        if settings.back_projection == "view":
            self.gain = nn.Parameter(torch.zeros(views))
        if settings.back_projection == "pixel":
            size = scanners.simulation.image_size
            self.weight = nn.Parameter(torch.zeros(views, size, size))

    def forward(self, batch: Batch) -> Tensor:
        """Return images (B, 1, n, n) of ``batch["sinogram"]``, in [0, 1] of the window.

        They are cut off at the ends of the window as all images of a federation are. Nothing is
        lost to training by that: where they lie beyond it the label is at the same end. Computed
        in the parameters' type, under autocast as well: the ramp all but cancels neighbouring bins,
        which 8 bits do not tell apart.

        Raises:
            ValueError: The batch does not say which scanner measured it.
        """
        if batch.protocol is None:
            raise ValueError("iradonmap needs the protocol under which a batch was measured")
        sinogram = batch["sinogram"]
        with torch.autocast(sinogram.device.type, enabled=False):
            measured = sinogram.to(next(self.parameters()))
            mu = self.attenuation(measured, batch.protocol)
            low, high = self.scanners.window_hu
            hu = mu * (1000 / MU_WATER_PER_MM) + AIR_HU
            return ((hu - low) / (high - low)).clamp(0, 1)[:, None]

    def attenuation(self, sinogram: Tensor, protocol: Protocol) -> Tensor:
        """Return images (B, n, n), attenuation per mm, of sinograms (B, views, bins).

        The order is that of ``ct.fbp.fbp``.
        """
        weighted = sinogram * ray_weights(protocol, sinogram)
        filtered = functional.linear(weighted, self._filter(protocol, sinogram))
        return self._back_project(filtered, protocol) * view_weight(protocol)

    def _filter(self, protocol: Protocol, like: Tensor) -> Tensor:
        """Return W, (bins, bins), of ``like``'s type and on its device."""
        simulation, bins = self.scanners.simulation, protocol.bins
        size, kernel_mm = simulation.image_size, simulation.kernel_mm(protocol)
        ramp = _ramp(protocol, size, kernel_mm, like.dtype, like.device)
        if self.settings.filter == "fixed":
            return ramp
        return ramp.addmm(self.filter[:bins, :bins], ramp, alpha=self.settings.filter_step)

    def _back_project(self, filtered: Tensor, protocol: Protocol) -> Tensor:
        """Return the sum over views, (B, n, n)."""
        size, views = self.scanners.simulation.image_size, protocol.views
        if self.settings.back_projection == "pixel":
            weight = 1 + self.weight[:views]
            return back_project_pixelwise(filtered, weight, protocol, size)
        if self.settings.back_projection == "view":
            filtered = filtered * (1 + self.gain[:views, None])
        return back_project_views(filtered, protocol, size)


@lru_cache(maxsize=16)
def _ramp(
    protocol: Protocol, size: int, kernel_mm: float | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return R, (bins, bins); it is kept, and serves training even if denoising asked for it."""
    with torch.inference_mode(False):
        return filter_matrix(protocol, size, kernel_mm).to(device, dtype)


class IRadonMAP(FrontEnd):
    """Learned filtering along the detector, and a learned back projection."""

    name = "iradonmap"
    title = "iRadonMAP"
    paper = "He, Wang, Ma 2020"
    Settings = IRadonMAPSettings
    settings: IRadonMAPSettings
    fields = ("sinogram",)
    of_images = False

    def __init__(self, settings: BaseModel) -> None:
        super().__init__(settings)

    def refuses(self, scanners: Scanners) -> str | None:
        """Return why a weight for each view and pixel takes too much memory, if it does."""
        size = scanners.simulation.image_size
        views = max(protocol.views for protocol in scanners.protocols)
        if self.settings.back_projection != "pixel" or views * size**2 <= MOST_WEIGHTS:
            return None
        return (
            f"front_end.back_projection: a weight for each of {views} views and {size} x {size} "
            f"pixels makes {views * size**2:,} numbers a client, and at most {MOST_WEIGHTS:,} are "
            "possible; choose 'view', or lower data.image_size"
        )

    def module(self, scanners: Scanners) -> nn.Module:
        """Return the network from sinograms to images.

        Raises:
            PhysFedError: Its weights take too much memory.
        """
        if (reason := self.refuses(scanners)) is not None:
            raise PhysFedError(reason)
        return RadonInversion(self.settings, scanners)
