"""The schema of an experiment file: every key, its unit, its default, its bounds.

Longer than other modules because all keys stand in one place, group by group as in the file.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.protocol import PRESETS, Protocol, select_presets
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment_file import apply_overrides, did_you_mean, explain, read_yaml
from physfed_ray.methods.registry import get_method
from physfed_ray.models.registry import BackboneSettings
from physfed_ray.reports.registry import ENCODERS, REPORTERS

PROTOCOL_KEYS = tuple(Protocol.__dataclass_fields__)
SMALLEST_IMAGE = 32
"""Side in pixels; RED-CNN's five unpadded 5 x 5 layers take 20 of them at the bottleneck."""


def _relative_to_file(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    base = (info.context or {}).get("base", Path.cwd())
    return Path(base, Path(value).expanduser()).resolve()


def _protocol(value: Any) -> Any:
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(f"no protocol is called '{value}'; {did_you_mean(value, PRESETS)}")
        return PRESETS[value]
    if not isinstance(value, dict):
        return value
    for key in value:
        if key not in PROTOCOL_KEYS:
            raise ValueError(f"unknown key '{key}'; {did_you_mean(str(key), PROTOCOL_KEYS)}")
    missing = [key for key in PROTOCOL_KEYS if key not in value]
    if missing:
        raise ValueError(f"a protocol has seven numbers; missing: {', '.join(missing)}")
    try:
        return Protocol(**value)
    except PhysFedError as error:
        raise ValueError(str(error)) from None


def _patients(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        if len(set(value)) != len(value):
            raise ValueError("the list names a patient twice")
        return tuple(value)
    raise ValueError(f"must be a number of patients or a list of patient ids, not {value!r}")


def _hosts(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"must be 'auto' or a whole number from 1, not {value!r}")


RelativePath = Annotated[Path, BeforeValidator(_relative_to_file)]
Patients = Annotated[int | tuple[str, ...], BeforeValidator(_patients)]
Window = tuple[float, float]


class Settings(BaseModel):
    """A frozen group of keys that refuses unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


class Phantom(Settings):
    """Procedural patients."""

    patients: int = Field(
        ge=1, description="number of patients, dealt over the clients and the test set"
    )
    slices: int = Field(12, ge=1, description="slices of each patient")


class Source(Settings):
    """Where the full-dose images come from: DICOM or phantoms."""

    dicom: RelativePath | None = Field(
        None, description="folder tree with CT DICOM files, relative to this file"
    )
    min_slices: int = Field(
        1, ge=1, description="DICOM patients with fewer usable slices are left out"
    )
    phantom: Phantom | None = Field(None, description="procedural patients instead of DICOM")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.dicom is None) == (self.phantom is None):
            raise ValueError("give exactly one of 'dicom' (a folder) and 'phantom'")
        if self.phantom and "min_slices" in self.model_fields_set and self.min_slices > 1:
            raise ValueError("'min_slices' belongs to 'dicom'; phantoms have 'phantom.slices'")
        return self


class Data(Settings):
    """The images and how they are cut up."""

    source: Source = Field(description="where the full-dose images come from")
    image_size: int = Field(
        256, ge=SMALLEST_IMAGE, le=2048, description="side of the square image grid in pixels"
    )
    slices_per_patient: int | None = Field(
        None, ge=1, description="at most so many slices a patient, evenly spaced; null: all"
    )
    window_hu: Window = Field(
        (-1000.0, 2000.0),
        description="HU that become 0 and 1 for the network and the plain metrics",
    )
    clinical_windows: dict[str, Window] = Field(
        {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0)},
        description="further HU windows in which PSNR and SSIM are given, by name",
    )
    centre: Literal["body", "image"] = Field(
        "body", description="centre each slice on the body (and shrink it to fit) or on its frame"
    )
    test_patients: Patients = Field(
        2, description="number of test patients, or their ids; scanned under every protocol"
    )
    validation_patients: Patients = Field(
        0, description="number of validation patients, or their ids; scanned under seen protocols"
    )
    electronic_noise: float = Field(
        ELECTRONIC_NOISE_COUNTS,
        ge=0,
        description="electronic noise of the detector: standard deviation in counts",
    )
    cache: RelativePath | None = Field(
        None, description="folder for prepared scans; null: PHYSFED_CACHE or ~/.cache/physfed_ray"
    )

    @field_validator("window_hu", "clinical_windows")
    @classmethod
    def _low_before_high(cls, value: Any) -> Any:
        for low, high in value.values() if isinstance(value, dict) else [value]:
            if not low < high:
                raise ValueError(
                    f"a window is [low, high] in HU with low < high, not {low}, {high}"
                )
        return value

    @field_validator("test_patients")
    @classmethod
    def _tests_something(cls, value: int | tuple[str, ...]) -> int | tuple[str, ...]:
        if not value:
            raise ValueError("at least 1 test patient is needed")
        return value


class ClientSpec(Settings):
    """A client, or an unseen protocol that is only tested."""

    id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name in logs, tables and files"
    )
    protocol: Annotated[Protocol, BeforeValidator(_protocol)] = Field(
        description="name of a preset (`physfed protocols`) or the seven numbers"
    )
    patients: tuple[str, ...] | None = Field(
        None, min_length=1, description="ids of its patients; null: dealt out"
    )


def _expand(value: Any) -> Any:
    """Return a list of clients for a pattern over protocol names."""
    if isinstance(value, str):
        try:
            presets = select_presets(value)
        except PhysFedError as error:
            raise ValueError(str(error)) from None
        return [{"id": name, "protocol": name} for name in presets]
    if isinstance(value, dict):
        if "generate" in value:
            raise ValueError(
                "generated clients do not exist yet; list the clients or give a pattern "
                "over protocol names such as 'paper-*'"
            )
        raise ValueError("must be a list of clients or a pattern such as 'paper-*'")
    return value


Clients = Annotated[tuple[ClientSpec, ...], BeforeValidator(_expand)]


class Reports(Settings):
    """How a slice's anatomy becomes f_t."""

    reporter: str = Field("measured", description="what writes a report from the low-dose slice")
    encoder: str = Field("minilm", description="what turns the report into its embedding f_t")

    @field_validator("reporter", "encoder")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known = REPORTERS if info.field_name == "reporter" else ENCODERS
        if value not in known:
            raise ValueError(f"no {info.field_name} is called '{value}'; "
                             f"{did_you_mean(value, known)}")  # fmt: skip
        return value


class MethodSpec(BaseModel):
    """A method's name and its settings, already checked against the method's own schema."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="a name that `physfed methods` prints")
    settings: SerializeAsAny[BaseModel]

    @model_validator(mode="before")
    @classmethod
    def _check_settings(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError("give at least 'name', for example {name: fedavg}")
        try:
            model = get_method(value["name"]).Settings
        except PhysFedError as error:
            raise PhysFedError(f"method.name: {error}") from None
        entries = {key: entry for key, entry in value.items() if key != "name"}
        try:
            return {"name": value["name"], "settings": model(**entries)}
        except ValidationError as error:
            raise PhysFedError(explain(error, model, "method.")) from None

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings.model_dump(mode="json")}


class Training(Settings):
    """Local training, the same for every method."""

    rounds: int = Field(200, ge=1, description="federated rounds")
    local_epochs: int = Field(1, ge=1, description="passes over a client's slices in a round")
    batch_size: int = Field(20, ge=1, description="slices or patches in a step")
    lr: float = Field(1e-3, gt=0, lt=1, description="Adam's learning rate")
    adam_eps: float = Field(
        1e-8,
        gt=0,
        lt=1e-3,
        description="Adam's epsilon; gradients far below it hardly move their weights, and those "
        "of hypernetworks can be (docs/results/real_ct.md)",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="bf16: autocast; auto: bf16 where the device is made for it"
    )
    patch: int | None = Field(
        None,
        ge=SMALLEST_IMAGE,
        description="side of the training patches in pixels; null: whole images",
    )
    patches_per_slice: int = Field(1, ge=1, description="patches of each slice in an epoch")
    warmup_rounds: int = Field(
        0, ge=0, description="rounds over which the learning rate rises linearly"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate after the warm-up; cosine falls to 0"
    )
    optimizer_state: Literal["persist_private", "persist_all", "fresh"] = Field(
        "persist_private", description="which moments of Adam survive a round"
    )
    threads: int = Field(
        1, ge=1, le=256, description="CPU threads of a client; part of the result's bits"
    )
    evaluate_every: int = Field(
        10, ge=1, description="rounds between two evaluations on validation patients"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.patches_per_slice > 1 and self.patch is None:
            raise ValueError("'patches_per_slice' above 1 needs 'patch', the patches' side")
        if self.warmup_rounds >= self.rounds:
            raise ValueError(
                f"'warmup_rounds' ({self.warmup_rounds}) must be below 'rounds' ({self.rounds})"
            )
        return self


class Federation(Settings):
    """Who takes part, where the clients live, and when a round fails."""

    participation: float = Field(
        1.0, gt=0, le=1, description="share of the clients drawn for each round"
    )
    clients_per_host: Annotated[int | Literal["auto"], BeforeValidator(_hosts)] = Field(
        "auto", description="clients that share a host, one process; auto: from the resources"
    )
    deadline_s: float | None = Field(
        None, gt=0, description="seconds after which a round goes on without the late; null: none"
    )
    quorum: float = Field(
        1.0, gt=0, le=1, description="share of the drawn clients without which the run stops"
    )
    keep_checkpoints: int = Field(2, ge=1, description="rounds whose checkpoints are kept")


class Experiment(Settings):
    """One experiment, resolved: patterns expanded, paths absolute, defaults filled in."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run directory"
    )
    seed: int = Field(1, ge=0, description="every random stream derives from it")
    data: Data = Field(description="the images")
    clients: Clients = Field(
        min_length=1, description="a list, or a pattern over protocol names: 'paper-*'"
    )
    unseen: Clients = Field(
        (), description="protocols that no client trains on, only tested; as `clients`"
    )
    reports: Reports = Field(Reports(), description="reports and their embeddings")
    backbone: BackboneSettings = Field(
        default_factory=BackboneSettings, description="the imaging network"
    )
    method: MethodSpec = Field(description="the federated method and its settings")
    training: Training = Field(Training(), description="local training")
    federation: Federation = Field(Federation(), description="the federation")
    provenance: dict[str, Any] = Field(
        {}, description="written by a run (versions, commit); ignored when read"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _unique_ids([client.id for client in (*self.clients, *self.unseen)])
        self._disjoint_patients()
        patch, size = self.training.patch, self.data.image_size
        if patch is not None and patch > size:
            raise ValueError(f"training.patch ({patch}) exceeds data.image_size ({size})")
        return self

    def _disjoint_patients(self) -> None:
        groups: list[tuple[str, Sequence[str]]] = [
            (f"clients.{i}.patients", client.patients or ())
            for i, client in enumerate(self.clients)
        ]
        for key in ("test_patients", "validation_patients"):
            value = getattr(self.data, key)
            groups.append((f"data.{key}", value if isinstance(value, tuple) else ()))
        if any(client.patients for client in self.unseen):
            raise ValueError("unseen: an unseen protocol has no patients of its own; it scans "
                             "data.test_patients")  # fmt: skip
        owner: dict[str, str] = {}
        for key, patients in groups:
            for patient in patients:
                if owner.setdefault(patient, key) != key:
                    raise ValueError(f"{key}: patient '{patient}' is also in {owner[patient]}; "
                                     "patients must not overlap")  # fmt: skip

    def run_name(self) -> str:
        """Return the default name of the run directory."""
        return f"{self.name}-{self.method.name}-seed{self.seed}"

    def to_yaml(self) -> str:
        """Return the experiment as YAML that ``load_experiment`` reads back to an equal one."""
        content = self.model_dump(mode="json", exclude=None if self.provenance else {"provenance"})
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _unique_ids(ids: Sequence[str]) -> None:
    for position, client_id in enumerate(ids):
        if client_id in ids[:position]:
            raise ValueError(f"the client id '{client_id}' is used twice; ids must differ")
        if client_id == "server":
            raise ValueError("the client id 'server' is taken by the parameter server")


def load_experiment(path: Path | str, overrides: Iterable[str] = ()) -> Experiment:
    """Read, override and check an experiment file.

    Args:
        path: The YAML file; relative paths inside it are relative to it.
        overrides: ``key.path=value`` entries, values in YAML.

    Raises:
        PhysFedError: The file is missing, not YAML, or does not fit the schema.
    """
    path = Path(path)
    content = read_yaml(path)
    apply_overrides(content, overrides)
    try:
        return Experiment.model_validate(content, context={"base": path.parent.resolve()})
    except ValidationError as error:
        raise PhysFedError(f"{path}: {explain(error, Experiment)}") from None
    except PhysFedError as error:
        raise PhysFedError(f"{path}: {error}") from None
