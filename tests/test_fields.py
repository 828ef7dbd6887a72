"""A field and a method from another package: declared, made, stored, cut and seen by the loss."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.scan import reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare, scan_inline
from physfed_ray.data.store import read_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.experiment.evaluation import Evaluation
from physfed_ray.fields import (
    FIELDS,
    SINOGRAM,
    STANDARD,
    Acquisition,
    Batch,
    Field,
    Sizes,
    field_of,
)
from physfed_ray.methods.registry import METHODS
from physfed_ray.runtime.run import run_experiment
from physfed_ray.window import normalise
from tests.data.test_prepare import contents, make_experiment, no_reports, no_work
from tests.outside import install
from tests.screen.test_describe import described

PACKAGE = '''
"""What the noise added, what the detector read, and two methods that look at them."""

import numpy as np

from physfed_ray.fields import Field
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.pooled import Pooled


def make_residue(scan):
    return scan.low_hu - scan.full_hu


def make_readings(scan):
    return scan.line_integrals


RESIDUE = Field("residue", np.float32, lambda s, p: (s.image_size,) * 2, "image", make=make_residue)
READINGS = Field(
    "readings",
    np.float32,
    lambda sizes, protocol: (protocol.views, protocol.bins),
    "none",
    reason="every ray crosses the whole image",
    make=make_readings,
)
SEEN = []


class OfPatches(FedAvg):
    name, title = "of_patches", "Of patches"
    fields = ("residue", "body")

    def loss(self, network, batch, state):
        SEEN.append(batch)
        return super().loss(network, batch, state)

    def features(self, network, batch, code=None):
        for name in self.fields:
            assert len(batch[name]) == len(batch["low"])
        return super().features(network, batch, code)


class OfImages(OfPatches):
    name, title = "of_images", "Of images"
    fields = ("readings",)


class OfAll(Pooled):
    name, title = "of_all", "Of all"
    fields = ("readings",)
'''
FIELD_NAMES = {"residue": "RESIDUE", "readings": "READINGS"}
METHOD_NAMES = {"of_patches": "OfPatches", "of_images": "OfImages", "of_all": "OfAll"}


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Install the package, and return the batches that its methods' losses see."""
    added = (FIELDS, FIELD_NAMES), (METHODS, METHOD_NAMES)
    install(tmp_path / "site", monkeypatch, PACKAGE, *added)
    seen: list[Batch] = importlib.import_module("theirs").SEEN
    return seen


def run_one_round(
    experiment: Experiment, out: Path, *, tested: bool = False, **training: Any
) -> None:
    training = {"rounds": 1, "batch_size": 2, "evaluate_every": 1} | training
    values = experiment.model_dump(mode="json") | {"training": training}
    run_experiment(Experiment.model_validate(values), out, runtime="inline", tested=tested)


@pytest.mark.parametrize("noise", ["fixed", "fresh"])
def test_a_field_from_outside_is_cut_as_the_images_are(
    seen: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str
) -> None:
    monkeypatch.setattr("physfed_ray.runtime.run.write_page", lambda directory: None)
    experiment = make_experiment(
        tmp_path, method={"name": "of_patches"}, backbone={"channels": 2}, data__noise=noise
    )
    experiment = experiment.model_copy(update={"evaluation": Evaluation(metrics=("mtf",))})
    run_one_round(experiment, tmp_path / "run", tested=True, patch=32, patches_per_slice=2)
    batches = [batch for batch in seen if batch.low.shape == (2, 1, 32, 32)]
    assert len(batches) == 2 * 4  # two clients with four slices each
    for batch in batches:
        residue, low, full = batch["residue"], batch["low"], batch.full
        assert residue.shape == low.shape
        assert residue.is_contiguous()
        inside = (low > 0) & (low < 1) & (full > 0) & (full < 1)
        assert inside.float().mean() > 0.2
        expected = 3000 * (low - full)  # the window is 3000 HU wide
        torch.testing.assert_close(residue[inside], expected[inside], atol=0.01, rtol=0)
        assert batch["body"].dtype == torch.uint8
        assert (full[batch["body"] == 1].mean() > full[batch["body"] == 0].mean()).item()
        assert set(batch.extra) == {"residue", "body"}


