"""CoreDiff: cold diffusion between the full and the low dose.

Gao et al. 2024, "CoreDiff: Contextual error-modulated generalized diffusion model for low-dose CT
denoising and generalization", IEEE Trans. Med. Imaging 43(2) (arXiv 2304.01814), after the paper
and the facts of the authors' public code. Nothing is drawn at random in denoising: the way from the
full dose x_0 to the low dose x_LD is

    x_t = a_t x_0 + (1 - a_t) x_LD,    t = 0 ... T - 1

whose mean over the image lies between the means of both ends. CLEAR-Net estimates x_0 from x_t.

**Training.** A step t is drawn for the whole batch. The first estimate is made of x_t; the second,
modulated by the first and by x_LD, of x_{t-1} with the first estimate in the place of x_0, through
which the gradient flows. The loss is that of both. At t = 0 there is no second.

**Sampling.** It begins with x = x_LD at t = T - 1. With the estimate x_0' of x and the other end
that goes with it, x_LD' = (x - a_t x_0') / (1 - a_t), a step from t to s is

    x <- x - D(x_0', x_LD', t) + D(x_0', x_LD', s),    D(x_0, x_LD, t) = a_t x_0 + (1 - a_t) x_LD

The first difference is zero by the choice of x_LD', so that the step is, without a division by what
may be small, x <- x + (1 - (1 - a_s) / (1 - a_t)) (x_0' - x); the last step returns x_0'. The first
estimate is not modulated, because there is none before it.

Departures: no slices above and below (one input channel), no average of weights over the steps
(EMA; a federation averages over clients), and where fewer steps are taken than trained they are
spread evenly.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.models.base import DiffusionBackbone, Judge, NetworkSettings
from physfed_ray.models.clear_net import ClearNet

LARGEST_SHARE = 0.999
"""Of the full dose in x_0, as in the public code: without it, nothing would be left to restore."""


class CoreDiffSettings(NetworkSettings):
    """Keys under ``backbone:`` for CoreDiff."""

    channels: int = Field(
        64, ge=1, le=1024, description="width of the U-Net at the image's size; 64 in the paper"
    )
    steps_training: int = Field(
        10, ge=1, le=1000, description="steps T of the diffusion; 10 in the paper"
    )
    steps: int = Field(
        10, ge=1, le=1000, description="steps that denoising takes, by default steps_training"
    )
    modulation: bool = Field(
        True, description="whether the last estimate modulates the embedding of the step"
    )
    second_weight: float = Field(
        0.5, ge=0, le=1, description="weight of the second estimate in the loss; 0.5 in the paper"
    )

    @model_validator(mode="before")
    @classmethod
    def _all_steps(cls, given: Any) -> Any:
        """Let denoising take all steps of training unless it is told otherwise."""
        if isinstance(given, dict) and "steps" not in given and "steps_training" in given:
            return {**given, "steps": given["steps_training"]}
        return given

    @model_validator(mode="after")
    def _no_more_steps(self) -> "CoreDiffSettings":
        if self.steps > self.steps_training:
            raise ValueError(
                f"steps is {self.steps}, and the network is trained at steps_training = "
                f"{self.steps_training} steps: set 'steps' to at most as many"
            )
        return self


class CoreDiffSampler(nn.Module):
    """CLEAR-Net and the steps that it takes.

    Args:
        settings: The backbone's.
    """

    share: Tensor
    times: Tensor

    def __init__(self, settings: CoreDiffSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = ClearNet(settings.channels, settings.modulation)
        shares = full_dose_shares(settings.steps_training)
        self.register_buffer("share", torch.tensor(shares), persistent=False)
        self.register_buffer("times", torch.arange(len(shares)), persistent=False)
        self.way = sampled_steps(shares, settings.steps)

    def forward(self, f: Tensor, skips: tuple[Tensor, ...] = ()) -> Tensor:
        """Denoise images (B, 1, h, w)."""
        return self.images(f)[-1]

    def images(self, low: Tensor) -> list[Tensor]:
        """Return the image after each step, (B, 1, h, w) each; the last is the denoised one."""
        x, found = low, list[Tensor]()
        estimate: Tensor | None = None
        for t, onward in self.way:
            estimate = self.network(x, self.times[t : t + 1], self._pair(estimate, low))
            x = torch.lerp(x, estimate, onward)
            found.append(x)
        return found

    def estimates(self, low: Tensor, full: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the first and the second estimate of training, None where T is 1.

        Args:
            low: Low dose, (B, 1, h, w).
            full: Full dose, (B, 1, h, w).
            t: The step, (1,) int64.
        """
        first = self.network(self.degraded(full, low, t), t)
        if len(self.share) == 1:
            return first, None
        before = (t - 1).clamp(min=0)
        seen = self.degraded(first, low, before)
        second = self.network(seen, before, self._pair(first, low))
        # Two passes whatever t is: nobody waits for the device, and every step costs the same.
        return first, torch.where(t > 0, second, first)

    def degraded(self, full: Tensor, low: Tensor, t: Tensor) -> Tensor:
        """Return x_t between both doses, (B, 1, h, w); ``t`` is (1,) int64."""
        return torch.lerp(low, full, self.share[t])

    def _pair(self, estimate: Tensor | None, low: Tensor) -> Tensor | None:
        if estimate is None or not self.settings.modulation:
            return None
        return torch.cat((estimate, low), 1)


