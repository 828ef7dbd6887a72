"""The keys of a surrogate study's file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.data import Data
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.file import apply_overrides, read_yaml
from physfed_ray.experiment.settings import LARGEST_SEED, LONGEST_NAME, MOST, NAME, Settings
from physfed_ray.shipped import found

Task = Literal["region", "lesion"]
USED = {
    "source", "image_size", "slices_per_patient", "window_hu", "centre", "test_patients",
}  # fmt: skip
"""Keys of ``data`` that decide something here: nothing is scanned."""
HALVINGS = 16
"""Of which the image size must be a multiple."""


class Hosts(Settings):
    """The images that surrogates show: phantoms, whom nobody has to protect."""

    patients: int = Field(30, ge=2, le=MOST, description="number of phantoms")
    slices: int = Field(8, ge=1, le=10_000, description="slices of each")
    seed: int = Field(
        1000, ge=0, le=LARGEST_SEED, description="of the phantoms; another one than the patients'"
    )


class Quality(Settings):
    """The quality network (IQEM), one for each seed and beta."""

    steps: int = Field(100, ge=1, le=MOST, description="steps of generator and discriminator")
    batch_size: int = Field(8, ge=1, le=MOST, description="images of a step")
    lr: float = Field(5e-4, gt=0, lt=1, description="learning rate of both, Adam")
    width: int = Field(8, ge=4, le=256, multiple_of=4, description="channels of the first level")
    keep: float = Field(
        10.0,
        ge=0,
        le=1e6,
        description="weight of the absolute difference between its input and its output, beside "
        "the discriminator's judgement",
    )


class Training(Settings):
    """The classifier, trained with FedAvg."""

    rounds: int = Field(30, ge=1, le=MOST, description="rounds of FedAvg")
    local_epochs: int = Field(1, ge=1, le=MOST, description="passes over a client's slices a round")
    batch_size: int = Field(8, ge=1, le=MOST, description="slices of a step")
    lr: float = Field(3e-3, gt=0, lt=1, description="learning rate, Adam")
    width: int = Field(8, ge=4, le=256, multiple_of=4, description="channels of the first level")


class Attack(Settings):
    """The U-Net that turns surrogates back into patients."""

    epochs: int = Field(10, ge=1, le=MOST, description="passes over the attacker's own patients")
    batch_size: int = Field(8, ge=1, le=MOST, description="slices of a step")
    lr: float = Field(2e-3, gt=0, lt=1, description="learning rate at the start, Adam; falls to 0")
    width: int = Field(8, ge=4, le=256, multiple_of=4, description="channels of the first level")


class Lesion(Settings):
    """A planted disc."""

    radius_mm: float = Field(20.0, gt=0, le=200, description="its radius, mm")
    contrast_hu: float = Field(600.0, description="what it adds to the tissue, HU")

    @field_validator("contrast_hu")
    @classmethod
    def _visible(cls, value: float) -> float:
        if not 1 <= abs(value) <= 3000:
            raise ValueError(f"must be 1 to 3000 HU above or below the tissue, not {value:g}")
        return value


class SurrogateFile(Settings):
    """The keys of a file of ``physfed surrogate``."""

    surrogate: str = Field(pattern=NAME, max_length=LONGEST_NAME, description="name of the study")
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...], Field(min_length=1)
    ] = Field((1,), description="everything is made once for each: phantoms, split, networks")
    data: Data = Field(description="the patients, as in an experiment; nothing is scanned")
    clients: int = Field(5, ge=1, le=MOST, description="number of clients that train together")
    hosts: Hosts = Field(Hosts(), description="the images that surrogates show")
    alpha: float = Field(
        0.25, gt=0, le=1, description="side of the mask of low frequencies, as a share of all"
    )
    betas: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = Field(
        description="shares of the patient's amplitudes; 0, the host alone, is always there"
    )
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = Field(
        ("region", "lesion"), description="what is diagnosed: region, lesion"
    )
    lesion: Lesion = Field(Lesion(), description="of the task `lesion`")
    quality: Quality | None = Field(Quality(), description="the quality network; null: none")
    training: Training = Field(Training(), description="of the classifier")
    attack: Attack = Field(Attack(), description="of the inverting network")
    threads: int = Field(1, ge=1, le=1024, description="of torch; the last bits depend on it")

    @field_validator("seeds", "betas", "tasks")
    @classmethod
    def _differ(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the list names something twice")
        return value

    @model_validator(mode="after")
    def _data_fit(self) -> Self:
        source, size = self.data.source, self.data.image_size
        if source.pairs is not None:
            raise ValueError("data.source: nothing is scanned or denoised here; give 'phantom' or "
                             "'dicom' instead of 'pairs'")  # fmt: skip
        if source.phantom is not None and source.phantom.patients == "auto":
            raise ValueError("data.source.phantom.patients: give their number instead of 'auto'")
        if useless := sorted(self.data.model_fields_set - USED):
            raise ValueError(f"data.{useless[0]}: it decides nothing here; take it out")
        if size % HALVINGS:
            raise ValueError(f"data.image_size: must be a multiple of {HALVINGS}, not {size}")
        if source.phantom is not None and self.hosts.seed in self.seeds:
            raise ValueError(
                f"hosts.seed: {self.hosts.seed} is among the seeds, and hosts would be patients; "
                "give another"
            )
        return self


def load_surrogate(path: Path | str, overrides: Iterable[str] = ()) -> SurrogateFile:
    """Read, override and check a file of ``physfed surrogate``.

    Args:
        path: The YAML file; relative paths inside it are relative to it.
        overrides: ``key.path=value`` entries, values in YAML.

    Raises:
        PhysFedError: The file is missing, not YAML, or does not fit the schema.
    """
    path = found(path)
    content = read_yaml(path)
    if "surrogate" not in content:
        raise PhysFedError(f"{path} is no surrogate study, whose first key is 'surrogate', its "
                           "name; see experiments/surrogate.yaml")  # fmt: skip
    apply_overrides(content, overrides)
    try:
        return SurrogateFile.model_validate(content, context={"base": path.parent.resolve()})
    except ValidationError as error:
        raise PhysFedError(f"{path}: {explain(error, SurrogateFile)}") from None
