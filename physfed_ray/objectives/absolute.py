"""The mean absolute error, and Charbonnier's smooth form of it.

Both weigh a large error less than its square does, so that a few streaks count less beside the
noise of all pixels. With d = y - y_full:

    l1          = mean |d|                         Zhao et al. 2017, "Loss functions for image
                                                   restoration with neural networks", IEEE TCI 3(1)
    charbonnier = mean sqrt(d^2 + eps^2)           Charbonnier et al. 1994, "Two deterministic
                                                   half-quadratic regularization algorithms for
                                                   computed imaging", ICIP; as a training loss
                                                   Lai et al. 2017, CVPR
"""

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective, ObjectiveSettings


class MeanAbsoluteError(Objective):
    """Mean of |y - y_full| over pixels and images."""

    name = "l1"
    title = "mean absolute error"
    paper = "Zhao et al. 2017, IEEE TCI"

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, whose only part is ``l1``."""
        l1 = functional.l1_loss(denoised.float(), batch.full.float())
        return l1, {"l1": l1.detach()}


class CharbonnierSettings(ObjectiveSettings):
    """Keys under ``training.objective:`` for Charbonnier's loss."""

    eps: float = Field(
        1e-3,
        gt=0,
        description="error below which the loss is like a square, as a share of the HU window; "
        "1e-3 in Lai et al. 2017",
    )


class Charbonnier(Objective):
    """Mean of sqrt((y - y_full)^2 + eps^2) over pixels and images; eps where the images agree."""

    name = "charbonnier"
    title = "Charbonnier's loss"
    paper = "Charbonnier et al. 1994, ICIP; Lai et al. 2017, CVPR"
    Settings = CharbonnierSettings
    settings: CharbonnierSettings

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, whose only part is ``charbonnier``."""
        d = denoised.float() - batch.full.float()
        loss = (d.square() + self.settings.eps**2).sqrt().mean()
        return loss, {"charbonnier": loss.detach()}
