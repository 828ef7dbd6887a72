"""Table 4: rows by their parts, in the paper's order, with the paper's numbers beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from physfed_ray.results.ablation import ablation, complete, components
from physfed_ray.results.groups import Group, group_runs
from physfed_ray.results.runs import read_results

MakeRun = Callable[..., Path]
SMALL: dict[str, Any] = {"n": 24, "slices": 2, "rounds": 2, "unseen": 1}


@pytest.fixture
def groups(make_run: MakeRun) -> list[Group]:
    """Return the paper's five rows and FedPer."""
    parts = {
        "full": {"tau": 1e-4},
        "both": {"tau": 0},
        "anatomy": {"tau": 0, "scanning": False},
        "scanning": {"tau": 0, "anatomy": False},
    }
    runs = [make_run(name, 1, tag="x", **SMALL) for name in ("fedper", "fedavg")]
    for k, (tag, settings) in enumerate(parts.items()):
        settings = {"scanning": True, "anatomy": True, "share_decoder": False} | settings
        runs.append(
            make_run("scan_physfed", 1, tag=tag, settings=settings, quality=0.9 - 0.1 * k, **SMALL)
        )
    return group_runs([read_results(run) for run in runs])


def test_rows_have_the_papers_order_and_numbers(groups: list[Group]) -> None:
    table = ablation(groups, paper=True)
    assert table is not None
    lines = table.to_markdown().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:4] for row in cells] == [
        ["×", "×", "generic", "MSE"],
        ["×", "×", "personalised", "MSE"],
        ["✓", "×", "personalised", "MSE"],
        ["×", "✓", "personalised", "MSE"],
        ["✓", "✓", "personalised", "MSE"],
        ["✓", "✓", "personalised", "MSE + orth"],
    ]
    quoted = [row[5].partition("[")[2] for row in cells]
    assert quoted == ["34.03]", "", "36.82]", "38.04]", "40.67]", "41.14]"]
    assert cells[-1][5].startswith("**")
    assert "[" not in ablation(groups, paper=False).to_markdown()  # type: ignore[union-attr]


def test_labels_name_only_what_departs_from_the_defaults(groups: list[Group]) -> None:
    labels = [group.label for group in groups if group.method == "scan_physfed"]
    assert set(labels) == {
        "SCAN-PhysFed",
        "SCAN-PhysFed (tau 0)",
        "SCAN-PhysFed (scanning no, tau 0)",
        "SCAN-PhysFed (anatomy no, tau 0)",
    }


def test_latex_has_as_many_cells_in_every_row(groups: list[Group]) -> None:
    table = ablation(groups, paper=True)
    assert table is not None
    text = table.to_latex()
    assert text.startswith("% needs amssymb, booktabs")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {6}
    assert text.count("{") == text.count("}")
    assert r"$\times$ & $\checkmark$ & personalised & $\mathcal{L}_{MSE}$" in text


def test_parts_are_not_quoted_as_the_complete_method(groups: list[Group]) -> None:
    assert [g.label for g in groups if not complete(g)] == [
        g.label for g in groups if g.method == "scan_physfed" and g.label != "SCAN-PhysFed"
    ]


def test_without_two_variants_there_is_no_ablation(groups: list[Group]) -> None:
    kept = [g for g in groups if g.method != "scan_physfed" or complete(g)]
    assert len(kept) == 3
    assert ablation(kept, paper=False) is None


def test_no_protocol_modulation_means_no_orthogonal_loss(make_run: MakeRun) -> None:
    settings = {"tau": 1e-4, "scanning": False}
    (group,) = group_runs([read_results(make_run("scan_physfed", settings=settings, **SMALL))])
    parts = components(group)
    assert parts is not None
    assert (parts.scanning, parts.anatomy, parts.orth) == (False, True, False)


def test_what_the_paper_does_not_have_is_neither_a_part_nor_quoted(make_run: MakeRun) -> None:
    run = make_run("scan_physfed", settings={"modulate_skips": True}, **SMALL)
    (group,) = group_runs([read_results(run)])
    assert components(group) is None
    assert not complete(group)
