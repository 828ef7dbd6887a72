"""Words that say what an image is, and words that only seem to."""

import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from physfed_ray.data.dicom.names import is_dose_sheet, is_hounsfield, is_localizer
from physfed_ray.data.dicom.source import DicomSource

AXIAL = ["ORIGINAL", "PRIMARY", "AXIAL"]


@pytest.mark.parametrize(
    "description",
    [
        "LOW DOSE CHEST",
        "LowDose",
        "ULTRA LOW-DOSE",
        "Ultra_Low_Dose Report kernel",
        "Dose reduced",
        "reduced dose page 2 recon",
        "Quarter dose info",
        "25% dose record",
        "CareDose4D thorax",
        "Low dose summary series",
        "LDCT 1 mm",
        "dose modulation on",
        "Lung screening exam protocol 2",
        "",
    ],
)
def test_a_dose_in_words_is_no_dose_sheet(description: str):
    assert not is_dose_sheet(AXIAL, description)


@pytest.mark.parametrize(
    "description",
    ["Dose Report", "DOSE_INFO", "Patient Protocol", "Low dose CT: dose report", "Exam Summary",
     "Radiation Dose Record", "Dose Information"],
)  # fmt: skip
def test_a_dose_sheet_is_one_under_each_of_its_names(description: str):
    assert is_dose_sheet(["DERIVED", "SECONDARY"], description)


@pytest.mark.parametrize(
    ("value", "sheet"),
    [("DOSE_INFO", True), ("SCREEN SAVE", True), ("SCREENSAVE ", True), ("DOSE", True),
     ("CT_SOM5 PROT", True), ("LOW DOSE", False), ("LOWDOSE", False), ("LOW_DOSE ", False),
     ("ULTRA LOW DOSE", False), ("DOSE REDUCED", False), ("CT_SOM5 SPI", False)],
)  # fmt: skip
def test_an_image_type_is_a_sheet_only_as_a_whole(value: str, sheet: bool):
    assert is_dose_sheet([*AXIAL, value], "") == sheet


@pytest.mark.parametrize(
    "name", ["SURVIEW", "Topogram", "SCANOGRAM", "LOCALISER", "Localizer", "SCOUT", "scanogram "]
)
def test_planning_images_are_known_by_every_name(name: str):
    assert is_localizer(["ORIGINAL", "PRIMARY", name], "")
    assert is_localizer(AXIAL, f"{name} 0.6 T20f")
    assert is_localizer(["ORIGINAL", "PRIMARY"], f"Lat {name}")
    assert not is_localizer(AXIAL, f"thorax after {name}")
    assert not is_localizer(AXIAL, "Topographic scouting")


def test_the_reader_counts_them_so_and_keeps_low_dose(tmp_path, write_ct):
    for index, kind in enumerate(["SURVIEW", "SCANOGRAM", "LOCALISER"]):
        write_ct(tmp_path / kind, z_mm=index, ImageType=["ORIGINAL", "PRIMARY", kind])
    write_ct(
        tmp_path / "captured",
        SOPClassUID=SecondaryCaptureImageStorage,
        SeriesDescription="Surview dose info",
        ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"],
    )
    for index, kind in enumerate(["LOW DOSE", "ULTRA LOW DOSE", "LOWDOSE"]):
        write_ct(tmp_path / f"low{index}", z_mm=index, ImageType=[*AXIAL, kind])
    source = DicomSource(tmp_path)
    assert source.summary()["left_out"] == {"localizer": 4}
    assert source.slice_count("P1") == 3


@pytest.mark.parametrize(
    "scale", ["", "HU", "hu", " HU ", "Hounsfield", "HOUNSFIELD UNITS", "Houndsfield Unit", "US"]
)
def test_hounsfield_units_are_known_however_they_are_spelled(tmp_path, write_ct, scale: str):
    assert is_hounsfield(scale)
    write_ct(tmp_path / "a", RescaleType=scale)
    assert DicomSource(tmp_path).slice_count("P1") == 1


@pytest.mark.parametrize("scale", ["MGML", "HU_MOD", "Z_EFF", "ED", "PCT", "HUMAN"])
def test_other_scales_are_refused(scale: str):
    assert not is_hounsfield(scale)
