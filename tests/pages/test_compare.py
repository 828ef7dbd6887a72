"""Comparison pages: grouped by method, averaged over seeds, never over different data."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.pages import compare_sections
from physfed_ray.pages.compare import compare
from physfed_ray.pages.compare_sections import PICTURE_BYTES
from physfed_ray.results.classical import CLASSICAL_FILE
from physfed_ray.results.compare_pairings import lead, pairings
from physfed_ray.results.compare_tables import Comparison, scores
from physfed_ray.results.groups import group_runs
from physfed_ray.results.pairing import pair
from physfed_ray.results.run_tables import WHOLE
from physfed_ray.results.runs import read_results
from physfed_ray.rundir.long_table import LongTable

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


@pytest.fixture(scope="module")
def page(put_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the same runs, for tests that only read it."""
    folder = tmp_path_factory.mktemp("docs")
    found = [put_run(folder / f"a{seed}", "fedavg", seed, quality=0.4) for seed in (1, 2)]
    for variant, quality in (("paper", 0.6), ("public_code", 0.5)):
        options = {"quality": quality, "settings": {"variant": variant}}
        found += [
            put_run(folder / f"{variant}{seed}", "scan_physfed", seed, **options) for seed in (1, 2)
        ]
    return compare(found, folder / "page.md")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time, for tests of words and tables."""
    monkeypatch.setattr(compare_sections, "compare_panels", lambda comparison, split: ())
    monkeypatch.setattr(compare_sections.Section, "picture", lambda *of_a_figure: "")


def _table(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table after a heading."""
    part = text.split(f"### {heading}\n", 1)[1]
    lines = part.lstrip("\n").split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def _number(cell: str) -> float:
    return float(re.sub(r"[*<>/a-z]", "", cell).split("±")[0])


def test_methods_are_grouped_by_variant_and_averaged_over_seeds(
    runs: list[Path], page: Path
) -> None:
    assert page.name == "page.md"
    text = page.read_text()
    rows = _table(text, "Whole image")
    assert list(rows)[2:] == ["Input", "Generic FL methods", "FedAvg",
                              "Personalised FL methods", "SCAN-PhysFed (paper)",
                              "SCAN-PhysFed (public_code)"]  # fmt: skip
    averages = []
    for run in (read_results(path) for path in runs[:2]):
        averages.append(np.mean(list(run.client_means("test", "psnr").values())))
    expected = f"{np.mean(averages):.2f} ± {np.std(averages, ddof=1):.2f}"
    assert rows["FedAvg"][-2] == expected
    assert rows["SCAN-PhysFed (paper)"][-2].startswith("**")
    order = re.search(r"in dB: (.*)\.", text)
    assert order is not None
    names = [entry.rsplit(" ", 1)[0] for entry in order.group(1).split(" < ")]
    assert names == ["Input", "FedAvg", "SCAN-PhysFed (public_code)", "SCAN-PhysFed (paper)"]


@pytest.mark.usefixtures("no_pictures")
def test_a_name_without_an_ending_is_a_page_beside_its_folder(
    runs: list[Path], tmp_path: Path
) -> None:
    for _ in range(2):  # the second time, the folder is there
        assert compare(runs[:2], tmp_path / "v1.2") == tmp_path / "v1.2.md"
    assert (tmp_path / "v1.2" / "seen.csv").is_file()


def test_the_page_has_every_part_and_small_pictures(page: Path) -> None:
    text = page.read_text()
    for heading in (
        "Body pixels alone",
        "Clinical windows, mean of clients",
        "Clinical windows, mean of protocols",
        "SCAN-PhysFed (paper) against the others in PSNR",
        "SCAN-PhysFed (paper) against the others in SSIM",
        "SCAN-PhysFed (paper), PVQS against the others in PSNR",
        "Served as in the paper",
        "Whole image, every policy",
        "Spread over slices",
        "Slices of each client",
        "Slices of unseen protocols",
        "Where PVQS sent each unseen protocol",
        "State of the modulation at the end",
        "Cost",
        "Settings",
        "Commands",
    ):
        assert f"### {heading}\n" in text
    linked = re.findall(r"\]\((page/[^)]+)\)", text)
    assert len(linked) == len(set(linked))
    written = {f"page/{path.name}" for path in (page.parent / "page").iterdir()}
    assert set(linked) == written
    tables = ("seen", "seen_body", "seen_windows", "unseen", "unseen_body", "unseen_paper",
              "unseen_windows")  # fmt: skip
    slices = (*(f"c{k}" for k in range(1, 9)), *(f"unseen-{k}" for k in range(1, 5)))
    assert {name.removeprefix("page/") for name in written} == {
        *(f"{name}.{kind}" for name in tables for kind in ("csv", "tex")),
        *(f"slices_{name}.png" for name in slices),
        "boxes.png",
        "curves.png",
        "curves.csv",
    }
    for name in linked:
        assert 0 < (page.parent / name).stat().st_size <= PICTURE_BYTES
    assert "`swap_psnr_drop` | 0.35 (0 to 0.7)" in text
    assert "PSNR [-160,240]" in text


