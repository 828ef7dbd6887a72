"""From stored values to HU: exact for every layout, air where padding is, holes nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physfed_ray.data.dicom.hounsfield import HIGHEST_HU, LARGEST_PADDING_HU, to_hu
from physfed_ray.data.dicom.pixel_format import PixelFormat
from physfed_ray.data.dicom.reasons import (
    AIR_ELSEWHERE,
    BEYOND_CT,
    MORE_BITS,
    PADDING_IN_TISSUE,
    PADDING_NOT_STORED,
    PADDING_UNTAGGED,
    WINDOWED,
    LeftOut,
)
from physfed_ray.data.grid import AIR_HU, place

SIGNED = PixelFormat(16, 16, signed=True, slope=1, intercept=0)
UNSIGNED = PixelFormat(16, 16, signed=False, slope=1, intercept=-1024)
TWELVE = PixelFormat(16, 12, signed=False, slope=1, intercept=-1024)
SIZE = 96


def thorax(level: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return (96, 96) whole HU: air, a body of noisy soft tissue, two lungs, a bone."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    hu = np.full((SIZE, SIZE), -1000.0)
    hu[(x / 36) ** 2 + (y / 26) ** 2 < 1] = 30
    for side in (-15, 15):
        hu[((x - side) / 9) ** 2 + (y / 14) ** 2 < 1] = -820
    hu[x**2 + (y - 18) ** 2 < 16] = 700
    return np.rint(hu + level + rng.normal(0, 12, hu.shape))


def corners(reach: float = 1.0) -> np.ndarray:
    """Mark what lies outside a circle, as a scanner pads it."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return x**2 + y**2 > (reach * SIZE / 2) ** 2


