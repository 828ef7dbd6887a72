"""The schema of a file that ``physfed pretrain`` takes: what learns, and from what."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from physfed_ray.assets.registry import RECIPES
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.clients import Clients
from physfed_ray.experiment.data import Images
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.file import apply_overrides, read_yaml
from physfed_ray.experiment.named import Named, names_only, only_names
from physfed_ray.experiment.patients import patients
from physfed_ray.experiment.reports import Reports
from physfed_ray.experiment.settings import (
    LARGEST_SEED,
    LONGEST_NAME,
    MOST,
    NAME,
    RelativePath,
    Settings,
    operational,
)
from physfed_ray.shipped import found

if TYPE_CHECKING:
    from physfed_ray.assets.base import Recipe

KEY = "pretrain"
"""The key by which such a file is told from an experiment."""
OWN_KEYS = ("client", "held_out_patients", "cache")
"""Keys of ``data`` that go with a client of an experiment, which says all others."""


def _held_out(value: Any) -> Any:
    return patients(value, fewest=1)


class AssetSpec(Named):
    """A recipe's name and its own settings."""

    registry = RECIPES
    key = "asset"
    example = "{name: leda}"

    def make(self) -> "Recipe":
        """Return the recipe."""
        return RECIPES[self.name](self.settings)


class ClientImages(Settings):
    """The training images of one client of an experiment."""

    experiment: RelativePath = Field(description="the experiment's file")
    id: str = Field(
        pattern=NAME, max_length=LONGEST_NAME, description="the client, by its id in the experiment"
    )


class PretrainData(Images):
    """The images that a frozen network learns from."""

    client: ClientImages | None = Field(
        None,
        description="in place of a source, the training images of a client of an experiment: the "
        "asset then carries what it learned of them to everybody who has it",
    )
    held_out_patients: Annotated[int | tuple[str, ...], BeforeValidator(_held_out)] = Field(
        1, description="number of patients that scores are measured on, or their ids"
    )

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if (self.source is None) == (self.client is None):
            raise ValueError(
                "give one of 'source' (a folder, or phantoms) and 'client' (a client of an "
                "experiment)"
            )
        others = [key for key in type(self).model_fields if key in self.model_fields_set]
        others = [key for key in others if key not in OWN_KEYS]
        if self.client is not None and others:
            raise ValueError(f"'{others[0]}' is what the experiment of 'client' says; leave it out")
        if self.source is not None and self.source.pairs is not None:
            raise ValueError(
                "'source.pairs' has low doses of its own, and pretraining reads full-dose images; "
                "name the folder of the full dose as 'source.dicom'"
            )
        phantom = None if self.source is None else self.source.phantom
        if phantom is not None and phantom.patients == "auto":
            raise ValueError("'source.phantom.patients' must be a number here: say how many")
        return self


class PretrainTraining(Settings):
    """How a frozen network is trained."""

    steps: int = Field(2000, ge=1, le=MOST, description="batches that it learns from")
    batch_size: int = Field(16, ge=1, le=MOST, description="slices in a batch")
    lr: float = Field(2e-4, gt=0, lt=1, description="learning rate of Adam")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's two betas")
    workers: int = Field(
        1,
        ge=1,
        le=4096,
        description="processes that share every batch, by Ray Train; several need --runtime ray",
    )
    threads: int = Field(
        1, ge=1, le=256, description="CPU threads of a process; part of the result's bits"
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="bf16: autocast; auto: bf16 where the device is made for it"
    )
    evaluate_every: int = operational(
        500, ge=1, le=MOST, description="steps between two scores on the held-out patients"
    )
    checkpoint_every: int = operational(
        500, ge=1, le=MOST, description="steps between two checkpoints, from which --resume goes on"
    )

    @field_validator("betas")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("must be two numbers of at least 0 and below 1")
        return value


class Pretrain(Settings):
    """One pretraining, resolved."""

    pretrain: str = operational(
        pattern=NAME, max_length=LONGEST_NAME, description="names the folder of the run"
    )
    seed: int = Field(1, ge=0, le=LARGEST_SEED, description="every random stream derives from it")
    asset: AssetSpec = Field(description="the recipe and its settings")
    data: PretrainData = Field(description="the images that it learns from")
    protocols: Clients = Field(
        (),
        description="how every slice is scanned, under each in turn; for recipes that read "
        "low-dose images, a list, a pattern ('paper-*') or {generate: ...}, as clients",
    )
    reports: Reports = Field(default_factory=Reports, description="what describes the slices")
    training: PretrainTraining = Field(
        default_factory=PretrainTraining, description="how it is trained"
    )
    provenance: dict[str, Any] = operational(
        {}, description="written by a run (versions, commit); ignored when read"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        ids = [entry.id for entry in self.protocols]
        for place, entry in enumerate(self.protocols):
            if entry.id in ids[:place]:
                raise ValueError(f"protocols: the id '{entry.id}' is used twice; ids must differ")
            own = sorted(entry.model_fields_set & {"patients", "labels", "speed"})
            if any(getattr(entry, key) != type(entry).model_fields[key].default for key in own):
                raise ValueError(
                    f"protocols.{place}.{own[0]}: a protocol here has an 'id' and a 'protocol' "
                    "alone, because all slices are scanned under each; leave it out"
                )
        if not only_names():
            self._recipe_fits()
        return self

    def _recipe_fits(self) -> None:
        recipe = self.asset.make()
        if recipe.scanned and not self.protocols:
            raise ValueError(
                f"protocols: the recipe {recipe.name} reads low-dose images; list the protocols "
                "under which every slice is scanned, for example [paper-1, paper-8]"
            )
        if not recipe.scanned and self.protocols:
            raise ValueError(
                f"protocols: the recipe {recipe.name} reads full-dose images alone; leave them out"
            )


def load_pretrain(path: Path | str, overrides: Iterable[str] = ()) -> Pretrain:
    """Read, override and check a file for ``physfed pretrain``.

    Args:
        path: The YAML file; relative paths inside it are relative to it.
        overrides: ``key.path=value`` entries, values in YAML.

    Raises:
        PhysFedError: The file is missing, not YAML, or does not fit the schema.
    """
    path = found(path)
    content = read_yaml(path)
    if KEY not in content:
        raise PhysFedError(
            f"{path} has no key '{KEY}' and is no file for `physfed pretrain`; `physfed run` takes "
            "experiments"
        )
    apply_overrides(content, overrides)
    context = {"base": path.parent.resolve()}
    try:
        with names_only():  # what needs no torch first
            Pretrain.model_validate(content, context=context)
        return Pretrain.model_validate(content, context=context)
    except ValidationError as error:
        raise PhysFedError(f"{path}: {explain(error, Pretrain)}") from None
    except PhysFedError as error:
        raise PhysFedError(f"{path}: {error}") from None
