"""The paper's numbers: complete, consistent with themselves, and beside the right rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import physfed_ray
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.methods.registry import METHODS
from physfed_ray.results.paper import AVERAGE, paper_tables
from physfed_ray.results.runs import ClientEntry

PAPER = paper_tables()
METRICS = ("psnr", "ssim")


def _entries(*names: str) -> list[ClientEntry]:
    return [ClientEntry(f"hospital {n}", vars(PRESETS[n])) for n in names]


EIGHT = _entries(*(f"paper-{k}" for k in range(1, 9)))


def test_the_file_that_is_read_is_the_one_in_docs() -> None:
    package = Path(physfed_ray.__file__).parent
    documented = package.parent / "docs" / "paper_tables.csv"
    assert documented.resolve() == (package / "results" / "paper_tables.csv").resolve()


def test_every_cell_of_the_four_tables_is_there() -> None:
    assert Counter(key[0] for key in PAPER.values) == {
        1: 12 * 9 * 2,
        2: 10 * 9 * 2,
        3: 12 * 5 * 2,
        4: 5 * 2,
    }
    of = {t: {key[1] for key in PAPER.values if key[0] == t} for t in (1, 2, 3, 4)}
    assert of[1] == of[3] == set(METHODS) - {"local", "pooled", "fedct", "fedm2ct"}
    assert of[2] == of[1] - {"feddg", "fedbn"}
    assert all(50 < v < 100 if k[4] == "ssim" else 25 < v < 55 for k, v in PAPER.values.items())


def test_printed_averages_are_those_of_the_clients_but_for_two_rows_of_table_3() -> None:
    assert PAPER.odd_averages(1) == PAPER.odd_averages(2) == []
    odd = {
        (method, metric): (printed, mean) for method, metric, printed, mean in PAPER.odd_averages(3)
    }
    assert set(odd) == {(m, k) for m in ("fedavg", "fedprox") for k in METRICS}
    printed, mean = odd["fedavg", "psnr"]
    assert (printed, mean) == (32.89, pytest.approx((35.57 + 34.00 + 32.52 + 36.86) / 4))
    assert mean == pytest.approx(odd["fedprox", "psnr"][0], abs=0.005)  # the next row's average


def test_the_ablation_begins_with_fedavg_and_ends_with_the_complete_method() -> None:
    none = "scanning=no anatomy=no paradigm=generic loss=mse"
    all_ = "scanning=yes anatomy=yes paradigm=personalised loss=mse+orth"
    for metric in METRICS:
        for method, variant in (("fedavg", none), ("scan_physfed", all_)):
            found = PAPER.value(4, method, AVERAGE, metric, variant)
            assert found == PAPER.value(1, method, AVERAGE, metric)


def test_clients_are_recognised_by_their_protocol_and_in_any_order() -> None:
    found = PAPER.quotes(1, "fedavg", EIGHT[::-1], METRICS)
    assert found.shape == (9, 2)
    assert found[0].tolist() == [35.46, 87.65]
    assert found[7].tolist() == [29.99, 82.20]
    assert found[8].tolist() == [34.03, 84.70]


def test_the_average_is_quoted_over_the_papers_eight_clients_alone() -> None:
    few = PAPER.quotes(1, "fedavg", EIGHT[:3], METRICS)
    assert few[1].tolist() == [32.82, 78.23]
    assert np.isnan(few[3]).all()
    other = PAPER.quotes(1, "fedavg", [*EIGHT, *_entries("unseen-1")], METRICS)
    assert np.isnan(other[8:]).all()


def test_unseen_protocols_are_others_so_that_only_the_average_is_quoted() -> None:
    found = PAPER.quotes(3, "scan_physfed", _entries("unseen-1", "unseen-2"), METRICS, unseen=True)
    assert np.isnan(found[:2]).all()
    assert found[2].tolist() == [38.55, 93.04]


def test_what_the_paper_lacks_is_nan() -> None:
    assert np.isnan(PAPER.quotes(2, "fedbn", EIGHT, METRICS)).all()
    assert np.isnan(PAPER.quotes(1, "local", EIGHT, METRICS)).all()
    assert np.isnan(PAPER.quotes(1, "fedavg", EIGHT, ("psnr_body",))).all()
