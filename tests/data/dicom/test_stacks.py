"""Stacks in one series are told apart, and slices without true positions are ordered."""

from pathlib import Path

import numpy as np
import pytest

from physfed_ray.data.dicom.source import DicomSource


def image(seed: float, shape: tuple[int, int] = (20, 28)) -> np.ndarray:
    return np.full(shape, float(seed), np.float32)


def positions(root: Path) -> tuple[float, ...]:
    return DicomSource(root).load("P1", None).positions_mm


TILTED = [1, 0, 0, 0, 0.97, 0.243]


@pytest.mark.parametrize("shift", [0.0, 2.5], ids=["same", "between"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
        ({"AcquisitionTime": "101500"}, {"AcquisitionTime": "101630.5"}),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
        ({"KVP": 80}, {"KVP": 140}),
        ({"SliceThickness": 1.0}, {"SliceThickness": 5.0}),
        ({"PixelSpacing": [0.5, 0.5]}, {"PixelSpacing": [0.9, 0.9]}),
        ({}, {"ImageOrientationPatient": TILTED}),
    ],
)
def test_two_stacks_in_one_series_are_not_interleaved(
    tmp_path: Path, write_ct, shift: float, first: dict, second: dict
):
    for index in range(5):
        z_mm = 5.0 * index
        write_ct(tmp_path / f"a{index}", image(1), z_mm=z_mm, InstanceNumber=index, **first)
        write_ct(
            tmp_path / f"b{index}", image(2), z_mm=z_mm + shift, InstanceNumber=index, **second
        )
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {"repeated series": 5}
    slices = source.load("P1", None).slices
    assert len({float(hu[0, 0]) for hu in slices}) == 1
    if "ImageOrientationPatient" not in second:
        assert slices[0][0, 0] == 1


def test_two_matrices_in_one_series_are_told_apart(tmp_path: Path, write_ct):
    for index in range(3):
        write_ct(tmp_path / f"a{index}", image(1), z_mm=index)
        write_ct(tmp_path / f"b{index}", image(1, (31, 17)), z_mm=index + 0.5)
    assert len(positions(tmp_path)) == 3


@pytest.mark.parametrize("clue", ["instance", "time"])
def test_two_passes_show_in_the_order_of_numbers_or_times(tmp_path: Path, write_ct, clue: str):
    for index in range(12):
        z_mm = 5.0 * (index % 6) + 2.5 * (index // 6)
        attributes = (
            {"InstanceNumber": index + 1}
            if clue == "instance"
            else {"InstanceNumber": 1, "AcquisitionTime": f"1015{index:02}.25"}
        )
        write_ct(tmp_path / f"{index}", image(index), z_mm=z_mm, **attributes)
    assert positions(tmp_path) == (0, 5, 10, 15, 20, 25)


def test_an_acquisition_for_every_slice_or_block_is_one_scan(tmp_path: Path, write_ct):
    for index in range(8):
        write_ct(tmp_path / f"a{index}", z_mm=40 - 5 * index, AcquisitionNumber=index // 2)
        write_ct(tmp_path / f"b{index}", z_mm=90 - 5 * index, AcquisitionNumber=20 + index)
    assert positions(tmp_path) == tuple(range(5, 45, 5)) + tuple(range(55, 95, 5))


def test_numbers_in_no_order_part_nothing(tmp_path: Path, write_ct):
    for index, number in enumerate(np.random.default_rng(1).permutation(20)):
        write_ct(tmp_path / f"{index}", z_mm=index, InstanceNumber=int(number))
    assert positions(tmp_path) == tuple(range(20))


def test_one_place_over_time_stays_one_slice(tmp_path: Path, write_ct):
    for index in range(6):
        write_ct(tmp_path / f"{index}", image(index), AcquisitionNumber=index, InstanceNumber=index)
    assert positions(tmp_path) == (0,)


@pytest.mark.parametrize("lost", [[0, 0, 7], None], ids=["constant", "missing"])
def test_lost_positions_fall_back_to_the_location(tmp_path: Path, write_ct, lost):
    for index in range(4):
        write_ct(
            tmp_path / f"{index}",
            image(index),
            ImagePositionPatient=lost,
            SliceLocation=30 - 2.5 * index,
            InstanceNumber=index,
        )
    volume = DicomSource(tmp_path).load("P1", None)
    assert volume.positions_mm == (22.5, 25, 27.5, 30)
    assert [hu[0, 0] for hu in volume.slices] == [3, 2, 1, 0]


@pytest.mark.parametrize("lost", [[0, 0, 7], None], ids=["constant", "missing"])
@pytest.mark.parametrize(
    ("further", "distance"),
    [
        ({}, 1),
        ({"SliceThickness": 3}, 3),
        ({"SliceThickness": 3, "SpacingBetweenSlices": 2}, 2),
        ({"SliceLocation": 0}, 1),
    ],
)
def test_and_then_to_the_instance_number(tmp_path, write_ct, lost, further, distance):
    for index in range(4):
        write_ct(
            tmp_path / f"{3 - index}",
            image(index),
            ImagePositionPatient=lost,
            InstanceNumber=10 + index,
            **further,
        )
    volume = DicomSource(tmp_path).load("P1", None)
    assert volume.positions_mm == tuple(distance * (10 + index) for index in range(4))
    assert [hu[0, 0] for hu in volume.slices] == [0, 1, 2, 3]


def test_one_lost_position_costs_one_slice_or_none(tmp_path: Path, write_ct):
    for index in range(5):
        write_ct(
            tmp_path / "a" / f"{index}",
            z_mm=index,
            **({"ImagePositionPatient": None} if index == 2 else {}),
        )
    source = DicomSource(tmp_path / "a")
    assert source.load("P1", None).positions_mm == (0, 1, 3, 4)
    assert source.summary()["left_out"] == {"no position": 1}
    for index in range(5):
        write_ct(
            tmp_path / "b" / f"{index}",
            z_mm=index,
            SliceLocation=index,
            **({"ImagePositionPatient": None} if index == 2 else {}),
        )
    assert positions(tmp_path / "b") == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelSpacing": [0.049, 0.049]}, "impossible pixel spacing"),
        ({"PixelSpacing": [0.5, 5.01]}, "impossible pixel spacing"),
        ({"PixelSpacing": [700, 700]}, "impossible pixel spacing"),
        ({"PixelSpacing": [0, 0]}, "no pixel spacing"),
        ({"PixelSpacing": [-0.7, 0.7]}, "no pixel spacing"),
    ],
)
def test_spacings_of_no_scanner_are_refused_by_name(tmp_path, write_ct, attributes, reason):
    write_ct(tmp_path / "good", z_mm=1)
    write_ct(tmp_path / "bad", **attributes)
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {reason: 1}
    assert source.slice_count("P1") == 1


@pytest.mark.parametrize("shape", [(8, 20), (20, 15), (16, 4097), (1, 1)])
def test_sizes_of_no_scanner_are_refused_by_name(tmp_path: Path, write_ct, shape):
    write_ct(tmp_path / "good", z_mm=1)
    write_ct(tmp_path / "bad", image(0, shape))
    assert DicomSource(tmp_path).summary()["left_out"] == {"impossible image size": 1}
