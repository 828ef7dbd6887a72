"""A few hundred damaged inputs; ``benchmarks/fuzz.py`` tries 20,000 of the same kinds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ATTEMPTS = 300
SEED = 1


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What comes of all attempts, in a process of its own: it forks, which this one should not."""
    command = [sys.executable, "-m", "tests.fuzz.command"]
    options = ["--seed", str(SEED), "--count", str(ATTEMPTS), "--slow", "0"]
    found = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=False,
    )
    return dict(json.loads(found.stdout)["kinds"])


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["dicom", "yaml", "arrow", "checkpoint", "run"])
def test_damage_ends_in_no_traceback_no_hang_and_no_wrong_number(
    results: dict[str, Any], kind: str
) -> None:
    found = results[kind]
    assert found["findings"] == [], f"benchmarks/fuzz.py --kind {kind} --seed S --count 1 repeats S"
    assert found["attempts"] >= 10
    assert found["results"]["same"] > 0
    assert found["results"].keys() & {"refused", "told"}, "no damage was noticed"
