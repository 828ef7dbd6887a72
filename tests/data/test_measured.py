"""From measured pairs in DICOM to Arrow files and a run, with the values that were measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.ct.attenuation import inscribed_circle
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.grid import to_grid
from physfed_ray.data.patient import pseudonym
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare, source_line
from physfed_ray.data.prepared import Prepared
from physfed_ray.data.store import read_client_data
from physfed_ray.experiment import Experiment
from physfed_ray.runtime.run import run_experiment
from physfed_ray.screen.describe import print_description
from physfed_ray.seeds import generator
from physfed_ray.window import normalise
from tests.conftest import quick
from tests.data.dicom.pair_files import Doses, Layout, noisy_pairs, write_pairs

SIDE = 48
SALT = "of the tests"
SCANNER = {
    "views": 24, "bins": 400, "pixel_mm": 1.0, "bin_mm": 1.6, "source_mm": 350, "detector_mm": 350,
    "photons": 1e5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHYSFED_SALT", SALT)


def experiment_of(root: Path, cache: Path, **changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "name": "pairs",
        "data": {
            "source": {"pairs": str(root)},
            "image_size": SIDE,
            "centre": "image",
            "test_patients": 1,
            "cache": str(cache),
        },
        "clients": [{"id": "a", "protocol": SCANNER}, {"id": "b", "protocol": SCANNER}],
        "method": {"name": "fedavg"},
        "backbone": {"channels": 2},
        "training": {"rounds": 2, "batch_size": 2, "evaluate_every": 1},
        "federation": {"clients_per_host": 2},
    }
    return Experiment.model_validate(values | changes)


def assert_measured(prepared: Prepared, doses: Doses) -> None:
    """Every slice of every file is the DICOM's, through the window, to rounding."""
    inside = inscribed_circle(SIDE)
    named = {pseudonym(patient, SALT.encode()): both for patient, both in doses.items()}
    files = [f for c in (*prepared.clients, *prepared.unseen) for f in (c.train, c.test) if f]
    assert files
    for file in files:
        data = read_client_data(file)
        for row, (patient, index) in enumerate(zip(data.patient, data.slice, strict=True)):
            for got, hu in zip((data.full[row], data.low[row]), named[patient], strict=True):
                wanted = normalise(hu[index].astype(np.float32), prepared.window_hu)
                np.testing.assert_allclose(got[inside], wanted[inside], atol=1e-6)
                assert (got[~inside] == 0).all()


def phantom_pairs() -> Doses:
    """Return phantoms, scanned: a stand-in for patients, in whole HU."""
    source = PhantomSource(4, 2, 1, 2 * SIDE)
    return {p: scanned(np.stack([
        to_grid(hu, mm, SIDE, "body").image for hu, mm in zip(v.slices, v.spacings_mm, strict=True)
    ]), p) for p, v in ((p, source.load(p, None)) for p in source.ids())}  # fmt: skip


def scanned(full: np.ndarray, patient: str) -> tuple[np.ndarray, np.ndarray]:
    protocol = replace(quick(PRESETS["paper-1"], views=96, bins=120), photons=2e4)
    simulation = Simulation(SIDE)
    rngs = [generator(1, patient, row) for row in range(len(full))]
    sinogram = measure(expect(full, protocol, simulation), protocol, rngs, simulation)
    low = reconstruct(sinogram, protocol, simulation)
    return tuple(np.clip(np.rint(hu), -1000, 3000) for hu in (full, low))


@pytest.mark.parametrize("layout", ["tcia", "mayo"])
def test_scanned_phantoms_go_through_preparation_and_two_rounds(
    tmp_path: Path, write_ct, layout: Layout
):
    doses = phantom_pairs()
    root = write_pairs(tmp_path / "ct", doses, write_ct, layout)
    experiment = experiment_of(root, tmp_path / "cache")
    prepared = prepare(experiment)
    assert_measured(prepared, doses)
    a, b = prepared.clients
    assert a.test
    assert b.test
    assert set(read_client_data(a.test).patient) == set(read_client_data(b.test).patient)
    assert prepared.data_summary["source"]["kind"] == "pairs"
    run = run_experiment(experiment, tmp_path / "run", runtime="inline")
    summary = json.loads((Path(run) / "summary.json").read_text())
    assert summary
    assert "phantom-" not in (Path(run) / "experiment.yaml").read_text()


