"""The mean squared error, the loss of Yang et al. 2025 (the first term of eq. 9)."""

from torch import Tensor
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective


class MeanSquaredError(Objective):
    """Mean of (y - y_full)^2 over pixels and images."""

    name = "mse"
    title = "mean squared error"
    paper = "Chen et al. 2017, IEEE TMI; Yang et al. 2025, CVPR"

    def __call__(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, whose only part is ``mse``."""
        mse = functional.mse_loss(denoised.float(), batch.full.float())
        return mse, {"mse": mse.detach()}
