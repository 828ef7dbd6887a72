"""What fields take on the disk, counted before they are made, is what they take once made."""

from pathlib import Path

import pyarrow as pa

from physfed_ray.cost.stored_fields import StoredField, stored_fields
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare
from tests.data.test_prepare import make_experiment


def test_nothing_further_is_stored_for_plain_images(tmp_path: Path) -> None:
    assert stored_fields(plan(make_experiment(tmp_path))) == []


def test_sinograms_are_counted_as_they_are_stored(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, front_end={"name": "fbp", "kernel": "tuned"})
    todo = plan(experiment)
    (counted,) = stored_fields(todo)
    prepare(experiment)
    files = list(todo.cache.rglob("*.sinogram.arrow"))
    written = sum(pa.ipc.open_file(f).read_all()["values"].nbytes for f in files)
    assert counted == StoredField("sinogram", cached=written, held=0)
