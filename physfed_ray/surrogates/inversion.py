"""What did the patient look like? Images that an attacker computes from surrogates.

The attacker has patients of its own, makes surrogates of them as everybody does, and learns the way
back: by a U-Net from the image, and by a ridge regression from the logarithms of the amplitudes.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from physfed_ray.metrics.base import Context
from physfed_ray.metrics.pixelwise import Psnr, Ssim
from physfed_ray.seeds import derive_seed
from physfed_ray.surrogates.batches import batches, in_parts
from physfed_ray.surrogates.file import Attack
from physfed_ray.surrogates.networks import UNet

RIDGE = 0.1
"""Of the regression, as a share of the mean squared length of the features."""


def train_inverter(surrogates: Tensor, patients: Tensor, settings: Attack, seed: int) -> UNet:
    """Return a network that makes patients of surrogates.

    Args:
        surrogates: Of the attacker's own patients, (N, 1, n, n) float32.
        patients: Those patients, same shape, in [0, 1].
        settings: How long and how wide.
        seed: Of weights and batches.
    """
    torch.manual_seed(derive_seed(seed, "inverter", "weights"))
    network = UNet(settings.width, residual=False)
    optimiser = torch.optim.Adam(network.parameters(), settings.lr)
    order = batches(
        len(surrogates), settings.batch_size, settings.epochs, derive_seed(seed, "inverter")
    )
    steps = -(-len(surrogates) // settings.batch_size) * settings.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for chosen in order:
        optimiser.zero_grad()
        functional.mse_loss(network(surrogates[chosen]), patients[chosen]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def inverted(network: UNet, surrogates: Tensor) -> Tensor:
    """Return the patients that a network finds in surrogates, same shape, in [0, 1]."""
    return in_parts(network, surrogates).clamp(0, 1)


def regressed(known: Tensor, patients: Tensor, features: Tensor) -> Tensor:
    """Return the patients that a ridge regression finds in features of surrogates.

    Args:
        known: Features of the attacker's own surrogates, (N, d).
        patients: Those patients, (N, 1, n, n), in [0, 1].
        features: Features of the surrogates that are attacked, (M, d), on the same scale.

    Returns:
        (M, 1, n, n) float32, in [0, 1].
    """
    x, mean = known.double(), patients.double().mean(dim=0)
    gram = x @ x.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(x), dtype=torch.float64)
    weights = torch.linalg.solve(gram, (patients.double() - mean).flatten(1))
    found = features.double() @ x.T @ weights
    images: Tensor = (found.view(-1, *patients.shape[1:]) + mean).clamp(0, 1).float()
    return images


def alikeness(images: Tensor, patients: Tensor) -> dict[str, float]:
    """Return how much images look like patients: correlation, SSIM and PSNR, means over slices.

    Args:
        images: (N, 1, n, n) float32.
        patients: Same shape, in [0, 1]; SSIM and PSNR are in that window.
    """
    one, other = (np.asarray(x[:, 0].numpy(), np.float32) for x in (images, patients))
    context = Context((0.0, 1.0))
    return {
        "correlation": float(correlations(images, patients).mean()),
        "ssim": float(Ssim()(one, other, context).mean()),
        "psnr": float(Psnr()(one, other, context).mean()),
    }


def correlations(images: Tensor, patients: Tensor) -> Tensor:
    """Return the correlation of each image with its patient over all pixels, (N,) float64."""
    x, y = (v.double().flatten(1) for v in (images, patients))
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    length = (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
    found: Tensor = (x * y).sum(dim=1) / length.clamp_min(1e-12)
    return found
