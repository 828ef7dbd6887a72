"""Training LEDA's autoencoder: what it learns, what stays, and what its losses are made of."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from physfed_ray.assets.base import Examples
from physfed_ray.assets.leda.autoencoder import Leda
from physfed_ray.assets.leda.candidates import token_names, token_table
from physfed_ray.assets.leda.discriminator import adaptive_weight, hinge
from physfed_ray.assets.leda.look import candidate_rows
from physfed_ray.assets.leda.recipe import LedaRecipe
from physfed_ray.assets.leda.semantic import (
    commitment,
    commitment_of_the_public_code,
    semantic_loss,
    unused,
)
from physfed_ray.assets.registry import RECIPES
from physfed_ray.assets.store import About, write_asset
from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.window import normalise
from tests.assets.leda.tiny import WORDS, examples, recipe


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path))


def made(slices: Examples, **settings: object) -> tuple[LedaRecipe, Leda, dict]:
    """Return a recipe, its network in training mode and its constants."""
    given = recipe(**settings)
    constants = dict(given.constants([slices], 1))
    torch.manual_seed(0)
    network = given.network(constants)
    assert isinstance(network, Leda)
    return given, network.train(), constants


def test_it_is_registered() -> None:
    assert RECIPES["leda"] is LedaRecipe
    assert all(field.description for field in LedaRecipe.Settings.model_fields.values())


def test_the_codebook_has_all_candidates_and_random_words() -> None:
    slices = examples()
    given, network, constants = made(slices)
    tokens = constants["tokens"].tolist()
    words = given.words()["codebook"]
    assert len(set(tokens)) == 40
    assert [token_names()[token] for token in tokens] == list(words)
    wanted = {WORDS[p] for layers in given.candidates.of(slices) for ps in layers for p in ps}
    assert wanted <= set(words)
    assert torch.equal(constants["table"], token_table(tokens))
    torch.testing.assert_close(network.table, functional.normalize(constants["table"], dim=1))
    _, own, _ = made(slices, lengths="own")
    assert torch.equal(own.table, constants["table"])
    rows = candidate_rows(network, slices, given.candidates)
    assert [words[row] for row in rows[2][0]] == [
        WORDS[p] for p in given.candidates.of(slices)[2][0]
    ]
    whole = recipe(rows=None).constants([slices], 1)
    assert len(whole["table"]) == len(token_names())


def test_the_loss_is_equation_2() -> None:
    slices = examples()
    given, network, _ = made(slices, temperature=0.5, alpha=0.2, beta=0.7)
    loss, parts = given.loss(network, slices, 0, 0)
    image, tokens = network(slices.batch.full)
    rows = candidate_rows(network, slices, given.candidates)
    asked, _ = semantic_loss(tokens, network.table, rows, 0.5)
    vqgan = (image - slices.batch.full).square().mean() + 0.7 * commitment(tokens)
    omega = (vqgan / asked).detach()
    torch.testing.assert_close(loss, vqgan + 0.2 * omega * asked)
    torch.testing.assert_close(loss, 1.2 * vqgan)  # omega: alpha is a share of all the rest
    assert {"reconstruction", "commitment", "semantic", "omega", "entropy", "perplexity"} == {
        *parts
    }
    assert not any(part.requires_grad for part in parts.values())


def test_usage_is_a_share_of_all_the_rest() -> None:
    slices = examples()
    given, network, _ = made(slices, semantic=False, usage=0.4)
    loss, parts = given.loss(network, slices, 0, 0)
    vqgan = parts["reconstruction"] + 0.3 * parts["commitment"]
    share = unused(network(slices.batch.full)[1], network.table) / math.log(len(network.table))
    torch.testing.assert_close(loss, vqgan * (1 + 0.4 * share))


def test_the_public_codes_loss() -> None:
    slices = examples()
    given, network, _ = made(slices, variant="public_code", semantic=False)
    loss, _ = given.loss(network, slices, 0, 0)
    image, tokens = network(slices.batch.full)
    expected = (image - slices.batch.full).abs().mean() + commitment_of_the_public_code(tokens)
    torch.testing.assert_close(loss, expected)
    asked, network, _ = made(slices, variant="public_code")
    first, again = (asked.loss(network, slices, step, 0)[0] for step in (3, 3))
    assert torch.equal(first, again)
    assert "entropy" not in asked.loss(network, slices, 3, 0)[1]


def test_a_learned_codebook_is_trained_and_has_no_words() -> None:
    slices = examples()
    given, network, constants = made(slices, codebook="learned", semantic=False)
    given.loss(network, slices, 0, 0)[0].backward()
    assert network.table.grad is not None
    assert float(network.table.grad.abs().max()) > 0
    assert given.words() == {}
    assert {*constants} == {"table"}
    assert given.tables(network, [slices]) == ()
    with pytest.raises(ValidationError, match="set semantic to false, or codebook to table"):
        recipe(codebook="learned")


def test_a_vocabulary_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="vocabulary: sigmoidectomy is none"):
        recipe(vocabulary=("liver", "sigmoidectomy"))


def test_the_discriminator_takes_turns_and_counts_from_its_start() -> None:
    slices = examples()
    given, network, _ = made(
        slices, gan=True, gan_start=2, gan_filters=4, semantic=False, gan_weight=0.5
    )
    assert given.turns == 2
    both = [{id(p) for p in given.parameters(network, turn)} for turn in (0, 1)]
    assert not both[0] & both[1]
    assert both[1] == {id(p) for p in network.training_only.parameters()}
    assert float(given.loss(network, slices, 1, 1)[0]) == 0
    assert float(given.loss(network, slices, 2, 1)[0]) > 0
    assert "adversarial" not in given.loss(network, slices, 1, 0)[1]
    network.training_only.eval()  # running statistics would move between the two passes
    loss, parts = given.loss(network, slices, 2, 0)
    image, tokens = network(slices.batch.full)
    rebuilt, said = (
        (image - slices.batch.full).square().mean(),
        -network.training_only(image).mean(),
    )
    weight = adaptive_weight(rebuilt, said, network.last_weight)
    expected = rebuilt + 0.3 * commitment(tokens) + 0.5 * weight * said
    torch.testing.assert_close(loss, expected)
    assert float(parts["adversarial"]) == pytest.approx(float(said.detach()))


def test_hinge_and_adaptive_weight_by_hand() -> None:
    assert float(hinge(torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.5]))) == 0.5
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    weight = adaptive_weight(w.square().sum(), 0.5 * w.sum(), w)  # |2 w| = 10, |(.5, .5)| = .7071
    assert float(weight) == pytest.approx(10 / (0.5**0.5 + 1e-4))


def phantoms(patients: range, side: int = 32) -> Examples:
    """Return two slices of each of some phantoms, with the reports of their regions."""
    source = PhantomSource(max(patients) + 1, 2, 1, 64)
    names = list(REGIONS)
    parts = []
    for number in patients:
        hu = np.stack(source.load(source.ids()[number], None).slices)
        small = hu.reshape(len(hu), side, 64 // side, side, 64 // side).mean((2, 4))
        parts.append(torch.as_tensor(normalise(small, (-1000.0, 2000.0)))[:, None])
    full = torch.cat(parts)
    plain = examples(side, len(full))
    regions = tuple(names[number % len(names)] for number in patients for _ in range(2))
    return replace(
        plain,
        batch=replace(plain.batch, low=full, full=full),
        reports=tuple(f"Axial CT of the {region}." for region in regions),
        regions=regions,
        patients=tuple(f"p{number}" for number in patients for _ in range(2)),
    )


STEPS = 50


def test_training_keeps_the_table_uses_its_tokens_and_finds_words(tmp_path: Path) -> None:
    train, held_out = phantoms(range(10)), phantoms(range(10, 15))
    given, network, constants = made(
        train, vocabulary=(*WORDS, "limb", "leg", "hip"), rows=60, channels=16, temperature=0.1
    )
    before, seen = constants["table"].clone(), network.table.clone()
    optimizer = torch.optim.Adam(given.parameters(network, 0), lr=2e-3)
    first = given.scores(network.eval(), [held_out])
    network.train()
    for step in range(STEPS):
        optimizer.zero_grad()
        given.loss(network, part(train, step), step, 0)[0].backward()
        optimizer.step()
    assert torch.equal(constants["table"], before)
    assert torch.equal(constants["table"], token_table(constants["tokens"].tolist()))
    assert torch.equal(network.table, seen)
    found = given.scores(network.eval(), [held_out])
    assert found["psnr"] > first["psnr"] + 6
    assert found["perplexity_share"] > 0.3  # 0.05 without ``standardise``
    assert found["used"] > 0.7
    assert found["words_own"] > found["words_other"] + 0.1
    (table,) = given.tables(network, [held_out])
    assert {row[2] for row in table.rows} == {1, 2, 3}
    about = About("leda", given.settings.model_dump(mode="json"), 32, (-1000.0, 2000.0))
    again = write_asset(tmp_path, about, network, constants).network()
    images = held_out.batch.full
    torch.testing.assert_close(again(images)[0], network(images)[0])


@pytest.mark.cluster
def test_it_beats_bicubic_and_its_words_fit_their_region() -> None:
    """Three times the steps of the quick test: only then does the image come back so well."""
    train, held_out = phantoms(range(10)), phantoms(range(10, 20))
    given, network, _ = made(
        train,
        vocabulary=(*WORDS, "limb", "leg", "hip"),
        rows=60,
        channels=16,
        temperature=0.1,
        usage=0.3,
    )
    optimizer = torch.optim.Adam(given.parameters(network, 0), lr=2e-3)
    for step in range(3 * STEPS):
        optimizer.zero_grad()
        given.loss(network, part(train, step), step, 0)[0].backward()
        optimizer.step()
    found = given.scores(network.eval(), [held_out])
    assert found["psnr"] > found["psnr_bicubic"]
    assert found["perplexity_share"] > 0.1
    assert found["words_p"] < 0.05


def part(whole: Examples, step: int, size: int = 6) -> Examples:
    """Return some of the slices."""
    rows = np.random.default_rng(step).choice(len(whole), size, replace=False).tolist()
    batch = whole.batch
    some = replace(batch, low=batch.low[rows], full=batch.full[rows])
    names = ("protocols", "patients", "slices", "reports", "regions")
    own = {name: tuple(getattr(whole, name)[row] for row in rows) for name in names}
    return replace(whole, batch=some, **own)
