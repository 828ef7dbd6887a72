"""The patch discriminator of VQGAN: is this patch of the image real, or made of tokens?

P. Isola et al. Image-to-Image Translation with Conditional Adversarial Networks. CVPR 2017; with
the hinge loss and the adaptive weight of Esser et al. 2021.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS = 3
LARGEST_WEIGHT = 1e4
_LEAST_NORM = 1e-4


class PatchDiscriminator(nn.Sequential):
    """Three halving convolutions and two more, with batch norms; 64 filters have 2.76 M weights.

    Args:
        filters: Width of the first layer.
    """

    def __init__(self, filters: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(1, filters, 4, 2, 1), nn.LeakyReLU(0.2)]
        widths = [filters * min(2**number, 8) for number in range(LAYERS + 1)]
        for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
            stride = 2 if number < LAYERS else 1
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """Return the discriminator's loss of its answers to real and made images."""
    return (functional.relu(1 - real).mean() + functional.relu(1 + made).mean()) / 2


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """Return by what the adversarial loss is as strong as the reconstruction's.

    Args:
        reconstruction: Loss that reaches ``last``.
        adversarial: Loss that reaches ``last``.
        last: Weights of the decoder's last layer.

    Returns:
        The ratio of the norms of their gradients, detached.
    """
    norms = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
        for loss in (reconstruction, adversarial)
    ]
    weight: Tensor = (norms[0] / (norms[1] + _LEAST_NORM)).clamp(0, LARGEST_WEIGHT).detach()
    return weight
