"""Every series of a folder, whole and in order."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from physfed_ray.data.dicom.series import OTHER_IMAGE
from physfed_ray.data.dicom.whole_series import find_series
from physfed_ray.errors import PhysFedError
from tests.data.conftest import WriteCT
from tests.data.dicom.multiframe import write_frames


def body(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, (20, 28)).astype(np.float32)


def test_what_training_leaves_out_is_denoised(tmp_path: Path, write_ct: WriteCT) -> None:
    for number, kernel in enumerate(("SOFT", "BONE"), 1):
        for z in range(3):
            write_ct(tmp_path / f"{kernel}{z}", body(z), series=kernel, z_mm=2.0 * z,
                     ConvolutionKernel=kernel, SeriesNumber=number)  # fmt: skip
    write_ct(tmp_path / "alone", body(9), patient="P2", series="alone", z_mm=1)
    write_ct(tmp_path / "lossy", body(8), patient="P3", series="l", LossyImageCompression="01")
    found = find_series(tmp_path)
    assert sorted(len(series.slices) for series in found.series) == [1, 1, 3, 3]
    assert (found.slices, found.files, found.left_out) == (8, 8, {})
    assert found.notes == {"lossy compression, let in": 1}
    names = [series.name for series in found.series]
    assert len(set(names)) == 4
    assert all(name.startswith("series-00") for name in names)
    assert not any(part in name for name in names for part in ("P1", "Secret"))
    assert [h.position_mm for h in found.series[0].slices] == sorted(
        h.position_mm for h in found.series[0].slices
    )


def test_phases_at_one_place_all_stay_and_copies_do_not(tmp_path: Path, write_ct: WriteCT) -> None:
    for phase in range(3):
        for z in range(4):
            write_ct(tmp_path / f"{phase}-{z}", body(10 * phase + z), z_mm=z,
                     AcquisitionNumber=phase, InstanceNumber=1 + z)  # fmt: skip
    (tmp_path / "copy").write_bytes((tmp_path / "1-2").read_bytes())
    lying = pydicom.dcmread(tmp_path / "0-0").SOPInstanceUID
    write_ct(tmp_path / "lying", body(99), z_mm=9, AcquisitionNumber=0, SOPInstanceUID=lying)
    found = find_series(tmp_path)
    (series,) = found.series
    assert found.left_out == {"duplicate slice": 1, OTHER_IMAGE: 1}
    assert len(series.slices) == 12
    acquired = [header.order[0] for header in series.slices]
    assert acquired == sorted(acquired)


def test_a_file_a_dicomdir_and_frames(tmp_path: Path, write_ct: WriteCT) -> None:
    singles = [pydicom.dcmread(write_ct(tmp_path / f"in/{z}", body(z), z_mm=z)) for z in range(3)]
    one = find_series(tmp_path / "in/1")
    assert (one.slices, one.files, one.series[0].in_frames) == (1, 1, False)
    path = write_frames(tmp_path / "frames", singles)
    frames = find_series(path)
    assert [header.frame_index for header in frames.series[0].slices] == [0, 1, 2]
    assert frames.series[0].in_frames
    assert frames.series[0].digest == find_series(path).series[0].digest
    assert frames.series[0].digest != one.series[0].digest


def test_one_image_of_two_patients_is_denoised_for_both(tmp_path: Path, write_ct: WriteCT) -> None:
    for patient in ("P1", "P2"):
        write_ct(tmp_path / patient, body(), patient=patient, SOPInstanceUID="1.2.3")
    assert len(find_series(tmp_path).series) == 2


def test_what_is_left_out_is_counted_and_nothing_is_an_error(
    tmp_path: Path, write_ct: WriteCT
) -> None:
    with pytest.raises(PhysFedError, match="does not exist"):
        find_series(tmp_path / "nowhere")
    write_ct(tmp_path / "a", body(), ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    (tmp_path / "text").write_text("no image")
    with pytest.raises(PhysFedError, match=r"1 derived image, 1 not DICOM\): add --derived"):
        find_series(tmp_path)
    found = find_series(tmp_path, derived=True)
    assert (found.left_out, found.notes) == ({"not DICOM": 1}, {"derived image, let in": 1})
