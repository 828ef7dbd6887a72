"""Which scanners are possible, and how they are normalised."""

from dataclasses import astuple, replace

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS, Protocol, select_presets
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
    assert [type(v) for v in astuple(protocol)] == [int, int, float, float, float, float, float]
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
