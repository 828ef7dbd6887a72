"""A field that is asked for later: made where it is asked for, once, in the order of the slices."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.ct.scan import reconstruct
from physfed_ray.data.on_demand import make_field, read_made
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare
from physfed_ray.data.shards import Shard
from physfed_ray.data.store import read_client_data
from physfed_ray.errors import PhysFedError
from physfed_ray.window import normalise
from tests.data.test_prepare import contents, make_experiment, no_reports, no_work


def test_sinograms_are_those_of_the_slices_and_nothing_else_changes(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, data__validation_patients=2)
    prepared = prepare(experiment)
    before, todo = contents(prepared), plan(experiment)
    assert read_made(todo, "sinogram", "validation", "a") == []
    make_field(todo, "sinogram", [("validation", "a"), ("unseen", "u")])
    for split, client in (("validation", "a"), ("unseen", "u")):
        path, measured = todo.file(split, client), read_made(todo, "sinogram", split, client)
        assert path is not None
        data, protocol = read_client_data(path), (todo.clients | todo.unseen)[client]
        assert np.shape(measured) == (len(data), protocol.views, protocol.bins)
        hu = reconstruct(np.stack(measured), protocol, experiment.data.simulation)
        np.testing.assert_allclose(
            normalise(hu, (-1000, 2000)), data.low, atol=2e-3
        )  # half precision
    assert (
        read_made(todo, "sinogram", "test", "a") == read_made(todo, "sinogram", "train", "b") == []
    )
    assert prepare(experiment, no_work, no_reports) == prepared
    assert contents(prepared) == before


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = plan(make_experiment(tmp_path))
    make_field(todo, "sinogram", [("test", "a")])
    first = read_made(todo, "sinogram", "test", "a")
    assert all(todo.path_of(shard).is_file() for shard in todo.shards_of("test", "a"))
    made: list[Shard] = []
    monkeypatch.setattr(
        "physfed_ray.data.on_demand.do_shard",
        lambda source, settings, shard, *_: made.append(shard),
    )
    make_field(todo, "sinogram", [("test", "a"), ("test", "b")])
    assert [shard.key for shard in made] == [s.key for s in todo.shards_of("test", "b")]
    (shard,) = todo.shards_of("test", "a")
    todo.field_path_of(shard, "sinogram").write_bytes(b"broken")
    with pytest.raises(PhysFedError, match="cannot be read as prepared data"):
        read_made(todo, "sinogram", "test", "a")
    assert len(first) == 2
