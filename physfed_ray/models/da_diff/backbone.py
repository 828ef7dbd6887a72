"""DA-Diff of FoundDiff as a backbone: one denoiser for many doses, told which dose it sees.

Chen et al. 2025, "FoundDiff: foundational diffusion model for generalizable low-dose CT denoising",
arXiv 2508.17299 (IEEE TMI 2026). Built from the public code, which departs from the paper's figure:
the anatomy embedding is added to the output of the state-space layer (``anatomy: output``) and not
to its scan (``anatomy: scan``), and sampling starts with a tenth of the noise that training shows
at that step (``start_noise: 0.1``).

With two steps the sampler is a regression in two passes: it predicts the residual of the low-dose
image with noise on it, moves part of the way, predicts again, and returns the low-dose image
without the second prediction.

This project's own: the last layer starts at zero, so that an untrained network is the identity; no
moving average of the weights is kept, which the server's mean replaces; whatever the experiment's
objective is judges the estimate low - r_hat, whose squared error is a quarter of the code's loss.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from physfed_ray.assets.reference import AssetReference
from physfed_ray.fields import Batch
from physfed_ray.models.base import DiffusionBackbone, Judge, NetworkSettings
from physfed_ray.models.da_diff.blocks import Anatomy
from physfed_ray.models.da_diff.diffusion import STEPS, coefficients, noise_of, noised, sample
from physfed_ray.models.da_diff.perception import Perception
from physfed_ray.models.da_diff.unet import Dose, UNet

CONSTANT_DIM = 32
"""Length of the constant that stands for the anatomy where there is no perception."""


class DADiffSettings(NetworkSettings):
    """Keys under ``backbone:`` for DA-Diff."""

    channels: int = Field(
        16, ge=1, le=512, description="channels of the first level; 64 in FoundDiff's code"
    )
    levels: int = Field(
        3,
        ge=1,
        le=6,
        description="resolutions, each with twice the channels of the one above; 4 in the code",
    )
    steps: int = Field(2, ge=1, le=STEPS, description="times that the network is asked to denoise")
    start_noise: float = Field(
        0.1,
        ge=0.0,
        le=10.0,
        description="deviation of the noise at the start of denoising, on [-1, 1]: 0.1 in the "
        "code, 1 as in training, 0 for none",
    )
    anatomy: Anatomy = Field(
        "output",
        description="where the anatomy embedding enters the state-space layer: its output, as in "
        "the code, or its scan, as in the paper",
    )
    dose: Dose = Field(
        "prompt",
        description="how the dose embedding enters the condition: prompt, by a softmax over the "
        "numbers of a learned prompt, as in the code; direct, without it",
    )
    asset: AssetReference | None = Field(
        None,
        description="name or path of the DA-CLIP that tells dose and anatomy; null: learned "
        "constants stand for both",
    )


class DADiffDecoder(nn.Module):
    """The network, what it perceives with, and the sampler.

    Args:
        settings: The backbone's.

    Attributes:
        perception: The frozen DA-CLIP, no child of the module; None without an asset.
    """

    def __init__(self, settings: DADiffSettings) -> None:
        super().__init__()
        self.settings = settings
        self.perception = None if settings.asset is None else Perception(settings.asset)
        found = self.perception
        dose_dim = None if found is None else found.dose_dim
        anatomy_dim = CONSTANT_DIM if found is None else found.anatomy_dim
        self.unet = UNet(
            settings.channels,
            settings.levels,
            dose_dim,
            anatomy_dim,
            settings.anatomy,
            settings.dose,
        )
        self.constant = nn.Parameter(torch.randn(anatomy_dim)) if found is None else None

    def forward(self, f: Tensor, skips: tuple[Tensor, ...]) -> Tensor:
        """Denoise images (B, 1, h, w) on [0, 1]."""
        return self.images(f)[-1]

    def images(self, low: Tensor) -> list[Tensor]:
        """Return images (B, 1, h, w) on [0, 1] after each step of denoising."""
        return self.sample(low, *self.perceive(low))

    def perceive(self, low: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return e_d (None without an asset) and e_a of images or patches on [0, 1]."""
        if self.perception is not None:
            return self.perception(low)
        assert self.constant is not None
        return None, self.constant.expand(len(low), -1)

    def sample(self, low: Tensor, dose: Tensor | None, anatomy: Tensor) -> list[Tensor]:
        """Return images after each step of denoising, as their embeddings say.

        Args:
            low: (B, 1, h, w) on [0, 1].
            dose: e_d of each, None without an asset.
            anatomy: e_a of each.

        Returns:
            As many as there are steps, (B, 1, h, w) float32 on [0, 1]; the last is the denoised.
        """
        low = low.float()
        start = torch.zeros_like(low)
        if self.settings.start_noise > 0:
            start = self.settings.start_noise * noise_of(low)
        seen = 2 * low - 1

        def predict(x: Tensor, a: Tensor) -> Tensor:
            residual: Tensor = self.unet(x, seen, a, dose, anatomy)
            return residual

        # What changed is taken off the image as it came: 2 x - 1 and back would round it.
        images = sample(predict, seen, start, self.settings.steps)
        return [(low - (seen - image) / 2).clamp(0, 1) for image in images]

    def estimate(self, batch: Batch, t: Tensor, noise: Tensor) -> Tensor:
        """Return the full-dose images as the network sees them from step t, (B, 1, h, w) float32.

        Args:
            batch: Pairs of images.
            t: Step of each, (B,) int64.
            noise: e, (B, 1, h, w).
        """
        dose, anatomy = self.perceive(batch.low)
        low, full = 2 * batch.low.float() - 1, 2 * batch.full.float() - 1
        a, b = coefficients(t)
        residual: Tensor = self.unet(noised(full, low, a, b, noise), low, a, dose, anatomy)
        return batch.low.float() - residual / 2


class DADiff(DiffusionBackbone):
    """Residual diffusion with a conditioned U-Net; any method that averages networks shares it."""

    name = "da_diff"
    title = "DA-Diff"
    paper = "Chen et al. 2025, arXiv 2508.17299 (FoundDiff), from its public code"
    Settings = DADiffSettings
    no_graph = "its start noise follows from the bytes of each image, which no graph can read"
    settings: DADiffSettings

    @property
    def label(self) -> str:
        """See ``Backbone``."""
        widths = "-".join(str(self.settings.channels * 2**k) for k in range(self.settings.levels))
        told = "without perception" if self.settings.asset is None else "with DA-CLIP"
        return f"{self.name} {widths} {told}"

    def assets(self) -> tuple[str, ...]:
        """See ``Backbone``."""
        return () if self.settings.asset is None else (self.settings.asset,)

    @property
    def steps(self) -> int:
        """See ``DiffusionBackbone``."""
        return self.settings.steps

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return DADiffDecoder(self.settings)

    def fit(
        self, decoder: nn.Module, batch: Batch, judge: Judge
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the objective says of the estimates from a random step of each image.

        Of patches, dose and anatomy are perceived on the patch: the slice is not at hand.
        """
        low = batch.low
        t = torch.randint(STEPS, (len(low),), device=low.device)
        noise = torch.randn_like(low, dtype=torch.float32)
        estimate: Tensor = decoder.estimate(batch, t, noise)  # type: ignore[operator]
        return judge(estimate, batch)

    def images(self, decoder: nn.Module, low: Tensor) -> list[Tensor]:
        """See ``DiffusionBackbone``."""
        images: list[Tensor] = decoder.images(low)  # type: ignore[operator]
        return images
