"""Preparation on Ray gives the same bytes, and its failures say what failed."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare, scan_inline
from physfed_ray.data.shards import Shard
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment
from physfed_ray.runtime.prepare import look_at, nodes_with, prepare_on_ray, run_shards
from tests.runtime.two_nodes import SecondNode

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
        patch.setenv("PHYSFED_SALT", SALT)
        yield


def make_experiment(
    cache: Path, source: dict[str, Any] | None = None, size: int = 48
) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tiny",
            "data": {
                "source": source or {"phantom": {"patients": 4, "slices": 2}},
                "image_size": size,
                "test_patients": 1,
                "cache": str(cache),
            },
            "clients": [{"id": "a", "protocol": SPARSE}, {"id": "b", "protocol": SPARSE}],
            "unseen": [{"id": "u", "protocol": SPARSE | {"views": 36}}],
            "method": {"name": "fedavg"},
        }
    )


def write_dicom(folder: Path) -> Path:
    """Write four patients of two slices each."""
    folder.mkdir(parents=True)
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for number in range(8):
        dataset.PatientID = f"secret-{number // 2}"
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=[dataset.PatientID])
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[dataset.PatientID, "series"])
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        dataset.ImagePositionPatient = [0, 0, 5 * number]
        dataset.save_as(folder / f"{number}.dcm")
    return folder


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.arrow")}


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_ray_and_inline_give_the_same_bytes(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    on_ray = prepare_on_ray(make_experiment(tmp_path / "ray"), events.append)
    inline = prepare(make_experiment(tmp_path / "inline"))
    assert contents(on_ray.root) == contents(inline.root)
    assert replace(on_ray, root=inline.root).statistics == inline.statistics
    prepared = [event["done"] for event in events if event["event"] == "prepare"]
    assert prepared == list(range(7))
    assert prepare_on_ray(make_experiment(tmp_path / "ray")) == on_ray


@pytest.mark.usefixtures("ray_session")
def test_failing_shard_is_named_in_one_sentence(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    todo = plan(make_experiment(cache))
    # A file where the folder should be: the workers cannot write.
    cache.mkdir()
    (cache / "shards").write_text("")
    shard: Shard = todo.shards_of("train", "a")[0]
    pattern = rf"preparing patient {shard.patient.pseudonym} for a \(Protocol\(views=24.* failed"
    with pytest.raises(PhysFedError, match=pattern) as info:
        list(run_shards(todo, [shard]))
    assert "Traceback" not in str(info.value)
    assert shard.patient.id not in str(info.value)


@pytest.mark.cluster
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
    shard = todo.shards_of("train", "b")[0]
    with pytest.raises(PhysFedError, match=rf"patient {shard.patient.pseudonym} for b .* 3 times"):
        list(run_shards(todo, [shard]))
    assert (tmp_path / "deaths").read_text() == "xxx"


def test_a_folder_looks_the_same_only_with_the_same_files(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "ct")
    before = look_at(folder)
    assert look_at(folder) == before
    files = sorted(folder.iterdir())
    original = files[5].read_bytes()
    files[5].write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert look_at(folder) != before
    files[5].write_bytes(original)
    assert look_at(folder) == before
    files[0].unlink()
    assert look_at(folder) != before
    assert look_at(tmp_path / "absent") != before


def shards(cache: Path) -> dict[str, bytes]:
    return contents(cache / "shards")


@pytest.fixture(scope="module")
def seen(two_nodes_seen: Mapping[str, Any]) -> dict[str, Any]:
    """What happened on a node without CPUs and one with other files, which died in the middle."""
    return dict(two_nodes_seen["prepare"])


CACHES = ("cache", "sealed", "of its own")
SALT = "of the tests"


def hide(folder: Path) -> tuple[list[Path], str]:
    """Return folders instead of which the second node sees empty ones, and what becomes of those.

    Of four folders of DICOM it sees one, another with a change, and nothing of a third.
    """
    for name in ("shared", "hidden", "other", "changed"):
        write_dicom(folder / name)
    file = folder / "changed" / "3.dcm"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    caches = [folder / name for name in CACHES]
    for path in caches:
        path.mkdir()
    then = (
        f"mount -o remount,ro '{folder / 'sealed'}'"
        f" && cp '{folder / 'changed'}'/* '{folder / 'other'}'"
    )
    return [*caches, folder / "hidden", folder / "other"], then


def prepare_on_two_nodes(folder: Path, second: SecondNode) -> dict[str, Any]:
    caches = {name: folder / name for name in CACHES}
    seen: dict[str, Any] = {
        name: [id == second.id for id in nodes_with(folder / name)]
        for name in ("shared", "hidden", "other")
    }
    for name, cache in (("shared", "sealed"), ("hidden", "cache")):
        experiment = make_experiment(caches[cache], {"dicom": str(folder / name)})
        seen[f"made {name}"] = contents(prepare_on_ray(experiment).root)
    seen["kept"] = {name: len(second.call(shards, path)) for name, path in caches.items()}
    shutil.rmtree(caches["cache"] / "shards")
    return seen | lose_a_node(caches["cache"], second)


def lose_a_node(cache: Path, second: SecondNode) -> dict[str, Any]:
    todo = plan(make_experiment(cache, size=128))
    outcomes = run_shards(todo, todo.shards)
    next(outcomes)
    give_up = time.monotonic() + 60
    while not (unfetched := second.call(shards, cache).keys() - shards(cache).keys()):
        assert time.monotonic() < give_up
        time.sleep(0.2)
    second.kill()
    third = second.add(cpus=2).node_id
    list(outcomes)
    same = nodes_with(cache.parent / "hidden") == [third]
    return {"unfetched": unfetched, "made phantoms": shards(cache), "third": same}


@pytest.mark.cluster
def test_dicom_goes_to_the_nodes_that_hold_the_same_files(seen: dict[str, Any]) -> None:
    assert (seen["shared"], seen["hidden"], seen["other"]) == ([True], [], [])
    assert seen["third"]


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["shared", "hidden"])
def test_dicom_of_a_far_node_or_of_the_driver_alone_gives_the_same_bytes(
    seen: dict[str, Any], two_nodes_seen: Mapping[str, Any], tmp_path: Path, name: str
) -> None:
    folder = two_nodes_seen["folder"] / "prepare"
    experiment = make_experiment(tmp_path, {"dicom": str(folder / name)})
    assert seen[f"made {name}"] == contents(prepare(experiment).root)


@pytest.mark.cluster
def test_a_node_that_cannot_write_the_drivers_cache_uses_its_own(seen: dict[str, Any]) -> None:
    assert seen["kept"] == {"cache": 0, "sealed": 0, "of its own": 6}


@pytest.mark.cluster
def test_what_a_dead_node_made_and_had_not_sent_is_made_again(
    seen: dict[str, Any], tmp_path: Path
) -> None:
    assert seen["unfetched"], "the node died with files that the driver had not fetched"
    todo = plan(make_experiment(tmp_path, size=128))
    list(scan_inline(todo, todo.shards))
    assert seen["made phantoms"] == shards(tmp_path)
