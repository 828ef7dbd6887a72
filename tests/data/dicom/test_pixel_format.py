"""What a header says of pixels is believed where it can be: the rest is left out by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from physfed_ray.data.dicom.files import quiet_pydicom
from physfed_ray.data.dicom.pixel_format import PixelFormat, read_format
from physfed_ray.data.dicom.reasons import (
    AIR_ELSEWHERE,
    BAD_SCALE,
    COLOUR,
    EIGHT_BITS,
    HIGH_BIT,
    NO_FORMAT,
    NO_HU,
    LeftOut,
)


def header(**changes: object) -> Dataset:
    dataset = Dataset()
    values = {
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    with quiet_pydicom():
        for keyword, value in (values | changes).items():
            if value is not None:
                setattr(dataset, keyword, value)
    return dataset


def test_a_good_header_is_read() -> None:
    assert read_format(header()) == PixelFormat(16, 12, False, 1.0, -1024.0)
    padded = read_format(header(PixelPaddingValue=0, PixelPaddingRangeLimit=4, HighBit=None))
    assert padded.padding == (0, 4)
    assert read_format(header(PixelPaddingValue=7)).padding == (7, 7)
    assert read_format(header(PhotometricInterpretation="MONOCHROME1")) == read_format(header())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"RescaleSlope": None}, NO_HU),
        ({"RescaleIntercept": None}, NO_HU),
        ({"ModalityLUTSequence": [Dataset()]}, NO_HU),
        ({"RescaleSlope": 0}, BAD_SCALE),
        ({"RescaleSlope": -1}, BAD_SCALE),
        ({"RescaleSlope": "inf"}, BAD_SCALE),
        ({"RescaleSlope": "nan"}, BAD_SCALE),
        ({"RescaleSlope": 1e9}, BAD_SCALE),
        ({"RescaleSlope": 1e-9}, BAD_SCALE),
        ({"RescaleSlope": [1, 2]}, BAD_SCALE),
        ({"RescaleIntercept": "nan"}, BAD_SCALE),
        ({"RescaleIntercept": "-inf"}, BAD_SCALE),
        ({"RescaleIntercept": -1e9}, BAD_SCALE),
        ({"RescaleIntercept": 1e9}, AIR_ELSEWHERE),
        ({"RescaleIntercept": 0}, AIR_ELSEWHERE),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, EIGHT_BITS),
        ({"BitsStored": 8, "HighBit": 7}, EIGHT_BITS),
        ({"HighBit": 15}, HIGH_BIT),
        ({"HighBit": 10}, HIGH_BIT),
        ({"BitsStored": None}, NO_FORMAT),
        ({"BitsStored": 17, "HighBit": 16}, NO_FORMAT),
        ({"BitsStored": 0}, NO_FORMAT),
        ({"BitsAllocated": 12}, NO_FORMAT),
        ({"PixelRepresentation": None}, NO_FORMAT),
        ({"PixelRepresentation": 2}, NO_FORMAT),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, COLOUR),
    ],
)
def test_what_cannot_be_trusted_is_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(LeftOut) as left_out:
        read_format(header(**changes))
    assert str(left_out.value) == reason


def test_a_scale_that_is_no_number_is_named() -> None:
    for text in ("one", "1,0", "", " "):
        with pytest.raises(LeftOut) as left_out:
            read_format(header_values(RescaleSlope=text))  # type: ignore[arg-type]
        assert str(left_out.value) in (NO_HU, BAD_SCALE)


def header_values(**changes: object) -> dict[str, object]:
    """Return a header of which pydicom would refuse to hold some values."""
    dataset = header()
    return {element.keyword: element.value for element in dataset} | changes


def test_overlays_in_the_pixels_are_known() -> None:
    dataset = header()
    dataset.add_new((0x6000, 0x0102), "US", 12)
    dataset.add_new((0x6002, 0x0102), "US", 0)
    dataset.add_new((0x6002, 0x3000), "OW", b"\0\0")  # this one has data of its own
    assert read_format(dataset).overlay_bits == 1 << 12


@given(st.integers(9, 32), st.booleans(), st.integers(-(2**40), 2**40))
def test_same_bits_are_within_reach_and_congruent(bits: int, signed: bool, number: int) -> None:
    pixels = PixelFormat(32, bits, signed)
    meant = pixels.same_bits(number)
    assert pixels.holds(meant)
    assert (meant - number) % (1 << bits) == 0
    if pixels.holds(number):
        assert meant == number


@given(
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.integers(-2, 40),
    st.integers(-2, 40),
)
def test_a_header_that_is_accepted_can_show_air_and_bone(
    slope: float, intercept: float, stored: int, high: int
) -> None:
    values = header_values(
        RescaleSlope=slope, RescaleIntercept=intercept, BitsStored=stored, HighBit=high
    )
    try:
        pixels = read_format(values)  # type: ignore[arg-type]
    except LeftOut:
        return
    assert np.isfinite([pixels.slope, pixels.intercept]).all()
    assert pixels.hu(pixels.lowest) <= -200
    assert pixels.hu(pixels.highest) >= 500
    assert 8 < pixels.bits_stored == high + 1 <= 16
