"""A new client's patients: who was known before, who is added in which order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.patient import pseudonym
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.data_record import DataRecord
from physfed_ray.serving.enrol.patients import (
    Dealing,
    client_experiment,
    fitted,
    known_before,
    of_patients,
    order_of_patients,
    phantom_seed,
)
from tests.conftest import random_client_data
from tests.serving.test_rebuild import card

SALT = "a salt"


class Patients:
    """A source of which nothing but the ids is asked."""

    def ids(self) -> tuple[str, ...]:
        """Return three ids."""
        return ("A1", "A2", "A3")


def record(**dealt: tuple[str, ...]) -> DataRecord:
    return DataRecord(seed=1, patients="", scans="", source="", dealt=dealt, made_with={})


def test_patients_of_the_run_are_refused_by_their_pseudonyms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PHYSFED_SALT", SALT)
    hidden = pseudonym("A2", SALT.encode())
    known = record(test=(hidden, "0123456789ab"), validation=())
    with pytest.raises(PhysFedError, match=rf"\(test: {hidden}\).*take them out"):
        known_before(Patients(), known, allowed=False)  # type: ignore[arg-type]
    assert hidden in known_before(Patients(), known, allowed=True)  # type: ignore[arg-type]
    monkeypatch.setenv("PHYSFED_SALT", "another")
    said = known_before(Patients(), known, allowed=False)  # type: ignore[arg-type]
    assert "with another PHYSFED_SALT than the run's" in said
    said = known_before(Patients(), None, allowed=False)  # type: ignore[arg-type]
    assert "is not known" in said
    assert "phantoms" in known_before(PhantomSource(3, 1, 1), known, allowed=False)


def test_the_scanner_is_that_of_the_run_and_the_patients_are_the_client_s() -> None:
    run = card()
    data = {
        "source": {"dicom": "/elsewhere", "lossy": True, "min_slices": 2},
        "image_size": 40,
        "object_scale": 3,
        "electronic_noise": 7.0,
        "slices_per_patient": 5,
        "test_patients": ["pseudonym:0123456789ab"],
        "reuse_patients": True,
    }
    settings = {"data": data, "training": {"lr": 2e-4}}
    protocol = replace(PRESETS["unseen-1"], arc_deg=240)
    made = client_experiment(settings, run, "north", protocol, Dealing(Path("/north"), seed=4))
    source = made.data.source
    assert (source.dicom, source.lossy, source.min_slices) == (Path("/north"), True, 2)
    assert (made.data.simulation.object_scale, made.data.simulation.electronic_noise) == (3, 7)
    assert (made.data.slices_per_patient, made.seed, made.training.lr) == (5, 4, 2e-4)
    assert [(c.id, c.protocol) for c in made.clients] == [("north", protocol)]
    assert made.method.name == "fedper"
    phantoms = client_experiment(settings, run, "north", protocol, Dealing(None, 6))
    assert phantoms.data.source.phantom is not None
    assert phantoms.data.source.phantom.patients == 6
    data["source"] = {"pairs": "/elsewhere"}
    with pytest.raises(PhysFedError, match="measured pairs"):
        client_experiment(settings, run, "north", protocol, Dealing(Path("/north")))


def test_patients_are_added_one_by_one_in_an_order_of_the_seed() -> None:
    parts = [random_client_data(seed, 2) for seed in (1, 2, 3)]
    data = replace(
        parts[0],
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in (
                "low", "full", "body", "embedding", "embedding_mask", "g", "slice", "scale",
            )
        },
        patient=[name for part in parts for name in part.patient],
        report=[f"of {name}" for part in parts for name in part.patient],
        extra={"sigma": np.arange(6.0)},
    )  # fmt: skip
    orders = {tuple(order_of_patients(data, seed)) for seed in range(9)}
    assert len(orders) > 1
    assert all(sorted(order) == ["p1", "p2", "p3"] for order in orders)
    picked = of_patients(data, ["p3", "p1"])
    assert picked.patient == ["p1", "p1", "p3", "p3"]
    assert picked.report == ["of p1", "of p1", "of p3", "of p3"]
    for name in ("low", "g"):
        both = np.concatenate([getattr(parts[k], name) for k in (0, 2)])
        assert np.array_equal(getattr(picked, name), both)
    assert picked.extra["sigma"].tolist() == [0, 1, 4, 5]


def test_embeddings_of_another_encoder_are_refused_and_g_is_the_run_s() -> None:
    run = card()
    arc = replace(PRESETS["paper-1"], arc_deg=240)
    data = random_client_data(1, 2, dim=2)
    with pytest.raises(PhysFedError, match=r"shape \(1, 2\), and the run's \(4, 2\)"):
        fitted(data, run, PRESETS["paper-1"])
    data = replace(data, embedding=np.zeros((2, 4, 2)), embedding_mask=np.ones((2, 4)))
    g = fitted(data, run, PRESETS["paper-2"]).g
    assert np.array_equal(g, [PRESETS["paper-2"].normalised()] * 2)
    with pytest.raises(PhysFedError, match="arc_deg=240 cannot be told"):
        fitted(data, run, arc)


def test_phantoms_are_those_of_no_run() -> None:
    seeds = {phantom_seed(seed, name) for seed in (1, 2) for name in ("north", "south")}
    assert len(seeds) == 4
    assert not seeds & {1, 2}
