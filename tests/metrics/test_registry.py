"""Metrics: every registered one in the same way, one from outside, and a run that measures all."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import load_experiment
from physfed_ray.experiment.evaluation import Evaluation
from physfed_ray.federation.client.host import Host
from physfed_ray.federation.orders import ClientEvaluation, ClientTurn
from physfed_ray.federation.serving import FinalResults
from physfed_ray.federation.spec import Spec
from physfed_ray.metrics import registry, trunk_distances
from physfed_ray.metrics.base import Context, Images, Metric, SetMetric
from physfed_ray.metrics.edges import EdgePhantom
from physfed_ray.metrics.registry import METRICS, STANDARD, metrics_of, owner
from physfed_ray.metrics.scoring import score_phantom, score_slices
from physfed_ray.pages.compare import compare
from physfed_ray.runtime.run import run_experiment
from tests.outside import install

EXPERIMENT = """
name: measured
reports: {encoder: hashed}
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
evaluation: {metrics: [fsim, nps, mtf, detectability, pd_efflite0, fd_efflite0, bias_hu]}
"""
OUTSIDE = '''
import numpy as np
from physfed_ray.metrics.base import Metric, SetMetric


class Bias(Metric):
    """Size of the mean error over the body.

    Nobody's.
    """

    name, heading, unit, decimals = "bias_hu", "Bias", "HU", 1
    better = "lower"
    clinical = True
    needs = ("body",)

    def __call__(self, denoised, reference, context):
        error = np.clip(denoised, *context.window) - np.clip(reference, *context.window)
        return np.abs((error * context.body).sum(axis=(1, 2)) / context.body.sum(axis=(1, 2)))


class Two(Bias):
    def __call__(self, denoised, reference, context):
        return np.zeros(2 * len(denoised))


class Misnamed(Bias):
    name = "other"


PAIR = (Bias(), Two())


class Unlike(SetMetric):
    """Says too little."""

    name, heading, unit = "unlike", "Unlike", "HU"

    def features(self, denoised, reference, context):
        return np.zeros((1, 5))

    def of_set(self, features):
        return 0.0
'''
WINDOW = (-1000.0, 2000.0)
SOFT = {"soft": (-160.0, 240.0)}
OWN = ("psnr", "ssim", "rmse_hu", "psnr_body", "ssim_body", "fsim", "nps", "mtf",
       "detectability", "pd_efflite0", "fd_efflite0")  # fmt: skip
EDGES = {f"mtf{level}_{contrast}hu_per_mm" for level in (50, 10) for contrast in (120, 900)}
DISCS = {
    f"dprime_{kind}{end}"
    for kind in ("6mm_10hu", "6mm_40hu", "12mm_6hu", "12mm_20hu")
    for end in ("", "_low", "_high")
}
PER_SLICE = {"fsim", "fsim[-160,240]", "nps_area_hu2", "nps_mean_per_mm", "nps_peak_per_mm",
             "pd_efflite0", "pd_efflite0[-160,240]", "bias_hu", "bias_hu[-160,240]"}  # fmt: skip
OF_SETS = {"fd_efflite0", "fd_efflite0[-160,240]"}
SIDE, PIXEL_MM = 128, 1.4
Rows = dict[tuple[str, str, str], float]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install a package with metrics of its own for as long as this module's tests run."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        install(
            folder / "site",
            patch,
            OUTSIDE,
            (METRICS, {"bias_hu": "Bias", "two": "PAIR", "unlike": "Unlike"}),
        )
        registry._loaded.cache_clear()
        yield
    registry._loaded.cache_clear()


@pytest.fixture(scope="module")
def run_dir(outside: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def _images(count: int = 3, n: int = 64) -> tuple[Images, Images, np.ndarray]:
    """Return noisy bodies in HU, each noisier than the last, the clean ones, and where they are."""
    full = np.full((count, n, n), -1000, np.float32)
    full[:, 8:-8, 8:-8] = 40
    full[:, 20:30, 20:40] = 110
    noise = np.random.default_rng(0).normal(3, 20, full.shape)
    low = full + (noise * np.arange(1, count + 1)[:, None, None]).astype(np.float32)
    return low, full, (full > -500).astype(np.uint8)


def _context(metric: Metric, body: np.ndarray) -> Context:
    """Return the context of images that ``_scans`` gives."""
    made = None if metric.phantom is None else metric.phantom.make(SIDE, PIXEL_MM)
    return Context(WINDOW, body, PIXEL_MM, made)


def _scans(metric: Metric) -> tuple[Images, Images, Context]:
    """Return images that suit a metric, their reference, and the context."""
    if metric.phantom is None:
        low, full, body = _images()
        return low, full, _context(metric, body)
    made = metric.phantom.make(SIDE, PIXEL_MM)
    full = np.repeat(made.objects, 3 if len(made.objects) == 1 else 12, axis=0)
    blurred = (full + np.roll(full, 2, 1) + np.roll(full, 2, 2) + np.roll(full, 4, 1)) / 4
    if len(made.objects) > 1:  # what is to be told apart needs noise
        noise = np.random.default_rng(1).normal(0, 3, full.shape).astype(np.float32)
        full, blurred = full + noise, blurred + 6 * noise
    return blurred, full, _context(metric, np.repeat(made.body[None], len(full), axis=0))


ALL = [metric for name in OWN for metric in metrics_of(name)]


def test_these_are_all_of_the_projects_own() -> None:
    assert tuple(METRICS)[: len(OWN)] == OWN
    assert len({metric.name for metric in ALL}) == len(ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_every_metric_scores_each_slice_for_itself_and_changes_nothing(metric: Metric) -> None:
    low, full, context = _scans(metric)
    before = low.copy(), full.copy()
    values = metric(low, full, context)
    of_set = isinstance(metric, SetMetric)
    one_for_all = of_set or metric.phantom is not None
    assert values.shape == (() if of_set else (1,) if one_for_all else (3,))
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    if metric.phantom is None or metric.phantom.objects == 1:  # else scans come in their order
        again = metric(low[::-1], full[::-1], _context(metric, context.body[::-1]))
        np.testing.assert_allclose(again, values if one_for_all else values[::-1], rtol=1e-12)
        if not of_set:
            first = metric(low[:1], full[:1], _context(metric, context.body[:1]))
            np.testing.assert_allclose(first, values[:1], rtol=1e-12)
    for now, then in zip((low, full), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_every_metric_says_what_it_is_and_prefers_the_perfect_image(metric: Metric) -> None:
    assert metric.heading
    assert metric.unit or "_efflite0" in metric.name or "dprime_" in metric.name  # have none
    assert metric.title.endswith(".")
    low, full, context = _scans(metric)
    perfect = metric(full, full, _context(metric, context.body))
    assert perfect.shape == metric(low, full, context).shape
    if metric.better == "neither":
        return
    best, other = (
        [metric.worth(v) for v in np.atleast_1d(found)]
        for found in (perfect, metric(low, full, context))
    )
    assert (np.array(best) > np.array(other)).all()


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_what_a_metric_needs_is_what_it_cannot_do_without(metric: Metric) -> None:
    low, full, context = _scans(metric)
    if not metric.needs:
        assert np.isfinite(metric(low, full, Context(WINDOW))).all()
    for need in metric.needs:
        given = {"body": context.body, "pixel_mm": PIXEL_MM, "made": context._made}
        given.pop("made" if need == "phantom" else need)
        with pytest.raises(ValueError, match=f"needs .*{need}"):
            metric(low, full, Context(WINDOW, **given))


@pytest.mark.parametrize("metric", [m for m in ALL if "body" in m.needs], ids=lambda m: m.name)
def test_a_slice_without_body_has_no_value(metric: Metric) -> None:
    low, full, body = _images()
    body[1] = 0
    values = metric(low, full, Context(WINDOW, body, 0.7))
    assert np.isnan(values).tolist() == [False, True, False]


def test_what_metrics_share_is_computed_once() -> None:
    calls = []

    def compute(denoised: Images, reference: Images, context: Context) -> int:
        calls.append(context)
        return len(calls)

    low, full, _ = _images()
    context = Context(WINDOW)
    assert [context.shared(compute, low, full) for _ in range(3)] == [1, 1, 1]
    assert context.shared(compute, full, low) == 2
    inside = context.within(SOFT["soft"])
    assert [inside.shared(compute, low, full) for _ in range(2)] == [3, 3]


def test_an_experiment_can_name_what_is_optional(outside: None) -> None:
    assert Evaluation(metrics=("mtf", "bias_hu")).metrics == ("mtf", "bias_hu")
    assert Evaluation().metrics == ()
    for names, message in (
        (["psnr"], "'psnr' is always measured"),
        (["fsim", "fsim"], "'fsim' is named twice"),
        (["fsin"], r"unknown metric 'fsin' \(did you mean 'fsim'\?\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Evaluation(metrics=names)


def test_a_metric_without_its_package_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trunk_distances, "PACKAGE", "not_there")
    for name in ("pd_efflite0", "fd_efflite0"):
        with pytest.raises(ValueError, match=rf"'{name}' needs .*physfed_ray\[perceptual\]"):
            Evaluation(metrics=(name,))


def test_a_name_leads_to_its_owner(outside: None) -> None:
    owners = {"psnr[-160,240]": "psnr", "nps_area_hu2": "nps", "bias_hu": "bias_hu",
              "mtf10_900hu_per_mm": "mtf", "fsim[-1350,150]": "fsim"}  # fmt: skip
    for number, name in owners.items():
        found = owner(number)
        assert found is not None
        assert (found[0], found[1].name) == (name, number.partition("[")[0])
    assert owner("rmse_hu[-160,240]") is None
    assert owner("loss") is None


def test_a_foreign_metric_that_does_not_fit_is_refused_in_a_sentence(
    outside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("misnamed", "theirs:Misnamed", METRICS.group)
    monkeypatch.setitem(METRICS._entries, "misnamed", entry)
    low, full = (np.zeros((2, 24, 24), np.float32) for _ in range(2))
    body = np.ones((2, 24, 24), np.uint8)
    with pytest.raises(PhysFedError, match=r"'bias_hu' returned .*\(4,\) for 2 slices"):
        score_slices(low, full, body, WINDOW, {}, 0.7, ["two"])
    with pytest.raises(PhysFedError, match=r"'unlike' returned features .*\(1, 5\) for 2 slices"):
        score_slices(low, full, body, WINDOW, {}, 0.7, ["unlike"])
    with pytest.raises(PhysFedError, match="'misnamed' calls itself 'other'"):
        score_slices(low, full, body, WINDOW, {}, 0.7, ["misnamed"])


def test_only_the_named_metrics_are_computed() -> None:
    low, full, body = (np.zeros((1, 64, 64), np.float32) for _ in range(3))
    standard = set(score_slices(low, full, body, WINDOW, SOFT))
    assert standard == {*STANDARD, "psnr[-160,240]", "ssim[-160,240]"}
    both = set(score_slices(low, full, body, WINDOW, SOFT, 0.7, ("mtf", "fsim")))
    assert both - standard == {"fsim", "fsim[-160,240]"}
    phantom = EdgePhantom(120)
    edge = phantom.make(SIDE, PIXEL_MM)
    of_edge = score_phantom(edge.objects, phantom, edge, WINDOW, PIXEL_MM, ("fsim", "mtf"))
    assert set(of_edge) == {"mtf50_120hu_per_mm", "mtf10_120hu_per_mm"}


def test_a_run_ends_with_all_of_them(rows: Rows, run_dir: Path) -> None:
    for client in ("c1", "c2"):
        for split in ("test", "test/input"):
            assert {m for c, s, m in rows if (c, s) == (client, split)} > PER_SLICE | OF_SETS
            assert rows[client, split, "fd_efflite0"] > 0
            assert 0 < rows[client, split, "fsim"] < 1
            assert 0 < rows[client, split, "bias_hu[-160,240]"] < 400
        for split in ("edge", "edge/input"):
            assert {m for c, s, m in rows if (c, s) == (client, split)} == EDGES
        for split in ("discs", "discs/input", "discs/full"):
            assert {m for c, s, m in rows if (c, s) == (client, split)} == DISCS
        kind = "dprime_12mm_20hu"
        low, high = (rows[client, "discs/input", f"{kind}_{end}"] for end in ("low", "high"))
        assert low < rows[client, "discs/input", kind] < high
        more = rows[client, "discs/full", kind] / rows[client, "discs/input", kind]
        assert 2.2 < more < 4.5  # the root of ten times the photons
    for split in ("unseen/input", "unseen/nearest_protocol", "unseen/ensemble", "unseen/oracle"):
        assert {m for c, s, m in rows if (c, s) == ("u1", split)} > PER_SLICE | OF_SETS
    for which in ("input", "nearest_protocol", "full"):
        split = f"unseen/{which}/discs"
        assert {m for c, s, m in rows if (c, s) == ("u1", split)} == DISCS
    per_slice = pq.read_table(run_dir / "slices.parquet").to_pylist()
    of_slices = {r["metric"] for r in per_slice if r["split"] == "test"}
    assert of_slices > PER_SLICE
    assert not of_slices & OF_SETS


def test_they_are_measured_in_the_protocols_millimetres(rows: Rows) -> None:
    """The undenoised scans reach half the sampling rate, which only the pixel length decides."""
    for client, preset in (("c1", "paper-2"), ("c2", "paper-6")):
        nyquist = 0.5 / PRESETS[preset].pixel_at(64)
        for name in EDGES:
            assert 0.2 * nyquist < rows[client, "edge/input", name] <= nyquist * 1.0001
        assert 0.2 * nyquist < rows[client, "test/input", "nps_mean_per_mm"] < nyquist
        assert rows[client, "test/input", "nps_area_hu2"] > 1


def test_report_and_comparison_show_them(run_dir: Path, tmp_path: Path) -> None:
    names = {path.name for path in (run_dir / "tables").iterdir()}
    assert names >= {"seen_optional.csv", "unseen_optional.csv", "seen_edges.csv",
                     "seen_discs.csv", "unseen_discs.csv"}  # fmt: skip
    html = (run_dir / "report.html").read_text()
    for words in ("Optional metrics", "Sharpness of edges", "Detectability of faint discs",
                  "FSIM [-160,240] (%)", "50% at 120 HU",
                  "Bias (HU)", "fd_efflite0 [-160,240]", "not LPIPS",
                  "Size of the mean error over the body."):  # fmt: skip
        assert words in html
    page = compare([run_dir], tmp_path / "page.md").read_text()
    for words in ("NPS area (HU²)", "FSIM [-160,240]", "RMSE (HU)", "Edges, mean of clients",
                  "Faint discs, mean of clients", "Faint discs, mean of protocols", "12 mm, 6 HU",
                  "10% at 900 HU", "Bias [-160,240] (HU)", "pd_efflite0",
                  "fd_efflite0"):  # fmt: skip
        assert words in page


def test_a_metric_of_a_package_that_is_gone_is_printed_as_stored(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS, "_entries", {n: METRICS._entries[n] for n in OWN})
    page = compare([run_dir], tmp_path / "page.md").read_text()
    assert "bias_hu[-160,240]" in page
    assert "Bias (HU)" not in page
    assert "FSIM (%)" in page


def test_a_tables_number_of_a_set_is_the_one_recorded(rows: Rows, run_dir: Path) -> None:
    table = csv.DictReader((run_dir / "tables" / "seen_optional.csv").open())
    found = {(r["method"], r["client"]): r["mean"] for r in table if r["metric"] == "fd_efflite0"}
    for number, client in enumerate(("c1", "c2"), start=1):
        for method, split in (("Input", "test/input"), ("FedPer", "test")):
            value = rows[client, split, "fd_efflite0"]
            assert found[method, f"Client #{number}"] == f"{value:.6g}"


def test_without_asking_nothing_is_measured(make_spec: Callable[..., Spec]) -> None:
    spec = make_spec("fedper", clients=1, unseen=0)
    assert spec.metrics == ()
    vector = Host(spec).network.shared.vector.numpy()
    detailed = Host(spec).seen.evaluate(vector, ClientTurn(0, 0), "test", detail=True)
    assert not any("fsim" in name or "nps" in name for name in detailed.scores)


def test_two_hosts_measure_the_same_bits(make_spec: Callable[..., Spec]) -> None:
    spec = make_spec("fedper", clients=1, unseen=0)
    spec = replace(
        spec, clients=(replace(spec.clients[0], protocol=PRESETS["paper-2"]),), metrics=("mtf",)
    )
    vector = Host(spec).network.shared.vector.numpy()
    one, two = (Host(spec).seen.phantoms(vector, ClientTurn(0, 0)) for _ in range(2))
    assert set(one["edge"]) == EDGES | {f"input/{name}" for name in EDGES}
    assert one == two


def test_a_slice_without_a_value_does_not_spoil_the_mean() -> None:
    results = FinalResults()
    scores = {"nps_area_hu2": np.array([2.0, np.nan, 4.0]), "fsim": np.array([np.nan] * 3)}
    results.add(5, "c1", "test", ClientEvaluation(["p"] * 3, [0, 1, 2], scores, {}, {}))
    assert results.rows[0] == (5, "c1", "test", "nps_area_hu2", 3.0)
    assert np.isnan(results.rows[1][-1])
    assert len(results.slices) == 6


def test_a_number_of_a_set_has_a_row_and_no_slices() -> None:
    results = FinalResults()
    scores = {"fd_efflite0": np.array(2.5), "input/fd_efflite0": np.array(np.nan)}
    results.add(5, "c1", "test", ClientEvaluation(["p"], [0], scores, {}, {}))
    assert results.rows[0] == (5, "c1", "test", "fd_efflite0", 2.5)
    assert results.rows[1][:4] == (5, "c1", "test/input", "fd_efflite0")
    assert np.isnan(results.rows[1][-1])
    assert results.slices == []
