"""Reporters and encoders by name."""

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.registry import ENCODERS, REPORTERS, make_encoder, make_reporter


@pytest.mark.parametrize("name", list(REPORTERS))
def test_reporters_carry_their_name(name):
    reporter = make_reporter(name)
    assert reporter.name == name
    assert reporter.version


@pytest.mark.parametrize("name", list(ENCODERS))
def test_encoders_carry_their_name(name):
    encoder = make_encoder(name)
    assert encoder.name == name
    assert encoder.version
    vectors, mask = encoder.encode(["a", "b c"])
    assert vectors.shape == (2, encoder.tokens, encoder.dim)
    assert mask.shape == (2, encoder.tokens)


def test_a_near_miss_is_suggested():
    with pytest.raises(PhysFedError, match=r"`mesured`.*did you mean `measured`"):
        make_reporter("mesured")
    with pytest.raises(PhysFedError, match=r"`minilmm`.*did you mean `minilm`"):
        make_encoder("minilmm")


def test_a_wild_guess_gets_the_list():
    with pytest.raises(PhysFedError, match="choose one of: measured"):
        make_reporter("gpt")
