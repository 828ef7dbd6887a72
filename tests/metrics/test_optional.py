"""Optional metrics: every registered one in the same way, and a real run that measures them all."""

import typing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.experiment import load_experiment
from physfed_ray.experiment.evaluation import Evaluation
from physfed_ray.federation.host import Host
from physfed_ray.federation.orders import ClientTurn
from physfed_ray.federation.serving import FinalResults
from physfed_ray.federation.spec import Spec
from physfed_ray.metrics.optional import OPTIONAL, Slices, optional_scores
from physfed_ray.pages.compare import compare
from physfed_ray.results.run_tables import EDGES
from physfed_ray.runtime.run import run_experiment

EXPERIMENT = """
name: measured
data:
  source: {phantom: {patients: 3, slices: 2}}
  image_size: 64
  test_patients: 1
  clinical_windows: {soft: [-160, 240]}
clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
unseen: [{id: u1, protocol: unseen-2}]
backbone: {channels: 4}
method: {name: fedper}
training: {rounds: 1, batch_size: 2, patch: 32}
evaluation: {metrics: [fsim, nps, mtf]}
"""
Rows = dict[tuple[str, str, str], float]
PER_SLICE = {"fsim", "fsim[-160,240]", "nps_area_hu2", "nps_mean_per_mm", "nps_peak_per_mm"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run directory, every optional metric measured."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "measured.yaml").write_text(EXPERIMENT)
    experiment = load_experiment(folder / "measured.yaml", [f"data.cache={folder / 'cache'}"])
    run_experiment(experiment, folder / "run", runtime="inline")
    return folder / "run"


@pytest.fixture(scope="module")
def rows(run_dir: Path) -> Rows:
    """Return the values of the last evaluation by client, split and metric."""
    table = pq.read_table(run_dir / "metrics.parquet").to_pylist()
    return {(r["client"], r["split"], r["metric"]): r["value"] for r in table}


def _slices(count: int = 3, n: int = 64) -> Slices:
    rng = np.random.default_rng(0)
    full = np.full((count, n, n), -1000, np.float32)
    full[:, 8:-8, 8:-8] = 40
    full[:, 20:30, 20:40] = 110
    low = full + rng.normal(0, 20, full.shape).astype(np.float32)
    body = (full > -500).astype(np.uint8)
    return Slices(low, full, body, 0.7, (-1000.0, 2000.0), {"soft": (-160.0, 240.0)})


def test_an_experiment_can_name_exactly_what_exists() -> None:
    (named, _) = typing.get_args(Evaluation.model_fields["metrics"].annotation)
    assert set(typing.get_args(named)) == {*OPTIONAL, "mtf"}


@pytest.mark.parametrize("name", OPTIONAL)
def test_every_metric_scores_each_slice_for_itself_and_changes_nothing(name: str) -> None:
    slices = _slices()
    before = slices.denoised.copy()
    scores = OPTIONAL[name](slices)
    first = OPTIONAL[name](
        replace(
            slices,
            denoised=slices.denoised[:1],
            reference=slices.reference[:1],
            body=slices.body[:1],
        )
    )
    assert scores
    for key, values in scores.items():
        assert values.shape == (3,)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
        assert len(set(values.tolist())) == 3, key
        np.testing.assert_allclose(first[key], values[:1], rtol=1e-12)
    np.testing.assert_array_equal(slices.denoised, before)


def test_only_the_named_metrics_are_computed() -> None:
    assert optional_scores((), _slices()) == {}
    assert set(optional_scores(("mtf", "fsim"), _slices())) == {"fsim", "fsim[-160,240]"}
    assert set(optional_scores(("fsim", "nps"), _slices())) == PER_SLICE


def test_a_run_ends_with_all_of_them(rows: Rows, run_dir: Path) -> None:
    for client in ("c1", "c2"):
        for split in ("test", "test/input"):
            assert {m for c, s, m in rows if (c, s) == (client, split)} > PER_SLICE
            assert 0 < rows[client, split, "fsim"] < 1
        for split in ("edge", "edge/input"):
            found = {m: v for (c, s, m), v in rows.items() if (c, s) == (client, split)}
            assert set(found) == {column.metric for column in EDGES}
    for split in ("unseen/input", "unseen/nearest_protocol", "unseen/ensemble", "unseen/oracle"):
        assert {m for c, s, m in rows if (c, s) == ("u1", split)} > PER_SLICE
    per_slice = pq.read_table(run_dir / "slices.parquet").to_pylist()
    assert {r["metric"] for r in per_slice if r["split"] == "test"} > PER_SLICE


def test_they_are_measured_in_the_protocols_millimetres(rows: Rows) -> None:
    """The undenoised scans reach half the sampling rate, which only the pixel length decides."""
    for client, preset in (("c1", "paper-2"), ("c2", "paper-6")):
        nyquist = 0.5 / PRESETS[preset].pixel_at(64)
        for column in EDGES:
            assert 0.2 * nyquist < rows[client, "edge/input", column.metric] <= nyquist * 1.0001
        assert 0.2 * nyquist < rows[client, "test/input", "nps_mean_per_mm"] < nyquist
        assert rows[client, "test/input", "nps_area_hu2"] > 1


def test_report_and_comparison_show_them(run_dir: Path, tmp_path: Path) -> None:
    names = {path.name for path in (run_dir / "tables").iterdir()}
    assert names >= {"seen_optional.csv", "unseen_optional.csv", "seen_edges.csv"}
    html = (run_dir / "report.html").read_text()
    for words in ("Optional metrics", "Sharpness of edges", "FSIM [-160,240]", "50% at 120 HU"):
        assert words in html
    page = compare([run_dir], tmp_path / "page.md").read_text()
    for words in ("NPS area", "FSIM [-160,240]", "Edges, mean of clients", "10% at 900 HU"):
        assert words in page


def test_without_asking_nothing_is_measured(make_spec: Callable[..., Spec]) -> None:
    spec = make_spec("fedper", clients=1, unseen=0)
    assert spec.metrics == ()
    vector = Host(spec).network.shared.vector.numpy()
    detailed = Host(spec).seen.evaluate(vector, ClientTurn(0, 0), "test", detail=True)
    assert not any("fsim" in name or "nps" in name for name in detailed.scores)
    assert Evaluation().metrics == ()


def test_two_hosts_measure_the_same_bits(make_spec: Callable[..., Spec]) -> None:
    g = tuple(float(v) for v in PRESETS["paper-2"].normalised())
    spec = make_spec("fedper", clients=1, unseen=0)
    spec = replace(spec, clients=(replace(spec.clients[0], g=g),), metrics=("mtf",))
    vector = Host(spec).network.shared.vector.numpy()
    one, two = (Host(spec).seen.sharpness(vector, ClientTurn(0, 0)) for _ in range(2))
    assert set(one) == {c.metric for c in EDGES} | {f"input/{c.metric}" for c in EDGES}
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_a_slice_without_a_value_does_not_spoil_the_mean() -> None:
    from physfed_ray.federation.orders import ClientEvaluation as Found

    results = FinalResults()
    scores = {"nps_area_hu2": np.array([2.0, np.nan, 4.0]), "fsim": np.array([np.nan] * 3)}
    results.add(5, "c1", "test", Found(["p"] * 3, [0, 1, 2], scores, {}, {}))
    assert results.rows[0] == (5, "c1", "test", "nps_area_hu2", 3.0)
    assert np.isnan(results.rows[1][-1])
    assert len(results.slices) == 6
