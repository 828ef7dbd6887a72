"""Measured pairs: what an experiment may ask of them, and which sentence refuses the rest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment.measured import known_protocol, scanners

MAYO = {"views": 2304, "bins": 736, "bin_mm": 1.2858, "photons": 2e5, "detector": "arc"}
TWO = [
    {"id": "a", "protocol": "paper-1", "patients": ["p1", "p2"]},
    {"id": "b", "protocol": "paper-2", "patients": ["p3", "p4"]},
]


def load(tmp_path: Path, **changes: Any) -> Experiment:
    """Load two clients of one scanner; keys may have dots as ``__``."""
    values: dict[str, Any] = {
        "name": "pairs",
        "data": {"source": {"pairs": "ldct"}},
        "clients": [{"id": "a", "protocol": "paper-1"}, {"id": "b", "protocol": "paper-1"}],
        "method": {"name": "fedavg"},
    }
    for key, value in changes.items():
        *groups, name = key.split("__")
        node = values
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    return load_experiment(tmp_path / "x.yaml")


def test_pairs_are_a_folder_relative_to_the_file(tmp_path: Path):
    experiment = load(tmp_path, data__source__full="*fd*")
    assert experiment.data.source.folder == experiment.data.source.pairs == tmp_path / "ldct"
    (tmp_path / "again.yaml").write_text(experiment.to_yaml())
    assert load_experiment(tmp_path / "again.yaml") == experiment


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__noise": "fresh"}, ["data.noise", "measured"]),
        ({"data__object_scale": 2}, ["data.object_scale"]),
        ({"data__kernel_pixels": 1.0}, ["data.kernel_pixels"]),
        ({"data__electronic_noise": 0}, ["data.electronic_noise"]),
        ({"data__reuse_patients": True}, ["data.reuse_patients"]),
        ({"data__source__phantom": {"patients": 3}}, ["exactly one", "cannot share"]),
        ({"data__source": {"dicom": "x", "low": "*"}}, ["'full' and 'low' belong to 'pairs'"]),
        ({"unseen": "unseen-*"}, ["unseen.0.patients", "list"]),
        ({"clients": "paper-*"}, ["clients.0.patients", "list"]),
        ({"clients": [TWO[0], TWO[1] | {"patients": 2}]}, ["clients.1.patients"]),
        ({"clients": [TWO[0], TWO[1] | {"patients": ["p1"]}]}, ["clients.1.patients", "'p1'"]),
        ({"clients": TWO, "unseen": [TWO[0] | {"id": "u"}]}, ["unseen.0.patients", "'p1'"]),
        (
            {"data__test_patients": ["p1"], "data__validation_patients": ["p1"], "clients": TWO},
            ["data.validation_patients", "'p1'"],
        ),
        ({"evaluation__metrics": ["mtf"]}, ["evaluation.metrics", "'mtf'", "phantom"]),
        (
            {"data__source": {"dicom": "x"}, "clients": [{"id": "a", "protocol": MAYO}]},
            ["clients.0.protocol", "seven numbers", "missing: pixel_mm, source_mm, detector_mm"],
        ),
        (
            {"clients": [{"id": "a", "protocol": {k: MAYO[k] for k in ("views", "bins")}}]},
            ["clients.0.protocol", "missing: pixel_mm, bin_mm"],
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tmp_path: Path, changes, words):
    with pytest.raises(PhysFedError) as error:
        load(tmp_path, **changes)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["sinogram", "sigma", "expected"])
def test_fields_of_a_simulated_scan_are_refused(tmp_path: Path, field: str, monkeypatch):
    from physfed_ray.methods.registry import get_method

    monkeypatch.setattr(get_method("fedavg"), "needed_fields", lambda *_: {field: "FedAvg"})
    with pytest.raises(PhysFedError, match=f"data.source.pairs: FedAvg needs the field '{field}'"):
        load(tmp_path, training__patch=None)


def test_clients_of_several_scanners_list_also_who_is_tested(tmp_path: Path):
    held_out = [{"id": "u", "protocol": "paper-3", "patients": ["p9"]}]
    experiment = load(tmp_path, clients=TWO, unseen=held_out, data__test_patients=["p1", "p4"])
    assert [s.clients for s in scanners(experiment.clients)] == [("a",), ("b",)]
    assert set(experiment.listed_patients()) == {"p1", "p2", "p3", "p4", "p9"}
    hidden = experiment.with_patients(lambda patient: f"x{patient}")
    assert hidden.unseen[0].patients == ("xp9",)
    assert Experiment.model_validate(hidden.model_dump()) == hidden


def test_numbers_may_be_left_to_the_headers(tmp_path: Path):
    experiment = load(tmp_path, clients=[{"id": "a", "protocol": MAYO}])
    (tmp_path / "again.yaml").write_text(experiment.to_yaml())
    assert load_experiment(tmp_path / "again.yaml") == experiment
    assert "pixel_mm" not in experiment.to_yaml()
    (client,) = experiment.clients
    said = {"pixel_mm": 1.5, "source_mm": 595.0, "detector_mm": 490.6}
    protocol = known_protocol(client, said)
    assert protocol.values() == MAYO | said
    with pytest.raises(PhysFedError, match="leaves source_mm to the DICOM headers"):
        known_protocol(client, {"pixel_mm": 1.5})
    with pytest.raises(PhysFedError, match=r"a, with numbers from its DICOM headers: .*pixel_mm"):
        known_protocol(client, said | {"pixel_mm": 3.0})
    whole = load(tmp_path).clients[0]
    assert known_protocol(whole, said) == PRESETS["paper-1"]


def test_a_field_of_images_alone_is_allowed(tmp_path: Path, monkeypatch):
    from physfed_ray import experiment as schema
    from physfed_ray.fields import SIGMA
    from physfed_ray.methods.registry import get_method

    monkeypatch.setattr(get_method("fedavg"), "needed_fields", lambda *_: {"sigma": "FedAvg"})
    monkeypatch.setattr(schema, "field_of", lambda _: replace(SIGMA, simulated=False))
    assert load(tmp_path).method.name == "fedavg"
