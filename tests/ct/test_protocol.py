"""Which scanners are possible, and how they are normalised."""

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from physfed_ray.ct.protocol import FURTHER, LIMITS, PRESETS, Protocol, further_of, select_presets
from physfed_ray.errors import PhysFedError

PAPER_1 = PRESETS["paper-1"]


def test_normalised_paper_1_has_the_published_check_values() -> None:
    expected = [0.8333, 0.5000, 0.2889, 0.3615, 0.2500, 0.3333, 0.2857]
    g = PAPER_1.normalised()
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, expected, atol=5e-5)


def test_paper_4_pixel_lies_outside_the_unit_interval() -> None:
    assert PRESETS["paper-4"].normalised()[2] == pytest.approx(1.1111, abs=5e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_the_field_of_view_does_not_depend_on_the_image_size(name: str) -> None:
    protocol = PRESETS[name]
    assert protocol.pixel_at(256) == protocol.pixel_mm
    assert protocol.pixel_at(96) * 96 == pytest.approx(2 * protocol.field_radius_mm)


def test_the_presets_are_eight_of_the_paper_and_four_unseen_in_table_order() -> None:
    paper = [f"paper-{i}" for i in range(1, 9)]
    unseen = [f"unseen-{i}" for i in range(1, 5)]
    assert list(PRESETS) == paper + unseen
    assert list(select_presets("paper-*")) == paper
    assert list(select_presets("unseen-[24]")) == ["unseen-2", "unseen-4"]
    assert len(set(PRESETS.values())) == 12


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(PhysFedError, match=r"'papr-3'.*did you mean 'paper-3'"):
        select_presets("papr-3")


def test_numbers_become_plain_python_numbers() -> None:
    values = [np.int64(1024), np.int32(512), *map(np.float32, (0.5, 0.75, 250, 250)), 100_000]
    protocol = Protocol(*values)
    kinds = [int, int, float, float, float, float, float, str, float]
    assert [type(v) for v in astuple(replace(protocol, arc_deg=np.int64(200)))] == kinds
    assert hash(protocol) == hash(Protocol(1024, 512, 0.5, 0.75, 250.0, 250.0, 1e5))


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        ({"views": 0}, "views=0"),
        ({"views": 12.5}, r"views=12\.5"),
        ({"views": True}, "views=True"),
        ({"bins": 1}, "bins=1"),
        ({"pixel_mm": -0.66}, r"pixel_mm=-0\.66"),
        ({"bin_mm": float("nan")}, "bin_mm=nan"),
        ({"detector_mm": float("inf")}, "detector_mm=inf"),
        ({"photons": "1e5"}, "photons='1e5'"),
        ({"photons": None}, "photons=None"),
        ({"source_mm": 80.0}, r"source_mm=80 .*84\.48 mm .*0\.66"),
        ({"detector_mm": 84.0}, r"detector_mm=84 .*84\.48 mm .*0\.66"),
        ({"arc_deg": 0}, "arc_deg=0 "),
        ({"arc_deg": 360.5}, r"arc_deg=360\.5 is more than a full circle"),
        ({"arc_deg": True}, "arc_deg=True"),
        ({"detector": "round"}, "detector='round' is not possible; give flat or arc"),
        ({"detector": None}, "detector=None"),
        ({"detector": "arc", "bins": 478}, r"478 bins .*radius 84\.35 mm.*at least 479 bins"),
        ({"detector": "arc", "bin_mm": 3.1}, "spans 182 degrees .*below 180"),
        ({"bins": 490}, r"490 bins x 0\.72 mm .*250.*250.*radius 83\.18 mm.*84\.48 mm"),
    ],
)
def test_an_impossible_protocol_is_refused_with_its_numbers(
    change: dict[str, object], numbers: str
) -> None:
    with pytest.raises(PhysFedError, match=numbers):
        replace(PAPER_1, **change)


def test_the_refusal_names_the_fewest_bins_that_cover_the_image() -> None:
    with pytest.raises(PhysFedError, match="at least 499 bins"):
        replace(PAPER_1, bins=490)
    assert replace(PAPER_1, bins=499).covered_radius_mm >= PAPER_1.field_radius_mm
    with pytest.raises(PhysFedError):
        replace(PAPER_1, bins=498)


