"""SCAN-PhysFed: scanning- and anatomy-level personalisation by two shared hypernetworks.

Yang et al. 2025, "Patient-level anatomy meets scanning-level physics: personalized federated
low-dose CT denoising empowered by large language model", CVPR. For client i, image x, protocol g
and report embedding f_t:

    f     = E(x)                                     c = MLP_c(g),  alpha, beta = head(c)
    m     = Reshape(Linear(MultiHead(Linear(AvgPool_4(f_t)))))
    f_per = alpha * (f . m) + beta                   eq. 4 and 6
    y     = D_i(f_per, skips)                        eq. 1
    loss  = MSE(y, y_full) + tau sum_{j != i} |c_i . c_j|^2      eq. 8 and 9

The other clients' codes come from the codebook that the server broadcasts, and are constants. In
the place of the MSE, the paper's, an experiment may have another objective.

``variant: public_code`` is what the authors' repository does instead of the paper:
``scan_physfed_public_code`` says what. Their decoders are uploaded and averaged, but not sent back,
and so functionally private: here they stay where they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.methods import scan_physfed_public_code as public_code
from physfed_ray.methods.base import Method, MethodSettings
from physfed_ray.methods.given import RoundInput, Task
from physfed_ray.models.base import Backbone
from physfed_ray.models.codes import (
    gram_matrix,
    orthogonal_loss,
    orthogonal_loss_by_gram,
    pairwise_cosine_max,
)
from physfed_ray.models.hypernetworks import AnatomyHypernetwork, ProtocolHypernetwork
from physfed_ray.models.modulation import by_protocol, map_on_features, modulate_paper

HYPERNETWORKS = ("protocol_hypernetwork", "anatomy_hypernetwork")


class ScanPhysFedSettings(MethodSettings):
    """Keys under ``method:`` for SCAN-PhysFed; widths default to those that suit sentences."""

    tau: float = Field(1e-4, ge=0, description="weight of the orthogonal loss, eq. 9")
    orth: Literal["cosine", "inner"] = Field(
        "cosine",
        description="codes in the orthogonal loss of the paper's variant: normalised, or as they "
        "are, which shrinking them can win",
    )
    variant: Literal["paper", "public_code"] = Field(
        "paper", description="modulation, loss and dropout of the paper or of the authors' code"
    )
    code_dim: int = Field(128, ge=1, le=65_536, description="length of a protocol code")
    hidden_dim: int = Field(256, ge=1, le=65_536, description="width of the protocol hypernetwork")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="dropout in the protocol hypernetwork; null: 0 in the paper's variant, 0.5 in "
        "the public code's",
    )
    anatomy_hidden_dim: int = Field(
        256, ge=1, description="width of the anatomy hypernetwork; 2048 in the authors' code"
    )
    heads: int = Field(4, ge=1, le=1024, description="attention heads of the anatomy hypernetwork")
    map_size: int = Field(
        16, ge=1, description="side of the anatomy map before resizing; 59 in the authors' code"
    )
    scanning: bool = Field(True, description="modulate by the protocol (off: an ablation)")
    anatomy: bool = Field(True, description="modulate by the report (off: an ablation)")
    modulate_skips: bool = Field(
        False,
        description="let the protocol scale and shift the features of the backbone's skips as "
        "well; the paper modulates the bottleneck alone, which RED-CNN hardly uses",
    )
    share_decoder: bool = Field(
        False,
        description="average the decoder as well, so that the hypernetworks are the only thing "
        "that differs between clients; false is the paper's",
    )
    hyper_lr_scale: float = Field(
        1.0, gt=0, description="factor on the learning rate of both hypernetworks"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.anatomy_hidden_dim % self.heads:
            raise ValueError(
                f"'anatomy_hidden_dim' ({self.anatomy_hidden_dim}) must be a multiple of 'heads' "
                f"({self.heads})"
            )
        return self


@dataclass(frozen=True)
class RoundState:
    """What a client keeps constant in a round.

    Attributes:
        others: Codes of the other clients, (K - 1, code_dim), or their Gram matrix
            (code_dim, code_dim) where that is smaller, so that a step does not cost more with
            more clients.
        are_gram: Which of the two it is.
        everyone: Codes of all clients, (K, code_dim).
    """

    others: Tensor
    are_gram: bool
    everyone: Tensor


class ScanPhysFed(Method):
    """Shared encoder and hypernetworks, private decoders, a codebook for unseen protocols."""

    name = "scan_physfed"
    title = "SCAN-PhysFed"
    paper = "Yang et al. 2025, CVPR"
    group = "personalised"
    shared: tuple[str, ...] = ("encoder", *HYPERNETWORKS)
    fields = ("embedding", "embedding_mask")
    Settings = ScanPhysFedSettings
    settings: ScanPhysFedSettings

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        names = tuple(self.children())
        private = () if self.settings.share_decoder else ("decoder",)
        self.shared = tuple(name for name in names if name not in private)
        self.learning_rate_scale = {
            name: self.settings.hyper_lr_scale for name in names if name in HYPERNETWORKS
        }

    @classmethod
    def refuses(cls, backbone: Backbone) -> str | None:
        """Say so of a backbone over whose features no map of the anatomy can lie."""
        if backbone.domain == "image":
            return super().refuses(backbone)
        return (
            "SCAN-PhysFed lays a map of the anatomy over the features of an image, and those of "
            f"the backbone '{backbone.name}' are of a {backbone.domain}: choose another one, "
            "such as backbone.name = red_cnn"
        )

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the backbone's two halves and those hypernetworks that are not ablated."""
        made = dict(super().children())
        if self.settings.scanning:
            made["protocol_hypernetwork"] = self._protocol_hypernetwork
        if self.settings.anatomy:
            made["anatomy_hypernetwork"] = self._anatomy_hypernetwork
        return made

    def _protocol_hypernetwork(self) -> nn.Module:
        chosen = self.settings
        usual = public_code.DROPOUT if chosen.variant == "public_code" else 0.0
        return ProtocolHypernetwork(
            chosen.code_dim,
            chosen.hidden_dim,
            sum(self._modulated_channels()),
            usual if chosen.dropout is None else chosen.dropout,
            self.task.g_size,
        )

    def _anatomy_hypernetwork(self) -> nn.Module:
        chosen, task = self.settings, self.task
        return AnatomyHypernetwork(
            task.dim,
            task.tokens,
            chosen.anatomy_hidden_dim,
            chosen.heads,
            chosen.map_size,
            task.embedding_mean,
            task.embedding_std,
        )

    @torch.no_grad()
    def codes(self, network: nn.Module, g: Tensor) -> Tensor | None:
        """Return the codebook's entries, computed without dropout."""
        if not self.settings.scanning:
            return None
        hypernetwork: Any = network.get_submodule("protocol_hypernetwork")
        training = hypernetwork.training
        codes: Tensor = hypernetwork.eval().code(g)
        hypernetwork.train(training)
        return codes

    def begin(self, network: nn.Module, round_input: RoundInput) -> RoundState | None:
        """Take the codebook apart: one's own entry, and the others'."""
        if not self.settings.scanning:
            return None
        device = next(network.parameters()).device
        everyone = torch.tensor(round_input.extras["codes"], device=device)
        index = round_input.client.index
        before, after = everyone[:index], everyone[index + 1 :]
        if len(everyone) - 1 <= self.settings.code_dim:
            return RoundState(torch.cat([before, after]), False, everyone)
        gram = gram_matrix(before, after, normalise=self.settings.orth == "cosine")
        return RoundState(gram, True, everyone)

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return eq. 9, and the parts of its first term and ``orth``."""
        f, skips = self.encode(network.get_submodule("encoder"), batch)
        code = self._own_code(network, batch)
        alpha, beta = self._head(network, f, code)
        features = self._personalise(network, batch, f, skips, alpha, beta)
        loss, parts = self.reconstruction(self.decode(network, features), batch)
        if code is None:
            return loss, parts
        if self.settings.variant == "paper":
            eq_8 = orthogonal_loss_by_gram if state.are_gram else orthogonal_loss
            orth = eq_8(code, state.others, normalise=self.settings.orth == "cosine")
        else:
            other = self._head(network, f, public_code.draw(state.everyone, len(f)))
            orth = public_code.orthogonal_loss(f, (alpha, beta), other)
        return loss + self.settings.tau * orth, parts | {"orth": orth.detach()}

    def features(
        self, network: nn.Module, batch: Batch, code: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return f_per and the encoder's skips; only shared children are used."""
        f, skips = self.encode(network.get_submodule("encoder"), batch)
        if code is None or not self.settings.scanning:
            rows = self._own_code(network, batch)
        else:
            rows = code.reshape(-1, code.shape[-1])
        alpha, beta = self._head(network, f, rows)
        return self._personalise(network, batch, f, skips, alpha, beta)

    def reads(self) -> tuple[str, ...]:
        """Return the report's embedding and its mask, nothing where the anatomy is ablated."""
        return self.fields if self.settings.anatomy else ()

    def _modulated_channels(self) -> list[int]:
        """Return the channels of the bottleneck and, where they are modulated, of each skip."""
        backbone = self.task.backbone
        skips = backbone.skips if self.settings.modulate_skips else ()
        return [backbone.feature_channels, *skips]

    def _personalise(
        self,
        network: nn.Module,
        batch: Batch,
        f: Tensor,
        skips: tuple[Tensor, ...],
        alpha: Tensor,
        beta: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return f_per and the skips, which only ``modulate_skips`` changes."""
        channels = self._modulated_channels()
        own, *others = zip(
            torch.split(alpha, channels, 1), torch.split(beta, channels, 1), strict=True
        )
        f_per = self._modulate(f, self._map(network, batch, f), *own)
        changed = [
            by_protocol(skip, *pair) if pair[0].shape[1] else skip
            for skip, pair in zip(skips, others, strict=False)
        ]
        return f_per, *(changed or skips)

    def _own_code(self, network: nn.Module, batch: Batch) -> Tensor | None:
        """Return c_i, (1, code_dim); with dropout one sample for each image, (B, code_dim)."""
        if not self.settings.scanning:
            return None
        hypernetwork: Any = network.get_submodule("protocol_hypernetwork")
        dropping = hypernetwork.training and hypernetwork.dropout.p > 0
        code: Tensor = hypernetwork.code(batch.g if dropping else batch.own_g)
        return code

    def _head(self, network: nn.Module, f: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, (1 or B, C); the identity where the protocol is ablated."""
        if code is None:
            channels = sum(self._modulated_channels())
            return f.new_ones(1, channels), f.new_zeros(1, channels)
        hypernetwork: Any = network.get_submodule("protocol_hypernetwork")
        alpha, beta = hypernetwork.head(code)
        return alpha, beta

    def _map(self, network: nn.Module, batch: Batch, f: Tensor) -> Tensor:
        """Return the anatomy map at the places of the features f, (B, 1, h, w)."""
        if not self.settings.anatomy:
            return f.new_ones(1, 1, 1, 1)
        m = network.get_submodule("anatomy_hypernetwork")(batch.embedding, batch.embedding_mask)
        return map_on_features(m, f, batch, self.task.backbone.stride)

    def _modulate(self, f: Tensor, m: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        paper = self.settings.variant == "paper"
        return (modulate_paper if paper else public_code.modulate)(f, m, alpha, beta)

    @torch.no_grad()
    def inspect(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Return the modulation's state: means of 1, 0 and spreads of 0 say that it does nothing.

        Returns:
            ``alpha_mean``, ``alpha_std``, ``beta_mean``, ``beta_std`` over channels;
            ``code_norm``; ``map_mean``, ``map_space_std`` (over places, mean over the images) and
            ``map_slice_std`` (over the images, mean over the places).
        """
        state: dict[str, float] = {}
        if self.settings.scanning:
            hypernetwork: Any = network.get_submodule("protocol_hypernetwork")
            code = hypernetwork.code(batch.own_g)
            state["code_norm"] = float(code.norm())
            for name, value in zip(("alpha", "beta"), hypernetwork.head(code), strict=True):
                state[f"{name}_mean"] = float(value.mean())
                state[f"{name}_std"] = float(value.std(correction=0))
        if self.settings.anatomy:
            maps = network.get_submodule("anatomy_hypernetwork")
            flat = maps(batch.embedding, batch.embedding_mask).flatten(1)
            state["map_mean"] = float(flat.mean())
            state["map_space_std"] = float(flat.std(1, correction=0).mean())
            state["map_slice_std"] = float(flat.std(0, correction=0).mean())
        return state

    @torch.no_grad()
    def inspect_codes(self, network: nn.Module, codes: Tensor) -> dict[str, float]:
        """Return ``alpha_client_std``, ``beta_client_std`` and ``code_cosine_max``.

        The spreads are over clients, their mean over channels; the cosine is the largest of two
        clients' codes.
        """
        if not self.settings.scanning:
            return {}
        hypernetwork: Any = network.get_submodule("protocol_hypernetwork")
        alpha, beta = hypernetwork.head(codes)
        return {
            "alpha_client_std": float(alpha.std(0, correction=0).mean()),
            "beta_client_std": float(beta.std(0, correction=0).mean()),
            "code_cosine_max": pairwise_cosine_max(codes),
        }
