"""The key of a shard: it changes with all that the content depends on."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data import shards
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.scanning import do_shard
from physfed_ray.data.shards import (
    LIBRARIES,
    ClientShards,
    Patient,
    ShardSettings,
    made_with,
)
from physfed_ray.errors import PhysFedError

SETTINGS = ShardSettings(1, None, (-1000, 2000), "body", Simulation(32, 2, None, 3.0))
PATIENT = Patient("phantom-00", "0123456789ab", "f", 1)


def key(settings: ShardSettings = SETTINGS, patient: Patient = PATIENT) -> str:
    return ClientShards(settings, "a", PRESETS["paper-2"]).key(patient)


@pytest.mark.parametrize("name", ["device", *LIBRARIES])
def test_the_key_knows_the_device_and_the_versions_that_make_a_shard(name: str) -> None:
    other = replace(SETTINGS, made_with={**made_with(), name: "another"})
    assert key() == key(replace(SETTINGS, made_with=dict(made_with())))
    assert key(other) != key()


def test_what_makes_a_shard_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: made_with()[name] for name in LIBRARIES} == {n: version(n) for n in LIBRARIES}
    for found, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(shards, "DRIVERS", (__file__,))  # a file that is there
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        assert made_with.__wrapped__()["device"] == device


def test_the_key_knows_client_protocol_and_patient() -> None:
    keys = {
        ClientShards(SETTINGS, client, PRESETS[protocol]).key(patient)
        for client in "ab"
        for protocol in ("paper-2", "paper-3")
        for patient in (PATIENT, replace(PATIENT, id="p"), replace(PATIENT, fingerprint="g"))
    }
    assert len(keys) == 12


def test_a_machine_that_would_give_other_bits_is_refused(tmp_path: Path) -> None:
    for name, words in (("torch", "has torch .* another"), ("device", "has no GPU")):
        value = "cuda" if name == "device" else "another"
        settings = replace(SETTINGS, made_with={**made_with(), name: value})
        if made_with()[name] == value:
            continue  # there is a GPU here
        shard = ClientShards(settings, "a", PRESETS["paper-2"]).shard(PATIENT)
        with pytest.raises(PhysFedError, match=words):
            do_shard(PhantomSource(1, 1, 1), settings, shard, tmp_path)
    assert not list(tmp_path.iterdir())
