"""What is measured under a client's protocol is measured under that protocol, and not near it."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.ct.protocol import Protocol
from physfed_ray.federation.spec import UnseenInfo
from physfed_ray.methods.given import ClientInfo
from physfed_ray.rundir.long_table import LongTable
from physfed_ray.runtime.run import run_experiment
from tests.data.test_prepare import SPARSE, make_experiment

EDGE = {"bins": 300, "bin_mm": 1.8336917825608848}
"""Bins of 1e-7 mm less would not cover the image circle, nor do they if rounded to six digits."""


def test_a_protocol_at_the_edge_of_what_is_possible_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("physfed_ray.runtime.run.write_page", lambda directory: None)
    experiment = make_experiment(
        tmp_path,
        clients=[{"id": "a", "protocol": SPARSE | EDGE}],
        unseen=[{"id": "u", "protocol": SPARSE | EDGE | {"views": 36}}],
        backbone={"channels": 2},
        method={"name": "scan_physfed"},
        training={"rounds": 1, "batch_size": 4},
        evaluation={"metrics": ["mtf", "nps", "detectability"]},
    )
    run_experiment(experiment, tmp_path / "run", runtime="inline")
    table = LongTable.from_parquet((tmp_path / "run" / "metrics.parquet").read_bytes())
    for split in ("edge", "edge/input"):
        edge = table.where(split=split, metric="mtf50_900hu_per_mm")
        assert edge.column("client") == ["a"]
        assert edge.values > 0
    discs = table.where(metric="dprime_12mm_20hu")
    of_u = {split for split in discs.distinct("split") if discs.where(split=split, client="u")}
    assert of_u == {
        f"unseen/{served}/discs" for served in ("input", "pvqs", "nearest_protocol", "full")
    }


def test_g_is_that_of_the_protocol_to_the_last_bit(tmp_path: Path) -> None:
    protocol = Protocol(**SPARSE | EDGE)
    for info in (ClientInfo(0, "a", protocol, 3), UnseenInfo("u", protocol, tmp_path, 3)):
        np.testing.assert_array_equal(np.array(info.g, np.float32), protocol.normalised())
