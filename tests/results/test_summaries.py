"""More clients than a table shows: statistics, best and worst, and nothing lost in the files."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from physfed_ray.pages.compare import compare
from physfed_ray.pages.figures import learning_curves
from physfed_ray.pages.gain_figure import GainPanel, gain_figure
from physfed_ray.pages.run_page import EXAMPLES, write_run_page
from physfed_ray.results.classical import CLASSICAL_FILE
from physfed_ray.results.run_tables import WHOLE, seen_table, unseen_table
from physfed_ray.results.runs import ClientEntry, read_results
from physfed_ray.results.summaries import EXTREMES, extremes, gains, leader, shown, summary
from physfed_ray.results.tables import CLIENTS_SHOWN, Column, ScoreTable, TableRow
from physfed_ray.rundir.long_table import LongTable
from physfed_ray.screen.run import print_results

MakeRun = Callable[..., Path]
MANY = CLIENTS_SHOWN + 1


def _table() -> ScoreTable:
    """Two seeds, of which one method lacks the first; four clients; PSNR and SSIM."""
    psnr = np.array([[30.0, 40.0, 50.0, 60.0], [20.0, 20.0, 20.0, 20.0]])
    before = np.stack([psnr, psnr / 100], axis=-1)
    both = before + np.array([1.0, -0.01])
    late = np.array([[[21.0, 0.2], [19.0, 0.3], [22.0, 0.1], [np.nan, np.nan]]])
    rows = (
        TableRow("Input", before, seeds=(1, 2)),
        TableRow("A", both, seeds=(1, 2)),
        TableRow("B", late, seeds=(2,)),
        TableRow("oracle", before + 9, ranked=False, seeds=(1, 2)),
    )
    return ScoreTable("Made up.", ("a", "b", "c", "d"), WHOLE, rows)


def _entries(count: int) -> list[ClientEntry]:
    names = ("views", "bins", "pixel_mm", "bin_mm", "source_mm", "detector_mm", "photons")
    return [
        ClientEntry(
            f"c{k}", dict(zip(names, (100 + k, 512, 0.7, 0.7, 300, 300, 1e5 + k), strict=True))
        )
        for k in range(count)
    ]


def test_a_summary_holds_the_statistics_over_clients_worked_out_by_hand() -> None:
    found = summary(_table())
    assert found.clients == ("PSNR", "SSIM")
    assert [column.heading for column in found.columns] == [
        "mean", "SD", "min", "25%", "median", "75%", "max", "better (%)",
    ]  # fmt: skip
    first_seed = found.rows[0].values[0, 0]
    spread = np.std([30, 40, 50, 60], ddof=1)
    assert first_seed[:7] == pytest.approx([45, spread, 30, 37.5, 45, 52.5, 60])
    assert np.isnan(first_seed[7])  # the input does not compete with itself
    assert found.rows[1].values[0, 1, :3] == pytest.approx([44, spread, 29])  # SSIM in %


def test_the_share_that_is_better_pairs_each_client_with_the_input_of_its_seed() -> None:
    better = [row.values[..., 7] for row in summary(_table()).rows]
    assert better[1].tolist() == [[100.0, 0.0], [100.0, 0.0]]
    assert better[2] == pytest.approx(np.array([[200 / 3, 100 / 3]]))  # d is missing: 2 and 1 of 3


def test_a_spread_of_clients_does_not_compete_and_a_mean_does() -> None:
    marks = [[cell.mark for cell in cells[0]] for cells in summary(_table()).cells]
    assert [row[0] for row in marks] == ["second", "best", "", ""]
    assert {mark for row in marks for mark in row[1:7]} == {""}
    texts = [cell.text for cell in summary(_table()).cells[0][0]]
    assert "±" in texts[0]
    assert "±" not in "".join(texts[1:7])


def test_gains_are_paired_by_seed_and_the_leader_is_no_bound() -> None:
    table = _table()
    assert leader(table).label == "A"
    assert gains(table, table.rows[1]) == pytest.approx(np.ones(4))
    assert gains(table, table.rows[2])[:3] == pytest.approx([1, -1, 2])


def test_a_table_is_summarised_beyond_what_a_page_shows_and_not_before() -> None:
    for count, whole in ((CLIENTS_SHOWN, True), (MANY, False)):
        values = np.full((1, count, 1), 30.0)
        rows = (TableRow("Input", values, seeds=(1,)), TableRow("A", values + 1, seeds=(1,)))
        table = ScoreTable("", tuple(map(str, range(count))), (Column("psnr", "PSNR"),), rows)
        assert (shown(table) is table) == whole


def test_extremes_are_sorted_by_gain_and_name_the_protocol() -> None:
    before = np.linspace(30, 50, 20)[None, :, None]
    gain = np.random.default_rng(0).permutation(20.0 + np.arange(20))
    gain[3] = np.nan
    rows = (
        TableRow("Input", before, seeds=(1,)),
        TableRow("A", before + gain[None, :, None], seeds=(1,)),
    )
    table = ScoreTable("", tuple(map(str, range(20))), (Column("psnr", "PSNR"),), rows)
    grid = extremes(table, _entries(20))
    assert grid is not None
    found = [float(row[-1]) for row in grid.rows]
    kept = sorted(gain[np.isfinite(gain)], reverse=True)
    assert found == [*kept[:EXTREMES], *kept[-EXTREMES:]]
    best = int(np.nanargmax(gain))
    assert grid.rows[0][:4] == (f"c{best}", str(100 + best), "0.7", f"{100_000 + best:,}")
    nothing = ScoreTable("", ("a",), (Column("psnr", "PSNR"),), (
        TableRow("Input", np.full((1, 1, 1), np.nan), seeds=(1,)),
        TableRow("A", np.full((1, 1, 1), np.nan), seeds=(1,)),
    ))  # fmt: skip
    assert extremes(nothing, _entries(1)) is None


def test_the_gain_figure_has_a_dot_a_client_at_its_gain() -> None:
    table = _table()
    panels = [GainPanel("A", table.rows[1], "views"), GainPanel("B", table.rows[2])]
    figure = gain_figure(table, _entries(4), panels)
    dots = [ax.collections[0].get_offsets() for ax in figure.axes[:2]]
    assert np.asarray(dots[0])[:, 1] == pytest.approx(np.ones(4))
    assert np.asarray(dots[0])[:, 0] == pytest.approx([25, 30, 35, 40])
    assert np.ma.count(dots[1][:, 1]) == 3


def test_curves_of_many_clients_are_a_mean_and_the_band_of_their_middle_half() -> None:
    for count, lines in ((CLIENTS_SHOWN, CLIENTS_SHOWN + 1), (21, 1)):
        curves = {f"c{k}": ([1, 2], [1.0 + k, 2.0 + k]) for k in range(count)}
        ax = learning_curves(curves, curves, "test", None).axes[1]
        assert len(ax.lines) == lines
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (6, 17)  # quartiles of 1..21 and of 2..22


@pytest.fixture(scope="module")
def many(put_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with more clients and more unseen protocols than a page shows."""
    sizes = {"clients": MANY + 3, "unseen": MANY, "n": 24, "slices": 2, "rounds": 3}
    lost = (*((1, f"c{k + 1}") for k in range(MANY)), (2, "c9"))
    return put_run(tmp_path_factory.mktemp("many") / "scan_physfed-1", lost=lost, **sizes)


