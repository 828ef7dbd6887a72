"""Which patients a frozen network learns from, as an experiment that prepares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.patient import PatientSource
from physfed_ray.data.plan import make_source, plan
from physfed_ray.data.pseudonyms import identified
from physfed_ray.data.split import deal
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import ClientSpec, Experiment, checked, load_experiment
from physfed_ray.experiment.data import Images
from physfed_ray.experiment.pretrain import ClientImages, Pretrain

PLAIN = "paper-6"
"""Whose grid full-dose images lie on where nothing is scanned: 0.88 mm, in the middle of the
paper's, and few views, because the preparation scans them all the same."""


@dataclass(frozen=True)
class Wanted:
    """The data of a pretraining.

    Attributes:
        experiment: Its clients are the protocols, who all train on the same patients; its test
            patients are the held-out ones.
        source: Where the patients come from.
        whose: Whose images they are, in words.
        leak: What having the asset tells others of whom, a sentence; "" where nobody's images are
            private.
    """

    experiment: Experiment
    source: PatientSource
    whose: str
    leak: str


def wanted(pretrain: Pretrain) -> Wanted:
    """Return the data that a pretraining asks for; headers are read, but no pixels.

    Raises:
        PhysFedError: They cannot be had.
    """
    client = pretrain.data.client
    return _of_source(pretrain) if client is None else _of_client(pretrain, client)


def _of_source(pretrain: Pretrain) -> Wanted:
    data = pretrain.data
    assert data.source is not None
    protocols = _protocols(pretrain, PLAIN)
    images = {"source": data.source} | _images(data)
    sketch = _experiment(pretrain, images, pretrain.seed, protocols, None, data.held_out_patients)
    source = make_source(sketch)
    slices = {patient: source.slice_count(patient) for patient in source.ids()}
    train, test = _split(slices, identified(sketch, slices).data.test_patients, pretrain.seed)
    made = _experiment(pretrain, images, pretrain.seed, protocols, train, test)
    kind = "phantoms" if data.source.phantom is not None else "DICOM patients"
    return Wanted(made, source, f"{len(train)} {kind}", "")


def _of_client(pretrain: Pretrain, client: ClientImages) -> Wanted:
    """Return the training images of a client, some of whose patients are held out."""
    named = load_experiment(client.experiment)
    spec = next((c for c in named.clients if c.id == client.id), None)
    if spec is None:
        ids = ", ".join(c.id for c in named.clients)
        raise PhysFedError(
            f"data.client.id: {client.experiment} has no client '{client.id}'; it has: {ids}"
        )
    if named.data.source.pairs is not None or not spec.labels:
        raise PhysFedError(
            f"data.client: pretraining scans full-dose images itself, and {client.id} of "
            f"{client.experiment} has measured pairs or no full dose; choose another client"
        )
    todo = plan(named)
    own = {patient.id: patient.slices for patient in todo.files["train", client.id]}
    held = pretrain.data.held_out_patients
    protocols = _protocols(pretrain, spec)
    images = {"source": named.data.source} | _images(named.data)
    if pretrain.data.cache is not None:
        images["cache"] = pretrain.data.cache
    sketch = _experiment(pretrain, images, named.seed, protocols, None, held)
    train, test = _split(own, identified(sketch, own).data.test_patients, pretrain.seed)
    made = _experiment(pretrain, images, named.seed, protocols, train, test)
    who = f"client {client.id} of {named.name}"
    leak = (
        f"This asset was trained on the private images of {who}. Whoever has it, every other "
        "client and the server included, has what it learned of them; no method, channel or noise "
        "of a federation changes that."
    )
    return Wanted(made, todo.source, f"{len(train)} training patients of {who}", leak)


def _split(
    slices: Mapping[str, int], held_out: int | Sequence[str], seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return who is trained on and who is held out.

    Raises:
        PhysFedError: There are too few patients, or one that is listed is not there.
    """
    if isinstance(held_out, int) and len(slices) <= held_out:
        raise PhysFedError(
            f"data.held_out_patients: there are {len(slices)} patient(s), and {held_out} cannot be "
            "held out of them; give more patients, or hold out fewer"
        )
    found = deal(slices, {"pretraining": None}, held_out, 0, seed)
    if not found.train["pretraining"]:
        raise PhysFedError("data.held_out_patients: nobody is left to learn from; hold out fewer")
    return found.train["pretraining"], found.test


def _protocols(pretrain: Pretrain, otherwise: str | ClientSpec) -> list[ClientSpec]:
    """Return the scanners as clients: those of the file, or one that lends its grid alone."""
    if pretrain.protocols:
        return list(pretrain.protocols)
    if isinstance(otherwise, ClientSpec):
        return [otherwise]
    return [ClientSpec(id=otherwise, protocol=PRESETS[otherwise])]


def _images(data: Images) -> dict[str, Any]:
    """Return the keys of ``data`` that say how images are cut up."""
    return {key: getattr(data, key) for key in Images.model_fields if key != "source"}


def _experiment(
    pretrain: Pretrain,
    images: Mapping[str, Any],
    seed: int,
    protocols: Sequence[ClientSpec],
    train: tuple[str, ...] | None,
    test: int | tuple[str, ...],
) -> Experiment:
    """Return the experiment whose preparation makes the images: nothing of it is trained."""
    content: dict[str, Any] = {
        "name": pretrain.pretrain,
        "seed": seed,
        "data": {**images, "test_patients": test, "reuse_patients": True},
        "clients": [
            {"id": entry.id, "protocol": entry.protocol} | ({"patients": train} if train else {})
            for entry in protocols
        ],
        "reports": pretrain.reports,
        "method": {"name": "local"},
    }
    return checked(content, Path.cwd())
