"""HyperFed: a private hypernetwork fits a shared imaging network to its client's protocol.

Yang et al. 2022, "Hypernetwork-based personalized federated learning for multi-institutional CT
imaging", arXiv:2206.03709 (2023 in IEEE Trans. Neural Netw. Learn. Syst. as "Hypernetwork-based
physics-driven personalized federated learning for CT imaging"). For client i with the protocol g:

    alpha, beta = MLP_i(g)                            private, three linear layers
    h           = alpha * (W * x) + beta              behind each convolution W of the network

before the skip and the activation that follow a convolution. The imaging network is shared and
averaged, and the loss is the experiment's objective, by default the paper's mean squared error.

With RED-CNN it is the network of the authors' code: one alpha and beta, a value a channel, for all
layers of the encoder, one for those of the decoder, and one for the last layer with its single
channel. With any backbone: one for all convolutions of the same width in either half. As in that
code the MLP's hidden layers have 256 and 512 units, weights that start near zero, half of their
activations dropped, and a learning rate of 1e-4, a tenth of what comparisons train networks with.
This is not fine print: one alpha acts in five layers in turn, and with He et al.'s weights and the
network's learning rate a step moves it by a third, and training diverges. Departures: the
modulation starts at the identity, g is standardised, a batch draws its dropout once, and there is
no ReLU on the output. alpha and beta act on the weights, which is the same function for less work.

An unseen protocol is denoised with the hypernetwork of a client and that client's g: the
hypernetworks are private, and each was trained on one g alone.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.func import functional_call

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import Task
from physfed_ray.models.hypernetworks import ProtocolHypernetwork

HALVES = ("encoder", "decoder")
HYPERNETWORK = "protocol_hypernetwork"

HIDDEN_STD = 1e-3
"""Standard deviation of the weights in the hypernetwork's first two layers at the start."""


class HyperFedSettings(MethodSettings):
    """Keys under ``method:`` for HyperFed; defaults are those of the authors' code."""

    hidden_dim: int = Field(
        256, ge=1, le=65_536, description="width of the hypernetwork's first layer"
    )
    second_hidden_dim: int = Field(512, ge=1, le=65_536, description="width of its second layer")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout behind both")
    hyper_lr_scale: float = Field(
        0.1, gt=0, description="factor on the learning rate of the hypernetwork"
    )


class HyperFed(Method):
    """The imaging network is shared and averaged, the hypernetwork stays with its client."""

    name = "hyperfed"
    title = "HyperFed"
    paper = "Yang et al. 2022, arXiv:2206.03709"
    group = "personalised"
    shared = HALVES
    Settings = HyperFedSettings
    settings: HyperFedSettings

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        halves = super().children()
        with torch.device("meta"):
            layers = {
                half: [layer for _, layer in _convolutions(halves[half]())] for half in HALVES
            }
        self._widths = {
            half: list(dict.fromkeys(layer.out_channels for layer in layers[half]))
            for half in HALVES
        }
        self.learning_rate_scale = {HYPERNETWORK: self.settings.hyper_lr_scale}

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the backbone's two halves and the hypernetwork."""
        return {**super().children(), HYPERNETWORK: self._hypernetwork}

    def _hypernetwork(self) -> nn.Module:
        chosen, channels = self.settings, sum(sum(self._widths[half]) for half in HALVES)
        made = ProtocolHypernetwork(
            chosen.second_hidden_dim,
            chosen.hidden_dim,
            channels,
            chosen.dropout,
            self.task.g_size,
        )
        for layer in (made.hidden, made.to_code):
            nn.init.normal_(layer.weight, std=HIDDEN_STD)
        return made

    def features(
        self, network: nn.Module, batch: Batch, code: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the modulated encoder's features and skips, and the decoder's alpha and beta."""
        alpha, beta = network.get_submodule(HYPERNETWORK)(batch.own_g)
        sizes = [sum(self._widths[half]) for half in HALVES]
        encoders, decoders = zip(
            *(torch.split(x.squeeze(0), sizes) for x in (alpha, beta)), strict=True
        )
        f, skips = self.encode(partial(self._modulated, network, "encoder", *encoders), batch)
        return f, *skips, *decoders

    def decode(self, network: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """Return denoised images (B, 1, h, w) from what ``features`` returned."""
        f, *skips, alpha, beta = features
        image: Tensor = self._modulated(network, "decoder", alpha, beta, f, tuple(skips))
        return image

    def _modulated(
        self, network: nn.Module, half: str, alpha: Tensor, beta: Tensor, *given: object
    ) -> Any:
        """Return what a half makes of ``given`` with alpha and beta, (channels,) each."""
        module, widths = network.get_submodule(half), self._widths[half]
        scales, shifts = (
            dict(zip(widths, torch.split(x, widths), strict=True)) for x in (alpha, beta)
        )
        tensors = {}
        for name, layer in _convolutions(module):
            scale, shift = scales[layer.out_channels], shifts[layer.out_channels]
            outputs = (1, -1, 1, 1) if isinstance(layer, nn.ConvTranspose2d) else (-1, 1, 1, 1)
            tensors[f"{name}.weight"] = scale.view(outputs) * layer.weight
            if layer.bias is not None:
                tensors[f"{name}.bias"] = scale * layer.bias + shift
        return functional_call(module, tensors, given)

    @torch.no_grad()
    def inspect(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Return mean and spread over channels of alpha and beta: 1, 0, 0 and 0 do nothing."""
        pair = network.get_submodule(HYPERNETWORK)(batch.own_g)
        state: dict[str, float] = {}
        for name, value in zip(("alpha", "beta"), pair, strict=True):
            state[f"{name}_mean"] = float(value.mean())
            state[f"{name}_std"] = float(value.std(correction=0))
        return state


def _convolutions(half: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d]]:
    for name, layer in half.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            yield name, layer