@pytest.fixture(scope="module")
def text(many: Path) -> str:
    """Return its page."""
    return write_run_page(many).read_text()


def test_the_report_of_many_clients_is_short_and_its_files_are_complete(
    many: Path, text: str
) -> None:
    run = read_results(many)
    for heading in ("Best and worst clients", "Best and worst protocols", "Gain over the input"):
        assert f"<h3>{heading}</h3>" in text
    assert "Spread over slices" not in text
    assert "#1 is" not in text
    assert text.count("<table") < 40
    linked = set(re.findall(r'href="(tables/[^"]+)"', text))
    names = ("seen", "seen_body", "unseen", "unseen_body", "protocols", "splits", "missing",
             "routes")  # fmt: skip
    assert linked == {f"tables/{name}.csv" for name in names}
    everyone = {entry.id for entry in (*run.clients, *run.unseen)}
    seen = list(csv.DictReader(io.StringIO((many / "tables/seen.csv").read_text())))
    assert {row["client"] for row in seen} == {e.label for e in run.clients} | {"Average"}
    protocols = list(csv.reader(io.StringIO((many / "tables/protocols.csv").read_text())))
    assert {row[0].split(" ")[0] for row in protocols[1:]} == everyone
    assert "better (%)" in (many / "tables/seen.md").read_text()
    missing = text.split("rounds (first 12)")[1]
    assert "<td>c9</td><td>2</td><td>1, 2</td>" in missing.split("<tr>")[1]


