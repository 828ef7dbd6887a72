"""Score tables: the paper's layout, the ranking, the spread over seeds."""

import csv
import io
import re

import numpy as np
import pytest

from physfed_ray.evaluation.run_tables import BODY, WHOLE
from physfed_ray.evaluation.tables import Column, Row, ScoreTable


def _table() -> ScoreTable:
    """Two seeds, two clients, PSNR and SSIM; numbers worked out by hand."""
    low = np.array([[[30.0, 0.80], [40.0, 0.90]], [[30.0, 0.80], [40.0, 0.90]]])
    first = np.array([[[34.0, 0.90], [44.0, 0.94]], [[36.0, 0.92], [46.0, 0.96]]])
    second = np.array([[[36.0, 0.85], [43.0, 0.93]], [[36.0, 0.85], [43.0, 0.93]]])
    bound = np.full((2, 2, 2), [50.0, 0.99])
    rows = (
        Row("Input", low),
        Row("A_1", first),
        Row("B", second),
        Row("oracle", bound, ranked=False),
    )
    return ScoreTable("Two clients & 100% made up.", ("Client #1", "Client #2"), WHOLE, rows)


def test_the_average_is_over_clients_and_its_spread_over_seeds() -> None:
    psnr, ssim = _table().cells[1][2]
    assert psnr.mean == pytest.approx((34 + 44 + 36 + 46) / 4)
    assert psnr.spread == pytest.approx(np.sqrt(2))  # averages 39 and 41
    assert psnr.text == "40.00 ± 1.41"
    assert ssim.text == "93.00 ± 1.41"
    assert _table().cells[1][0][0].text == "35.00"


def test_the_best_is_bold_the_second_underlined_and_a_bound_competes_not() -> None:
    marks = [[cells[k][0].mark for k in range(3)] for cells in _table().cells]
    assert marks == [
        ["", "", ""],
        ["second", "best", "best"],
        ["best", "second", "second"],
        ["", "", ""],
    ]


def test_equal_prints_share_the_mark() -> None:
    values = [np.array([[[x]]]) for x in (30.0, 31.0011, 31.0012)]
    rows = tuple(Row(str(k), v) for k, v in enumerate(values))
    table = ScoreTable("", ("Client #1",), (Column("psnr", "PSNR"),), rows)
    assert [cells[0][0].mark for cells in table.cells] == ["second", "best", "best"]


def test_a_lower_error_is_better() -> None:
    rows = tuple(Row(str(x), np.array([[[x]]])) for x in (9.0, 4.0, 6.0))
    column = Column("rmse_hu", "RMSE", 1.0, 1, higher_is_better=False)
    table = ScoreTable("", ("Client #1",), (column,), rows)
    assert [cells[0][0].mark for cells in table.cells] == ["", "best", "second"]


def test_a_missing_client_is_left_out_of_the_average() -> None:
    rows = (Row("A", np.array([[[30.0], [np.nan], [40.0]]])),)
    table = ScoreTable("", ("#1", "#2", "#3"), (Column("psnr", "PSNR"),), rows)
    assert [cell[0].text for cell in table.cells[0]] == ["30.00", "–", "40.00", "35.00"]
    assert table.cells[0][1][0].mark == ""


def test_markdown_is_rectangular_and_marked() -> None:
    lines = _table().to_markdown().splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert "| Client #1<br>PSNR | Client #1<br>SSIM |" in lines[0]
    assert "**45.00**" in lines[3]
    assert "<ins>35.00</ins>" in lines[3]
    assert lines[5].startswith("| *oracle* |")


def test_latex_balances_braces_escapes_and_has_a_cell_for_every_column() -> None:
    text = _table().to_latex()
    assert text.count("{") == text.count("}")
    assert r"\multicolumn{2}{c}{Client \#1}" in text
    assert r"\caption{Two clients \& 100\% made up.}" in text
    row = next(line for line in text.splitlines() if line.startswith(r"A\_1"))
    assert len(re.split(r"(?<!\\)&", row)) == 7
    assert r"\textbf{40.00 $\pm$ 1.41}" in row


def test_csv_holds_every_number_unrounded() -> None:
    entries = list(csv.DictReader(io.StringIO(_table().to_csv())))
    assert len(entries) == 4 * 3 * 2
    found = {(e["method"], e["client"], e["metric"]): e for e in entries}
    entry = found["A_1", "Average", "psnr"]
    assert (float(entry["mean"]), entry["seeds"]) == (40.0, "2")
    assert float(entry["sd_over_seeds"]) == pytest.approx(np.sqrt(2), abs=1e-3)


def test_whole_and_body_tables_differ_only_in_where_they_look() -> None:
    assert [c.metric + "_body" for c in WHOLE] == [c.metric for c in BODY]
