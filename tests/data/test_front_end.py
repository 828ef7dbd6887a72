"""Images through a fixed front end: chosen, made once, and read in place of the scanner's FBP."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.ct.scan import reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.on_demand import make_field, read_made
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import Prepared, prepare
from physfed_ray.data.store import read_client_data
from physfed_ray.experiment import Experiment
from physfed_ray.window import normalise
from tests.data.test_prepare import contents, make_experiment, no_reports, no_work

TUNED = {"front_end": {"name": "fbp", "kernel": "tuned"}}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return make_experiment(tmp_path_factory.mktemp("cache"), **TUNED)


@pytest.fixture(scope="module")
def prepared(experiment: Experiment) -> Prepared:
    return prepare(experiment)


def test_low_dose_images_are_those_of_the_chosen_kernel(
    experiment: Experiment, prepared: Prepared
) -> None:
    todo, simulation = plan(experiment), experiment.data.simulation
    for client, split in (("a", "train"), ("b", "test"), ("u", "unseen")):
        path = todo.file(split, client)
        assert path is not None
        chosen = {c.id: c.front for c in (*prepared.clients, *prepared.unseen)}[client]
        scan = Simulation(simulation.image_size, simulation.object_scale, chosen["kernel_pixels"])
        protocol = todo.clients.get(client) or todo.unseen[client]
        measured = np.stack(read_made(todo, "sinogram", split, client))
        images = normalise(reconstruct(measured, protocol, scan), experiment.data.window_hu)
        np.testing.assert_allclose(read_client_data(path).low, images, atol=1e-6)


def test_an_unseen_protocol_takes_what_its_nearest_client_chose(prepared: Prepared) -> None:
    (unseen,) = prepared.unseen
    assert unseen.front in [client.front for client in prepared.clients]


def test_all_else_is_that_of_the_scanner_s_fbp(experiment: Experiment, prepared: Prepared) -> None:
    plain = prepare(experiment.model_copy(update={"front_end": make_experiment(Path()).front_end}))
    assert plain.root != prepared.root
    assert all(not client.front for client in plain.clients)
    for name in contents(plain):
        one, other = (read_client_data(p.root / name) for p in (plain, prepared))
        np.testing.assert_array_equal(one.full, other.full)
        np.testing.assert_array_equal(one.body, other.body)
        np.testing.assert_array_equal(one.embedding, other.embedding)
        assert one.report == other.report
        assert not np.array_equal(one.low, other.low)


def test_a_second_run_makes_nothing_and_loads_what_was_chosen(
    experiment: Experiment, prepared: Prepared
) -> None:
    assert prepare(experiment, no_work, no_reports) == prepared


def test_images_that_are_gone_are_made_of_the_sinograms_alone(
    experiment: Experiment, prepared: Prepared
) -> None:
    before = contents(prepared)
    todo = plan(experiment)
    make_field(todo, "sinogram", [("train", "a")])
    for path in todo.cache.rglob("*.low.arrow"):
        path.unlink()
    for path in prepared.root.rglob("*"):
        if path.is_file():
            path.unlink()
    assert contents(prepare(experiment)) == before


def test_settings_that_are_all_given_need_no_slices(tmp_path: Path) -> None:
    given = {"views": 4, "threshold": 1.2, "sliding": False, "kernel": "scanner"}
    keys = {"front_end": {"name": "neighbour_views"} | given, "data__validation_patients": 0}
    made = prepare(make_experiment(tmp_path, **keys))
    assert [(c.front["views"], c.front["threshold"]) for c in made.clients] == [(4, 1.2)] * 2
    plain = prepare(make_experiment(tmp_path, data__validation_patients=0))
    for one, other in zip(made.clients, plain.clients, strict=True):
        assert one.train is not None
        assert other.train is not None
        images = [read_client_data(path).low for path in (one.train, other.train)]
        assert images[0].std() < images[1].std()  # smoother than the scanner's own


def test_damaged_images_are_made_again(experiment: Experiment, prepared: Prepared) -> None:
    before = contents(prepared)
    for path in plan(experiment).cache.rglob("*.low.arrow"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    (prepared.root / "manifest.json").unlink()
    assert contents(prepare(experiment)) == before