def full_dose_shares(steps: int) -> list[float]:
    """Return a_t, the share of the full dose in x_t, for t = 0 ... steps - 1.

    It falls evenly from 1 (clipped) to 0, the low dose. Of a single step it is 0: the public code's
    formula would give the full dose there.
    """
    if steps == 1:
        return [0.0]
    return [min(LARGEST_SHARE, 1 - t / (steps - 1)) for t in range(steps)]


def sampled_steps(shares: Sequence[float], count: int) -> list[tuple[int, float]]:
    """Return the steps t that denoising takes, each with how far it goes to the estimate.

    Args:
        shares: a_t of every step of training.
        count: How many of them to take; they lie as evenly as they can, the last of training first.
    """
    last = len(shares)
    times = [last - 1 - number * last // count for number in range(count)]
    following = [*times[1:], None]
    return [
        (t, 1.0 if s is None else 1 - (1 - shares[s]) / (1 - shares[t]))
        for t, s in zip(times, following, strict=True)
    ]


class CoreDiff(DiffusionBackbone):
    """CoreDiff without context slices."""

    name = "core_diff"
    title = "CoreDiff"
    paper = "Gao et al. 2024, IEEE TMI"
    Settings = CoreDiffSettings
    settings: CoreDiffSettings

    @property
    def label(self) -> str:
        """See ``Backbone``."""
        return f"{self.name} with {self.settings.channels} channels, {self.settings.steps} steps"

    @property
    def steps(self) -> int:
        """See ``DiffusionBackbone``."""
        return self.settings.steps

    def decoder(self) -> nn.Module:
        """See ``Backbone``."""
        return CoreDiffSampler(self.settings)

    def fit(
        self, decoder: nn.Module, batch: Batch, judge: Judge
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``DiffusionBackbone``: (1 - w) loss of the first estimate + w loss of the second."""
        sampler = _sampler(decoder)
        t = torch.randint(self.settings.steps_training, (1,), device=batch.low.device)
        first, second = sampler.estimates(batch.low, batch.full, t)
        loss, parts = judge(first, batch)
        if second is None:
            return loss, parts
        weight = self.settings.second_weight
        loss_second, parts_second = judge(second, batch)
        both = {
            name: (1 - weight) * part + weight * parts_second[name] for name, part in parts.items()
        }
        return (1 - weight) * loss + weight * loss_second, both

    def images(self, decoder: nn.Module, low: Tensor) -> list[Tensor]:
        """See ``DiffusionBackbone``."""
        return _sampler(decoder).images(low)


def _sampler(decoder: nn.Module) -> CoreDiffSampler:
    if not isinstance(decoder, CoreDiffSampler):
        raise TypeError(f"{type(decoder).__name__} is no decoder of core_diff")
    return decoder
