"""The schema of an experiment file: every key, its unit, its default, its bounds.

One module for each group of keys, in the order of the file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from physfed_ray.ct.protocol import further_of
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.assets import why_unfit
from physfed_ray.experiment.backbone import BackboneSpec
from physfed_ray.experiment.clients import Clients, ClientSpec
from physfed_ray.experiment.data import Data
from physfed_ray.experiment.evaluation import Evaluation
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.federation import Federation
from physfed_ray.experiment.file import apply_overrides, read_yaml
from physfed_ray.experiment.front_end import FrontEndSpec
from physfed_ray.experiment.measured import why_incomplete, why_not_measured
from physfed_ray.experiment.method import MethodSpec
from physfed_ray.experiment.named import names_only, only_names
from physfed_ray.experiment.reports import Reports
from physfed_ray.experiment.settings import (
    LARGEST_SEED,
    LONGEST_NAME,
    NAME,
    Settings,
    operational,
)
from physfed_ray.experiment.training import Training
from physfed_ray.fields import SIGMA, Sizes, field_of
from physfed_ray.methods.registry import get_method
from physfed_ray.shipped import found

if TYPE_CHECKING:
    from physfed_ray.front_ends.base import Scanners

__all__ = [
    "HELD_PATIENTS",
    "ClientSpec",
    "Experiment",
    "Federation",
    "Reports",
    "Training",
    "checked",
    "load_experiment",
]

HELD_PATIENTS = ("test_patients", "validation_patients", "server_patients")
"""Keys under ``data`` for patients whom no client trains on."""


class Experiment(Settings):
    """One experiment, resolved: patterns expanded, paths absolute, defaults filled in."""

    name: str = operational(
        pattern=NAME, max_length=LONGEST_NAME, description="names the run directory"
    )
    label: str | None = operational(
        None,
        min_length=1,
        max_length=LONGEST_NAME,
        description="what a comparison calls the run's method; null: its name and what is special",
    )
    seed: int = Field(1, ge=0, le=LARGEST_SEED, description="every random stream derives from it")
    data: Data = Field(description="the images")
    clients: Clients = Field(
        min_length=1,
        description="a list, a pattern over protocol names ('paper-*'), or {generate: ...}",
    )
    unseen: Clients = Field(
        (), description="protocols that no client trains on, only tested; as `clients`"
    )
    reports: Reports = Field(default_factory=Reports, description="reports and their embeddings")
    front_end: FrontEndSpec = Field(
        default_factory=lambda: FrontEndSpec.model_validate("fbp"),
        description="what makes the images that the network reads from what the detector measured",
    )
    backbone: BackboneSpec = Field(
        default_factory=lambda: BackboneSpec.model_validate("red_cnn"),
        description="the imaging network and its settings",
    )
    method: MethodSpec = Field(description="the federated method and its settings")
    training: Training = Field(default_factory=Training, description="local training")
    federation: Federation = Field(default_factory=Federation, description="the federation")
    evaluation: Evaluation = Field(Evaluation(), description="what is measured in the end")
    tracking: tuple[Literal["mlflow", "wandb"], ...] = operational(
        (), description="trackers beside TensorBoard, configured by their own variables"
    )
    provenance: dict[str, Any] = operational(
        {}, description="written by a run (versions, commit); ignored when read"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _unique_ids([client.id for client in (*self.clients, *self.unseen)])
        self._disjoint_patients()
        self._measured_or_simulated()
        self._unseen_have_no_labels()
        patch, size = self.training.patch, self.data.image_size
        if patch is not None and patch > size:
            raise ValueError(f"training.patch ({patch}) exceeds data.image_size ({size})")
        if not only_names():
            self._parts_fit()
        return self

    def _parts_fit(self) -> None:
        """Refuse parts that do not go together, which their files say; these import torch."""
        method = get_method(self.method.name)
        if (reason := method.refuses(self.backbone.make())) is not None:
            raise ValueError(reason)
        if (reason := self.federation.refuses(method, len(self.trainable))) is not None:
            raise ValueError(reason)
        self._size_counts_once()
        self._somebody_has_labels()
        key = method.server_key(self.method.settings)
        if key is not None and self.data.server_patients in (0, ()):
            raise ValueError(
                f"method.{key}: {method.name} trains a model on paired images of the server, and "
                f"data.server_patients is 0; give the server patients, or set method.{key} to false"
            )
        self._fields_fit()
        self._front_end_fits()
        self._large_enough_for_the_objective()
        self._assets_fit()

    def _somebody_has_labels(self) -> None:
        unlabelled = get_method(self.method.name).unlabelled
        if not unlabelled and not any(client.labels for client in self.clients):
            raise ValueError(
                f"clients: all have 'labels: false', and method {self.method.name} trains on the "
                "full dose; leave 'labels' out for some, or choose a method that needs none"
            )

    def _fields_fit(self) -> None:
        """Refuse patches, or pooling, where a field that is needed does not allow them."""
        method, size = get_method(self.method.name), self.data.image_size
        needed = method.needed_fields(self.backbone.make(), self.front_end.make())
        for name, who in needed.items():
            try:
                field = field_of(name)
            except PhysFedError as error:
                raise ValueError(f"{who} needs a field that is not installed: {error}") from None
            if self.data.source.pairs is not None and field.make and field.simulated:
                raise ValueError(
                    f"data.source.pairs: {who} needs the field '{name}', which follows from a "
                    "simulated scan, and measured pairs have images alone; choose another method "
                    "or backbone"
                )
            if field.crop == "none" and self.training.patch not in (None, size):
                raise ValueError(
                    f"training.patch: {who} needs the field '{name}', which cannot be cut into "
                    f"patches because {field.reason}; set training.patch to null, for whole images"
                )
            if method.pooled:
                shapes = {field.shape(Sizes(size), client.protocol) for client in self.clients}
                if len(shapes) > 1:
                    raise ValueError(
                        f"method.name: {who} needs the field '{name}', which has another shape "
                        "under each client's protocol and cannot be pooled; give all clients the "
                        "same protocol, or choose a method that does not pool"
                    )

    def _front_end_fits(self) -> None:
        """Refuse sinograms where none were measured, and one front end for pooled geometries."""
        front_end = self.front_end.make()
        makes_images = front_end.prepares or front_end.fields
        if self.data.source.pairs is not None and makes_images:
            raise ValueError(
                f"front_end.name: {front_end.name} makes images from sinograms, and measured pairs "
                "have images alone; leave front_end out"
            )
        if makes_images and (reason := front_end.refuses(self.scanners)) is not None:
            raise ValueError(reason)
        method = get_method(self.method.name)
        needed = method.needed_fields(self.backbone.make(), front_end)
        if front_end.prepares and SIGMA.name in needed:
            raise ValueError(
                f"front_end.name: {needed[SIGMA.name]} reads the noise of the scanner's own FBP, "
                f"and {front_end.name} makes other images; leave front_end out, or choose another "
                "method"
            )
        if method.pooled and front_end.fields:
            raise ValueError(
                f"front_end.name: {front_end.name} is private to each client, and method "
                f"{self.method.name} trains one network on the data of all; choose another of them"
            )

    def _large_enough_for_the_objective(self) -> None:
        patch, size = self.training.patch, self.data.image_size
        key, side = ("data.image_size", size) if patch is None else ("training.patch", patch)
        needed = self.training.objective.make().smallest_side
        if side < needed:
            raise ValueError(
                f"training.objective: {self.training.objective.name} needs images of {needed} "
                f"pixels a side, and {key} is {side}: raise it, or change the objective"
            )

    def _assets_fit(self) -> None:
        """Refuse assets that are missing or fit other images; what a run wrote is not run again."""
        if not self.provenance and (reason := why_unfit(self)) is not None:
            raise ValueError(reason)

    def _measured_or_simulated(self) -> None:
        """Refuse what makes no sense where the low dose was measured, or where it was not."""
        if self.data.source.pairs is not None:
            reason = why_not_measured(self.data, self.clients, self.unseen, self.evaluation)
            if reason is not None:
                raise ValueError(reason)
            return
        for key in ("clients", "unseen"):
            if (reason := why_incomplete(getattr(self, key))) is not None:
                raise ValueError(f"{key}.{reason}")

    def _disjoint_patients(self) -> None:
        """Refuse a patient in two lists; clients of measured pairs may list who is tested."""
        clients = self._lists("clients")
        held: list[tuple[str, Sequence[str]]] = []
        for key in HELD_PATIENTS:
            value = getattr(self.data, key)
            held.append((f"data.{key}", value if isinstance(value, tuple) else ()))
        if self.data.source.pairs is not None:
            self._refuse_overlap([*clients, *self._lists("unseen")])
            self._refuse_overlap([*held, *self._lists("unseen")])
            return
        if any(client.patients for client in self.unseen):
            raise ValueError("unseen: an unseen protocol has no patients of its own; it scans "
                             "data.test_patients")  # fmt: skip
        self._refuse_overlap([*clients, *held])

    def _unseen_have_no_labels(self) -> None:
        for position, part in enumerate(self.unseen):
            if not part.labels:
                raise ValueError(
                    f"unseen.{position}.labels: an unseen protocol is only tested, and a test "
                    "needs the full dose; take 'labels' out"
                )

    def _lists(self, key: Literal["clients", "unseen"]) -> list[tuple[str, Sequence[str]]]:
        parts: Clients = getattr(self, key)
        return [(f"{key}.{i}.patients", part.listed_patients) for i, part in enumerate(parts)]

    def _refuse_overlap(self, groups: Sequence[tuple[str, Sequence[str]]]) -> None:
        owner: dict[str, str] = {}
        for key, patients in groups:
            for patient in patients:
                other = owner.setdefault(patient, key)
                train = key.startswith("clients.") and other.startswith("clients.")
                if other != key and not (train and self.data.reuse_patients):
                    raise ValueError(f"{key}: patient '{patient}' is also in {other}; "
                                     "patients must not overlap")  # fmt: skip

    def _size_counts_once(self) -> None:
        """Refuse to favour large clients both when they are drawn and when they are averaged."""
        weights = getattr(self.method.settings, "weights", None)
        if self.federation.sampling == "by_size" and weights == "samples":
            raise ValueError(
                "federation.sampling: by_size and method.weights: samples together count a "
                "client's size twice; keep one of them: 'sampling: uniform' with 'weights: "
                "samples', or 'sampling: by_size' with 'weights: uniform' (Li et al. 2020)"
            )

    def listed_patients(self) -> Iterator[str]:
        """Yield the patients that are listed by id."""
        for listed in (getattr(self.data, key) for key in HELD_PATIENTS):
            yield from listed if isinstance(listed, tuple) else ()
        for client in (*self.clients, *self.unseen):
            yield from client.listed_patients

    def with_patients(self, rename: Callable[[str], str]) -> "Experiment":
        """Return the experiment with another name for every patient that is listed by id."""

        def renamed(listed: Any) -> Any:
            return tuple(map(rename, listed)) if isinstance(listed, tuple) else listed

        data = {key: renamed(getattr(self.data, key)) for key in HELD_PATIENTS}
        parts = {
            key: tuple(
                client.model_copy(update={"patients": renamed(client.patients)})
                for client in getattr(self, key)
            )
            for key in ("clients", "unseen")
        }
        return self.model_copy(update={"data": self.data.model_copy(update=data), **parts})

    def needed_patients(self) -> int:
        """Return how many patients clients, validation, test and server need, each used once."""
        held = (getattr(self.data, key) for key in HELD_PATIENTS)
        counted = [ids if isinstance(ids, int) else len(ids) for ids in held]
        return sum(counted) + sum(client.needed_patients for client in self.clients)

    def run_name(self) -> str:
        """Return the default name of the run directory."""
        return f"{self.name}-{self.method.name}-seed{self.seed}"

    @property
    def scanners(self) -> "Scanners":
        """Those of the training clients, as a learned front end must know them."""
        from physfed_ray.front_ends.base import Scanners  # imports torch

        protocols = tuple(client.protocol for client in self.clients)
        return Scanners(protocols, self.data.simulation, self.data.window_hu)

    @property
    def trainable(self) -> tuple[ClientSpec, ...]:
        """The clients that can train under the method: some methods need the full dose."""
        unlabelled = get_method(self.method.name).unlabelled
        return tuple(client for client in self.clients if client.labels or unlabelled)

    @property
    def further(self) -> tuple[str, ...]:
        """Names of the further fields of a protocol that g holds."""
        return further_of(client.protocol for client in (*self.clients, *self.unseen))

    def to_yaml(self) -> str:
        """Return the experiment as YAML that ``load_experiment`` reads back to an equal one."""
        content = self.model_dump(mode="json", exclude=None if self.provenance else {"provenance"})
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _unique_ids(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for client_id in ids:
        if client_id in seen:
            raise ValueError(f"the client id '{client_id}' is used twice; ids must differ")
        seen.add(client_id)
        if client_id == "server":
            raise ValueError("the client id 'server' is taken by the parameter server")


def load_experiment(path: Path | str, overrides: Iterable[str] = ()) -> Experiment:
    """Read, override and check an experiment file.

    Args:
        path: The YAML file; relative paths inside it are relative to it. The name of a shipped
            experiment, such as ``quickstart``, will do.
        overrides: ``key.path=value`` entries, values in YAML.

    Raises:
        PhysFedError: The file is missing, not YAML, or does not fit the schema.
    """
    path = found(path)
    content = read_yaml(path)
    if "suite" in content:
        raise PhysFedError(f"{path} is a suite, which `physfed run` and `physfed describe` take; "
                           "name an experiment here, such as the suite's base")  # fmt: skip
    if "sweep" in content:
        raise PhysFedError(f"{path} is a sweep, which `physfed sweep` takes; name an experiment "
                           "here, such as the sweep's base")  # fmt: skip
    if "pretrain" in content:
        raise PhysFedError(f"{path} trains a frozen network, which `physfed pretrain` takes; name "
                           "an experiment here")  # fmt: skip
    if "surrogate" in content:
        raise PhysFedError(f"{path} is a surrogate study, which `physfed surrogate` takes; name an "
                           "experiment here")  # fmt: skip
    apply_overrides(content, overrides)
    try:
        return checked(content, path.parent.resolve())
    except PhysFedError as error:
        raise PhysFedError(f"{path}: {error}") from None


def checked(content: Mapping[str, Any], base: Path) -> Experiment:
    """Return the experiment that keys make.

    What needs no torch is looked at first, so that most mistakes are told in less than a second.

    Args:
        content: The keys of a file.
        base: Folder that relative paths are relative to.

    Raises:
        PhysFedError: They do not fit the schema.
    """
    context = {"base": base}
    try:
        with names_only():
            sketch = Experiment.model_validate(content, context=context)
        read = {key: getattr(sketch, key) for key in ("data", "clients", "unseen")}
        return Experiment.model_validate(
            {key: read.get(key, value) for key, value in content.items()}, context=context
        )
    except ValidationError as error:
        raise PhysFedError(explain(error, Experiment)) from None
