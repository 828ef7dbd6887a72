"""Every loss of LEDA's tokens, against the expression written out in loops."""

import math
from dataclasses import replace

import pytest
import torch

from physfed_ray.assets.leda.pyramid import Pyramid, quantize
from physfed_ray.assets.leda.semantic import (
    codebook_loss,
    commitment,
    commitment_of_the_public_code,
    semantic_loss,
    semantic_loss_of_the_public_code,
    unused,
)

TABLE = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
CANDIDATES = [
    [torch.tensor([0]), torch.tensor([0, 2]), torch.tensor([1, 2, 3])],
    [torch.tensor([5]), torch.tensor([4]), torch.tensor([0, 5])],
]


@pytest.fixture
def pyramid() -> Pyramid:
    z = torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(2))
    return quantize(z.requires_grad_(), TABLE)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_equation_1(pyramid: Pyramid, temperature: float) -> None:
    layers, entropy = [], []
    for number, layer in enumerate(pyramid.layers):
        found = []
        for z_all, rows in zip(layer, CANDIDATES, strict=True):
            for z in z_all:
                d = [float((z - e).square().sum()) / temperature for e in TABLE]
                p = [math.exp(-x) / sum(math.exp(-y) for y in d) for x in d]
                found.append(sum(-math.log(p[c]) for c in rows[number]) / len(rows[number]))
                entropy.append((number, -sum(x * math.log(x) for x in p)))
        layers.append(sum(found) / len(found))
    loss, said = semantic_loss(pyramid, TABLE, CANDIDATES, temperature)
    assert float(loss.detach()) == pytest.approx(sum(layers) / 3, rel=1e-4)
    means = [[e for n, e in entropy if n == number] for number in range(3)]
    assert float(said) == pytest.approx(sum(sum(m) / len(m) for m in means) / 3, rel=1e-4)


def test_a_slice_without_candidates_is_left_out(pyramid: Pyramid) -> None:
    empty = [torch.tensor([], dtype=torch.int64)] * 3
    whole, _ = semantic_loss(pyramid, TABLE, [CANDIDATES[0], empty])
    first = Pyramid(
        pyramid.z[:1], pyramid.positions, tuple(x[:1] for x in pyramid.layers),
        tuple(x[:1] for x in pyramid.tokens), tuple(x[:1] for x in pyramid.embeddings),
        pyramid.output[:1],
    )  # fmt: skip
    alone, _ = semantic_loss(first, TABLE, CANDIDATES[:1])
    torch.testing.assert_close(whole, alone)


def test_the_commitment_of_the_paper(pyramid: Pyramid) -> None:
    expected = 0.0
    for number, here in enumerate(pyramid.positions):
        errors = []
        for b in range(2):
            for p in here.tolist():
                there = [
                    pyramid.embeddings[i][b, pyramid.positions[i].tolist().index(p)]
                    for i in range(number + 1)
                    if p in pyramid.positions[i].tolist()
                ]
                errors.append((pyramid.z[b, p] - sum(there) / len(there)).square().mean())
        expected += float(torch.stack(errors).mean().detach())
    assert float(commitment(pyramid).detach()) == pytest.approx(expected, rel=1e-5)
    assert float(codebook_loss(pyramid).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_commitment_of_the_public_code(pyramid: Pyramid) -> None:
    masks = torch.zeros(3, 90)
    for mask, here in zip(masks, pyramid.positions, strict=True):
        mask[here] = 1
    count, average, expected = masks.sum(dim=0), torch.zeros(2, 90, 3), 0.0
    for mask, here, q in zip(masks, pyramid.positions, pyramid.embeddings, strict=True):
        everywhere = torch.zeros(2, 90, 3)
        everywhere[:, here] = q.detach()
        average = average + everywhere / count[:, None]
        expected += float((average - pyramid.z * mask[:, None]).square().mean().detach())
    found = float(commitment_of_the_public_code(pyramid).detach())
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(float(commitment(pyramid).detach()), rel=1e-2)


def test_the_semantic_loss_of_the_public_code(pyramid: Pyramid) -> None:
    draws, again = (torch.Generator().manual_seed(3) for _ in range(2))
    expected = 0.0
    for number, (here, layer) in enumerate(zip(pyramid.positions, pyramid.layers, strict=True)):
        denominator = sum(
            float(torch.exp(-(z - TABLE).square().sum(dim=-1)).sum()) for b in layer for z in b
        )
        denominator += 2 * (90 - len(here)) * len(TABLE)  # exp(0) for every word
        for z, rows in zip(layer, CANDIDATES, strict=True):
            drawn = rows[number][torch.randint(len(rows[number]), (len(z),), generator=again)]
            positive = math.exp(-float((TABLE[drawn] - z).square().mean().detach()))
            expected += -math.log(positive / denominator) / (2 * 3)
    found = semantic_loss_of_the_public_code(pyramid, TABLE, CANDIDATES, draws)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_commitment_moves_features_and_the_codebook_loss_a_learned_codebook() -> None:
    table = TABLE.clone().requires_grad_()
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    commitment(quantize(z, table)).backward()
    assert z.grad is not None
    assert table.grad is None
    z = z.detach().requires_grad_()
    codebook_loss(quantize(z, table)).backward()
    assert z.grad is None
    assert table.grad is not None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [((0, 0, 0, 0), math.log(4)), ((0, 0, 1, 1), math.log(2)), ((0, 1, 2, 3), 0)],
)
def test_what_is_unused_by_hand(rows: tuple[int, ...], expected: float) -> None:
    table = torch.eye(4)
    features = table[list(rows)][None]
    some = quantize(torch.zeros(1, 4, 2, 2), table)
    last = replace(some, layers=(*some.layers[:2], features))
    assert float(unused(last, table, 0.01)) == pytest.approx(expected, abs=1e-4)
    between = replace(last, layers=(torch.zeros(1, 4, 4),))  # all rows are equally near
    assert float(unused(between, table, 0.01)) == pytest.approx(0, abs=1e-4)
