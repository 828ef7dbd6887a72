"""Plain tables: protocols with the numbers that they have, and no column for what none has."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from physfed_ray.results.grids import PROTOCOL_HEAD, grids
from physfed_ray.results.runs import read_results

MakeRun = Callable[..., Path]
SMALL = {"rounds": 2, "n": 32, "slices": 1, "unseen": 1}


def with_protocol(run: Path, part: str, **changes: object) -> Path:
    """Change the protocol of the first client, or unseen scanner, in a run's summary."""
    path = run / "summary.json"
    content = json.loads(path.read_text())
    content[part][0]["protocol"] |= changes
    path.write_text(json.dumps(content))
    return run


def test_seven_numbers_are_shown_where_all_protocols_are_usual(make_run: MakeRun) -> None:
    run = make_run("fedavg", 1, clients=2, **SMALL)
    table = grids(read_results(run))["protocols"]
    assert table.head[: len(PROTOCOL_HEAD)] == PROTOCOL_HEAD
    assert not {"detector", "arc (degrees)"} & set(table.head)
    assert table.rows[0][:8] == (
        "c1 (paper-1)", "1024", "512", "0.66", "0.72", "250", "250", "100,000",
    )  # fmt: skip


@pytest.mark.parametrize("clients", [2, 8])
def test_a_curved_detector_and_an_arc_have_columns_where_one_is_unusual(
    make_run: MakeRun, clients: int
) -> None:
    run = make_run("fedavg", 1, clients=clients, **SMALL)
    with_protocol(run, "clients", detector="arc")
    table = grids(read_results(with_protocol(run, "unseen", arc_deg=220)))["protocols"]
    assert table.head[len(PROTOCOL_HEAD) :][:2] == ("detector", "arc (degrees)")
    assert [row[8:10] for row in table.rows] == [
        ("arc", "360"), *[("flat", "360")] * (clients - 1), ("flat", "220"),
    ]  # fmt: skip
    assert table.rows[0][0] == "c1"  # no longer paper-1
    assert {len(row) for row in table.rows} == {len(table.head)}
