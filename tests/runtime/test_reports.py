"""A pool of reporters gives what one process gives, whatever happens to its actors."""

import time
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.util import list_named_actors

from physfed_ray.data.description import DescribedSlices, describe_inline
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.experiment.reports import Pool
from physfed_ray.runtime.pool import share
from physfed_ray.runtime.reports import describe_on_ray
from tests.reports.tiny_models import make_tiny_llava
from tests.runtime.reporters import SECRET, OddReports, random_slices

pytestmark = pytest.mark.usefixtures("ray_session")

PATIENCE_S = 30.0


def content(batches: Iterable[DescribedSlices]) -> dict[str, tuple[str, bytes, bytes]]:
    """Return each slice's description, bit for bit."""
    found = {}
    for batch in batches:
        d = batch.described
        for row, image in enumerate(batch.images):
            assert image not in found, "described twice"
            found[image] = (d.report[row], d.embedding[row].tobytes(), d.mask[row].tobytes())
    return found


def odd(tmp_path: Path, **pool: object) -> OddReports:
    settings = {"max_batch": 4, "max_size": 2, "retries": 2} | pool
    return OddReports(folder=tmp_path, pool=Pool.model_validate(settings))


def test_the_pool_gives_the_same_bits_as_one_process(tmp_path: Path) -> None:
    slices = random_slices(tmp_path / "a.arrow", 17, size=32)
    slices += random_slices(tmp_path / "b.arrow", 6, size=32, seed=1)
    slices[3] = replace(slices[3], report="Röntgen: 肺 \N{LUNGS}")
    slices[20] = replace(slices[20], report="")
    reports = Reports(pool=Pool(max_batch=5, max_size=2))
    batches = list(describe_on_ray(reports, slices, worth_s=1e-6))
    assert [bool(batch.health) for batch in batches[:3]] == [False, False, True]
    found = content(batches)
    assert found == content(describe_inline(reports, slices))
    assert found[slices[3].image][0] == "Röntgen: 肺 \N{LUNGS}"


def test_no_pool_is_started_for_a_few_slices(tmp_path: Path) -> None:
    slices = random_slices(tmp_path / "a.arrow", 9)
    reports = Reports(pool=Pool(max_batch=4))
    batches = list(describe_on_ray(reports, slices))
    assert content(batches) == content(describe_inline(reports, slices))
    assert not any(batch.health for batch in batches)


@pytest.mark.cluster
def test_a_reporter_that_dies_or_hangs_is_replaced_and_its_batch_repeated(tmp_path: Path) -> None:
    slices = random_slices(tmp_path / "a.arrow", 30)
    reports = odd(tmp_path, max_size=1, timeout_s=2)
    expected = content(describe_inline(reports, slices))
    (tmp_path / "once-kill").touch()
    (tmp_path / "once-hang").touch()
    batches = list(describe_on_ray(reports, slices))
    assert content(batches) == expected
    assert "restarted" in batches[-1].health
    assert not list(tmp_path.glob("once-*"))


@pytest.mark.cluster
def test_a_reporter_that_is_killed_for_good_is_replaced(tmp_path: Path) -> None:
    slices = random_slices(tmp_path / "a.arrow", 60)
    reports = odd(tmp_path, max_size=1)
    expected = content(describe_inline(reports, slices))
    (tmp_path / "dawdle").touch()
    running = describe_on_ray(reports, slices)
    batches = [next(running)]
    ray.kill(ray.get_actor(reporters()[0]))
    (tmp_path / "dawdle").unlink()
    batches += running
    assert content(batches) == expected


@pytest.mark.cluster
def test_a_batch_that_kills_every_reporter_ends_the_job(tmp_path: Path) -> None:
    slices = random_slices(tmp_path / "a.arrow", 4)
    (tmp_path / "kill").touch()
    with pytest.raises(PhysFedError, match=r"failed 2 times because their reporter died") as raised:
        list(describe_on_ray(odd(tmp_path, retries=1), slices))
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("complain", "there is no model here; copy it."),
        ("quote", r"failed \(ValueError at reporters.py:\d+\)"),
    ],
)
def test_an_error_is_one_sentence_without_a_report(
    tmp_path: Path, fault: str, sentence: str
) -> None:
    slices = random_slices(tmp_path / "a.arrow", 4)
    (tmp_path / fault).touch()
    before = set(reporters())
    with pytest.raises(PhysFedError, match=sentence) as raised:
        list(describe_on_ray(odd(tmp_path), slices))
    assert str(raised.value).count("\n") == 0
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert_none_is_left(before)


@pytest.mark.cluster
def test_the_pool_grows_with_the_queue_and_leaves_no_reporter(tmp_path: Path) -> None:
    slices = random_slices(tmp_path / "a.arrow", 1200)  # one reporter would take 90 s
    (tmp_path / "dawdle").touch()
    before = set(reporters())
    running = describe_on_ray(odd(tmp_path), slices)
    assert any(batch.health.startswith("2 reporters") for batch in running)
    assert set(reporters()) - before
    running.close()
    assert_none_is_left(before)
    assert len(list(tmp_path.glob("batch-*"))) < 300


def assert_none_is_left(before: set[str]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while set(reporters()) - before:
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.cluster
def test_a_multimodal_model_says_in_the_pool_what_it_says_alone(tmp_path: Path) -> None:
    reporter = {
        "name": "mllm",
        "model": str(make_tiny_llava(tmp_path / "model")),
        "max_new_tokens": 5,
    }
    pool = {"max_batch": 4, "max_size": 1}
    reports = Reports.model_validate(
        {"reporter": reporter, "encoder": {"name": "mllm", "tokens": 3}, "pool": pool}
    )
    slices = random_slices(tmp_path / "a.arrow", 10)
    found = content(describe_on_ray(reports, slices))
    expected = content(describe_inline(reports, slices))
    assert {image: text for image, (text, _, _) in found.items()} == {
        image: text for image, (text, _, _) in expected.items()
    }
    assert len({text for text, _, _ in found.values()}) > 1


def reporters() -> list[str]:
    return [name for name in list_named_actors() if name.startswith("reporter-")]


def test_auto_is_what_the_cluster_carries() -> None:
    assert share(Reports()).most == 4
    assert share(Reports(pool=Pool(cpus_per_reporter=1.5))).most == 2
    assert share(Reports()).gpus == 0


def test_a_reporter_that_fits_no_machine_is_refused() -> None:
    with pytest.raises(PhysFedError, match=r"room for a reporter with 900 CPU\(s\)"):
        share(Reports(pool=Pool(cpus_per_reporter=900)))