def stored(hu: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    """Return HU as the words of a file, with zeros in the unused bits."""
    value = np.rint((hu - pixels.intercept) / pixels.slope).astype(np.int64)
    value = np.clip(value, pixels.lowest, pixels.highest)
    return value & ((1 << pixels.bits_stored) - 1)


def as_read(hu: np.ndarray) -> np.ndarray:
    return np.where(hu < -1024, AIR_HU, hu).astype(np.float32)


def reason_of(words: np.ndarray, pixels: PixelFormat) -> str:
    with pytest.raises(LeftOut) as left_out:
        to_hu(words, pixels)
    return str(left_out.value)


def padded_with(pixels: PixelFormat, first: int, last: int | None = None) -> PixelFormat:
    return PixelFormat(
        pixels.bits_allocated,
        pixels.bits_stored,
        pixels.signed,
        pixels.slope,
        pixels.intercept,
        (first, first if last is None else last),
    )


layouts = st.builds(
    lambda allocated, stored, signed, slope, intercept: PixelFormat(
        allocated, min(stored, allocated), signed, slope, intercept
    ),
    st.sampled_from([16, 32]),
    st.integers(12, 32),
    st.booleans(),
    st.sampled_from([1.0, 0.5, 2.0, 1.25]),
    st.sampled_from([-1024.0, -1000.0, -1024.5]),
)


@given(layouts, st.integers(0, 2**32 - 1), st.booleans())
def test_any_layout_gives_the_exact_hu(pixels: PixelFormat, seed: int, extend: bool) -> None:
    words = stored(np.clip(thorax(seed=seed), pixels.hu(pixels.lowest), None), pixels)
    value = words - (((words >> (pixels.bits_stored - 1)) << pixels.bits_stored) * pixels.signed)
    if extend and pixels.signed:
        words = value & ((1 << pixels.bits_allocated) - 1)  # the sign fills the unused bits
    words = words.astype(f"u{pixels.bits_allocated // 8}")
    hu, notes = to_hu(words, pixels)
    np.testing.assert_array_equal(hu, as_read(value * pixels.slope + pixels.intercept))
    assert notes == ()
    assert hu.dtype == np.float32
    also, _ = to_hu(words.view(f"i{pixels.bits_allocated // 8}"), pixels)
    np.testing.assert_array_equal(also, hu)


@settings(max_examples=300)
@given(
    st.sampled_from([SIGNED, UNSIGNED, TWELVE]),
    st.integers(-70_000, 70_000),
    st.one_of(st.none(), st.integers(-70_000, 70_000)),
    st.booleans(),
)
def test_no_tag_makes_a_hole_in_tissue(
    pixels: PixelFormat, first: int, last: int | None, shown: bool
) -> None:
    body = thorax()
    if shown and pixels.holds(first) and -900 < pixels.hu(first) < 3000:
        body[40:44, 20:30] = pixels.hu(first)  # so that tissue has the value
    hu, _ = to_hu(stored(body, pixels), padded_with(pixels, first, last))
    expected = stored_hu(body, pixels)
    tissue = expected > LARGEST_PADDING_HU
    np.testing.assert_array_equal(hu[tissue], expected[tissue])
    assert (hu[~tissue] <= LARGEST_PADDING_HU).all()


def stored_hu(hu: np.ndarray, pixels: PixelFormat) -> np.ndarray:
    return as_read(np.clip(hu, pixels.hu(pixels.lowest), pixels.hu(pixels.highest)))


@pytest.mark.parametrize(
    ("pixels", "tag", "word"),
    [
        (SIGNED, -2000, -2000),
        (SIGNED, 63536, -2000),
        (UNSIGNED, 63536, 63536),
        (UNSIGNED, -2000, 63536),
        (UNSIGNED, 0, 0),
        (TWELVE, -2000, 63536),
        (TWELVE, 63536, 63536),
        (PixelFormat(16, 12, True, 1, 0), 2096, 2096),
        (PixelFormat(16, 12, True, 1, 0), -2000, 63536),
        (TWELVE, 4095, 4095),
        (TWELVE, 1024, 1024),
    ],
)
@pytest.mark.parametrize("tagged", [True, False])
def test_padding_around_a_circle_is_air(
    pixels: PixelFormat, tag: int, word: int, tagged: bool
) -> None:
    words, outside = stored(thorax(), pixels), corners()
    words[outside] = word & 0xFFFF
    hu, notes = to_hu(words, padded_with(pixels, tag) if tagged else pixels)
    assert (hu[outside] <= LARGEST_PADDING_HU).all()
    expected = stored_hu(thorax(), pixels)
    inside = ~outside & (expected > LARGEST_PADDING_HU)
    np.testing.assert_array_equal(hu[inside], expected[inside])
    # Where pixels of the body happen to have the value of the tag, they stay, and it is noted.
    assert set(notes) <= {PADDING_IN_TISSUE if tagged else PADDING_UNTAGGED}


def test_untagged_padding_does_not_shrink_the_body() -> None:
    words = stored(thorax(), UNSIGNED)
    words[corners()] = 63536
    hu, notes = to_hu(words, UNSIGNED)
    assert notes == (PADDING_UNTAGGED,)
    clean = place(stored_hu(thorax(), UNSIGNED), (4, 4), 64, "body")
    padded = place(hu, (4, 4), 64, "body")
    assert padded.scale == pytest.approx(clean.scale)
    np.testing.assert_array_equal(padded.body, clean.body)


def test_a_tag_that_tissue_has_is_ignored_and_noted() -> None:
    words = stored(thorax(), SIGNED)
    for tag in (30, 0, 41):
        hu, notes = to_hu(words, padded_with(SIGNED, tag))
        np.testing.assert_array_equal(hu, as_read(thorax()))
        assert notes == (PADDING_IN_TISSUE,)
    hu, notes = to_hu(words, padded_with(SIGNED, -2000, 50))
    assert notes == (PADDING_IN_TISSUE,)
    assert (hu[thorax() > -900] == thorax()[thorax() > -900]).all()
    assert (hu[thorax() < -960] == AIR_HU).all()


def test_a_tag_that_the_pixels_cannot_hold_is_no_bone() -> None:
    body = thorax()
    body[70:74, 46:50] = -2000 + 4096 - 1024  # what the 12 lowest bits of -2000 mean: dense bone
    hu, notes = to_hu(stored(body, TWELVE), padded_with(TWELVE, -2000))
    np.testing.assert_array_equal(hu, stored_hu(body, TWELVE))
    assert notes == (PADDING_NOT_STORED,)


def test_metal_that_saturates_is_no_padding() -> None:
    body = thorax()
    body[30:50, 40:56] = 3071
    for pixels in (TWELVE, padded_with(TWELVE, 4095)):
        hu, _ = to_hu(stored(body, pixels), pixels)
        assert (hu[30:50, 40:56] == 3071).all()


@pytest.mark.parametrize("crop", [slice(36, 60), slice(30, 66)])
def test_a_crop_that_the_body_fills_stays(crop: slice) -> None:
    rng = np.random.default_rng(1)
    tissue = np.where(rng.random((SIZE, SIZE)) < 0.2, -100, 50) + rng.normal(0, 10, (SIZE, SIZE))
    tissue[44:52, 44:52] = rng.normal(1100, 250, (8, 8))
    hu = np.rint(tissue)[crop, crop]
    got, notes = to_hu(stored(hu, SIGNED), SIGNED)
    np.testing.assert_array_equal(got, hu)
    assert notes == ()


def test_flat_slices_stay() -> None:
    for level in (-1000, 0, 40):
        words = stored(np.full((20, 28), float(level)), SIGNED)
        assert (to_hu(words, SIGNED)[0] == level).all()


@given(st.integers(990, 1040), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_lost_offset_is_told(offset: int, clipped: bool, seed: int) -> None:
    body = thorax(offset, seed)
    assert reason_of(stored(np.maximum(body, 0) if clipped else body, SIGNED), SIGNED) == (
        AIR_ELSEWHERE
    )


def test_a_lost_offset_with_tagged_zeros_around_is_told() -> None:
    body = np.maximum(thorax(1024), 0)
    body[corners()] = 0
    assert reason_of(stored(body, SIGNED), padded_with(SIGNED, 0)) == AIR_ELSEWHERE


def test_padding_that_would_be_air_does_not_hide_a_lost_offset() -> None:
    body = np.maximum(thorax(1024), 0)
    body[corners()] = -1024
    assert reason_of(stored(body, SIGNED), SIGNED) == AIR_ELSEWHERE


def test_an_offset_taken_twice_is_told() -> None:
    assert reason_of(stored(thorax(-1024), SIGNED), SIGNED) == AIR_ELSEWHERE


def test_a_limb_in_a_wide_frame_without_offset_is_told() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:SIZE, :SIZE] - 48
    hu = rng.normal(0, 10, (SIZE, SIZE)) + 1030 * (x**2 + y**2 < 12**2)
    assert reason_of(stored(hu, SIGNED), SIGNED) == AIR_ELSEWHERE


@pytest.mark.parametrize("pixels", [SIGNED, UNSIGNED])
@pytest.mark.parametrize(("level", "width"), [(40, 400), (-600, 1500), (300, 2000)])
def test_grey_levels_are_told(pixels: PixelFormat, level: int, width: int) -> None:
    grey = np.clip(np.rint((thorax() - level + width / 2) / width * 255), 0, 255)
    assert reason_of(grey.astype(np.int64), pixels) in (WINDOWED, AIR_ELSEWHERE)


def test_negatives_are_told() -> None:
    assert reason_of(4095 - stored(thorax(), TWELVE), TWELVE) == BEYOND_CT


def test_values_beyond_any_ct_are_told() -> None:
    words = stored(thorax(), UNSIGNED)
    words[45:48, 45:48] = 63536
    assert reason_of(words, UNSIGNED) == BEYOND_CT
    rng = np.random.default_rng(0)
    assert reason_of(rng.integers(0, 65536, (SIZE, SIZE)), UNSIGNED) == BEYOND_CT


@given(st.floats(3072, HIGHEST_HU))
def test_metal_on_the_extended_scale_stays(level: float) -> None:
    body = thorax()
    body[30:34, 40:44] = np.rint(level)
    hu, notes = to_hu(stored(body, UNSIGNED), UNSIGNED)
    np.testing.assert_array_equal(hu, stored_hu(body, UNSIGNED))
    assert notes == ()


def test_bits_above_the_stored_ones_are_an_overlay_or_are_told() -> None:
    words = stored(thorax(), TWELVE)
    drawn = words | (np.random.default_rng(0).random(words.shape) < 0.1) * (1 << 13)
    assert reason_of(drawn, TWELVE) == MORE_BITS
    overlaid = PixelFormat(16, 12, False, 1, -1024, None, overlay_bits=1 << 13)
    np.testing.assert_array_equal(to_hu(drawn, overlaid)[0], stored_hu(thorax(), TWELVE))


def test_a_header_with_too_few_bits_is_told() -> None:
    body = thorax()
    body[30:34, 40:44] = 5000  # 12 bits of this are 904: bone in the place of metal
    words = stored(body, UNSIGNED)
    assert reason_of(words, TWELVE) == MORE_BITS
