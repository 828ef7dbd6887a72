"""Generated clients: possible, stratified, and the same wherever their seed is."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.data.plan import make_source
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.experiment import generate as module
from physfed_ray.experiment.generate import Generate, draw_protocols, scanner

EXPERIMENT = """
name: generated
data: {source: {phantom: {patients: auto, slices: 2}}, test_patients: 3, validation_patients: 1}
clients: {generate: {clients: 12, patients_per_client: 2}}
unseen: {generate: {clients: 3}}
method: {name: fedavg}
"""


def load(folder: Path, *overrides: str) -> Experiment:
    path = folder / "generated.yaml"
    path.write_text(EXPERIMENT)
    return load_experiment(path, overrides)


def drawn(clients: int, seed: int = 1) -> list[Protocol]:
    return list(draw_protocols(Generate(clients=clients, seed=seed), "clients"))


def test_ranges_are_those_of_g() -> None:
    low = Protocol(module.VIEWS[0], 1024, module.PIXEL_MM[0], module.BIN_MM[0], 150, 150, 10**4.6)
    np.testing.assert_allclose(low.normalised(), [0, 1, 0, 0, 0, 0, 0], atol=1e-6)
    high = Protocol(
        module.VIEWS[1],
        module.MOST_BINS,
        module.PIXEL_MM[1],
        module.BIN_MM[1],
        module.SOURCE_MM[1],
        module.DETECTOR_MM[1],
        module.PHOTONS[1],
    )
    np.testing.assert_allclose(high.normalised(), np.ones(7), atol=1e-6)
    assert (module.SOURCE_MM[0], module.DETECTOR_MM[0], module.PHOTONS[0]) == (150, 150, 10**4.6)


def test_every_point_of_the_cube_is_a_possible_scanner_within_the_ranges() -> None:
    rng = np.random.default_rng(1)
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 7), -1).reshape(-1, 7)
    g = np.array([scanner(u).normalised() for u in (*corners, *rng.random((3000, 7)))])
    assert g.min() > -1e-4  # `scanner` raises where a Protocol is impossible
    assert g.max() < 1 + 1e-4


@pytest.mark.parametrize("clients", [1, 7, 200])
def test_free_numbers_keep_one_client_in_each_stratum(clients: int) -> None:
    g = np.array([protocol.normalised() for protocol in drawn(clients)], np.float64)
    strata = np.arange(clients) / clients
    for entry, rounding in ((0, 0.003), (4, 0.001), (5, 0.001), (6, 0.001)):
        values = np.sort(g[:, entry])
        assert (values > strata - rounding).all()
        assert (values < strata + 1 / clients + rounding).all()
    if clients == 200:
        spread = np.quantile(g[:, [1, 2, 3]], [0.05, 0.95], axis=0)
        assert (spread[0] < [0.5, 0.1, 0.25]).all()
        assert (spread[1] > [0.97, 0.85, 0.95]).all()


def test_the_seed_of_generate_decides_and_no_other(tmp_path: Path) -> None:
    first = load(tmp_path).clients
    assert load(tmp_path, "seed=7", "clients.generate.speed_spread=0").clients == first
    other = load(tmp_path, "clients.generate.seed=2").clients
    assert {client.protocol for client in other}.isdisjoint(client.protocol for client in first)
    again = load(tmp_path, "clients.generate.speed_spread=0.5").clients
    assert [client.protocol for client in again] == [client.protocol for client in first]


def test_unseen_protocols_are_others_with_other_names(tmp_path: Path) -> None:
    experiment = load(tmp_path, "unseen.generate.clients=12")
    assert [client.id for client in experiment.clients][::11] == ["g01", "g12"]
    assert [client.id for client in experiment.unseen][::11] == ["u01", "u12"]
    seen = {client.protocol for client in experiment.clients}
    assert seen.isdisjoint(unseen.protocol for unseen in experiment.unseen)


def test_a_pattern_is_dealt_in_turn(tmp_path: Path) -> None:
    clients = load(tmp_path, "clients.generate.protocols=paper-[123]").clients
    names = [f"paper-{1 + i % 3}" for i in range(12)]
    assert [client.protocol for client in clients] == [PRESETS[name] for name in names]


def test_speeds_are_log_normal_about_one(tmp_path: Path) -> None:
    assert {client.speed for client in load(tmp_path).clients} == {1.0}
    spread = ["clients.generate.speed_spread=0.5", "clients.generate.clients=2000"]
    logs = np.log([client.speed for client in load(tmp_path, *spread).clients])
    assert np.median(logs) == pytest.approx(0, abs=0.05)
    assert logs.std() == pytest.approx(0.5, rel=0.05)


def test_phantoms_are_as_many_as_are_needed(tmp_path: Path) -> None:
    assert len(make_source(load(tmp_path)).ids()) == 12 * 2 + 3 + 1
    listed = "clients=[{id: a, protocol: paper-1, patients: [phantom-00, phantom-01]}, " + (
        "{id: b, protocol: paper-2}, {id: c, protocol: paper-3, patients: 3}]"
    )
    assert len(make_source(load(tmp_path, listed)).ids()) == (2 + 1 + 3) + 3 + 1