def test_no_folder_of_the_machine_is_named(page: Path) -> None:
    text = page.read_text()
    for part in ("/data/private", "/scratch", "/opt", str(page.parent), str(page.parents[1])):
        assert part not in text
    assert "physfed run real.yaml --out a" in text
    assert "source.dicom: ct" in text


@pytest.mark.usefixtures("no_pictures")
def test_the_reading_survives_and_numbers_are_renewed(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    compare(runs, out)
    text = out.read_text()
    assert "Nobody has written" in text
    mine = "\nMine: | a \\1 table.\n\n\n\nTwo blank lines.\n"
    out.write_text(
        re.sub(r"(?s)(<!-- reading -->).*(<!-- /reading -->)", lambda m: m[1] + mine + m[2], text)
    )
    compare(runs[:4], out, against=["FedAvg"])
    renewed = out.read_text()
    assert renewed.count("### Differences from FedAvg, slice by slice") == 1
    assert "PSNR of the body (dB)" in _table(renewed, "Differences from FedAvg, slice by slice")
    assert (tmp_path / "page" / "seen_against_1.csv").exists()
    assert f"<!-- reading -->{mine}<!-- /reading -->" in renewed
    assert "public_code" not in renewed


@pytest.mark.usefixtures("no_pictures")
def test_classical_denoisers_are_rows_beside_the_input(runs: list[Path], tmp_path: Path) -> None:
    for path in runs[:2]:
        seed = read_results(path).seed
        rows = [("TV", "c1", "test", "p", 0, "psnr", 40.0 + 2 * seed),
                ("TV", "c1", "strength", "c1", 0, "strength", 0.01 * seed),
                ("FBP, tuned kernel", "c1", "strength", "c1", 0, "strength", 1.1)]  # fmt: skip
        (path / CLASSICAL_FILE).write_bytes(LongTable(COLUMNS, rows).to_parquet())
    out = tmp_path / "page.md"
    compare(runs, out)
    text = out.read_text()
    row = _table(text, "Whole image")["TV"]
    assert _number(row[0]) == 43.0
    assert row[-2] == "43.00 ± 1.41"
    assert row[2] == "–"
    assert "| TV | 0.01, 0.02 | – |" in text
    assert "| FBP, tuned kernel (width in pixels) | 1.1 | – |" in text


@pytest.mark.usefixtures("no_pictures")
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
    newer = make_run("fedper", 1, tag="n", data={"object_scale": 4})
    for pair_of_runs in ([paths[0], newer], [newer, paths[0]]):
        with pytest.raises(PhysFedError, match=r"differ in data\.object_scale"):
            compare(pair_of_runs, tmp_path / "page.md")
    moved = make_run("fedper", 1, tag="m", data={"cache": "/x", "source": {
        "dicom": "/elsewhere/ct", "min_slices": 1, "phantom": None}})  # fmt: skip
    assert len(group_runs([read_results(paths[0]), read_results(moved)])) == 2


def test_unfinished_and_repeated_runs_are_refused(make_run: MakeRun) -> None:
    done = read_results(make_run("fedavg", 1))
    broken = read_results(make_run("fedavg", 2, finished=False))
    with pytest.raises(PhysFedError, match="has not finished"):
        group_runs([done, broken])
    again = read_results(make_run("fedavg", 1, tag="b"))
    with pytest.raises(PhysFedError, match=r"same method, settings and seed \(1\)"):
        group_runs([done, again])


def test_other_settings_are_other_groups_with_telling_labels(make_run: MakeRun) -> None:
    runs = [
        read_results(make_run("scan_physfed", 1, tag=str(tau), settings={"tau": tau}))
        for tau in (1e-4, 1e-2)
    ]
    labels = {group.label for group in group_runs(runs)}
    assert labels == {"SCAN-PhysFed (tau 0.0001)", "SCAN-PhysFed (tau 0.01)"}


@pytest.fixture
def small(make_run: MakeRun) -> Callable[..., Path]:
    """Return a function that makes tiny runs."""
    return lambda method, seed=1, **options: make_run(
        method, seed, **{"n": 24, "slices": 2, "rounds": 3, "unseen": 2} | options
    )


def test_groups_stand_in_the_papers_order_and_a_bound_wins_nothing(small: MakeRun) -> None:
    order = ("scan_physfed", "pooled", "moon", "local", "fedper", "fedavg")
    runs = [read_results(small(m, quality=0.9 if m == "pooled" else 0.3)) for m in order]
    comparison = Comparison(group_runs(runs), {})
    table = scores(comparison, "seen", WHOLE)
    assert [(row.label, row.group, row.ranked) for row in table.rows] == [
        ("Input", "", True),
        ("FedAvg", "Generic FL methods", True),
        ("MOON", "Generic FL methods", True),
        ("Local", "Personalised FL methods", True),
        ("FedPer", "Personalised FL methods", True),
        ("SCAN-PhysFed", "Personalised FL methods", True),
        ("Pooled", "Bounds", False),
    ]
    assert not any(cell.mark for client in table.cells[-1] for cell in client)
    assert "| *Pooled* |" in table.to_markdown()
    for scope in ("seen", "unseen"):
        found = pairings(comparison, WHOLE[0], scope)  # type: ignore[arg-type]
        assert found is not None
        assert "Pooled" not in {found[0], *(row[0] for row in found[1])}


def test_the_second_best_comes_first_among_the_pairs(small: MakeRun) -> None:
    quality = {"fedavg": 0.5, "moon": 0.7, "fedper": 0.6}
    runs = [read_results(small(m, seed, quality=q)) for m, q in quality.items() for seed in (1, 2)]
    comparison = Comparison(group_runs(runs), {})
    for column in WHOLE:
        found = pairings(comparison, column, "seen")
        assert found is not None
        assert (found[0], [row[0] for row in found[1]]) == ("MOON", ["FedPer", "FedAvg"])
        assert found[1][0][2] == "16 of 16"
    sentence = lead(comparison, "seen")
    assert sentence.startswith("Best against second. PSNR, MOON minus FedPer: +")
    assert "SSIM, MOON minus FedPer: +" in sentence
    assert lead(Comparison(comparison.groups[:1], {}), "seen") == ""


def test_as_in_the_paper_every_method_is_served_once(small: MakeRun) -> None:
    runs = [read_results(small(m)) for m in ("fedavg", "fedper", "scan_physfed", "pooled")]
    comparison = Comparison(group_runs(runs), {})
    table = scores(comparison, "unseen as in the paper", WHOLE)
    assert [row.label for row in table.rows] == [
        "Input", "FedAvg", "FedPer, mean of local models", "SCAN-PhysFed, PVQS", "Pooled"
    ]  # fmt: skip
    assert len(scores(comparison, "unseen", WHOLE).rows) == 1 + 1 + 4 + 5 + 1


@pytest.mark.usefixtures("no_pictures")
def test_the_papers_numbers_stand_beside_on_request_alone(small: MakeRun, tmp_path: Path) -> None:
    runs = [small("fedavg"), small("local"), small("scan_physfed")]
    out = tmp_path / "page.md"
    compare(runs, out)
    assert "Yang et al." not in out.read_text()
    assert "paper" not in (tmp_path / "page/seen.csv").read_text().splitlines()[0]
    compare(runs, out, paper=True)
    text = out.read_text()
    rows = _table(text, "Whole image")
    assert rows["FedAvg"][0].endswith("[29.99]")
    assert rows["FedAvg"][-1].endswith("[84.70]")
    assert rows["SCAN-PhysFed"][4].endswith("[40.45]")
    assert not any("[" in cell for cell in rows["Local"] + rows["Input"])
    served = _table(text, "Served as in the paper")
    assert served["SCAN-PhysFed, PVQS"][-2].endswith("[38.55]")
    assert not any("[" in cell for cell in served["SCAN-PhysFed, PVQS"][:-2])
    every = _table(text, "Whole image, every policy")
    assert "[" not in "".join(every["SCAN-PhysFed, ensemble"])
    assert "FedAvg PSNR 32.89, its clients' mean 34.74" in text
    assert "[" not in "".join("".join(row) for row in _table(text, "Body pixels alone").values())


def test_each_backbone_has_its_own_part_and_the_papers_table(
    small: MakeRun, tmp_path: Path
) -> None:
    runs = [
        small(method, tag=name, backbone=name)
        for name in ("red_cnn", "uformer")
        for method in ("fedavg", "scan_physfed")
    ]
    out = tmp_path / "page.md"
    compare(runs, out, paper=True, against=["FedAvg, Uformer"])
    text = out.read_text()
    before, first, second = text.split("## Protocols seen in training, ")
    assert "FedAvg, RED-CNN" in _table(before, "Mean of clients")
    differences = "Differences from FedAvg, Uformer, slice by slice"
    assert len(_table(before, differences)["PSNR (dB)"]) == 3
    assert differences not in first + second
    assert (tmp_path / "page" / "slices_c1.png").exists()
    assert first.startswith("RED-CNN\n")
    assert second.startswith("Uformer\n")
    assert _table(first, "Whole image")["FedAvg"][0].endswith("[29.99]")
    assert _table(second, "Whole image")["FedAvg"][0].endswith("[34.31]")
    assert _table(second, "Whole image")["SCAN-PhysFed"][-2].endswith("[43.65]")
    assert "has no such table for Uformer" in second
    for name in re.findall(r"\]\((page/[^)]+)\)", text):
        assert (tmp_path / name).exists()
    assert (tmp_path / "page/red_cnn_seen.tex").read_text() != (
        tmp_path / "page/uformer_seen.tex"
    ).read_text()
    assert "| Setting | FedAvg, RED-CNN |" in text


@pytest.mark.usefixtures("no_pictures")
def test_settings_of_many_methods_are_a_row_each(small: MakeRun, tmp_path: Path) -> None:
    taus = [0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
    runs = [small("scan_physfed", tag=str(tau), settings={"tau": tau}) for tau in taus]
    runs.append(small("fedavg"))
    out = tmp_path / "page.md"
    compare(runs, out)
    part = out.read_text().split("### Settings\n")[1]
    assert "| FedAvg | `method.name` fedavg |" in part
    assert "| SCAN-PhysFed (tau 0.01) | `method.name` scan_physfed, `method.tau` 0.01 |" in part


@pytest.mark.usefixtures("no_pictures")
def test_a_suspended_run_hardly_moves_the_time_and_every_commit_is_named(
    small: MakeRun, tmp_path: Path
) -> None:
    runs = [small("fedavg", seed) for seed in (1, 2, 3)]
    summary = json.loads((runs[1] / "summary.json").read_text())
    (runs[1] / "summary.json").write_text(json.dumps(summary | {"wall_s": 5000.0}))
    resolved = (runs[2] / "experiment.yaml").read_text()
    (runs[2] / "experiment.yaml").write_text(resolved.replace("0123abcd", "4567cdef"))
    compare(runs, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| FedAvg | 1, 2, 3 | 18.0 s |" in page
    assert "- git_commit: 0123abcd; 4567cdef\n" in page
    assert page.count("versions.torch") == 1


@pytest.mark.usefixtures("no_pictures")
def test_the_learning_rates_of_a_suite_s_trials_are_on_its_page(
    small: MakeRun, tmp_path: Path
) -> None:
    suite = tmp_path / "suite"
    runs = []
    for method in ("fedavg", "moon", "local"):
        runs.append(suite / "runs" / f"{method}-red_cnn-seed1")
        runs[-1].parent.mkdir(parents=True, exist_ok=True)
        small(method).rename(runs[-1])
    trials = {"seed": 1, "rounds": 20}
    tried = {
        "fedavg-red_cnn": {"validation_psnr": {"0.0003": 40.0, "0.001": 41.25}, "chosen": 0.001},
        "moon-red_cnn": {"validation_psnr": {"0.001": 41.0, "0.003": None}, "chosen": 0.001},
    }
    recorded = {name: found | trials for name, found in tried.items()}
    (suite / "learning_rates.json").write_text(json.dumps(recorded))
    compare(runs, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "after 20 rounds with seed 1" in page
    assert "| Method | 0.0003 | 0.001 | 0.003 |" in page
    assert "| FedAvg | 40.00 | **41.25** (edge) | – |" in page
    assert "| MOON | – | **41.00** (edge) | diverged |" in page
    assert "| Local | 4" not in page.split("### Learning rates")[1]
    compare([small("fedavg", 2)], tmp_path / "page.md")
    assert "### Learning rates" not in (tmp_path / "page.md").read_text()


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
