"""Every method: a new client trains what is private, and the shared bits stay as they are."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from physfed_ray.methods.registry import METHODS
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.enrol.card import read_enrolled, read_private
from physfed_ray.serving.enrol.newcomer import for_newcomer, keeps_private, trained_parts
from physfed_ray.serving.trained import load_run
from tests.serving.enrol.conftest import TinyRun

DOCS = Path(__file__).parents[3] / "docs" / "enrol.md"
OWN = {
    "fedper": {"decoder"},
    "fedmri": {"decoder"},
    "scan_physfed": {"decoder"},
    "hyperfed": {"protocol_hypernetwork"},
    "fedfdd": {"low_encoder", "low_decoder"},
    "fedct": {"specific_encoder", "specific_decoder"},
    "fedm2ct": {"private_encoder", "private_decoder"},
    "local": {"encoder", "decoder"},
}
"""What is private in each method; FedBN has a part for each normalisation."""


@pytest.mark.parametrize("method", METHODS)
def test_a_new_client_trains_its_private_part_alone(
    method: str, trained: Callable[..., TinyRun]
) -> None:
    tiny = trained(method)
    before, run = tiny.files(), load_run(tiny.root)
    bits = {name: tiny.denoised(name) for name in run.clients}
    card = tiny.enrol()
    assert tiny.files() == before
    assert all(np.array_equal(tiny.denoised(name), old) for name, old in bits.items())
    own = keeps_private(run.method)
    assert own == (method in OWN or method == "fedbn")
    assert card.start == ("initial" if own else "shared")
    if method == "fedbn":
        assert all(".norm" in part for part in card.trained)
    else:
        assert set(card.trained) == (OWN[method] if own else {"decoder"})
    private = read_private(RunDirectory(tiny.root), card)
    there = load_run(tiny.root).denoiser("north", device="cpu").network
    for name, value in private.items():
        assert torch.equal(there.state_dict()[name], value)
        assert name.startswith(card.trained)
    served = run.denoiser(protocol=card.protocol, device="cpu").network.state_dict()
    for name, value in there.state_dict().items():
        if not name.startswith(card.trained):
            assert torch.equal(value, served[name])
    chosen = card.results[-1]
    assert chosen.rounds == 2
    assert len(chosen.validation) == 3
    assert chosen.validation[chosen.round] == max(chosen.validation)


def test_the_documentation_says_what_each_method_trains() -> None:
    text = DOCS.read_text().split("## What is trained")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.count("|") == 4]
    said = {title.strip(): (trains, start.strip()) for title, trains, start in rows[2:]}
    assert set(said) == {method.title for method in METHODS.values()}
    for name, method in METHODS.items():
        trains, start = said[method.title]
        private = name in OWN or name == "fedbn"
        assert start == ("initial weights" if private else "a copy of the shared decoder")
        named = set(re.findall("`(.*?)`", trains))
        assert named == (set() if name == "fedbn" else OWN.get(name, {"decoder"}))


def test_a_method_whose_network_is_shared_whole_trains_a_copy_of_its_decoder(
    trained: Callable[..., TinyRun],
) -> None:
    for method in ("moon", "fedkd"):  # with parts that only their own training uses
        own = for_newcomer(load_run(trained(method).root).method)
        assert trained_parts(own) == ("decoder",)
        assert {name for name, _ in own.build(1).named_children()} == {"encoder", "decoder"}
        assert own.title in ("MOON", "FedKD")


def test_settings_decide_what_is_private(trained: Callable[..., TinyRun]) -> None:
    tiny = trained("scan_physfed", settings={"share_decoder": True})
    card = tiny.enrol()
    assert (card.trained, card.start) == (("decoder",), "shared")
    found = read_enrolled(RunDirectory(tiny.root), "north")
    assert found == card
