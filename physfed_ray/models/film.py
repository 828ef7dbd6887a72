"""Modulation of every convolution of a network, with values that each image has of its own.

Perez et al. 2018, "FiLM: Visual reasoning with a general conditioning layer", AAAI: behind each
convolution, before what follows it, a channel h becomes alpha h + beta.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from physfed_ray.models.modulation import by_protocol


def modulated_widths(make: Callable[[], nn.Module]) -> list[int]:
    """Return the channels of the convolutions of a module, in the order of ``modulated``."""
    with torch.device("meta"):
        return [layer.out_channels for layer in _convolutions(make())]


def modulated(module: nn.Module, alpha: Tensor, beta: Tensor, *inputs: Any) -> Any:
    """Return what a module makes of its inputs with its convolutions modulated.

    Args:
        module: Any network; its weights are not touched.
        alpha: (1 or B, C), C the sum of ``modulated_widths``.
        beta: (1 or B, C).
        inputs: What the module is called with.
    """
    layers = _convolutions(module)
    widths = [layer.out_channels for layer in layers]
    pairs = zip(*(torch.split(values, widths, 1) for values in (alpha, beta)), strict=True)
    hooks = [
        layer.register_forward_hook(partial(_film, *pair))
        for layer, pair in zip(layers, pairs, strict=True)
    ]
    try:
        return module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _film(alpha: Tensor, beta: Tensor, layer: nn.Module, given: Any, output: Tensor) -> Tensor:
    return by_protocol(output, alpha, beta)


def _convolutions(module: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
