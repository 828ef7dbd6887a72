"""The report of a synthetic run: complete, self-contained, and tolerant of what is missing."""

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from physfed_ray.errors import PhysFedError
from physfed_ray.pages.run_page import entries_with_examples, write_run_page
from physfed_ray.pages.run_words import TableView
from physfed_ray.results.runs import read_results
from physfed_ray.results.tables import Column, ScoreTable, TableRow
from physfed_ray.rundir.long_table import LongTable

MakeRun = Callable[..., Path]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects headings, image sources and links, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note sources, links and ids."""
        values = dict(attrs)
        self.sources += [values["src"] or ""] if "src" in values else []
        self.links += [values["href"] or ""] if "href" in values else []
        self.ids += [values["id"] or ""] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the tag closes the last open one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note headings."""
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data.strip())


def test_the_report_shows_everything_in_one_file(make_run: MakeRun) -> None:
    root = make_run("scan_physfed", lost=((3, "c2"), (4, "c2")))
    path = write_run_page(root)
    assert path == root / "report.html"
    text = path.read_text()
    page = Page(text)
    wanted = {
        "Whole image",
        "Body pixels alone",
        "Spread over slices",
        "Denoised slices",
        "Denoised slices, continued",
        "Patients and slices",
        "Denoised slices (PVQS)",
        "Where each unseen protocol was sent",
        "Learning curves",
        "Codebook",
        "State of the modulation",
        "Time and bytes of each round",
        "Example slices of each client",
        "Protocols",
        "Settings",
    }
    assert wanted <= set(page.headings)
    assert len(page.sources) == 9
    for source in page.sources:
        head, content = source.split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|@import|<script[^>]* src", text)
    assert "Clients were missing 2 times, in 2 rounds." in text
    assert "deadline" in text
    assert "At the end: alpha client std 0.25." in text
    assert "<td>1 / 16</td>" in text
    assert "changes by -0.35 dB on average (most harmed: c8, -0.70 dB)" in text


def test_the_report_prints_the_numbers_of_the_slices(make_run: MakeRun) -> None:
    root = make_run("fedavg")
    run = read_results(root)
    rows = run.slices.where(split="test", metric="psnr")
    average = np.mean([rows.where(client=c.id).values.mean() for c in run.clients])
    text = write_run_page(root).read_text()
    assert f'<td class="best open">{average:.2f}</td>' in text
    assert f"<b>{average:.2f} dB</b>" in text


def test_figures_and_tables_lie_beside_the_report(make_run: MakeRun) -> None:
    root = make_run("fedper")
    write_run_page(root)
    for name in ("seen", "seen_body", "unseen", "unseen_body"):
        for kind in ("md", "csv", "tex"):
            assert (root / f"tables/{name}.{kind}").stat().st_size > 200
    assert (root / "figures/learning_curves.png").exists()
    assert not (root / "figures/codebook.png").exists()


def test_an_interrupted_run_is_reported_as_far_as_it_went(make_run: MakeRun) -> None:
    root = make_run("scan_physfed", finished=False, rounds=5)
    text = write_run_page(root).read_text()
    page = Page(text)
    assert "This run has not finished: it stands at round 5" in text
    assert "Learning curves" in page.headings
    assert "Codebook" not in page.headings


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"object_scale": None}, ""),
        ({"object_scale": 4}, ""),
        ({"object_scale": 1}, "the object that was scanned is the image itself"),
        ({}, "Made with the scanner of an earlier version"),
    ],
)
def test_a_reader_is_told_of_a_scanner_that_flatters(
    make_run: MakeRun, data: dict[str, Any], said: str
) -> None:
    root = make_run("fedper", finished=False, rounds=2)
    file = root / "experiment.yaml"
    content = yaml.safe_load(file.read_text())
    content["data"].pop("object_scale", None)
    content["data"] |= data
    file.write_text(yaml.safe_dump(content))
    notices = re.findall('<p class="notice">(.*?)</p>', write_run_page(root).read_text())
    assert len(notices) == (2 if said else 1)
    assert said in notices[-1]


def test_a_run_without_examples_still_has_its_numbers(make_run: MakeRun) -> None:
    root = make_run("scan_physfed")
    (root / "examples.npz").unlink()
    (root / "codebook.npz").unlink()
    (root / "run.log").unlink()
    page = Page(write_run_page(root).read_text())
    assert "Whole image" in page.headings
    assert "Denoised slices" not in page.headings


def test_names_from_the_experiment_are_escaped(make_run: MakeRun) -> None:
    root = make_run("fedavg")
    text = (root / "experiment.yaml").read_text()
    (root / "experiment.yaml").write_text(text.replace("name: synthetic", "name: <b>&x"))
    assert "&lt;b&gt;&amp;x" in write_run_page(root).read_text()


def test_what_is_not_a_run_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match=r"is not a run directory.*experiment\.yaml"):
        write_run_page(tmp_path)
    (tmp_path / "experiment.yaml").write_text("name: a\n")
    with pytest.raises(PhysFedError, match="no completed round"):
        write_run_page(tmp_path)


def test_a_run_killed_before_its_first_evaluation_is_reported(make_run: MakeRun) -> None:
    root = make_run("local", finished=False, rounds=1)
    table = LongTable.from_parquet((root / "metrics.parquet").read_bytes())
    kept = [row for split in ("train", "system") for row in table.rows(split=split)]
    (root / "metrics.parquet").write_bytes(LongTable(table.names, kept).to_parquet())
    page = Page(write_run_page(root).read_text())
    assert {"Learning curves", "Time and bytes of each round"} <= set(page.headings)


def test_wide_tables_are_cut_into_blocks_with_the_average_last() -> None:
    values = np.zeros((1, 20, 1))
    clients = tuple(str(k) for k in range(20))
    table = ScoreTable("", clients, (Column("psnr", "PSNR"),), (TableRow("A", values),))
    chunks = TableView("", table).chunks
    assert [len(chunk) for chunk in chunks] == [8, 8, 5]
    assert [k for chunk in chunks for k in chunk] == list(range(21))
    five = ScoreTable(
        "", clients, (Column("psnr", "PSNR"),) * 5, (TableRow("A", values.repeat(5, 2)),)
    )
    assert [len(chunk) for chunk in TableView("", five).chunks] == [3, 3, 3, 3, 3, 3, 3]


def test_examples_of_many_clients_are_spread_over_the_ranks_of_the_input(make_run: MakeRun) -> None:
    run = read_results(make_run("fedavg", clients=20, n=24, slices=2, rounds=1))
    before = run.client_means("test/input", "psnr")
    ranked = sorted(before, key=before.__getitem__)
    chosen = [ranked.index(entry.id) for entry in entries_with_examples(run, "test")]
    assert chosen[0] == 0
    assert chosen[-1] == 19
    assert set(np.diff(chosen)) <= {2, 3}
