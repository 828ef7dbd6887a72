"""FedM2CT: private reconstruction, two image networks that teach each other, a server that learns.

Wang et al. 2025, "Federated metadata-constrained iRadonMAP framework with mutual learning for
all-in-one computed tomography imaging", Cyborg and Bionic Systems, doi:10.34133/cbsystems.0376.
This is a reading of the paper's abstract and press text: its losses, sizes, weights and code are
not public. What they say is kept, and every choice beyond is this project's own, and a setting.

A client k turns its sinograms into images u with a private iRadonMAP (``front_end: iradonmap``) and
has two image networks: R_k, private, and phi, shared and averaged (TS-iRadonMAP). Both are the
experiment's backbone. With the full dose y and the protocol g:

    L(R_k) = L(R_k(u), y)     + a D(R_k(u), sg phi(sg u; g))            private
    L(phi) = L(phi(sg u; g), y) + b D(phi(sg u; g), sg R_k(u))          shared             (CPML)

L is the experiment's objective, D the mean squared error in units of the objective, and sg stops
gradients: the shared network leaves the private reconstruction alone. A shallow network turns g
into a scale and a shift for the channels of each of phi's convolutions (condition prompt). The
client reconstructs with R_k, or with phi (``output``).

The server has paired images of its own (``data.server_patients``), FBPs under all protocols, and
trains a meta-model psi of phi's form on them in each round (FMDL). Its parameters are fused:

    phi <- (1 - eta) mean_k phi_k + eta psi

psi starts each round from the broadcast phi, or goes on from its own last state (``meta_from``).

A client without full dose (``labels: false``, hybrid supervision) trains R_k towards phi, as phi
sees the scanner's plain FBP: a target that its own reconstruction cannot pull along. It has nothing
to say of phi, and does not count in the mean.

A protocol of no client is reconstructed by FBP and denoised by phi, given its g. Paired images lie
on the server, which the authors name as the weakness of the method.

Ablations: ``mutual: false`` leaves one image network, shared, through which the reconstruction
learns as well; ``meta: false`` the server without data; ``condition: false`` phi without g. With
none of the three it is FedAvg behind a private iRadonMAP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from physfed_ray.fields import Batch
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import Aggregation, ClientInfo, Member, RoundInput, Task
from physfed_ray.methods.hyperfed import HALVES, HIDDEN_STD
from physfed_ray.models.film import modulated, modulated_widths
from physfed_ray.models.hypernetworks import ProtocolHypernetwork

SERVER = "server"
PLAIN = "plain_fbp"
"""Name, among a batch's extra fields, of the image before the learned front end."""
SMALLEST_LOSS = 1e-12


class FedM2CTSettings(MethodSettings):
    """Keys under ``method:`` of FedM2CT; none of the numbers is the paper's."""

    mutual: bool = Field(True, description="CPML: a private image network beside the shared one")
    mutual_private: float = Field(
        0.5, ge=0, description="weight a of the shared network's image in the private one's loss"
    )
    mutual_shared: float = Field(
        0.5, ge=0, description="weight b of the private network's image in the shared one's loss"
    )
    condition: bool = Field(True, description="g modulates the shared image network")
    condition_dim: int = Field(
        64, ge=1, le=65_536, description="width of both hidden layers of the condition's network"
    )
    condition_lr_scale: float = Field(
        0.1,
        gt=0,
        description="factor on its learning rate: it acts in all layers at once, like HyperFed's",
    )
    meta: bool = Field(
        True, description="FMDL: the server trains on data.server_patients and is fused"
    )
    meta_weight: float = Field(
        0.5, ge=0, le=1, description="share eta of the server's model in the shared network"
    )
    meta_from: Literal["broadcast", "own"] = Field(
        "broadcast",
        description="where the server's model starts each round: the shared network, or where its "
        "own training ended",
    )
    output: Literal["private", "shared"] = Field(
        "private", description="whose image counts where a client has both networks"
    )


