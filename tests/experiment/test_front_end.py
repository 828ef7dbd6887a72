"""The front end's keys: what is written, what it resolves to, and what does not go together."""

from pathlib import Path
from typing import Any

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Experiment, load_experiment
from physfed_ray.front_ends.fbp import FilteredBackProjection
from tests.data.test_prepare import make_experiment


@pytest.mark.parametrize("given", ["fbp", {}, {"name": "fbp"}, {"kernel": "scanner"}])
def test_the_scanner_s_own_fbp_is_the_default(tmp_path: Path, given: Any) -> None:
    resolved = {"name": "fbp", "kernel": "scanner"}
    for experiment in (make_experiment(tmp_path), make_experiment(tmp_path, front_end=given)):
        assert experiment.model_dump(mode="json")["front_end"] == resolved
        assert isinstance(experiment.front_end.make(), FilteredBackProjection)


def test_a_wrong_key_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match=r"front_end\.kernel: .*'scanner' or 'tuned'"):
        make_experiment(tmp_path, front_end={"kernel": "wide"})


def measured_pairs(tmp_path: Path, keys: str) -> Experiment:
    path = tmp_path / "pairs.yaml"
    path.write_text(
        "name: pairs\ndata: {source: {pairs: .}, image_size: 32}\n"
        f"clients: [paper-1]\nmethod: {{name: fedavg}}\n{keys}"
    )
    return load_experiment(path)


def test_measured_pairs_have_no_sinograms(tmp_path: Path) -> None:
    with pytest.raises(
        PhysFedError, match=r"front_end\.name: fbp makes images from sinograms, and"
    ):
        measured_pairs(tmp_path, "front_end: {kernel: tuned}\n")
