"""Differences from a method, slice by slice: those of the tables, worked out by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.results.against import Differences, against, baseline, differences
from physfed_ray.results.compare_tables import Comparison, Served, scores
from physfed_ray.results.groups import group_runs
from physfed_ray.results.run_tables import WHOLE
from physfed_ray.results.runs import read_results
from physfed_ray.rundir.long_table import SLICE_COLUMNS, LongTable

MakeRun = Callable[..., Path]


def of_slices(run: Path, *rows: tuple[str, str, int, float]) -> Served:
    """Return a method whose one run has just these PSNRs on its test slices."""
    (group,) = group_runs([read_results(run)])
    slices = LongTable(
        SLICE_COLUMNS, [(client, "test", patient, k, "psnr", v) for client, patient, k, v in rows]
    )
    return Served("any", "", replace(group, runs=(replace(group.runs[0], slices=slices),)))


def test_clients_weigh_the_same_and_only_common_slices_count(make_run: MakeRun) -> None:
    run = make_run("fedavg")
    first = of_slices(run, ("a", "p", 0, 30.0), ("a", "p", 1, 32.0), ("b", "q", 0, 41.0))
    second = of_slices(
        run, ("b", "q", 0, 40.0), ("a", "p", 1, 30.5), ("a", "p", 0, 31.0), ("b", "q", 7, 9.0)
    )
    found = differences(first, second, "psnr")
    assert found is not None
    assert found.seeds.tolist() == [(np.mean([-1.0, 1.5]) + 1.0) / 2]
    assert found.higher == 2 / 3
    assert differences(first, second, "ssim") is None
    nothing = of_slices(run, ("a", "p", 0, float("nan")))
    assert differences(first, nothing, "psnr") is None


def test_a_cell_has_mean_spread_and_share() -> None:
    two = Differences(np.array([0.001, 0.003]), 0.25)
    assert two.text(WHOLE[1]) == "+0.20 ± 0.14 (25%)"
    assert Differences(np.array([-1.0]), 0.0).text(WHOLE[0]) == "-1.00 (0%)"


def test_differences_are_those_of_the_tables(make_run: MakeRun) -> None:
    quality = {"fedavg": 0.5, "moon": 0.7, "scan_physfed": 0.6}
    runs = [read_results(make_run(m, s, quality=q)) for m, q in quality.items() for s in (1, 2)]
    comparison = Comparison(group_runs(runs), {})
    fedavg = baseline(comparison.groups, "FedAvg")
    found = against(comparison, fedavg, "seen", WHOLE)
    assert found is not None
    assert found.head == ("", "MOON", "SCAN-PhysFed")
    means = {row.label: row.values[..., 0].mean() for row in scores(comparison, "seen", WHOLE).rows}
    assert [row[0] for row in found.rows] == ["PSNR (dB)", "SSIM (points)"]
    for label, cell in zip(found.head[1:], found.rows[0][1:], strict=True):
        assert float(cell.split(" ±")[0]) == pytest.approx(means[label] - means["FedAvg"], abs=0.01)
        assert cell.endswith("(100%)")
    # What serves unseen protocols by another policy is not beside it.
    elsewhere = against(comparison, fedavg, "unseen", WHOLE)
    assert elsewhere is not None
    assert elsewhere.head == ("", "MOON")


def test_a_name_is_that_of_one_method(make_run: MakeRun) -> None:
    runs = [make_run("fedavg"), make_run("fedavg", backbone="uformer", tag="uformer")]
    groups = group_runs([read_results(run) for run in runs])
    assert baseline(groups, "FedAvg, Uformer").backbone == "uformer"
    assert baseline(groups[:1], "FedAvg").backbone == "red_cnn"
    with pytest.raises(PhysFedError, match=r"--against 'FedProx': no method .* 'FedAvg, RED-CNN'"):
        baseline(groups, "FedProx")
    with pytest.raises(PhysFedError, match=r"'FedAvg': several methods .*, 'FedAvg, Uformer'"):
        baseline(groups, "FedAvg")


def test_a_method_of_another_network_may_be_the_baseline(make_run: MakeRun) -> None:
    runs = [make_run("fedavg"), make_run("fedavg", backbone="uformer", tag="uformer", quality=0.8)]
    groups = group_runs([read_results(run) for run in runs])
    red_cnn, uformer = groups
    found = against(Comparison([uformer], {}), red_cnn, "seen", WHOLE)
    assert found is not None
    assert found.head == ("", "FedAvg")
    assert against(Comparison([red_cnn], {}), red_cnn, "seen", WHOLE) is None
