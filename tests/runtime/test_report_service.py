"""Reporters behind Ray Serve answer as one process does, to many at once and whatever dies."""

import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.reports import Pool
from physfed_ray.reports.base import Described
from physfed_ray.runtime.report_service import ReportService
from tests.runtime.reporters import SECRET, OddReports

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_session")]

CALLERS = 12
PATIENCE_S = 240.0
HU = np.random.default_rng(0).integers(-1000, 1500, (CALLERS, 16, 16)).astype(np.float32)


def odd(folder: Path, **pool: Any) -> OddReports:
    settings = {"max_batch": 4, "max_wait_s": 0.3, "max_size": 2, "max_queued": 3, "retries": 2}
    return OddReports(folder=folder, pool=Pool.model_validate(settings | pool))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> OddReports:
    return odd(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def service(reports: OddReports, ray_session: None) -> Iterator[ReportService]:
    with ReportService(reports) as service:
        yield service


@pytest.fixture
def ask(reports: OddReports, service: ReportService) -> Iterator[Callable[..., None]]:
    """Ask the reporter for something odd, and take back what is left of it in the end."""
    names: list[str] = []

    def ask(name: str) -> None:
        names.append(name)
        (reports.folder / name).touch()

    yield ask
    for name in names:
        (reports.folder / name).unlink(missing_ok=True)


def assert_same(found: Described, expected: Described) -> None:
    assert found.report == expected.report
    assert found.embedding.tobytes() == expected.embedding.tobytes()
    assert found.mask.tobytes() == expected.mask.tobytes()
    assert (found.embedding.dtype, found.mask.dtype) == (np.float32, np.uint8)


def test_a_call_gets_what_one_process_gives(reports: OddReports, service: ReportService) -> None:
    assert_same(service.describe(HU), reports.make().describe(HU))
    assert service.health() == "1 reporter"


def test_callers_share_batches_and_get_their_own_answers(
    reports: OddReports, service: ReportService
) -> None:
    expected = reports.make().describe(HU)
    for path in reports.folder.glob("batch-*"):
        path.unlink()
    with ThreadPoolExecutor(CALLERS) as callers:
        found = list(callers.map(service.describe, HU[:, None]))
    assert [answer.report[0] for answer in found] == expected.report
    assert sum(reports.batches()) == CALLERS
    assert 1 < max(reports.batches()) <= 4


def test_slices_of_several_sizes_may_meet_in_a_batch(
    reports: OddReports, service: ReportService
) -> None:
    small, large = HU[:1, :8, :8], HU[:1]
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(service.describe, (small, large)))
    for image, answer in zip((small, large), found, strict=True):
        assert_same(answer, reports.make().describe(image))


def test_an_error_is_one_sentence_without_a_report(
    service: ReportService, ask: Callable[[str], None]
) -> None:
    ask("quote")
    with pytest.raises(PhysFedError, match=r"failed \(ValueError at reporters.py:\d+\)") as raised:
        service.describe(HU[:1])
    assert str(raised.value).count("\n") == 0
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_a_reporter_that_dies_is_replaced_and_asked_again(
    reports: OddReports, service: ReportService, ask: Callable[[str], None]
) -> None:
    expected = reports.make().describe(HU)
    ask("once-kill")
    assert_same(service.describe(HU), expected)
    assert not (reports.folder / "once-kill").exists()


def test_reporters_come_with_the_queue(service: ReportService, ask: Callable[[str], None]) -> None:
    ask("dawdle")
    ends = time.monotonic() + PATIENCE_S
    come = Event()

    def call(hu: np.ndarray) -> None:
        while not come.is_set():
            service.describe(hu)

    with ThreadPoolExecutor(CALLERS) as callers:
        calls = [callers.submit(call, hu) for hu in HU[:, None]]
        while "2 reporters" not in (health := service.health()) and time.monotonic() < ends:
            time.sleep(0.5)
        come.set()
    assert "2 reporters" in health
    for ended in calls:
        ended.result()


def test_no_answer_in_time_is_one_sentence(tmp_path: Path) -> None:
    with ReportService(odd(tmp_path, timeout_s=1.5, max_size=1)) as service:
        (tmp_path / "hang").touch()
        with pytest.raises(PhysFedError, match=r"within reports.pool.timeout_s = 1.5 \(.*\)"):
            service.describe(HU[:1])
