"""The card comes back from the run directory as it was written, whatever it says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.model import (
    LocalTraining,
    ModelCard,
    NamedProtocol,
    Statistics,
    read_card,
    write_card,
)
from physfed_ray.rundir.run_directory import RunDirectory

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1, max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
GROUPS = st.dictionaries(NAMES, PLAIN, max_size=4)


@st.composite
def protocols(draw: st.DrawFn) -> Protocol:
    """A preset with another number of views, photons and longer bins, on any detector and arc."""
    preset = draw(st.sampled_from(list(PRESETS.values())))
    return replace(
        preset,
        views=draw(st.integers(1, 4096)),
        photons=draw(st.floats(1.0, 1e8)),
        bin_mm=draw(st.floats(preset.bin_mm, 2.0)),
        detector=draw(st.sampled_from(["flat", "arc"])),
        arc_deg=draw(st.floats(1.0, 360.0)),
    )


def named(least: int) -> st.SearchStrategy[tuple[NamedProtocol, ...]]:
    entry = st.builds(NamedProtocol, id=NAMES, protocol=protocols())
    return st.lists(entry, min_size=least, max_size=3).map(tuple)


CARDS = st.builds(
    ModelCard,
    method=GROUPS,
    backbone=GROUPS,
    reports=GROUPS,
    statistics=st.builds(
        Statistics,
        input_mean=NUMBERS,
        input_std=NUMBERS,
        embedding_mean=st.lists(NUMBERS, max_size=3),
        embedding_std=st.lists(NUMBERS, max_size=3),
        tokens=st.integers(1, 64),
        dim=st.integers(1, 64),
    ),
    image_size=st.integers(1, 2048),
    window_hu=st.tuples(NUMBERS, NUMBERS),
    clients=named(1),
    unseen=named(0),
    seed=st.integers(0),
    precision=st.sampled_from(["fp32", "bf16"]),
    training=st.builds(
        LocalTraining,
        optimizer=st.sampled_from(["adam", "sgd"]),
        momentum=st.floats(0, 1),
        rounds=st.integers(1),
        threads=st.integers(1, 256),
    ),
    versions=st.dictionaries(NAMES, NAMES, max_size=3),
    git_commit=st.none() | NAMES,
)


@settings(max_examples=60, deadline=None)
@given(card=CARDS)
def test_a_card_is_read_as_it_was_written(card: ModelCard) -> None:
    directory = RunDirectory("memory://cards/run")
    write_card(directory, card)
    again = read_card(directory)
    assert again == card
    assert again.model_dump_json() == card.model_dump_json()  # also -0.0, and ints as ints


@pytest.fixture
def written(tmp_path: Path) -> tuple[RunDirectory, dict[str, Any]]:
    """Return a run directory with a card, and what its file says."""
    directory = RunDirectory(tmp_path)
    card = ModelCard(
        method={"name": "fedavg"},
        backbone={"name": "red_cnn"},
        reports={},
        statistics=Statistics(0.5, 0.2, [0.0], [1.0], 1, 1),
        image_size=32,
        window_hu=(-1000, 2000),
        clients=(NamedProtocol(id="c1", protocol=PRESETS["paper-1"]),),
        seed=1,
        precision="fp32",
        training=LocalTraining(rounds=3),
    )
    write_card(directory, card)
    return directory, json.loads((tmp_path / "model.json").read_text())


def test_the_file_is_plain(written: tuple[RunDirectory, dict[str, Any]]) -> None:
    _, content = written
    assert content["format"] == 1
    assert content["clients"][0]["protocol"]["views"] == 1024
    assert content["window_hu"] == [-1000.0, 2000.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format: "),
        ({"strange": 1}, "strange: Extra inputs"),
        ({"clients": []}, "clients: "),
        ({"statistics": {}}, "statistics.input_mean: "),
    ],
)
def test_a_card_that_this_version_cannot_read_is_refused(
    change: dict[str, Any], said: str, written: tuple[RunDirectory, dict[str, Any]]
) -> None:
    directory, content = written
    directory.write_json("model.json", content | change)
    with pytest.raises(PhysFedError, match=r"model\.json cannot be read") as refusal:
        read_card(directory)
    assert said in str(refusal.value)
    assert "use the version of physfed_ray that wrote it" in str(refusal.value)


def test_an_impossible_protocol_is_refused(
    written: tuple[RunDirectory, dict[str, Any]],
) -> None:
    directory, content = written
    content["clients"][0]["protocol"]["bins"] = 12
    directory.write_json("model.json", content)
    with pytest.raises(PhysFedError, match="the fan of 12 bins"):
        read_card(directory)


def test_further_fields_of_a_protocol_are_read_and_need_not_be_there(
    written: tuple[RunDirectory, dict[str, Any]],
) -> None:
    directory, content = written
    assert read_card(directory).further == ()
    content["clients"][0]["protocol"] = PRESETS["paper-1"].values()  # as earlier versions wrote it
    unseen = {"id": "u", "protocol": PRESETS["paper-2"].values() | {"arc_deg": 200}}
    directory.write_json("model.json", content | {"unseen": [unseen]})
    card = read_card(directory)
    assert card.clients[0].protocol == PRESETS["paper-1"]
    assert card.further == ("arc_deg",)


def test_clients_are_found_by_name(written: tuple[RunDirectory, dict[str, Any]]) -> None:
    card = read_card(written[0])
    assert card.client("c1").protocol == PRESETS["paper-1"]
    with pytest.raises(PhysFedError, match="no client 'c2'; it has: c1"):
        card.client("c2")


def test_a_folder_without_a_card_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match=r"holds no model\.json.*--resume` adds the file"):
        read_card(RunDirectory(tmp_path))
