"""What must hold for every registered front end, and one from another package."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.fields import Batch
from physfed_ray.front_ends.base import Measured, Scanners
from physfed_ray.front_ends.registry import FRONT_ENDS, make_front_end
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.runtime.run import run_experiment
from physfed_ray.window import normalise
from tests.outside import install

SIMULATION = Simulation(32, object_scale=2)
SCANNERS = (
    replace(PRESETS["paper-7"], views=48, bins=96, bin_mm=10.0, photons=2e4),
    replace(PRESETS["paper-2"], views=30, bins=128, bin_mm=3.5),
)
WINDOW = (-1000.0, 2000.0)

every_front_end = pytest.mark.parametrize("name", FRONT_ENDS)
MADE = {name: make_front_end(name) for name in FRONT_ENDS} | {
    "fbp, tuned": make_front_end("fbp", kernel="tuned")
}
LEARNED = [n for n, end in MADE.items() if end.module(Scanners(SCANNERS, SIMULATION, WINDOW))]
FIXED = [name for name, end in MADE.items() if end.prepares]
both_scanners = pytest.mark.parametrize("protocol", SCANNERS, ids=("noisy", "sparse"))


def slices_of(protocol: Protocol) -> Measured:
    """Three slices of discs."""
    n = SIMULATION.object_size
    radius = np.hypot(*(np.indices((n, n)) - (n - 1) / 2)) / n
    objects = np.stack(
        [np.where(radius < r, 40.0, -1000.0).astype(np.float32) for r in (0.2, 0.3, 0.35)]
    )
    rngs = [np.random.default_rng(k) for k in range(3)]
    measured = measure(expect(objects, protocol, SIMULATION), protocol, rngs, SIMULATION)
    full = objects.reshape(3, 32, 2, 32, 2).mean((2, 4))
    return Measured(measured, full, protocol, SIMULATION, WINDOW)


@every_front_end
def test_says_what_it_is(name: str) -> None:
    front_end = FRONT_ENDS[name]
    assert front_end.name == name
    assert front_end.title
    assert front_end.paper
    assert inspect.getmodule(front_end).__doc__
    assert all(field.description for field in front_end.Settings.model_fields.values())
    with pytest.raises(ValueError, match="no_such_key"):
        front_end.Settings(no_such_key=1)


def test_each_is_one_or_the_other_or_the_scanner_s_own() -> None:
    assert sorted([*LEARNED, *FIXED, "fbp"]) == sorted(MADE)


@both_scanners
@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_one_makes_images_of_what_it_has_chosen(name: str, protocol: Protocol) -> None:
    front_end, slices = MADE[name], slices_of(protocol)
    choice = front_end.choose(slices)
    assert choice == front_end.choose(slices)
    assert all(isinstance(value, int | float) for value in choice.values())
    hu = front_end.reconstruct(slices.line_integrals, protocol, SIMULATION, choice)
    assert (hu.shape, hu.dtype) == ((3, 32, 32), np.float32)
    alone = front_end.reconstruct(slices.line_integrals[1:2], protocol, SIMULATION, choice)
    np.testing.assert_allclose(alone[0], hu[1], atol=0.05)


@both_scanners
@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_one_starts_as_the_scanner_s_fbp(name: str, protocol: Protocol) -> None:
    front_end, slices = MADE[name], slices_of(protocol)
    module = front_end.module(Scanners(SCANNERS, SIMULATION, WINDOW))
    assert module is not None
    assert "sinogram" in front_end.fields
    low = normalise(reconstruct(slices.line_integrals, protocol, SIMULATION), WINDOW)
    image = torch.from_numpy(low)[:, None]
    batch = Batch(
        low=image,
        full=image,
        g=torch.zeros(3, 7),
        embedding=torch.zeros(3, 1, 4),
        embedding_mask=torch.ones(3, 1, dtype=torch.bool),
        origin=torch.zeros(3, 2, dtype=torch.int64),
        image_size=32,
        extra={"sinogram": torch.from_numpy(slices.line_integrals)},
        protocol=protocol,
    )
    made = module(batch)
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.detach().clamp(0, 1)[:, 0].numpy(), low, atol=1e-4)


THEIRS = '''
import numpy as np
from physfed_ray.ct.scan import reconstruct
from physfed_ray.front_ends.base import FrontEnd

CHOSEN = []


class Quieter(FrontEnd):
    """Averages the views in pairs where that helps."""
    name, title, paper = "quieter", "Quieter", "theirs"
    of_images = False
    prepares = chooses = True

    def choose(self, slices):
        CHOSEN.append(slices.protocol)
        return {"share": 0.5}

    def reconstruct(self, line_integrals, protocol, simulation, choice, *, device="cpu"):
        share = choice["share"]
        mixed = (1 - share) * line_integrals + share * np.roll(line_integrals, 1, 1)
        return reconstruct(mixed, protocol, simulation, device=device)
'''

EXPERIMENT = """
name: theirs
reports: {encoder: hashed}
data:
  source: {phantom: {patients: 4, slices: 1}}
  image_size: 32
  test_patients: 1
  validation_patients: 1
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
front_end: {name: quieter}
backbone: {channels: 2}
method: {name: fedper}
training: {rounds: 1, batch_size: 2}
evaluation: {metrics: [mtf]}
"""


def test_another_packages_front_end_makes_what_is_denoised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, THEIRS, (FRONT_ENDS, {"quieter": "Quieter"}))
    path = tmp_path / "theirs.yaml"
    path.write_text(EXPERIMENT)
    scores = {}
    for name in ("quieter", "fbp"):
        keys = [f"data.cache={tmp_path / 'cache'}", f"front_end.name={name}"]
        out = tmp_path / name
        run_experiment(load_experiment(path, keys), out, runtime="inline", page=False)
        table = RunDirectory(out).read_table("metrics.parquet")
        scores[name] = {
            metric: table.where(split=split, client="c1", metric=metric).values.tolist()
            for split, metric in (("test/input", "psnr"), ("edge/input", "mtf50_900hu_per_mm"))
        }
    assert all(scores["quieter"].values())
    assert scores["quieter"]["psnr"] != scores["fbp"]["psnr"]
    assert len(FRONT_ENDS["quieter"].choose.__globals__["CHOSEN"]) == 2


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(PhysFedError, match=r"front end 'sirt'.*fbp"):
        make_front_end("sirt")
