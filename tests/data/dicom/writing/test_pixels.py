"""Stored values: what goes in comes out, for all bits, signs and scales, and padding stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from physfed_ray.data.dicom.hounsfield import made_air, read_words
from physfed_ray.data.dicom.pixel_format import PixelFormat
from physfed_ray.data.dicom.writing.pixels import store

SHAPE = (4, 5)


@st.composite
def formats(draw) -> PixelFormat:
    allocated = draw(st.sampled_from([16, 32]))
    stored = draw(st.integers(10, allocated))
    signed = draw(st.booleans())
    slope = draw(st.sampled_from([0.1, 0.5, 1.0, 1.0001, 2.0]))
    intercept = draw(st.sampled_from([-8192.0, -1024.0, -1000.5, 0.0]))
    return PixelFormat(allocated, stored, signed, slope, intercept)


def words_of(hu: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Return HU as words that hold nothing but the stored bits."""
    value = np.rint((hu - pixels.intercept) / pixels.slope)
    value = np.clip(value, pixels.lowest, pixels.highest).astype(np.int64)
    return value & ((1 << pixels.bits_allocated) - 1)


def back(stored) -> np.ndarray:
    word = np.frombuffer(stored.words(), "<u2").reshape(SHAPE)
    return stored.pixels.slope * read_words(word, stored.pixels).value + stored.pixels.intercept


HU = arrays(np.float64, SHAPE, elements=st.floats(-1024, 3500, width=32))


@given(formats(), HU, HU)
def test_hu_come_back_within_half_a_step(pixels: PixelFormat, hu: np.ndarray, before: np.ndarray):
    stored = store(hu, words_of(before, pixels), pixels)
    held = stored.pixels
    assert (held.bits_allocated, held.bits_stored <= 16, stored.clipped) == (16, True, 0)
    assert held.lowest <= stored.values.min()
    assert stored.values.max() <= held.highest
    assert (held.slope, held.intercept) in {(pixels.slope, pixels.intercept), (1.0, 0.0)}
    read = read_words(words_of(before, pixels), pixels)
    free = made_air(read) == read.hu  # What was padding, or thinner than air, may stay.
    assert np.abs(back(stored) - hu)[free].max(initial=0) <= held.slope / 2 + 1e-6


@given(formats(), HU)
def test_an_unchanged_image_keeps_its_values(pixels: PixelFormat, before: np.ndarray):
    words = words_of(before, pixels)
    read = read_words(words, pixels)
    stored = store(made_air(read).astype(np.float32), words, pixels)
    if stored.pixels.slope == pixels.slope and stored.pixels.intercept == pixels.intercept:
        np.testing.assert_array_equal(stored.values, read.value)
    else:
        assert pixels.bits_allocated == 32 or pixels.bits_stored > 15


@pytest.mark.parametrize(
    ("pixels", "word", "tag"),
    [
        (PixelFormat(16, 16, True, 1.0, 0.0, (-2000, -2000)), 63536, -2000),
        (PixelFormat(16, 16, True, 1.0, 0.0, (63536, 63536)), 63536, -2000),
        (PixelFormat(16, 16, False, 1.0, -1024.0, (0, 0)), 0, 0),
        (PixelFormat(16, 12, False, 1.0, -1024.0, (63536, 63536)), 63536, -2000),
        (PixelFormat(16, 12, False, 1.0, -1024.0, (-2000, -2000)), 63536, -2000),
        (PixelFormat(16, 16, True, 1.0, -1024.0, (-2000, -1500)), 63536, -2000),
        (PixelFormat(16, 16, False, 1.0, -1024.0, (65535, 65535)), 65535, 65535),
    ],
)
def test_padding_stays_padding_and_nothing_else_becomes_it(pixels, word: int, tag: int):
    words = words_of(np.full(SHAPE, 40.0), pixels)
    words[0] = word
    stored = store(np.full(SHAPE, 41.3), words, pixels)
    assert (stored.values[0] == tag).all()
    assert stored.pixels.padding == (tag, tag)
    read = read_words(np.frombuffer(stored.words(), "<u2").reshape(SHAPE), stored.pixels)
    assert read.padded[0].all()
    assert not read.padded[1:].any()
    np.testing.assert_allclose(read.hu[1:], 41, atol=0.5)


def test_an_image_at_the_padding_value_goes_beside_it():
    pixels = PixelFormat(16, 16, False, 1.0, -1024.0, (0, 0))
    hu = np.full(SHAPE, -1024.0)
    hu[1], hu[2] = -1000.2, -1023.0
    stored = store(hu, None, pixels)
    assert stored.values[:3, 0].tolist() == [1, 24, 1]
    flat = PixelFormat(16, 16, True, 1.0, 0.0, (-1000, -1000))
    assert store(np.full(SHAPE, -1000.0), None, flat).values[0, 0] == -1000  # is air, reads as air


def test_what_the_bits_do_not_hold_gets_more_of_them():
    pixels = PixelFormat(16, 12, False, 1.0, -1024.0)
    hu = np.linspace(-1024, 3071, 20).reshape(SHAPE)
    assert store(hu, None, pixels).pixels == pixels
    hu[0, 0], hu[0, 1] = -1100, 3400
    assert store(hu, None, pixels).pixels == PixelFormat(16, 16, True, 1.0, -1024.0)


def test_what_no_bits_hold_is_clipped_and_counted():
    hu = np.full(SHAPE, 40.0)
    hu[0, :3] = 40_000, 33_000, -40_000
    stored = store(hu, None, PixelFormat(16, 16, False, 0.1, -1024.0))
    assert stored.clipped == 3
    assert stored.values[0, :3].tolist() == [32_767, 32_767, -32_768]
    assert (stored.pixels.slope, stored.pixels.intercept, stored.values[1, 1]) == (1.0, 0.0, 40)
