"""A plan is arithmetic until somebody asks for names."""

import time
from pathlib import Path

import pytest

from physfed_ray.cost.estimate import counts
from physfed_ray.data.dicom.reasons import DERIVED_LET_IN, LOSSY_LET_IN
from physfed_ray.data.plan import make_source, plan
from physfed_ray.data.shards import ClientShards
from tests.data.conftest import WriteCT
from tests.data.test_prepare import make_experiment


def test_many_patients_are_counted_and_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment(
        tmp_path,
        data__source={"phantom": {"patients": 20_000, "slices": 12}},
        data__test_patients=1000,
        clients={"generate": {"clients": 100, "patients_per_client": 189}},
    )
    monkeypatch.delattr(ClientShards, "key")
    began = time.process_time()
    todo = plan(experiment)
    assert counts(todo, "train", "g001") == (189, 12 * 189)
    assert (todo.shard_count, todo.cached()) == (100 * (189 + 1000 + 1) + 1000, 0)
    assert todo.unused_patients == 20_000 - 18_900 - 1001
    assert todo.files["test", "g001"] is todo.files["unseen", "u"]
    assert time.process_time() - began < 30  # of about one; it took minutes in quadratic time


def test_fresh_noise_needs_a_field_of_training_slices_alone(tmp_path: Path) -> None:
    fixed = plan(make_experiment(tmp_path))
    fresh = plan(make_experiment(tmp_path, data__noise="fresh"))
    assert fixed.fields == fixed.training_fields == fresh.fields == ()
    splits = ("train", "validation", "test", "unseen")
    assert [fresh.fields_of(split) for split in splits] == [("expected",), (), (), ()]
    assert [shard.key for shard in fresh.shards] == [shard.key for shard in fixed.shards]
    assert {s.fields for s in fresh.shards_of("test", "a")} == {()}
    assert {s.fields for s in fresh.shards_of("train", "a")} == {("expected",)}
    assert fresh.root != fixed.root


def test_lossy_and_derived_images_are_let_in_by_their_keys(
    tmp_path: Path, write_ct: WriteCT
) -> None:
    write_ct(tmp_path / "ct" / "a", z_mm=1, LossyImageCompression="01")
    write_ct(tmp_path / "ct" / "b", z_mm=2, ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    write_ct(tmp_path / "ct" / "c", z_mm=3)
    for lossy, derived in ((False, False), (True, False), (False, True), (True, True)):
        keys = {"dicom": str(tmp_path / "ct"), "lossy": lossy, "derived": derived}
        found = make_source(make_experiment(tmp_path, data__source=keys)).summary()
        assert found["slices"] == 1 + lossy + derived
        assert set(found["notes"]) == {*([LOSSY_LET_IN] * lossy), *([DERIVED_LET_IN] * derived)}


@pytest.mark.parametrize("key", ["lossy", "derived"])
def test_phantoms_are_neither_lossy_nor_derived(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' belongs to 'dicom'"):
        make_experiment(tmp_path, data__source={"phantom": {"patients": 6}, key: True})
