"""Score tables: the paper's layout, the ranking, the spread over seeds."""

import csv
import io
import re

import numpy as np
import pytest

from physfed_ray.results.run_tables import BODY, WHOLE
from physfed_ray.results.tables import Column, ScoreTable, TableRow, tex


def _table() -> ScoreTable:
    """Two seeds, two clients, PSNR and SSIM; numbers worked out by hand."""
    low = np.array([[[30.0, 0.80], [40.0, 0.90]], [[30.0, 0.80], [40.0, 0.90]]])
    first = np.array([[[34.0, 0.90], [44.0, 0.94]], [[36.0, 0.92], [46.0, 0.96]]])
    second = np.array([[[36.0, 0.85], [43.0, 0.93]], [[36.0, 0.85], [43.0, 0.93]]])
    bound = np.full((2, 2, 2), [50.0, 0.99])
    paper = np.array([[33.1, np.nan], [np.nan, 90.0], [41.14, 97.62]])
    rows = (
        TableRow("Input", low),
        TableRow("A_1", first, group="Generic"),
        TableRow("B", second, group="Personal & private", quoted=paper),
        TableRow("oracle", bound, ranked=False, group="Personal & private"),
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
    rows = tuple(TableRow(str(k), v) for k, v in enumerate(values))
    table = ScoreTable("", ("Client #1",), (Column("psnr", "PSNR"),), rows)
    assert [cells[0][0].mark for cells in table.cells] == ["second", "best", "best"]


def test_a_lower_error_is_better() -> None:
    rows = tuple(TableRow(str(x), np.array([[[x]]])) for x in (9.0, 4.0, 6.0))
    column = Column("rmse_hu", "RMSE", 1.0, 1, higher_is_better=False)
    table = ScoreTable("", ("Client #1",), (column,), rows)
    assert [cells[0][0].mark for cells in table.cells] == ["", "best", "second"]


def test_a_missing_client_is_left_out_of_the_average() -> None:
    rows = (TableRow("A", np.array([[[30.0], [np.nan], [40.0]]])),)
    table = ScoreTable("", ("#1", "#2", "#3"), (Column("psnr", "PSNR"),), rows)
    assert [cell[0].text for cell in table.cells[0]] == ["30.00", "–", "40.00", "35.00"]
    assert table.cells[0][1][0].mark == ""


def test_markdown_is_rectangular_and_marked() -> None:
    lines = _table().to_markdown().splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert "| Client #1<br>PSNR | Client #1<br>SSIM |" in lines[0]
    assert "**45.00**" in lines[4]
    assert "<ins>35.00</ins>" in lines[4]
    assert lines[7].startswith("| *oracle* |")


def test_each_group_has_one_heading_above_its_first_row() -> None:
    labels = [line.split(" | ")[0] for line in _table().to_markdown().splitlines()[2:]]
    assert labels == ["| Input", "| Generic", "| A_1", "| Personal & private", "| B", "| *oracle*"]


def test_the_papers_number_stands_beside_and_takes_no_mark() -> None:
    cells = _table().cells[2]
    assert [cell.quote for client in cells for cell in client] == [
        "[33.10]", "", "", "[90.00]", "[41.14]", "[97.62]"
    ]  # fmt: skip
    row = next(line for line in _table().to_markdown().splitlines() if line.startswith("| B"))
    assert row.startswith("| B | **36.00** [33.10] | <ins>85.00</ins> |")
    assert "**36.00** [33.10]" not in _table().to_latex()
    assert r"\textbf{36.00} {\scriptsize [33.10]}" in _table().to_latex()


def test_latex_balances_escapes_and_has_a_cell_for_every_column() -> None:
    text = _table().to_latex()
    assert text.count("{") == text.count("}")
    assert r"\multicolumn{2}{c}{Client \#1}" in text
    assert r"\caption{Two clients \& 100\% made up.}" in text
    row = next(line for line in text.splitlines() if line.startswith(r"A\_1"))
    assert len(re.split(r"(?<!\\)&", row)) == 7
    assert r"\textbf{40.00 $\pm$ 1.41}" in row


def test_latex_has_the_structure_of_a_booktabs_table() -> None:
    lines = _table().to_latex().splitlines()
    begun = [m[1] for m in re.finditer(r"\\begin\{([a-z]+)", "\n".join(lines))]
    ended = [m[1] for m in re.finditer(r"\\end\{([a-z]+)", "\n".join(lines))]
    assert begun == ["table", "adjustbox", "tabular"] == ended[::-1]
    body = lines[lines.index(r"\begin{tabular}{lrrrrrr}") + 1 : lines.index(r"\end{tabular}")]
    assert (body[0], body[-1]) == (r"\toprule", r"\bottomrule")
    assert body[2] == r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}\cmidrule(lr){6-7}"
    for line in body:
        assert "rule" in line or line.endswith(r" \\")
    heading = body.index(r"\multicolumn{7}{l}{Personal \& private} \\")
    assert body[heading - 1] == r"\midrule"
    assert body[heading + 1].startswith("B & ")
    assert body[heading + 2].startswith(r"\textit{oracle} & ")
    assert sum(line == r"\midrule" for line in body) == 3


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50% & #1_a", r"50\% \& \#1\_a"),
        (r"a\b{c}", r"a\textbackslash{}b\{c\}"),
        ("x^2 ~ <y>", r"x\textasciicircum{}2 \textasciitilde{} \textless{}y\textgreater{}"),
        ("1 ± 2 × 3 HU²", r"1 $\pm$ 2 $\times$ 3 HU\textsuperscript{2}"),
    ],
)
def test_every_special_character_is_escaped_once(text: str, escaped: str) -> None:
    assert tex(text) == escaped


def test_csv_holds_every_number_unrounded() -> None:
    entries = list(csv.DictReader(io.StringIO(_table().to_csv())))
    assert len(entries) == 4 * 3 * 2
    assert [e["group"] for e in entries[::6]] == ["", "Generic", *["Personal & private"] * 2]
    found = {(e["method"], e["client"], e["metric"]): e for e in entries}
    entry = found["A_1", "Average", "psnr"]
    assert (float(entry["mean"]), entry["seeds"]) == (40.0, "2")
    assert float(entry["sd_over_seeds"]) == pytest.approx(np.sqrt(2), abs=1e-3)


def test_csv_has_the_papers_numbers_in_the_unit_of_the_mean() -> None:
    entries = list(csv.DictReader(io.StringIO(_table().to_csv())))
    found = {(e["method"], e["client"], e["metric"]): e["paper"] for e in entries}
    assert float(found["B", "Average", "psnr"]) == 41.14
    assert float(found["B", "Average", "ssim"]) == pytest.approx(0.9762)
    assert found["B", "Client #2", "psnr"] == found["A_1", "Average", "psnr"] == ""
    plain = ScoreTable("", ("#1",), WHOLE, (TableRow("A", np.ones((1, 1, 2))),)).to_csv()
    assert "paper" not in plain.splitlines()[0]


def test_whole_and_body_tables_differ_only_in_where_they_look() -> None:
    assert [c.metric + "_body" for c in WHOLE] == [c.metric for c in BODY]
