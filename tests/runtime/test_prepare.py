"""Preparation on Ray gives the same bytes, and its failures say what failed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare
from physfed_ray.data.shards import Shard
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.runtime.prepare import prepare_on_ray, run_shards

SPARSE = {
    "views": 24,
    "bins": 400,
    "pixel_mm": 1.0,
    "bin_mm": 1.6,
    "source_mm": 350,
    "detector_mm": 350,
    "photons": 1e5,
}


@pytest.fixture(autouse=True, scope="module")
def _salt() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_SALT", "of the tests")
        yield


def make_experiment(cache: Path) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tiny",
            "data": {
                "source": {"phantom": {"patients": 4, "slices": 2}},
                "image_size": 48,
                "test_patients": 1,
                "cache": str(cache),
            },
            "clients": [{"id": "a", "protocol": SPARSE}, {"id": "b", "protocol": SPARSE}],
            "unseen": [{"id": "u", "protocol": SPARSE | {"views": 36}}],
            "method": {"name": "fedavg"},
        }
    )


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.arrow")}


@pytest.mark.usefixtures("ray_session")
def test_ray_and_inline_give_the_same_bytes(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    on_ray = prepare_on_ray(make_experiment(tmp_path / "ray"), events.append)
    inline = prepare(make_experiment(tmp_path / "inline"))
    assert contents(on_ray.root) == contents(inline.root)
    assert replace(on_ray, root=inline.root).statistics == inline.statistics
    assert [event["done"] for event in events[1:]] == list(range(7))
    assert prepare_on_ray(make_experiment(tmp_path / "ray")) == on_ray


@pytest.mark.usefixtures("ray_session")
def test_failing_shard_is_named_in_one_sentence(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    todo = plan(make_experiment(cache))
    # A file where the folder should be: the workers cannot write.
    cache.mkdir()
    (cache / "shards").write_text("")
    shard: Shard = todo.files["train", "a"][0]
    pattern = rf"preparing patient {shard.pseudonym} for a \(Protocol\(views=24.* failed"
    with pytest.raises(PhysFedError, match=pattern) as info:
        list(run_shards(todo, [shard]))
    assert "Traceback" not in str(info.value)
    assert shard.patient not in str(info.value)


@pytest.mark.usefixtures("ray_session")
def test_dying_worker_is_an_error_after_its_retries(tmp_path: Path) -> None:
    class Deadly:
        """Kills the process that loads a patient, as the kernel does when memory runs out."""

        def load(self, patient_id: str, limit: int | None) -> None:
            """Die."""
            with (tmp_path / "deaths").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)

    # A seed of its own: no worker has kept this patient from an earlier test.
    experiment = make_experiment(tmp_path).model_copy(update={"seed": 7})
    todo = replace(plan(experiment), source=Deadly())
    shard = todo.files["train", "b"][0]
    with pytest.raises(PhysFedError, match=rf"patient {shard.pseudonym} for b .* 3 times"):
        list(run_shards(todo, [shard]))
    assert (tmp_path / "deaths").read_text() == "xxx"
