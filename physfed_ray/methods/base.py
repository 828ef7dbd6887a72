"""What a federated method is: what is built, what is shared, the local loss, the aggregation.

A method is plain Python over tensors. Where its clients live, how parameters travel and when a
round fails is decided elsewhere (``federation``, ``runtime``); a method never sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch, extra_fields
from physfed_ray.front_ends.base import FRONT_END, FrontEnd
from physfed_ray.methods.given import Aggregation, ClientInfo, RoundInput, Task, shaped
from physfed_ray.models.base import Backbone, DiffusionBackbone
from physfed_ray.seeds import derive_seed


class NoSettings(BaseModel):
    """A method without settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodSettings(NoSettings):
    """What every method that averages can be told (keys under ``method:`` besides ``name``)."""

    weights: Literal["uniform", "samples"] = Field(
        "uniform",
        description="weight of a client in the average: the same for all (Yang et al. 2025), or "
        "its number of slices (McMahan et al. 2017)",
    )


class Method:
    """A federated method; the defaults are those of plain averaging of an encoder and a decoder.

    Args:
        settings: An instance of ``Settings``.
        task: What is known of the data.

    Attributes:
        name: Its name in experiments.
        title: Its name in tables.
        paper: Citation.
        group: Its part of the paper's tables.
        shared: Parts of the network that travel, as paths of submodules (``encoder``,
            ``encoder.layers``); all else never leaves its client. A method whose settings change
            it sets it in ``__init__``.
        training_only: Private children that only training uses. A method whose other parts are
            all shared serves every protocol, seen or not, with the shared network.
        unseen_shared: Whether the shared part alone serves protocols of no client (``denoise`` of a
            batch without ``protocol``) although clients denoise with private parts.
        fields: Names of the fields (``physfed_ray.fields``) that it reads in batches beside ``low``
            and ``full``.
        learning_rate_scale: Factors on the learning rate, by child; 1 for those not named.
        pooled: Whether a round is one training over the data of all clients in one place. Batches
            then mix protocols, each image with its own ``g``.
        trains_on_server: Whether the server trains as well, on the paired images of
            ``data.server_patients`` where there are any: through the same hooks, on the newest
            shared vector, in every round, with a private part of its own. Its shared vector is
            never averaged; what it has to say is what ``finish`` returns. A method whose settings
            decide it sets it in ``__init__``.
        diffusion: Whether it can share a ``DiffusionBackbone``: it reads no features at a
            bottleneck, and ``fit`` is its loss or a term of it.
        unlabelled: Whether it can train a client without full dose (``ClientInfo.labels``), whose
            ``full`` is not a number. Where it cannot, such a client never trains.
        linear: Whether ``aggregate`` needs of the clients' vectors only their mean. Where it is not
            (medians, trimmed means), hosts keep their participants' vectors until all have trained,
            and the server has every one of them at once: on Ray in the object store, unread.
        uploads: Names of the arrays that ``finish`` returns, for channels to carry or refuse.
        compresses: Whether clients would send less than the vector, how much less depending on it;
            the bytes that are known beforehand are then the most that a round takes.
        no_graph: Why its denoising cannot be exported as a graph for images of any size, in words
            that end a sentence; "" where it can.
        Settings: Schema of the keys under ``method:``.
        objective: What training minimises; ``reconstruction`` calls it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    group: ClassVar[Literal["generic", "personalised", "bound"]]
    Settings: ClassVar[type[BaseModel]] = MethodSettings
    pooled: ClassVar[bool] = False
    diffusion: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = False
    linear: ClassVar[bool] = True
    uploads: ClassVar[tuple[str, ...]] = ()
    compresses: ClassVar[bool] = False
    no_graph: ClassVar[str] = ""
    unseen_shared: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ()
    trains_on_server: bool = False
    shared: tuple[str, ...]
    training_only: tuple[str, ...] = ()
    learning_rate_scale: Mapping[str, float]

    def __init__(self, settings: BaseModel, task: Task) -> None:
        if (reason := self.refuses(task.backbone)) is not None:
            raise PhysFedError(reason)
        self.settings = settings
        self.task = task
        self.objective = task.objective
        self.learning_rate_scale = {}

    @classmethod
    def refuses(cls, backbone: Backbone) -> str | None:
        """Return why the method cannot use an imaging network, None when it can."""
        if cls.diffusion or not isinstance(backbone, DiffusionBackbone):
            return None
        return (
            f"{cls.title} works on the features between an encoder and a decoder, and the "
            f"diffusion network '{backbone.name}' has none: choose backbone.name = red_cnn, or "
            "a method that shares whole networks, such as method.name = fedavg"
        )

    @classmethod
    def needed_fields(cls, backbone: Backbone, front_end: FrontEnd) -> dict[str, str]:
        """Return the fields that it and its networks declare, and whose each is, in words."""
        of_front_end = dict.fromkeys(front_end.fields, f"the front end {front_end.name}")
        of_network = dict.fromkeys(backbone.fields, f"the backbone {backbone.name}")
        return of_front_end | of_network | dict.fromkeys(cls.fields, f"the method {cls.name}")

    @property
    def extra_fields(self) -> tuple[str, ...]:
        """The fields of its batches beside those that every batch has."""
        return extra_fields(self.needed_fields(self.task.backbone, self.task.front_end))

    @classmethod
    def server_key(cls, settings: BaseModel) -> str | None:
        """Return the key of its settings that asks for images of the server, None where none does.

        A method that ``trains_on_server`` without them would leave out what it is for.
        """
        return None

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Return the children of the network: name -> how to make it."""
        task = self.task
        return {
            "encoder": lambda: task.backbone.encoder(task.input_mean, task.input_std),
            "decoder": task.backbone.decoder,
        }

    def build(self, seed: int) -> nn.Module:
        """Return a new network with the children of ``children``, and the learned front end.

        A child's weights depend on the seed and its name alone, so that equal children start
        equal in all methods, on all clients and on the server.
        """
        network = nn.Module()
        for name, make in self.children().items():
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(derive_seed(seed, "init", name))
                network.add_module(name, make())
        scanners = self.task.scanners
        front_end = None if scanners is None else self.task.front_end.module(scanners)
        if front_end is not None:
            network.add_module(FRONT_END, front_end)
        return network

    def read(self, network: nn.Module, batch: Batch) -> Batch:
        """Return the batch as the method's other hooks see it in training and denoising.

        A client's learned front end makes ``low`` of what the client's own scanner measured. It is
        private to the client: elsewhere ``low`` stays the FBP from which it started.
        """
        learned = network.get_submodule(FRONT_END) if hasattr(network, FRONT_END) else None
        if learned is None or batch.protocol is None:
            return batch
        return replace(batch, low=learned(batch))

    # Once, before the first round.

    def publish(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return what a client tells the server of its training data, before the first round.

        Whatever is returned leaves the client, so that a method which returns anything says so.

        Args:
            batch: Some of the client's training data, drawn as those of a local step are.
        """
        return {}

    def collect(self, published: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return what the server sends to every client of what the K clients have published."""
        return {}

    # The client's side of a round.

    def begin(self, network: nn.Module, round_input: RoundInput) -> Any:
        """Return what the client needs while it trains in this round.

        The network has the broadcast shared parameters and the client's own private ones.
        """
        return None

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss of a batch and its detached parts by name."""
        return self.fit(network, batch)

    def fit(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of denoising a batch, and its detached parts by name.

        It is the objective of the denoised images, or a diffusion network's own loss.
        """
        backbone = self.task.backbone
        if isinstance(backbone, DiffusionBackbone):
            return backbone.fit(network.get_submodule("decoder"), batch, self.reconstruction)
        return self.reconstruction(self.denoise(network, batch), batch)

    def reconstruction(self, denoised: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the objective says of denoised images: a loss, and its parts by name.

        Every method's loss has this term; a method adds its own to it.

        Args:
            denoised: (B, 1, h, w), 0 and 1 are the ends of the HU window.
            batch: What was denoised; ``full`` is the target.
        """
        loss, parts = self.objective(denoised, batch)
        return loss, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def finish(
        self, network: nn.Module, round_input: RoundInput, state: Any, steps: int
    ) -> dict[str, np.ndarray]:
        """Return small named arrays to send to the server beside the shared parameters.

        A client's names are those of ``uploads``; what the server returns as a member stays with
        it, under any names. The server knows the round and the client's weight.
        Called after the last step. The network's shared part is then sent as it is, and its private
        part kept, so that both may be changed here (in place).

        Args:
            network: As the last step left it.
            round_input: What the round began with.
            state: What ``begin`` returned.
            steps: Local steps made.
        """
        return {}

    # What crosses a network: in a run of what was sent, beforehand of arrays of the same shapes.

    def upload_like(self) -> dict[str, np.ndarray]:
        """Return arrays of the shapes and dtypes that ``finish`` returns: one float64 each."""
        return {name: shaped(dtype=np.float64) for name in self.uploads}

    def extras_like(self, participants: int) -> dict[str, np.ndarray]:
        """Return arrays of the shapes and dtypes that ``aggregate`` broadcasts.

        Args:
            participants: Clients of the round that was aggregated.
        """
        return {}

    def bytes_up(self, shared: int, upload: Mapping[str, np.ndarray]) -> int:
        """Return the bytes that a client would send in a round over a network.

        Args:
            shared: Bytes of the shared parameters, as the channel sends them.
            upload: What ``finish`` returned, or ``upload_like``.
        """
        return shared + sum(array.nbytes for array in upload.values())

    def bytes_down(self, shared: int, extras: Mapping[str, np.ndarray]) -> int:
        """Return the bytes that a client would receive in a round over a network.

        Args:
            shared: Bytes of the shared parameters, uncompressed.
            extras: What is broadcast beside them in each round, ``collect``'s left out.
        """
        return shared + sum(array.nbytes for array in extras.values())

    # The server's side.

    def weight(self, client: ClientInfo) -> float:
        """Return the client's weight in the average."""
        by_samples = isinstance(self.settings, MethodSettings) and (
            self.settings.weights == "samples"
        )
        return float(client.slices) if by_samples else 1.0

    def aggregate(self, aggregation: Aggregation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the new shared vector, and small arrays to broadcast with it.

        Args:
            aggregation: What the server has of the round. Neither vector of it may be written; the
                mean may be returned as it is.
        """
        return aggregation.mean, {}

    def codes(self, network: nn.Module, g: Tensor) -> Tensor | None:
        """Return the protocol codes (K, code_dim) of normalised protocols (K, G), if it has any."""
        return None

    def inspect_codes(self, network: nn.Module, codes: Tensor) -> dict[str, float]:
        """Return how differently the network treats clients, from their codes (K, code_dim)."""
        return {}

    # Inference.

    def reads(self) -> tuple[str, ...]:
        """Return those of ``fields`` that denoising reads with these settings."""
        return self.fields

    def encode(
        self, encoder: Callable[..., Any], batch: Batch
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features and skips that one of the backbone's encoders makes of a batch."""
        f, skips = encoder(*self.task.backbone.inputs(batch))
        return f, skips

    def features(
        self, network: nn.Module, batch: Batch, code: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return all that ``decode`` needs; a private decoder is not touched.

        Args:
            network: What ``build`` returned.
            batch: The images; ``full`` is not looked at.
            code: Protocol code (code_dim,) to use instead of those of ``batch.g``.
        """
        f, skips = self.encode(network.get_submodule("encoder"), batch)
        return f, *skips

    def decode(self, network: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """Return denoised images (B, 1, h, w) from what ``features`` returned."""
        f, *skips = features
        image: Tensor = network.get_submodule("decoder")(f, tuple(skips))
        return image

    def denoise(self, network: nn.Module, batch: Batch, code: Tensor | None = None) -> Tensor:
        """Return denoised images, (B, 1, h, w)."""
        return self.decode(network, self.features(network, batch, code))

    def inspect(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Return numbers that say whether the method's personalisation does anything."""
        return {}