def test_real_patients_keep_their_values(tmp_path: Path, write_ct, real_ct: Path):
    source, doses = DicomSource(real_ct), {}
    for patient in ("Lung_Dx-A0001", "A062055", "STS_009"):
        volume = source.load(patient, 2)
        grids = [
            to_grid(hu, mm, SIDE, "body").image
            for hu, mm in zip(volume.slices, volume.spacings_mm, strict=True)
        ]
        doses[patient] = scanned(np.stack(grids), patient)
    root = write_pairs(tmp_path / "ct", doses, write_ct)
    assert_measured(prepare(experiment_of(root, tmp_path / "cache")), doses)


def test_both_doses_have_the_place_of_the_full_dose(tmp_path: Path, write_ct):
    doses = noisy_pairs(3, side=SIDE)
    wide = {
        patient: tuple(np.pad(hu, ((0, 0), (9, 0), (0, 9)), constant_values=-1000) for hu in both)
        for patient, both in doses.items()
    }
    root = write_pairs(tmp_path / "ct", wide, write_ct)
    keys = experiment_of(root, tmp_path / "cache").model_dump(mode="json")
    keys["data"]["centre"] = "body"
    prepared = prepare(Experiment.model_validate(keys))
    for client in prepared.clients:
        assert client.train
        data = read_client_data(client.train)
        body = data.body.astype(bool)
        assert body.any()
        # Noise without a shift: the mean difference is small against the edge of the body.
        assert abs(np.mean((data.low - data.full)[body])) < 2e-3
        edge = np.abs(data.full - data.low)
        assert edge.max() < 0.06


def test_each_scanner_has_its_own_test_patients_and_headers(tmp_path: Path, write_ct):
    doses = noisy_pairs(7, side=SIDE)
    patients = list(doses)
    for place, (names, source_mm) in enumerate(((patients[:3], 500), (patients[3:], 600))):
        write_pairs(tmp_path / "ct" / f"{place}", {n: doses[n] for n in names}, write_ct,
                    spacing_mm=192 / SIDE, DistanceSourceToPatient=source_mm,
                    DistanceSourceToDetector=source_mm + 400)  # fmt: skip
    partly = {k: v for k, v in SCANNER.items() if not k.endswith("_mm")} | {"bin_mm": 2.0}
    experiment = experiment_of(
        tmp_path / "ct",
        tmp_path / "cache",
        clients=[
            {"id": "a", "protocol": partly, "patients": patients[:3]},
            {"id": "b", "protocol": partly, "patients": patients[3:6]},
        ],
        unseen=[{"id": "u", "protocol": SCANNER, "patients": patients[6:]}],
    )
    todo = plan(experiment)
    for name, own, source_mm in (("a", patients[:3], 500), ("b", patients[3:6], 600)):
        files = {split: todo.files[split, name] for split in ("train", "test")}
        assert [len(ids) for ids in files.values()] == [2, 1]
        assert {p.id for ids in files.values() for p in ids} == set(own)
        protocol = todo.clients[name]
        assert (protocol.source_mm, protocol.detector_mm) == (source_mm, 400)
        assert protocol.pixel_mm == pytest.approx(0.75, abs=1e-3)
    assert [p.id for p in todo.files["unseen", "u"]] == patients[6:]
    prepared = prepare(experiment)
    assert_measured(prepared, doses)
    assert prepared.clients[0].protocol.source_mm == 500


def test_what_looks_wrong_is_said_where_data_are_prepared(tmp_path: Path, write_ct, capsys):
    doses = noisy_pairs(3, side=SIDE)
    doses["L001"] = doses["L001"][::-1]
    root = write_pairs(tmp_path / "ct", doses, write_ct)
    experiment = experiment_of(root, tmp_path / "cache")
    said: list[dict[str, Any]] = []
    prepare(experiment, progress=said.append)
    line = said[0]["text"]
    assert line == source_line(plan(experiment).source_summary)
    assert "please look at: full dose that is noisier than the low dose (1 patients)" in line
    print_description(experiment)
    shown = capsys.readouterr().out
    assert "as they were measured; no scan is simulated" in shown
    assert "objects:" not in shown