class FedM2CT(Method):
    """Reconstruction and one image network are private, the other one and its condition shared."""

    name = "fedm2ct"
    title = "FedM2CT"
    paper = "Wang et al. 2025, Cyborg and Bionic Systems (a reading of the abstract)"
    group = "personalised"
    Settings = FedM2CTSettings
    unlabelled = True
    unseen_shared = True
    settings: FedM2CTSettings

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        chosen = self.settings
        self.shared = (*HALVES, "condition") if chosen.condition else HALVES
        self.trains_on_server = chosen.meta
        if chosen.condition:
            self.learning_rate_scale = {"condition": chosen.condition_lr_scale}
        private = tuple(f"private_{half}" for half in HALVES)
        unread = private if chosen.mutual and chosen.output == "shared" else ()
        self.training_only = (*unread, "meta") if self._keeps_meta else unread
        halves = super().children()
        self._widths = [sum(modulated_widths(halves[half])) for half in HALVES]

    @property
    def _keeps_meta(self) -> bool:
        return self.settings.meta and self.settings.meta_from == "own"

    @classmethod
    def server_key(cls, settings: BaseModel) -> str | None:
        """Return the key that asks for data of the server, None where none does."""
        return "meta" if isinstance(settings, FedM2CTSettings) and settings.meta else None

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return phi's halves and condition, those of the private network, and psi's own state."""
        halves = super().children()
        phi = dict(halves) | ({"condition": self._condition} if self.settings.condition else {})
        made = dict(phi)
        if self.settings.mutual:
            made |= {f"private_{half}": make for half, make in halves.items()}
        if self._keeps_meta:
            made["meta"] = lambda: Kept({name: make() for name, make in phi.items()})
        return made

    def _condition(self) -> nn.Module:
        width, g_size = self.settings.condition_dim, self.task.g_size
        made = ProtocolHypernetwork(width, width, sum(self._widths), g_size=g_size)
        for layer in (made.hidden, made.to_code):
            nn.init.normal_(layer.weight, std=HIDDEN_STD)
        return made

    def weight(self, client: ClientInfo) -> float:
        """Return the client's weight in the mean of phi; none without full dose."""
        return super().weight(client) if client.labels else 0.0

    def begin(self, network: nn.Module, round_input: RoundInput) -> Member:
        """Return who trains; the server's model goes on from where it was, if it is to."""
        member = round_input.client
        if member.role == "server" and self._keeps_meta:
            kept_of(network).restore(network)
        return member

    def loss(
        self, network: nn.Module, batch: Batch, state: Member
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the member's networks.

        The parts are the private network's by the objective, the shared one's (``shared_mse``), and
        the weighted ``mutual_private`` and ``mutual_shared``.
        """
        if state.role == "server":
            return self.reconstruction(self._shared(network, batch), batch)
        mutual = self.settings.mutual
        private = self._private(network, batch) if mutual else self._shared(network, batch)
        if not state.labels:
            with torch.no_grad():
                target = self._shared(network, replace(batch, low=batch[PLAIN]))
            return self.reconstruction(private, replace(batch, full=target.float()))
        if not mutual:
            return self.reconstruction(private, batch)
        shared = self._shared(network, replace(batch, low=batch.low.detach()))
        task, parts = self.reconstruction(private, batch)
        others, of_shared = self.reconstruction(shared, batch)
        unit = self._unit_of_squares(batch)
        pull = {
            "mutual_private": self.settings.mutual_private * unit * _apart(private, shared),
            "mutual_shared": self.settings.mutual_shared * unit * _apart(shared, private),
        }
        parts |= {f"shared_{name}": part for name, part in of_shared.items()}
        parts |= {name: term.detach() for name, term in pull.items()}
        return task + others + sum(pull.values()), parts

    @torch.no_grad()
    def _unit_of_squares(self, batch: Batch) -> Tensor:
        """Return what a mean squared error is worth in the objective: 1 for the MSE itself."""
        unit, _ = self.reconstruction(batch.low, batch)
        squares = functional.mse_loss(batch.low.float(), batch.full.float())
        return unit / squares.clamp_min(SMALLEST_LOSS)

    @torch.no_grad()
    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Member, steps: int
    ) -> dict[str, np.ndarray]:
        """Return psi from the server, nothing from a client."""
        if state.role == "client":
            return {}
        if self._keeps_meta:
            kept_of(network).keep(network)
        named = dict(sorted(shared_tensors(network, self.shared).items()))
        return {"meta": torch.cat([tensor.flatten() for tensor in named.values()]).cpu().numpy()}

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return phi fused with psi, where the server has trained one in this round."""
        meta = aggregation.uploads.get(SERVER, {}).get("meta")
        if meta is None:
            return aggregation.mean, {}
        eta, vector, done = np.float32(self.settings.meta_weight), aggregation.mean.copy(), 0
        for _, mean in sorted(aggregation.named(vector).items()):
            psi = meta[done : done + mean.size].reshape(mean.shape)
            mean[...] = (1 - eta) * mean + eta * psi
            done += mean.size
        return vector, {}

    def read(self, network: nn.Module, batch: Batch) -> Batch:
        """Return the batch with the reconstruction, and beside it the scanner's own FBP."""
        seen = super().read(network, batch)
        return replace(seen, extra={**seen.extra, PLAIN: batch.low})

    def denoise(self, network: nn.Module, batch: Batch, code: Tensor | None = None) -> Tensor:
        """Return denoised images, (B, 1, h, w): R_k's of the client's own scans, else phi's."""
        private = self.settings.mutual and self.settings.output == "private"
        own = private and batch.protocol is not None
        return self._private(network, batch) if own else self._shared(network, batch)

    def _private(self, network: nn.Module, batch: Batch) -> Tensor:
        f, skips = self.encode(network.get_submodule("private_encoder"), batch)
        image: Tensor = network.get_submodule("private_decoder")(f, skips)
        return image

    def _shared(self, network: nn.Module, batch: Batch) -> Tensor:
        modules = [network.get_submodule(half) for half in HALVES]
        halves: list[Callable[..., Any]] = list(modules)
        if self.settings.condition:
            pair = network.get_submodule("condition")(batch.g)
            alpha, beta = (torch.split(values, self._widths, 1) for values in pair)
            halves = [
                partial(modulated, module, a, b)
                for module, a, b in zip(modules, alpha, beta, strict=True)
            ]
        encoder, decoder = halves
        f, skips = self.encode(encoder, batch)
        image: Tensor = decoder(f, skips)
        return image


class Kept(nn.Module):
    """Where the server's model was when its last round ended: never trained itself, but private.

    Args:
        modules: Modules of phi's form, by the names of its children.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules).requires_grad_(False)
        self.register_buffer("begun", torch.zeros(()))
        self.begun: Tensor

    @torch.no_grad()
    def keep(self, network: nn.Module) -> None:
        """Copy phi's tensors of a network here."""
        self._copy(network, back=False)
        self.begun.fill_(1)

    @torch.no_grad()
    def restore(self, network: nn.Module) -> None:
        """Copy the kept tensors into phi's of a network, once there are any."""
        if float(self.begun):
            self._copy(network, back=True)

    def _copy(self, network: nn.Module, *, back: bool) -> None:
        own = {name: t for name, t in self.parts.state_dict().items() if t.is_floating_point()}
        theirs = shared_tensors(network, tuple(self.parts))
        for name, tensor in own.items():
            into, source = (theirs[name], tensor) if back else (tensor, theirs[name])
            into.copy_(source)


def kept_of(network: nn.Module) -> Kept:
    """Return the child of a network in which the server's model is kept."""
    kept = network.get_submodule("meta")
    assert isinstance(kept, Kept)
    return kept


def shared_tensors(network: nn.Module, parts: Sequence[str]) -> dict[str, Tensor]:
    """Return the floating point tensors of some children of a network, as the server names them."""
    return {
        f"{part}.{name}": tensor
        for part in parts
        for name, tensor in network.get_submodule(part).state_dict().items()
        if tensor.is_floating_point()
    }


def _apart(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error towards an image, which stays where it is."""
    return functional.mse_loss(image.float(), target.detach().float())