@pytest.mark.parametrize("noise", ["fixed", "fresh"])
def test_a_field_that_is_not_cut_goes_with_whole_images(
    seen: list[Batch], tmp_path: Path, noise: str
) -> None:
    experiment = make_experiment(
        tmp_path, method={"name": "of_images"}, backbone={"channels": 2}, data__noise=noise
    )
    run_one_round(experiment, tmp_path / "run")
    batches = [batch for batch in seen if len(batch.low) == 2]
    assert len(batches) == 2 * 2
    protocol, simulation = experiment.clients[0].protocol, experiment.data.simulation
    for batch in batches:
        assert batch["readings"].shape == (2, protocol.views, protocol.bins)
        low_hu = reconstruct(batch["readings"].numpy(), protocol, simulation)
        low = normalise(low_hu, (-1000, 2000))
        np.testing.assert_array_equal(batch.low[:, 0], low)


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("method", ["of_patches", "of_images"])
def test_the_cost_of_a_step_with_a_field_is_described(tmp_path: Path, method: str) -> None:
    experiment = make_experiment(tmp_path, method={"name": method}, backbone={"channels": 2})
    assert "scans: 9 (patient x protocol), 0 of them in the cache" in described(experiment)


@pytest.mark.usefixtures("seen")
def test_nobody_else_notices(tmp_path: Path) -> None:
    plain = make_experiment(tmp_path)
    before = prepare(plain)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    needy = make_experiment(tmp_path, method={"name": "of_patches"})
    todo = plan(needy)
    assert todo.fields == ("residue",)
    assert todo.cached() == 0
    assert [s.key for s in todo.missing()] == [s.key for s in plan(plain).shards]
    events: list[dict[str, Any]] = []
    after = prepare(needy, run_reports=no_reports, progress=events.append)
    assert (todo.cached(), plan(plain).root) == (todo.shard_count, before.root)
    assert after.root != before.root
    assert prepare(plain, no_work, no_reports) == before
    assert all(path.stat().st_mtime_ns == when for path, when in files.items())
    new = {path.suffixes[0] for path in (tmp_path / "shards").rglob("*.arrow")} - {".arrow"}
    assert new == {".residue"}
    for path in contents(before):
        own, others = (read_client_data(root / path) for root in (after.root, before.root))
        for field in STANDARD:
            np.testing.assert_array_equal(getattr(own, field.name), getattr(others, field.name))
    assert read_client_data(after.root / "unseen/u.arrow", ["residue"]).extra["residue"].any()
    with pytest.raises(PhysFedError, match="without the field 'residue'"):
        read_client_data(before.root / "train/a.arrow", ["residue"])


@pytest.mark.usefixtures("seen")
def test_a_field_that_is_gone_is_made_again_and_its_version_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = make_experiment(tmp_path, method={"name": "of_patches"})
    todo = plan(needy)
    shard = todo.shards[0]
    list(scan_inline(todo, [shard]))
    path, own = todo.field_path_of(shard, "residue"), todo.path_of(shard)
    root, first, when = todo.root, path.read_bytes(), own.stat().st_mtime_ns
    path.unlink()
    assert shard in plan(needy).missing()
    list(scan_inline(todo, [shard]))
    assert (path.read_bytes(), own.stat().st_mtime_ns) == (first, when)
    monkeypatch.setattr(importlib.import_module("theirs"), "RESIDUE", _older(field_of("residue")))
    again = plan(needy)
    assert again.field_path_of(shard, "residue") != path
    assert again.shards[0].key == shard.key
    assert again.root != root


def _older(field: Field) -> Field:
    return Field(field.name, field.dtype, field.shape, field.crop, make=field.make, version="0")


