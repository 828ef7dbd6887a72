"""A new client's patients: scanned as the run's were, dealt to training, validation and test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.left_out import left_out_sentence
from physfed_ray.data.patient import PatientSource, pseudonym, user_salt
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.plan import make_source
from physfed_ray.data.store import ClientData
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, checked
from physfed_ray.rundir.data_record import DataRecord, hidden
from physfed_ray.rundir.model import ModelCard
from physfed_ray.seeds import derive_seed, generator

FEWEST = 3
"""Patients of a client: one to learn from, one to choose the round by, one to test on."""
PHANTOM_SLICES = 12


@dataclass(frozen=True)
class Dealing:
    """Where a client's patients come from, and how many are kept from training.

    Attributes:
        folder: CT DICOM at full dose; None for phantoms.
        phantoms: How many phantoms, where there is no folder.
        test: Patients of the test; None: a quarter.
        validation: Patients that choose the round; None: a fifth.
        seed: Deals the patients, draws the noise and the batches.
    """

    folder: Path | None
    phantoms: int = 0
    test: int | None = None
    validation: int | None = None
    seed: int = 1


def client_experiment(
    settings: Mapping[str, Any], card: ModelCard, name: str, protocol: Protocol, dealing: Dealing
) -> Experiment:
    """Return the experiment that prepares a new client's patients as the run prepared its own.

    Args:
        settings: The run's ``experiment.yaml``.
        card: The run's model.
        name: The client's.
        protocol: How it scans.
        dealing: Whose patients.

    Raises:
        PhysFedError: The run's low dose was measured, or its settings cannot be read.
    """
    data: dict[str, Any] = dict(settings["data"])
    before = data["source"]
    if before.get("pairs") is not None:
        raise PhysFedError(
            "the run learnt from measured pairs of full and low dose, and enrolling simulates the "
            "low dose of its patients, which is another noise: train the run on full-dose DICOM"
        )
    kept = {key: before[key] for key in ("min_slices", "lossy", "derived") if key in before}
    slices = (before.get("phantom") or {}).get("slices", PHANTOM_SLICES)
    if dealing.folder is None:
        source: dict[str, Any] = {"phantom": {"patients": dealing.phantoms, "slices": slices}}
    else:
        source = {"dicom": str(dealing.folder)} | kept
    data |= {"source": source, "cache": None, "reuse_patients": False}
    return checked(
        {
            "name": "enrol",
            "seed": dealing.seed,
            "data": data | {"test_patients": 1, "validation_patients": 1, "server_patients": 0},
            "clients": [{"id": name, "protocol": protocol.values()}],
            "reports": card.reports,
            "front_end": card.front_end,
            "backbone": card.backbone,
            "method": card.method,
            "training": settings["training"],
        },
        Path.cwd(),
    )


def dealt(experiment: Experiment, dealing: Dealing) -> tuple[Experiment, PatientSource]:
    """Return the experiment with its numbers of patients, and the source of them, already read.

    Raises:
        PhysFedError: There are too few.
    """
    source = make_source(experiment)
    count = len(source.ids())
    where = "the phantoms" if dealing.folder is None else str(dealing.folder)
    left_out = left_out_sentence(source.summary())
    if count < FEWEST:
        raise PhysFedError(
            f"{where}: {count} patients, and enrolling needs at least {FEWEST}, one each for "
            f"training, validation and test: give more.{left_out}"
        )
    test = max(1, count // 4) if dealing.test is None else dealing.test
    validation = max(1, count // 5) if dealing.validation is None else dealing.validation
    if test + validation >= count:
        raise PhysFedError(
            f"{where}: {count} patients, of which {test} for the test and {validation} for "
            f"validation leave none to train on: give more, or lower --test or --validation."
            f"{left_out}"
        )
    numbers = {"test_patients": test, "validation_patients": validation}
    data = experiment.data.model_copy(update=numbers)
    return experiment.model_copy(update={"data": data}), source


def known_before(source: PatientSource, record: DataRecord | None, *, allowed: bool) -> str:
    """Say what can be said of patients that were in the run's own data.

    Pseudonyms are compared: patients of the same id, under the salt of this machine.

    Args:
        source: The new client's.
        record: The run's ``data.json``, None where an earlier version wrote none.
        allowed: Whether the same patients may come again.

    Raises:
        PhysFedError: Some were, and may not.
    """
    if isinstance(source, PhantomSource):
        return "phantoms, drawn from a seed of the client's own: the run had none of them"
    if record is None:
        return "the run has no data.json, so whether it knew some of the patients is not known"
    salt = user_salt()
    here = {pseudonym(patient, salt) for patient in source.ids()}
    shared = {group: here & set(names) for group, names in record.dealt.items()}
    shared = {group: names for group, names in shared.items() if names}
    if not shared:
        return (
            "none has the pseudonym of a patient of the run; with another PHYSFED_SALT than the "
            "run's, or other patient ids, that would not show"
        )
    words = "; ".join(f"{group}: {hidden(names)}" for group, names in shared.items())
    if not allowed:
        raise PhysFedError(
            f"patients of the run's own data are among the new client's ({words}), which would "
            "flatter it: take them out, or add --known-patients where other people have these ids"
        )
    return f"patients of the run's own data are among them ({words})"


def phantom_seed(seed: int, name: str) -> int:
    """Return a seed under which no phantom is one of the run's."""
    return derive_seed(seed, name, "enrolled phantoms") % 2**62


def fitted(data: ClientData, card: ModelCard, protocol: Protocol) -> ClientData:
    """Return slices of the new client's scanner as the run's networks take them.

    Raises:
        PhysFedError: The embeddings have other dimensions than the run's.
    """
    tokens, dim = card.statistics.tokens, card.statistics.dim
    own = data.embedding.shape[1:]
    if own != (tokens, dim):
        raise PhysFedError(
            f"the reports' embeddings have the shape {own}, and the run's {(tokens, dim)}: use the "
            "text encoder, in the version, that the run used"
        )
    g = np.tile(protocol.normalised(card.further), (len(data), 1))
    return replace(data, g=g, protocol=protocol)


def order_of_patients(data: ClientData, seed: int) -> list[str]:
    """Return the pseudonyms of training patients in the order in which they are added."""
    names = sorted(set(data.patient))
    return [names[i] for i in generator(seed, "enrolled patients").permutation(len(names))]


def of_patients(data: ClientData, patients: Sequence[str]) -> ClientData:
    """Return the slices of some patients."""
    rows = np.flatnonzero(np.isin(data.patient, list(patients)))
    picked: dict[str, Any] = {
        name: np.asarray(getattr(data, name))[rows]
        for name in ("low", "full", "body", "embedding", "embedding_mask", "g", "slice", "scale")
    }
    return replace(
        data,
        **picked,
        patient=[data.patient[row] for row in rows],
        report=[data.report[row] for row in rows],
        extra={name: np.asarray(values)[rows] for name, values in data.extra.items()},
    )
