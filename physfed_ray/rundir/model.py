"""``model.json``: all that is needed, beside the weights, to use a run's model elsewhere.

It is written before the first round and holds what no round changes. Which weights go with it is
said by the newest manifest of a checkpoint (``Manifest``), read when the model is loaded: so the
card and the weights fit at any moment, also in a run that goes on or was interrupted.
"""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from physfed_ray.ct.protocol import Protocol, further_of
from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.run_directory import RunDirectory

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class Statistics:
    """What standardises a network's inputs: uniform means over the training clients.

    These few numbers are the only thing about the data that leaves the clients: each contributes
    the mean and the variance of all its training pixels and of all its embeddings, never an image.

    Attributes:
        input_mean: Mean of the low-dose pixels in [0, 1] of the window.
        input_std: Root of the mean variance of the low-dose pixels.
        embedding_mean: Mean of each dimension over the real tokens, d numbers.
        embedding_std: Root of the mean variance of each dimension, floored, d numbers.
        tokens: Length T of the longest embedding.
        dim: Dimensions d of a token.
    """

    input_mean: float
    input_std: float
    embedding_mean: list[float]
    embedding_std: list[float]
    tokens: int
    dim: int


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedProtocol(_Plain):
    """A training client, or an unseen protocol, by its name in the experiment."""

    id: str
    protocol: Protocol


class LocalTraining(_Plain):
    """What of ``training`` a method, or the bits of its network, depend on."""

    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.0
    rounds: int = Field(ge=1)
    threads: int = Field(1, ge=1)


class ModelCard(_Plain):
    """A run's model without its weights, in plain values.

    Attributes:
        format: Version of this file's layout.
        method: The experiment's ``method``: name and settings.
        backbone: The experiment's ``backbone``.
        front_end: The experiment's ``front_end``: what makes the images that the network reads.
        kernel_pixels: The experiment's ``data.kernel_pixels``: the FBP that a learned front end
            starts from.
        reports: The experiment's ``reports``: what writes the report that some methods read.
        statistics: What standardises the inputs; part of the model, because other data would give
            other numbers.
        image_size: Side n of the images in pixels.
        window_hu: HU that 0 and 1 stand for.
        clients: The training clients in order; a codebook has a row for each.
        unseen: The unseen protocols of the experiment.
        seed: Initial weights follow from it, also those of a client that never trained.
        precision: What the network computes in.
        training: What the method knew of its training.
        assets: Names, with their hashes, of the frozen networks that the backbone and the objective
            read; copies lie in the run directory.
        versions: Of the packages that wrote this.
        git_commit: Of this project, where it ran from a checkout.
    """

    format: Literal[1] = 1
    method: dict[str, Any]
    backbone: dict[str, Any]
    front_end: dict[str, Any] = {"name": "fbp"}
    kernel_pixels: float | None = None
    reports: dict[str, Any]
    statistics: Statistics
    image_size: int = Field(ge=1)
    window_hu: tuple[float, float]
    clients: tuple[NamedProtocol, ...] = Field(min_length=1)
    unseen: tuple[NamedProtocol, ...] = ()
    seed: int
    precision: Literal["fp32", "bf16"]
    training: LocalTraining
    assets: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    git_commit: str | None = None

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the further fields of a protocol that g holds."""
        return further_of(part.protocol for part in (*self.clients, *self.unseen))

    def client(self, name: str) -> NamedProtocol:
        """Return the training client of a name.

        Raises:
            PhysFedError: There is none.
        """
        for client in self.clients:
            if client.id == name:
                return client
        names = ", ".join(client.id for client in self.clients)
        raise PhysFedError(f"the run has no client '{name}'; it has: {names}")


def write_card(directory: RunDirectory, card: ModelCard) -> None:
    """Write the card into a run directory, whole or not at all."""
    directory.write_json(MODEL_FILE, card.model_dump(mode="json"))


def read_card(directory: RunDirectory) -> ModelCard:
    """Read the card of a run directory.

    Raises:
        PhysFedError: There is none, or this version cannot read it.
    """
    if not directory.has(MODEL_FILE):
        raise PhysFedError(
            f"{directory.root} holds no {MODEL_FILE}: give a run directory; if an earlier version "
            "wrote it, `physfed run ... --resume` adds the file"
        )
    try:
        return ModelCard.model_validate_json(directory.read(MODEL_FILE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PhysFedError(
            f"{directory.root}/{MODEL_FILE} cannot be read ({where}: {first['msg']}); use the "
            "version of physfed_ray that wrote it, or a later one"
        ) from None
