"""``enrolled/<id>/``: a client that joined a run after its last round, beside the run's own files.

``client.json`` is written last: without it there is no such client. It carries its own checksum and
that of ``private.safetensors``.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from physfed_ray.checksum import checksum, seal, unseal
from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.rundir.model import MODEL_FILE
from physfed_ray.rundir.run_directory import Manifest, RunDirectory, round_name
from physfed_ray.serving.enrol.one_shot import CHILD

FOLDER = "enrolled"
CARD, WEIGHTS, SCORES = "client.json", "private.safetensors", "scores.parquet"
CURE = "enrol the client once more with --again, or copy its folder again"


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Plain):
    """What of the run a client was enrolled to.

    Attributes:
        round: The round whose shared part stands still.
        shared: Checksum of that part's file; empty for a method that shares nothing.
        run_hash: Of ``model.json`` and that checksum: which run this is.
    """

    round: int
    shared: str
    run_hash: str


class Result(_Plain):
    """Scores of one way to serve the client's test patients.

    Attributes:
        split: ``input``, ``unseen/POLICY``, or ``enrolled/PATIENTS``, as in ``scores.parquet``.
        says: In words.
        patients: Training patients that it learnt from.
        slices: Their slices.
        round: The round that validation chose; 0 is the start.
        rounds: Rounds made.
        validation: PSNR on the validation patients after each of them, from the start on, dB.
        scores: By metric, the mean over the slices of each test patient, by pseudonym.
    """

    split: str
    says: str
    patients: int = 0
    slices: int = 0
    round: int = 0
    rounds: int = 0
    validation: tuple[float, ...] = ()
    scores: dict[str, dict[str, float]]


class EnrolledCard(_Plain):
    """An enrolled client without its weights.

    Attributes:
        format: Version of this file's layout.
        id: Its name, used by no client of the run.
        protocol: How its scanner scans.
        trained: Parts of the network that it trained; all else is the run's.
        start: What they were before: ``initial`` weights, the ``nearest`` client's, or a copy of
            the ``shared`` ones.
        base: The run that it joined.
        weights: Checksum of ``private.safetensors``.
        patients: Slices of each patient by pseudonym, by split.
        source: What was found in its data, in words of no patient.
        known: What could be said of patients that the run knew already.
        settings: All that the training depended on.
        results: Scores of the input, of serving the client unseen, and of the enrolled model for
            growing numbers of its training patients; the last is the one that is kept.
        versions: Of the packages that made this.
    """

    format: Literal[1] = 1
    id: str
    protocol: Protocol
    trained: tuple[str, ...]
    start: Literal["initial", "nearest", "shared"]
    base: Base
    weights: str
    patients: dict[str, dict[str, int]]
    source: dict[str, Any]
    known: str
    settings: dict[str, Any]
    results: tuple[Result, ...]
    versions: dict[str, str] = {}

    @property
    def one_shot(self) -> bool:
        """Whether it has weights of a diffusion network's steps, and nothing else of its own."""
        return self.trained == (CHILD,)


def file_of(name: str, file: str) -> str:
    """Return the name of an enrolled client's file below the run directory."""
    return f"{FOLDER}/{name}/{file}"


def enrolled_names(directory: RunDirectory) -> tuple[str, ...]:
    """Return the names of a run's enrolled clients, sorted."""
    names = sorted(directory.folders(FOLDER))
    return tuple(name for name in names if directory.exists(file_of(name, CARD)))


def read_enrolled(directory: RunDirectory, name: str) -> EnrolledCard | None:
    """Read the card of an enrolled client, None where no client of that name was enrolled.

    Raises:
        DamagedError: It is not as it was written.
    """
    if name not in enrolled_names(directory):
        return None
    where = f"{directory.root}/{file_of(name, CARD)}"
    values = unseal(directory.read(file_of(name, CARD)), where, CURE)
    try:
        return EnrolledCard.model_validate(values)
    except ValidationError:
        raise DamagedError(where, CURE, "is of another version") from None


def read_private(directory: RunDirectory, card: EnrolledCard) -> dict[str, Tensor]:
    """Read an enrolled client's private part.

    Raises:
        DamagedError: It is gone, or not as it was written.
    """
    name = file_of(card.id, WEIGHTS)
    try:
        return directory.read_tensors(name, card.weights)
    except DamagedError as error:
        what = error.fault.removeprefix(f"{error.where} ")
        raise DamagedError(error.where, CURE, what) from None


def write_card(directory: RunDirectory, card: EnrolledCard) -> None:
    """Write a client's card; its other files must be there."""
    directory.write(file_of(card.id, CARD), seal(card.model_dump(mode="json")))


def base_of(directory: RunDirectory, manifest: Manifest) -> Base:
    """Return what of a run a client is enrolled to now."""
    name = f"{round_name(manifest.round)}/server.safetensors"
    shared = manifest.parts.get(name, "")
    if not shared and directory.exists(name):
        shared = checksum(directory.read(name))  # of a run that took no checksums of parts
    return Base(
        round=manifest.round,
        shared=shared,
        run_hash=checksum(directory.read(MODEL_FILE), shared.encode()),
    )


def check_base(card: EnrolledCard, now: Base) -> None:
    """Refuse a client whose private part was trained against other shared parameters.

    Raises:
        PhysFedError: The run has gone on, or is another one.
    """
    if (card.base.round, card.base.shared) != (now.round, now.shared):
        raise PhysFedError(
            f"client '{card.id}' was enrolled to round {card.base.round} of this run, whose shared "
            f"part is now another (round {now.round}): enrol it once more with --again"
        )