def test_the_report_prints_mean_and_share_and_pictures_a_few_clients(many: Path, text: str) -> None:
    run = read_results(many)
    before, after = (run.client_means(split, "psnr") for split in ("test/input", "test"))
    share = 100 * np.mean([after[c] > before[c] for c in after])
    row = text.split("<td>SCAN-PhysFed</td>")[1].split("</tr>")[0]
    cells = re.findall(r">([^<]+)<", row)
    assert cells[0] == f"{np.mean(list(after.values())):.2f}"
    assert cells[7] == f"{share:.0f}"
    assert f"{EXAMPLES} of {MANY + 3}, spread over the PSNR of the input" in text
    assert len(list((many / "figures").glob("examples_test_*.png"))) == 2


def test_the_console_prints_statistics_in_few_narrow_lines(many: Path) -> None:
    out = io.StringIO()
    print_results(str(many), Console(file=out, width=80, color_system=None))
    lines = out.getvalue().splitlines()
    assert len(lines) < 60
    assert max(map(len, lines[:-1])) <= 80
    run = read_results(many)
    for table in (seen_table(run), unseen_table(run)):
        assert table is not None
        mean = summary(table).cells[1][0][0].text
        assert any(line.split()[-8:-7] == [mean] for line in lines)
    assert sum("largest and smallest gain" in line for line in lines) == 2


def test_a_comparison_of_many_clients_is_short_and_its_files_are_complete(
    many: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    other = make_run("fedavg", clients=MANY + 3, unseen=MANY, n=24, slices=2, rounds=3)
    rows = [("TV", f"c{k + 1}", "strength", "c1", 0, "strength", 0.01 * (k + 1)) for k in range(2)]
    rows.append(("TV", "c1", "test", "p", 0, "psnr", 40.0))
    columns = ("method", "client", "split", "patient", "slice", "metric", "value")
    (other / CLASSICAL_FILE).write_bytes(LongTable(columns, rows).to_parquet())
    out = tmp_path / "page.md"
    compare([many, other], out)
    text = out.read_text()
    assert max(map(len, text.splitlines())) < 1000
    assert "#1 is" not in text
    assert text.count("### Best and worst\n") == 2
    assert "| TV | 0.015 (0.01 to 0.02) |" in text
    for name in re.findall(r"\]\((page/[^)]+)\)", text):
        assert (tmp_path / name).stat().st_size > 0
    for name in ("seen", "splits"):
        content = (tmp_path / f"page/{name}.csv").read_text()
        assert all(re.search(rf"\bc{k + 1}\b", content) for k in range(MANY + 3))
    assert (tmp_path / "page/seen_gains.png").exists()
    assert (tmp_path / "page/routes.csv").read_text().count("\n") == MANY + 1
