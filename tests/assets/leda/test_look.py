"""Scores of words against regions, by hand."""

import numpy as np
import pytest

from physfed_ray.assets.leda.look import own_against_other, region_scores, scores, word_tables
from tests.assets.leda.tiny import examples, recipe


def test_words_that_fit_their_region_have_a_small_p_and_others_a_large_one() -> None:
    own = np.arange(12) % 3
    fitting = np.full((12, 3), 0.1)
    fitting[np.arange(12), own] = 0.9
    found = own_against_other(fitting, own)
    assert found["words_own"] == pytest.approx(0.9)
    assert found["words_other"] == pytest.approx(0.1)
    assert found["words_p"] < 0.01
    assert own_against_other(np.full((12, 3), 0.5), own)["words_p"] == 1
    against = own_against_other(1 - fitting, own)
    assert against["words_own"] < against["words_other"]
    assert against["words_p"] == 1


def test_one_region_has_no_other() -> None:
    slices = examples(slices=1)
    given = recipe()
    network = given.network(given.constants([slices], 1)).eval()
    assert region_scores(network, [slices], given.candidates) == {}
    found = scores(network, [slices], given.candidates)
    assert {*found} == {"psnr", "psnr_bicubic", "perplexity", "perplexity_share", "used"}
    (table,) = word_tables(network, [slices], given.candidates)
    assert [row[1:3] for row in table.rows] == [("chest", 1), ("chest", 2), ("chest", 3)]
    counts = [sum(int(part.split()[1]) for part in row[3].split(", ")) for row in table.rows]
    assert counts[0] == 4
