"""Phantoms: scanned once for all runs of a suite, under their protocol, with a method's fields."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.federation.client import phantoms as room
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.client.phantoms import full_dose_scores, phantom_scans, phantoms
from physfed_ray.federation.spec import Spec
from physfed_ray.metrics.discs import DiscPhantom
from physfed_ray.metrics.edges import EdgePhantom

MakeSpec = Callable[..., Spec]


@pytest.fixture
def spec(make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """Return a federation that asks for both kinds of phantoms."""
    monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(DiscPhantom, "scans", 6)
    made = make_spec("fedper", clients=1, unseen=1)
    client = replace(made.clients[0], protocol=PRESETS["paper-2"])
    return replace(made, clients=(client,), metrics=("mtf", "detectability"))


def test_an_experiment_scans_what_its_metrics_look_at(spec: Spec) -> None:
    assert phantoms(spec) == [EdgePhantom(120), EdgePhantom(900), DiscPhantom()]
    assert phantoms(spec, unseen=True) == [DiscPhantom()]
    assert phantoms(replace(spec, window_hu=(-1000.0, 500.0)))[1:] == [DiscPhantom()]
    assert phantoms(replace(spec, metrics=("nps",))) == []


def test_the_second_run_reads_what_the_first_has_scanned(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, phantom = Host(spec).seen._images(0, "test"), DiscPhantom()
    first = phantom_scans(spec, spec.clients[0], data, phantom)
    (file,) = (tmp_path / "cache" / "phantoms").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    again = phantom_scans(spec, spec.clients[0], data, phantom)
    monkeypatch.setattr(room, "expect", None)
    third = phantom_scans(spec, spec.clients[0], data, phantom)
    for other in (again, third):
        np.testing.assert_array_equal(other.low, first.low)
    assert len(first) == 12
    assert first.patient == ["phantom"] * 12


@pytest.mark.parametrize("what", ["seed", "photons", "kernel"])
def test_another_scan_is_another_file(spec: Spec, what: str) -> None:
    client = spec.clients[0]
    other, scanner = spec, client
    if what == "seed":
        other = replace(spec, seed=spec.seed + 1)
    elif what == "photons":
        scanner = replace(client, protocol=replace(client.protocol, photons=1e4))
    else:
        other = replace(spec, simulation=replace(spec.simulation, kernel_pixels=2.0))
    versions = {room._version(s, c, DiscPhantom()) for s, c in ((spec, client), (other, scanner))}
    assert len(versions) == 2


def test_a_field_that_a_method_reads_is_made_of_the_phantom(spec: Spec) -> None:
    data, phantom = Host(spec).seen._images(0, "test"), EdgePhantom(120)
    told = replace(data, extra={"sigma": np.zeros_like(data.low), "body": data.body})
    scans = phantom_scans(spec, spec.clients[0], told, phantom)
    assert scans.extra["sigma"].shape == scans.low.shape
    np.testing.assert_array_equal(scans.extra["body"], scans.body)
    plain = phantom_scans(spec, spec.clients[0], data, phantom)
    np.testing.assert_array_equal(scans.low, plain.low)
    inside = scans.body[0] > 0
    noise = scans.low.std(axis=0, ddof=1)[inside].mean()
    assert scans.extra["sigma"][:, inside].mean() == pytest.approx(noise, rel=0.15)


def test_full_dose_has_less_noise(spec: Spec) -> None:
    data = Host(spec).seen._images(0, "test")
    assert full_dose_scores(spec, spec.clients[0], data, EdgePhantom(120)) == {}
    scores = full_dose_scores(spec, spec.clients[0], data, DiscPhantom())
    assert "dprime_12mm_20hu" in scores