def test_the_noise_of_an_image_is_made_for_those_who_declare_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment(tmp_path)
    plain = prepare(experiment)
    monkeypatch.setattr(METHODS["fedavg"], "fields", ("sigma",))
    needy = plan(experiment)
    assert needy.fields == ("sigma",)
    assert needy.root != plain.root
    assert [shard.key for shard in needy.missing()] == [shard.key for shard in needy.shards]
    prepared = prepare(experiment)
    a, b = (read_client_data(prepared.root / f"test/{client}.arrow", ["sigma"]) for client in "ab")
    for data in (a, b):
        sigma = data.extra["sigma"]
        assert (sigma.shape, sigma.dtype) == (data.low.shape, np.float32)
        assert (sigma[:, 0, 0] == 0).all()  # outside the circle there is no noise
    np.testing.assert_array_equal(a.full, b.full)  # one slice, scanned twice
    body = (a.body == 1) & (a.low > 0) & (b.low > 0)
    z = (a.low - b.low)[body] / np.hypot(a.extra["sigma"], b.extra["sigma"])[body]
    assert z.std() == pytest.approx(1, abs=0.1)
    assert read_client_data(prepared.root / "unseen/u.arrow", ["sigma"]).extra["sigma"].any()
    monkeypatch.undo()
    assert prepare(experiment, no_work, no_reports) == plain


@pytest.mark.usefixtures("seen")
def test_what_cannot_be_cut_refuses_patches_in_one_sentence(tmp_path: Path) -> None:
    training = {"patch": 32}
    with pytest.raises(ValueError, match=r"training\.patch: the method of_images needs the field "
                       r"'readings', which cannot be cut into patches because every ray crosses "
                       r"the whole image; set training\.patch to null"):  # fmt: skip
        make_experiment(tmp_path, method={"name": "of_images"}, training=training)
    make_experiment(tmp_path, method={"name": "of_images"}, training={"patch": 48})
    make_experiment(tmp_path, method={"name": "of_patches"}, training=training)


@pytest.mark.usefixtures("seen")
def test_what_differs_between_protocols_refuses_pooling(tmp_path: Path) -> None:
    make_experiment(tmp_path, method={"name": "of_all"})
    with pytest.raises(ValueError, match=r"method of_all needs the field 'readings'.*pooled"):
        make_experiment(tmp_path, method={"name": "of_all"}, clients="paper-[12]")


def test_a_field_that_there_is_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["fedavg"], "fields", ("bodies",))
    with pytest.raises(ValueError, match=r"method fedavg needs .*'bodies' .*'body'"):
        make_experiment(tmp_path)


def test_declarations_that_contradict_themselves_are_refused() -> None:
    def shape(sizes: Sizes, protocol: object) -> tuple[int, ...]:
        return (1,)

    with pytest.raises(PhysFedError, match="'Sigma' needs a name of small letters"):
        Field("Sigma", np.float32, shape, "whole")
    for crop, reason in (("none", ""), ("whole", "it is small")):
        with pytest.raises(PhysFedError, match="'sigma' needs a 'reason'"):
            Field("sigma", np.float32, shape, crop, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (np.zeros((2, 4, 4)), r"declares float32 .* \(2, 4, 4\).*returns float64"),
        (np.zeros((2, 4), np.float32), r"returns float32 of shape \(2, 4\)"),
    ],
)
def test_what_is_made_must_be_what_is_declared(made: np.ndarray, words: str) -> None:
    image = np.zeros((2, 4, 4), np.float32)
    arrays = (image,) * 5
    scan = Acquisition(PRESETS["paper-1"], *arrays, Simulation(4), (-1000, 2000))
    field = Field(
        "sigma", np.float32, lambda s, p: (s.image_size,) * 2, "image", make=lambda _: made
    )
    with pytest.raises(PhysFedError, match=words):
        field.made_of(scan)
    with pytest.raises(PhysFedError, match="'low' has no 'make'"):
        field_of("low").made_of(scan)


@pytest.mark.parametrize("name", PRESETS)
def test_half_precision_is_below_a_quarter_of_a_sinogram_s_noise(name: str) -> None:
    """Ray by ray, for line integrals from air to more than 40 cm of water."""
    protocol = PRESETS[name]
    assert SINOGRAM.stored_under(protocol) == np.float16
    paths = np.linspace(0, 8, 4001, dtype=np.float32)
    counts = protocol.photons * np.exp(-paths.astype(np.float64))
    noise = np.sqrt(counts + ELECTRONIC_NOISE_COUNTS**2) / counts
    rounding = np.spacing(paths.astype(np.float16)).astype(np.float64) / np.sqrt(12)
    assert (rounding / noise).max() < 0.25


def test_a_quieter_sinogram_keeps_its_precision() -> None:
    assert SINOGRAM.stored_under(replace(PRESETS["paper-2"], photons=2e6)) == np.float32
