"""One slice tells a diffusion network how to weight the images of its steps for a new scanner.

Gao et al. 2024, "CoreDiff", section on one-shot learning: the network stands still, and the result
becomes a weighted sum of the image after each step. The weights are a softmax, fitted by Adam
(learning rate 2e-3, 3000 steps, from equal weights) to one pair of low and full dose. The paper's
loss compares features of a VGG16, whose weights are not to be had here: this is the squared error.

The squared error of a weighted sum needs only the products of the steps' errors, so that a fit
takes a second however large the image is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.methods.base import Method
from physfed_ray.models.base import DiffusionBackbone

CHILD = "one_shot"
LEARNING_RATE, STEPS = 2e-3, 3000


class StepWeights(nn.Module):
    """Softmax weights of the images after each step.

    Args:
        steps: How many there are.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(steps))

    def forward(self, images: list[Tensor]) -> Tensor:
        """Return the weighted sum of images (B, 1, h, w)."""
        weights = self.logits.float().softmax(0)
        return torch.stack([w * image for w, image in zip(weights, images, strict=True)]).sum(0)


class WeightedSteps(Method):
    """Goes in front of a method that shares a diffusion network: the weights are private."""

    pooled = False
    uploads = ()

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the method's own children, and the weights."""
        return {**super().children(), CHILD: lambda: StepWeights(sampling(self).steps)}

    def decode(self, network: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """Return the weighted sum of the images after each step, (B, 1, h, w)."""
        (low,) = features
        images = sampling(self).images(network.get_submodule("decoder"), low)
        mixed: Tensor = network.get_submodule(CHILD)(images)
        return mixed


def sampling(method: Method) -> DiffusionBackbone:
    """Return a method's diffusion network.

    Raises:
        PhysFedError: It has another kind of network.
    """
    backbone = method.task.backbone
    if not isinstance(backbone, DiffusionBackbone):
        raise PhysFedError(
            f"--one-shot weights the images between the steps of a diffusion network, and "
            f"{backbone.title} has none: leave it out, or enrol in a run of a diffusion network"
        )
    return backbone


def weighted(method: Method) -> Method:
    """Return a method whose new client has weights of the steps, and nothing else of its own.

    Args:
        method: One that shares its whole network.

    Raises:
        PhysFedError: Its network has no images of steps.
    """
    sampling(method)
    kind: Any = type(f"{type(method).__name__}WithSteps", (WeightedSteps, type(method)), {})
    own: Method = kind(method.settings, method.task)
    own.shared = tuple(method.shared)
    return own


def fit_weights(images: list[Tensor], full: Tensor) -> Tensor:
    """Return the logits (S,) of the weights whose sum of images is nearest to the full dose.

    Args:
        images: After each of S steps, (1, 1, h, w) each.
        full: (1, 1, h, w).
    """
    errors = torch.stack([(image - full).double().flatten() for image in images]).cpu()
    # Weights sum to one, so that the error of the sum is the sum of the errors.
    products = errors @ errors.T
    products = products / products.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    logits = torch.zeros(len(images), dtype=torch.float64)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    for _ in range(STEPS):
        weights = logits.softmax(0)
        gradient = 2 * products @ weights
        logits.grad = weights * (gradient - weights @ gradient)
        optimizer.step()
    return logits.float()