def test_the_covered_radius_is_the_distance_of_the_outermost_ray() -> None:
    half, reach = PAPER_1.bins * PAPER_1.bin_mm / 2, PAPER_1.source_mm + PAPER_1.detector_mm
    angle = np.arctan2(half, reach)
    assert PAPER_1.covered_radius_mm == pytest.approx(PAPER_1.source_mm * np.sin(angle))


ARC = replace(PAPER_1, detector="arc")


def test_a_curved_detector_is_a_circle_around_the_source() -> None:
    """Its outermost ray turns by half its length over its radius, 500 mm."""
    half_fan = PAPER_1.bins * PAPER_1.bin_mm / 2 / 500
    assert ARC.covered_radius_mm == pytest.approx(250 * math.sin(half_fan))
    assert ARC.covered_radius_mm > PAPER_1.covered_radius_mm
    np.testing.assert_allclose(np.diff(ARC.ray_angles), PAPER_1.bin_mm / 500)
    assert ARC.ray_angles[-1] == pytest.approx(half_fan - PAPER_1.bin_mm / 1000)
    np.testing.assert_allclose(np.tan(PAPER_1.ray_angles), ARC.ray_angles, rtol=1e-12)
    assert ARC.virtual_bin_mm == PAPER_1.virtual_bin_mm == pytest.approx(0.36)


def test_views_are_equally_spaced_over_the_arc_from_0_on() -> None:
    assert replace(PAPER_1, views=4).view_angles == pytest.approx(np.arange(4) * math.pi / 2)
    third = replace(PAPER_1, views=3, arc_deg=120).view_angles
    np.testing.assert_allclose(np.rad2deg(third), [0, 40, 80])


@given(
    detector=st.sampled_from(["flat", "arc"]),
    source=st.floats(1.0001, 5),
    distance=st.floats(1.0001, 5),
    bin_mm=st.floats(0.1, 20),
)
def test_the_refusal_names_the_fewest_bins_that_cover_the_image_at_any_distance(
    detector: str, source: float, distance: float, bin_mm: float
) -> None:
    lengths = (1.0, bin_mm, 128 * source, 128 * distance, 1e5, detector)
    half = math.asin(1 / source)
    needed = (half if detector == "arc" else math.tan(half)) * 128 * (source + distance) * 2
    assume(abs(needed / bin_mm - round(needed / bin_mm)) > 1e-6)  # rounding decides
    assume(needed / bin_mm > 3)
    fewest = math.ceil(needed / bin_mm)
    assume(fewest <= LIMITS["bins"][1])
    assume(detector == "flat" or fewest * bin_mm < math.pi * 128 * (source + distance))
    assert Protocol(8, fewest, *lengths).covered_radius_mm >= 128
    with pytest.raises(PhysFedError, match=f"at least {fewest} bins"):
        Protocol(8, fewest - 1, *lengths)


def test_g_holds_a_further_entry_only_where_some_protocol_needs_it() -> None:
    short = replace(ARC, arc_deg=240)
    assert further_of([PAPER_1, PRESETS["paper-2"]]) == ()
    assert further_of([PAPER_1, replace(PAPER_1, arc_deg=240)]) == ("arc_deg",)
    assert further_of(iter([PAPER_1, ARC])) == ("detector",)
    further = further_of([short, PAPER_1])
    assert further == ("detector", "arc_deg") == tuple(FURTHER)
    seven = PAPER_1.normalised()
    np.testing.assert_array_equal(PAPER_1.normalised(further), [*seven, 0, 1])
    np.testing.assert_allclose(short.normalised(further), [*seven, 1, 2 / 3])
    assert short.normalised(further).dtype == np.float32


def test_a_g_that_cannot_tell_a_protocol_is_refused_in_one_sentence() -> None:
    with pytest.raises(PhysFedError, match=r"detector=arc cannot be told .* detector=flat alone"):
        ARC.normalised(("arc_deg",))
    with pytest.raises(PhysFedError, match=r"arc_deg=200 .* arc_deg=360 alone; train one"):
        replace(PAPER_1, arc_deg=200).normalised()


def test_further_fields_are_shown_only_where_they_are_unusual() -> None:
    assert list(PAPER_1.values()) == [
        "views", "bins", "pixel_mm", "bin_mm", "source_mm", "detector_mm", "photons",
    ]  # fmt: skip
    short = replace(ARC, arc_deg=240)
    assert short.values() == PAPER_1.values() | {"detector": "arc", "arc_deg": 240}
    for protocol in (PAPER_1, ARC, short):
        assert Protocol(**protocol.values()) == protocol
