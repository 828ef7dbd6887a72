"""Comparison pages: grouped by method, averaged over seeds, never over different data."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.evaluation.classical import CLASSICAL_FILE
from physfed_ray.evaluation.compare import PICTURE_BYTES, compare
from physfed_ray.evaluation.groups import group_runs
from physfed_ray.evaluation.long_table import LongTable
from physfed_ray.evaluation.pairing import pair
from physfed_ray.evaluation.runs import load_run

MakeRun = Callable[..., Path]
COLUMNS = ("method", "client", "split", "patient", "slice", "metric", "value")


@pytest.fixture
def runs(make_run: MakeRun) -> list[Path]:
    """Return two seeds of FedAvg and of both variants of SCAN-PhysFed."""
    paths = [make_run("fedavg", seed, quality=0.4) for seed in (1, 2)]
    for variant, quality in (("paper", 0.6), ("public_code", 0.5)):
        settings = {"variant": variant}
        paths += [
            make_run("scan_physfed", seed, quality=quality, settings=settings, tag=variant)
            for seed in (1, 2)
        ]
    return paths


def _table(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table after a heading."""
    part = text.split(f"### {heading}\n", 1)[1]
    lines = part.lstrip("\n").split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def _number(cell: str) -> float:
    return float(re.sub(r"[*<>/a-z]", "", cell).split("±")[0])


def test_methods_are_grouped_by_variant_and_averaged_over_seeds(
    runs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "docs" / "page.md"
    out.parent.mkdir()
    assert compare(runs, out) == out
    text = out.read_text()
    rows = _table(text, "Whole image")
    assert list(rows)[2:] == ["Input", "FedAvg", "SCAN-PhysFed (paper)",
                              "SCAN-PhysFed (public_code)"]  # fmt: skip
    averages = []
    for run in (load_run(path) for path in runs[:2]):
        averages.append(np.mean(list(run.client_means("test", "psnr").values())))
    expected = f"{np.mean(averages):.2f} ± {np.std(averages, ddof=1):.2f}"
    assert rows["FedAvg"][-2] == expected
    assert rows["SCAN-PhysFed (paper)"][-2].startswith("**")
    order = re.search(r"in dB: (.*)\.", text)
    assert order is not None
    names = [entry.rsplit(" ", 1)[0] for entry in order.group(1).split(" < ")]
    assert names == ["Input", "FedAvg", "SCAN-PhysFed (public_code)", "SCAN-PhysFed (paper)"]


def test_the_page_has_every_part_and_small_pictures(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    compare(runs, out)
    text = out.read_text()
    for heading in (
        "Body pixels alone",
        "Clinical windows, mean of clients",
        "Clinical windows, mean of protocols",
        "SCAN-PhysFed (paper) against the others",
        "SCAN-PhysFed (paper), PVQS against the others",
        "Where PVQS sent each unseen protocol",
        "State of the modulation at the end",
        "Cost",
        "Settings",
        "Commands",
    ):
        assert f"### {heading}\n" in text
    linked = re.findall(r"\]\((page/[^)]+)\)", text)
    assert len(linked) == 9
    for name in linked:
        assert 0 < (tmp_path / name).stat().st_size <= PICTURE_BYTES
    assert "`swap_psnr_drop` | 0.35 (0 to 0.7)" in text
    assert "PSNR [-160,240]" in text


def test_no_folder_of_the_machine_is_named(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    compare(runs, out)
    text = out.read_text()
    for part in ("/data/private", "/scratch", "/opt", str(tmp_path)):
        assert part not in text
    assert "physfed run real.yaml --out a" in text
    assert "source.dicom: ct" in text


def test_the_reading_survives_and_numbers_are_renewed(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    compare(runs, out)
    text = out.read_text()
    assert "Nobody has written" in text
    mine = "\nMine: | a \\1 table.\n\n\n\nTwo blank lines.\n"
    out.write_text(
        re.sub(r"(?s)(<!-- reading -->).*(<!-- /reading -->)", lambda m: m[1] + mine + m[2], text)
    )
    compare(runs[:4], out)
    renewed = out.read_text()
    assert f"<!-- reading -->{mine}<!-- /reading -->" in renewed
    assert "public_code" not in renewed


def test_classical_denoisers_are_rows_beside_the_input(runs: list[Path], tmp_path: Path) -> None:
    for path in runs[:2]:
        seed = load_run(path).seed
        rows = [("TV", "c1", "test", "p", 0, "psnr", 40.0 + 2 * seed),
                ("TV", "c1", "strength", "c1", 0, "strength", 0.01 * seed)]  # fmt: skip
        (path / CLASSICAL_FILE).write_bytes(LongTable.from_rows(rows, COLUMNS).to_parquet())
    out = tmp_path / "page.md"
    compare(runs, out)
    text = out.read_text()
    row = _table(text, "Whole image")["TV"]
    assert _number(row[0]) == 43.0
    assert row[-2] == "43.00 ± 1.41"
    assert row[2] == "–"
    assert "| TV | 0.01, 0.02 | – |" in text


def test_runs_of_different_data_are_refused_unless_forced(
    make_run: MakeRun, tmp_path: Path
) -> None:
    paths = [
        make_run("fedavg", 1),
        make_run("fedper", 1, data={"window_hu": [-1000.0, 1000.0]}),
    ]
    with pytest.raises(PhysFedError, match=r"differ in data\.window_hu"):
        compare(paths, tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()
    compare(paths, tmp_path / "page.md", force=True)
    moved = make_run("fedper", 1, tag="m", data={"cache": "/x", "source": {
        "dicom": "/elsewhere/ct", "min_slices": 1, "phantom": None}})  # fmt: skip
    assert len(group_runs([load_run(paths[0]), load_run(moved)])) == 2


def test_unfinished_and_repeated_runs_are_refused(make_run: MakeRun) -> None:
    done = load_run(make_run("fedavg", 1))
    broken = load_run(make_run("fedavg", 2, finished=False))
    with pytest.raises(PhysFedError, match="has not finished"):
        group_runs([done, broken])
    again = load_run(make_run("fedavg", 1, tag="b"))
    with pytest.raises(PhysFedError, match=r"same method, settings and seed \(1\)"):
        group_runs([done, again])


def test_other_settings_are_other_groups_with_telling_labels(make_run: MakeRun) -> None:
    runs = [
        load_run(make_run("scan_physfed", 1, tag=str(tau), settings={"tau": tau}))
        for tau in (1e-4, 1e-2)
    ]
    labels = {group.label for group in group_runs(runs)}
    assert labels == {"SCAN-PhysFed (tau 0.0001)", "SCAN-PhysFed (tau 0.01)"}


def test_pairs_are_matched_by_seed_and_client() -> None:
    first = {(seed, client): 10.0 * seed + ord(client) for seed in (1, 2) for client in "abcd"}
    second = {key: value - 1 for key, value in first.items()} | {(9, "z"): 0.0}
    second[1, "a"] += 3
    found = pair(first, second)
    assert found is not None
    assert (found.pairs, found.wins) == (8, 7)
    assert found.difference == pytest.approx((7 * 1 - 2) / 8)
    assert 0 < found.p < 1
    few = {key: value for key, value in first.items() if key[0] == 1}
    small = pair(few, second)
    assert small is not None
    assert np.isnan(small.p)
    assert pair(first, {}) is None
