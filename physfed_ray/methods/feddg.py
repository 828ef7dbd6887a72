"""FedDG: episodes of training on images that borrow the low frequencies of other clients.

Liu et al. 2021, "FedDG: federated domain generalization on medical image segmentation via episodic
learning in continuous frequency space", CVPR. For an image x of client k with the spectrum
A exp(i P), a client n != k, an amplitude A_n of its bank, and the window M of low frequencies:

    A_lambda  = (1 - M) A + M ((1 - lambda) A + lambda A_n),   lambda ~ U[0, 1]
    t         = F^-1(A_lambda exp(i P))
    theta'    = theta - beta clip(grad L(x, y; theta))         the episode's inner step
    minimise    L(x, y; theta) + L(t, y + t - x; theta')   for the full dose y

**Spectra leave the clients**: before the first round every client publishes the amplitudes, within
the window, of a few of its low-dose training images, and the server hands the bank of all of them
to every client. Phases, and amplitudes outside the window, stay; but the amplitudes that leave
include the image's mean attenuation. The paper's clients publish the spectra of all their images.

For denoising, L is the experiment's objective. A segmentation does not change with the style of its
image, a full-dose image does: what the input borrows, t - x, is also added to the target, so that
the noise to be found stays the same. (With the target left as it was, the network would have to
undo what it cannot see, and ends below its input.) The paper's boundary-oriented loss compares
features on both sides of a segmented contour and has no counterpart here; it is left out. The inner
step is of first order, as in the authors' code, unless ``second_order`` is set. With
``training.patch``, spectra are those of patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import RoundInput, Task
from physfed_ray.models.spectra import half_width, interpolate_amplitudes, low_amplitudes


class FedDGSettings(MethodSettings):
    """Keys under ``method:`` of FedDG."""

    window: float = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="half-width of the window of low frequencies that are exchanged, as a share "
        "of the image's side (alpha of Liu et al. 2021); the mean always is",
    )
    spectra: int = Field(
        16,
        ge=1,
        description="images of which a client publishes the amplitudes, at most a batch",
    )
    inner_step: float = Field(
        1e-3, gt=0, description="step size beta of the inner update, as of Liu et al.'s code"
    )
    clip: float = Field(
        100.0, gt=0, description="bound on each gradient in the inner update, as of that code"
    )
    second_order: bool = Field(
        False, description="differentiate through the inner update; twice the memory"
    )


@dataclass(frozen=True)
class Bank:
    """Amplitudes of the other clients.

    Attributes:
        amplitudes: (M, 2 b + 1, 2 b + 1) float32.
        chances: Of each to be drawn, (M,) float32 on the CPU; the same for every client.
    """

    amplitudes: Tensor
    chances: Tensor


class FedDG(Method):
    """All parameters are shared and averaged; training also sees the other clients' amplitudes."""

    name = "feddg"
    title = "FedDG"
    paper = "Liu et al. 2021, CVPR"
    group = "generic"
    Settings = FedDGSettings
    shared = ("encoder", "decoder")
    settings: FedDGSettings

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        if task.clients < 2:
            raise PhysFedError(
                "method feddg borrows the spectra of other clients and there is only one client: "
                "add clients, or choose method fedavg"
            )

    def publish(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return low-frequency amplitudes of low-dose images, (n, 2 b + 1, 2 b + 1) float32.

        They leave the client, for the server and all other clients to see.
        """
        images = batch.low[: self.settings.spectra, 0]
        b = half_width(images.shape[-2], images.shape[-1], self.settings.window)
        return {"amplitudes": low_amplitudes(images, b).cpu().numpy()}

    def collect(self, published: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the bank: all amplitudes, and of each the client, (M,) int32."""
        amplitudes = [arrays["amplitudes"] for arrays in published]
        owners = np.repeat(np.arange(len(published)), [len(a) for a in amplitudes])
        return {"amplitudes": np.concatenate(amplitudes), "owners": owners.astype(np.int32)}

    def begin(self, network: nn.Module, round_input: RoundInput) -> Bank:
        """Return the other clients' part of the bank."""
        owners = round_input.extras["published.owners"]
        others = owners != round_input.client.index
        chances = 1.0 / np.bincount(owners)[owners[others]]
        device = next(network.parameters()).device
        return Bank(
            torch.tensor(round_input.extras["published.amplitudes"][others], device=device),
            torch.tensor(chances, dtype=torch.float32),
        )

    def loss(
        self, network: nn.Module, batch: Batch, state: Bank
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the inner loss plus the outer one: the inner one's parts, and ``outer``."""
        inner, parts = self.reconstruction(self.denoise(network, batch), batch)
        names, weights = zip(
            *((n, p) for n, p in network.named_parameters() if p.requires_grad), strict=True
        )
        gradients = torch.autograd.grad(
            inner, weights, retain_graph=True, create_graph=self.settings.second_order
        )
        beta, clip = self.settings.inner_step, self.settings.clip
        fast = {
            f"network.{name}": weight - beta * gradient.clamp(-clip, clip)
            for name, weight, gradient in zip(names, weights, gradients, strict=True)
        }
        moved = self.transform(batch.low, state)
        borrowed = replace(batch, low=moved, full=batch.full + (moved - batch.low))
        denoised = torch.func.functional_call(_Denoiser(self, network), fast, (borrowed,))
        outer, _ = self.reconstruction(denoised, borrowed)
        return inner + outer, parts | {"outer": outer.detach()}

    def transform(self, low: Tensor, bank: Bank) -> Tensor:
        """Return images with low frequencies towards those of others, drawn for each image.

        Args:
            low: (B, 1, h, w) float32.
            bank: The other clients' amplitudes.
        """
        # On the CPU: a GPU has a generator of its own, which would draw others.
        drawn = torch.multinomial(bank.chances, len(low), replacement=True)
        share = torch.rand(len(low), 1, 1, 1)
        drawn, share = (t.to(low.device, non_blocking=True) for t in (drawn, share))
        return interpolate_amplitudes(low, bank.amplitudes[drawn].unsqueeze(1), share)


class _Denoiser(nn.Module):
    """``Method.denoise`` as a module, so that it can be called with other weights."""

    def __init__(self, method: Method, network: nn.Module) -> None:
        super().__init__()
        self.method, self.network = method, network

    def forward(self, batch: Batch) -> Tensor:
        """Return denoised images, (B, 1, h, w)."""
        return self.method.denoise(self.network, batch)
