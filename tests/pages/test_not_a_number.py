"""Runs with scores that are no numbers: every page is written, and says so with a dash."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from physfed_ray.pages.compare import compare
from physfed_ray.pages.run_page import write_run_page
from physfed_ray.rundir.long_table import METRIC_COLUMNS, METRICS_FILE, LongTable
from physfed_ray.rundir.run_directory import RunDirectory
from tests.pages.run_directories import MakeRun

BAD = (math.nan, math.inf, -math.inf)


def spoil(root: Path, chosen: Any, value: float) -> None:
    """Replace the values of chosen rows."""
    directory = RunDirectory(root)
    rows = directory.read_table(METRICS_FILE).rows()
    spoiled = [(*row[:4], value) if row[2] != "system" and chosen(row) else row for row in rows]
    directory.write_table(METRICS_FILE, LongTable(METRIC_COLUMNS, spoiled))
    directory.close()


CHOICES = {
    "everything measured": lambda row: row[1] != "server",
    "one client": lambda row: row[1] == "c2",
    "one metric": lambda row: row[3] == "psnr",
    "one round": lambda row: row[0] == 3,
    "unseen": lambda row: row[2].startswith("unseen"),
    "the input": lambda row: row[2].endswith("input"),
}


@pytest.mark.parametrize("value", BAD[:2], ids=str)
@pytest.mark.parametrize("chosen", list(CHOICES))
def test_a_page_is_written(make_run: MakeRun, chosen: str, value: float) -> None:
    run = make_run("fedper", clients=3, unseen=2, rounds=5, slices=2, n=32)
    spoil(run, CHOICES[chosen], value)
    page = Path(write_run_page(run)).read_text()
    assert "nan" not in page.partition("<main>")[2].replace("data:image", "").split("base64")[0]


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("chosen", ["everything measured", "one client", "one metric"])
def test_a_comparison_is_written(
    make_run: MakeRun, tmp_path: Path, chosen: str, value: float
) -> None:
    small = {"clients": 3, "unseen": 2, "rounds": 5, "slices": 2, "n": 32}
    runs = [make_run("fedper", **small), make_run("fedavg", **small)]
    spoil(runs[0], CHOICES[chosen], value)
    assert "fedper" in compare(runs, tmp_path / "page.md").read_text().lower()


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 400), max_size=60), st.sampled_from(BAD))
def test_any_rows_may_be_no_numbers(make_run: MakeRun, places: set[int], value: float) -> None:
    run = make_run("scan_physfed", clients=3, unseen=2, rounds=4, slices=2, n=32)
    count = iter(range(10_000))
    spoil(run, lambda row: next(count) in places, value)
    assert write_run_page(run).exists()
