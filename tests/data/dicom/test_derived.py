"""Derived CT images: what is in them, who can read them, and that they hold what they were made of.

The validator compares with the source: what a hospital's file lacks is not ours to invent.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from physfed_ray.data.dicom.derived import Model, derive, read_source, write_derived
from physfed_ray.data.dicom.files import read_slice
from physfed_ray.data.dicom.frames import read_image
from physfed_ray.errors import DivergedError
from tests.data.dicom.multiframe import write_frames
from tests.data.dicom.test_values import body
from tests.data.dicom.validator import errors, needs_dciodvfy

MODEL = Model(
    name="SCAN-PhysFed, client c1, round 30",
    version="0.2.0",
    run_hash="5f" * 32,
    purpose="Noise of low-dose CT removed by a network",
)
COMPLETE: dict[str, Any] = {
    "AccessionNumber": "", "StudyTime": "101112", "ReferringPhysicianName": "", "StudyID": "7",
    "PatientBirthDate": "", "PatientSex": "", "PatientPosition": "HFS", "SliceThickness": 5,
    "Manufacturer": "Maker", "AcquisitionNumber": 1, "KVP": 120, "ConvolutionKernel": "B30f",
    "PositionReferenceIndicator": "", "SeriesDescription": "Abdomen", "ContentDate": "20200101",
    "ContentTime": "101213", "AcquisitionDate": "20200101", "AcquisitionTime": "101213",
    "RescaleType": "HU", "WindowCenter": "40", "WindowWidth": "400",
    "WindowCenterWidthExplanation": "SOFT", "BodyPartExamined": "ABDOMEN",
}  # fmt: skip
"""With this the slice of ``write_ct`` is a CT image against which the validator has nothing."""


def made(path: Path, out: Path, hu: np.ndarray | None = None, **options: Any) -> Dataset:
    """Derive from a file, identically unless an image is given, and return what was written."""
    frame = options.get("frame")
    source = read_source(path, frame)
    hu = read_image(path, frame)[0] if hu is None else hu
    write_derived(derive(source, hu, MODEL, **options), out)
    return pydicom.dcmread(out)


def changed(hu: np.ndarray) -> np.ndarray:
    """Return what a network could make of an image: smoother, and no whole numbers."""
    return hu + np.random.default_rng(1).uniform(-9, 9, hu.shape).astype(np.float32)


def private(value: str) -> Dataset:
    item = Dataset()
    item.CodeMeaning = "public"
    item.private_block(0x0029, "MAKER", create=True).add_new(1, "LO", value)
    return item


def icon() -> Dataset:
    item = Dataset()
    item.Rows = item.Columns = 2
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit, item.PixelRepresentation, item.PixelData = 7, 0, b"\1\2\3\4"
    return item


def voi_lut() -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 16])
    item.add_new("LUTData", "OW", bytes(512))
    return item


def rewrite(path: Path, **attributes: Any) -> Path:
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"
KEPT = {"FrameOfReferenceUID", "SeriesNumber", "Modality"}
"""What ``write_ct`` writes and a case takes away."""
ODD: dict[str, dict[str, Any]] = {
    "complete": {},
    "bare": dict.fromkeys((*COMPLETE, "Modality")),
    "no frame of reference": {"FrameOfReferenceUID": None},
    "no series number": {"SeriesNumber": None},
    "largest series number": {"SeriesNumber": 2**31 - 1},
    "12 bits": {"BitsStored": 12, "HighBit": 11},
    "twelve signed bits": {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1,
                           "RescaleIntercept": 0},
    "signed": {"PixelRepresentation": 1, "RescaleIntercept": 0},
    "fine slope": {"RescaleSlope": "0.1"},
    "coarse slope": {"RescaleSlope": "2", "RescaleIntercept": "-1025"},
    "odd slope": {"RescaleSlope": "1.000000001", "RescaleIntercept": "-1.0240e3"},
    "monochrome 1": {"PhotometricInterpretation": "MONOCHROME1"},
    "padding": {"PixelPaddingValue": 0},
    "padding not stored": {"PixelPaddingValue": 63536, "BitsStored": 12, "HighBit": 11},
    "range of padding": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 5},
    "lossy before": {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12",
                     "LossyImageCompressionMethod": "ISO_15444_1"},
    "derived before": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
    "short type": {"ImageType": ["ORIGINAL", "PRIMARY"]},
    "many windows": {"WindowCenter": ["40", "-600"], "WindowWidth": ["400", "1500"],
                     "WindowCenterWidthExplanation": ["SOFT", "LUNG"]},
    "table instead of a window": {"VOILUTSequence": [voi_lut()]},
    "icon": {"IconImageSequence": [icon()]},
    "values": {"SmallestImagePixelValue": 0, "LargestImagePixelValue": 3000,
               "SmallestPixelValueInSeries": 0},
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("same", [True, False], ids=["identity", "changed"])
@needs_dciodvfy
def test_the_validator_has_nothing_against_it_that_it_has_not_against_the_source(
    tmp_path: Path, write_ct, case: str, same: bool
):
    attributes = {k: v for k, v in (COMPLETE | ODD[case]).items() if v is not None or k in KEPT}
    path = write_ct(tmp_path / "in.dcm", body(), **attributes)
    hu = read_slice(path)[0]
    wanted = hu if same else changed(hu)
    written = made(path, tmp_path / "out.dcm", wanted)
    assert errors(tmp_path / "out.dcm") - errors(path) == set()
    if same:
        assert (written.pixel_array == pydicom.dcmread(path).pixel_array).all()
    read = read_slice(tmp_path / "out.dcm")[0]
    # Padding stays, and what is not padding goes beside it.
    air = (wanted < -1024) | (np.minimum(body(), wanted) < -1017) & ("padding" in case)
    slope = float(written.RescaleSlope)
    assert np.abs(read - wanted)[~air].max() <= slope / 2 + 1e-3


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless,
     DeflatedExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda syntax: syntax.keyword,
)  # fmt: skip
@needs_dciodvfy
def test_every_encoding_becomes_explicit_little_endian(tmp_path: Path, write_ct, syntax: UID):
    plane = np.arange(288, dtype=np.uint8).tobytes()
    path = write_ct(tmp_path / "in.dcm", body(), syntax=syntax, PixelPaddingValue=0, **COMPLETE)
    dataset = pydicom.dcmread(path)
    for tag, value in ((0x10, 48), (0x11, 48), (0x40, "G"), (0x50, [1, 1]), (0x100, 1), (0x102, 0)):
        vr = pydicom.datadict.dictionary_VR(0x60000000 + tag)
        dataset.add_new(0x60000000 + tag, vr, value)
    swapped = np.frombuffer(plane, "<u2").astype(">u2").tobytes()
    dataset.add_new(0x60003000, "OW", swapped if syntax == ExplicitVRBigEndian else plane)
    dataset.add_new(0x60001302, "DS", "12.5")
    dataset.save_as(path)
    written = made(path, tmp_path / "out.dcm")
    assert written.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert written[0x60003000].value == plane
    assert (0x6000, 0x1302) not in written
    assert "LossyImageCompression" not in written
    np.testing.assert_array_equal(read_slice(tmp_path / "out.dcm")[0], body())
    if syntax != DeflatedExplicitVRLittleEndian:  # The validator does not inflate.
        assert errors(tmp_path / "out.dcm") - errors(path) == set()


@needs_dciodvfy
def test_the_validator_on_a_complete_slice_has_nothing_at_all(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), **COMPLETE)
    made(path, tmp_path / "out.dcm")
    assert errors(path) == errors(tmp_path / "out.dcm") == set()


def test_the_same_source_and_model_make_the_same_file(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), **COMPLETE)
    for name in "ab":
        made(path, tmp_path / name, changed(body()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "in.dcm"]


def test_uids_are_new_and_follow_from_source_and_model(tmp_path: Path, write_ct):
    first, second = (
        read_source(write_ct(tmp_path / f"{n}.dcm", body(n), z_mm=n, InstanceNumber=n + 1))
        for n in (0, 1)
    )
    other = Model(MODEL.name, MODEL.version, "a0" * 32, MODEL.purpose)
    images = [derive(s, body(), model) for model in (MODEL, other) for s in (first, second)]
    assert len({image.SOPInstanceUID for image in images} | {first.SOPInstanceUID}) == 5
    a, b, c, d = (image.SeriesInstanceUID for image in images)
    assert a == b != c == d
    for image, source in zip(images, (first, second) * 2, strict=True):
        assert image.SeriesInstanceUID != source.SeriesInstanceUID
        assert UID(image.SOPInstanceUID).is_valid
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        for same in ("StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient",
                     "ImageOrientationPatient", "PixelSpacing", "InstanceNumber", "StudyDate",
                     "PatientName", "PatientID"):  # fmt: skip
            assert image[same].value == source[same].value


def test_a_source_without_uids_still_gives_each_image_its_own(tmp_path: Path, write_ct):
    paths = [rewrite(write_ct(tmp_path / str(n), body(n)), SOPInstanceUID=None) for n in (0, 1)]
    images = [derive(read_source(path), read_slice(path)[0], MODEL) for path in paths]
    assert images[0].SOPInstanceUID != images[1].SOPInstanceUID
    assert "SourceImageSequence" not in images[0]  # It cannot be named.


def test_what_it_says_of_its_making(tmp_path: Path, write_ct):
    path = write_ct(
        tmp_path / "in.dcm", body(), ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]
    )
    source = pydicom.dcmread(path)
    written = made(path, tmp_path / "out.dcm")
    assert list(written.ImageType) == ["DERIVED", "PRIMARY", "AXIAL", "HELIX"]
    assert MODEL.purpose in written.DerivationDescription
    assert MODEL.run_hash in written.DerivationDescription
    assert written.DerivationCodeSequence[0].CodeValue == "113087"
    (reference,) = written.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == CTImageStorage
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "ReferencedFrameNumber" not in reference
    (equipment,) = written.ContributingEquipmentSequence
    assert equipment.ManufacturerModelName == MODEL.name
    assert list(equipment.SoftwareVersions) == [MODEL.version, MODEL.run_hash]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_an_image_that_was_derived_before_keeps_its_history(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), ImageType=["DERIVED", "SECONDARY", "MPR", "bad!"])
    once = made(path, tmp_path / "once.dcm")
    twice = made(tmp_path / "once.dcm", tmp_path / "twice.dcm")
    assert list(twice.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert len(twice.DerivationCodeSequence) == len(twice.ContributingEquipmentSequence) == 2
    assert [item.ReferencedSOPInstanceUID for item in twice.SourceImageSequence] == [
        once.SOPInstanceUID
    ]


def test_what_is_private_or_no_longer_holds_is_gone_at_every_depth(tmp_path: Path, write_ct):
    path = write_ct(
        tmp_path / "in.dcm", body(), **COMPLETE, IconImageSequence=[icon()],
        InstanceCreationDate="20200101", SmallestPixelValueInSeries=1,
        RequestAttributesSequence=[private("Secret")],
    )  # fmt: skip
    source = pydicom.dcmread(path)
    source.private_block(0x0029, "MAKER", create=True).add_new(1, "LO", "Secret")
    source.save_as(path)
    made(path, tmp_path / "out.dcm")
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert not [e for e in written.iterall() if e.tag.is_private]
    assert written.RequestAttributesSequence[0].CodeMeaning == "public"
    for name in ("IconImageSequence", "InstanceCreationDate", "SmallestPixelValueInSeries"):
        assert name not in written
    assert (written.SmallestImagePixelValue, written.LargestImagePixelValue) == (
        written.pixel_array.min(), written.pixel_array.max(),
    )  # fmt: skip


def test_names_in_any_letters_and_broken_values_keep_their_bytes(tmp_path: Path, write_ct):
    path = write_ct(
        tmp_path / "in.dcm", body(), syntax=ImplicitVRLittleEndian,
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=NAME,
        SeriesDescription="腹部" + "x" * 60,
    )  # fmt: skip
    data = path.read_bytes().replace(b"20200101", b"no date!")
    path.write_bytes(data)
    source, written = pydicom.dcmread(path), made(path, tmp_path / "out.dcm")
    assert (
        written.get_item("PatientName").value.rstrip()
        == source.get_item("PatientName").value.rstrip()
    )
    assert str(written.PatientName) == NAME
    assert written.get_item("StudyDate").value == b"no date!"
    assert written.SeriesDescription == "腹部" + "x" * 53 + " denoised"
    assert len(written.SeriesDescription) == 64


def test_an_unknown_letter_in_a_name_is_no_reason_to_fail(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), SeriesDescription="Abd?men")
    path.write_bytes(path.read_bytes().replace(b"Abd?men", b"Abd\xf8men"))
    model = Model("Zürich \\ Süd", "0.2.0", "ab", "x" * 2000)
    write_derived(derive(read_source(path), body(), model), tmp_path / "out.dcm")
    equipment = pydicom.dcmread(tmp_path / "out.dcm").ContributingEquipmentSequence[0]
    assert equipment.ManufacturerModelName == "Zurich Sud"


@pytest.mark.parametrize(("number", "becomes"), [(3, 1003), (None, 1000), (2**31 - 1, 1000)])
def test_its_series_has_a_number_of_its_own(tmp_path: Path, write_ct, number, becomes: int):
    path = write_ct(tmp_path / "in.dcm", body(), SeriesNumber=number)
    assert made(path, tmp_path / "out.dcm").SeriesNumber == becomes


def test_the_window_is_the_source_s_or_the_one_asked_for(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), **COMPLETE, VOILUTFunction="SIGMOID")
    kept = made(path, tmp_path / "kept.dcm")
    assert (kept.WindowCenter, kept.WindowWidth) == (40, 400)
    assert kept.WindowCenterWidthExplanation == "SOFT"
    asked = made(path, tmp_path / "asked.dcm", window_hu=(-160, 240))
    low = asked.WindowCenter - 0.5 - (asked.WindowWidth - 1) / 2
    assert (low, low + asked.WindowWidth - 1) == (-160, 240)
    assert "WindowCenterWidthExplanation" not in asked
    assert "VOILUTFunction" not in asked


@pytest.mark.parametrize(
    ("attributes", "lossy"),
    [({}, None), ({"LossyImageCompression": "00"}, "00"), ({"LossyImageCompression": "01"}, "01"),
     ({"LossyImageCompressionRatio": "12"}, "01")],
)  # fmt: skip
def test_a_source_that_says_it_was_lossy_is_believed(
    tmp_path: Path, write_ct, attributes, lossy: str | None
):
    path = write_ct(tmp_path / "in.dcm", body(), **attributes)
    assert made(path, tmp_path / "out.dcm").get("LossyImageCompression") == lossy


def test_a_source_whose_pixels_show_a_loss_is_marked(tmp_path: Path, write_ct):
    from openjpeg.utils import encode_array
    from pydicom.encaps import encapsulate

    path = write_ct(tmp_path / "in.dcm", body())
    dataset = pydicom.dcmread(path)
    stream = encode_array(
        dataset.pixel_array, bits_stored=16, photometric_interpretation=2, use_mct=False,
        compression_ratios=[4], codec_format=0,
    )  # fmt: skip
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000
    dataset.save_as(path)
    for source in (read_source(path), pydicom.dcmread(path)):
        image = derive(source, body(), MODEL)
        assert image.LossyImageCompression == "01"
        assert image.LossyImageCompressionMethod == "ISO_15444_1"
        assert 3 < image.LossyImageCompressionRatio < 6


def test_the_source_is_not_touched(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), **COMPLETE, PixelPaddingValue=0)
    source, untouched = pydicom.dcmread(path), pydicom.dcmread(path)
    image = derive(source, changed(body()), MODEL, window_hu=(0, 1))
    image.ImagePositionPatient[2] = 99
    assert source == untouched


def test_numbers_that_are_none_and_other_shapes_are_refused(tmp_path: Path, write_ct):
    source = read_source(write_ct(tmp_path / "in.dcm", body()))
    hu = body()
    hu[3, 3] = np.nan
    with pytest.raises(DivergedError, match="no numbers"):
        derive(source, hu, MODEL)
    with pytest.raises(ValueError, match="shape"):
        derive(source, body()[1:], MODEL)


def test_enhanced_becomes_classic(tmp_path: Path, write_ct):
    singles = [
        pydicom.dcmread(write_ct(tmp_path / f"{n}", body(n), z_mm=5.0 * n, **COMPLETE))
        for n in range(3)
    ]
    path = write_frames(tmp_path / "frames.dcm", singles, content=[{"StackID": "1"}] * 3)
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    window, exposure = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = "50", "350"
    exposure.ExposureTimeInms, exposure.XRayTubeCurrentInmA = 500.4, 199.7
    shared.FrameVOILUTSequence, shared.CTExposureSequence = [window], [exposure]
    for name in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "KVP"):
        dataset.pop(name)
    dataset.save_as(path)
    images = [made(path, tmp_path / f"{n}.dcm", frame=n) for n in range(3)]
    for n, image in enumerate(images):
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == CTImageStorage
        assert image.ImagePositionPatient == [0, 0, 5 * n]
        assert list(image.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        assert (image.InstanceNumber, image.KVP, image.WindowCenter) == (n + 1, None, 50)
        assert (image.ExposureTime, image.XRayTubeCurrent) == (500, 200)
        reference = image.SourceImageSequence[0]
        assert reference.ReferencedSOPClassUID == EnhancedCTImageStorage
        assert reference.ReferencedFrameNumber == n + 1
        assert not {"NumberOfFrames", "PerFrameFunctionalGroupsSequence", "StackID"} & set(
            image.dir()
        )
        np.testing.assert_array_equal(read_slice(tmp_path / f"{n}.dcm")[0], body(n))
    assert len({image.SOPInstanceUID for image in images}) == 3
    assert len({image.SeriesInstanceUID for image in images}) == 1


@needs_dciodvfy
@pytest.mark.parametrize("legacy", [False, True], ids=["enhanced", "legacy converted"])
def test_the_validator_has_nothing_against_what_was_a_frame(tmp_path: Path, write_ct, legacy):
    singles = [pydicom.dcmread(write_ct(tmp_path / f"{n}", body(n), z_mm=n, **COMPLETE))
               for n in range(2)]  # fmt: skip
    path = write_frames(tmp_path / "frames.dcm", singles, legacy=legacy)
    made(path, tmp_path / "out.dcm", changed(body(1)), frame=1)
    assert errors(tmp_path / "out.dcm") == set()


def test_simpleitk_sorts_and_reads_it_as_it_does_the_source(tmp_path: Path, write_ct):
    itk = pytest.importorskip("SimpleITK")
    tilted = [1, 0, 0, 0, np.cos(0.2), -np.sin(0.2)]
    for n in range(4):
        path = write_ct(
            tmp_path / "in" / f"{3 - n}.dcm", body(n), z_mm=2.5 * n, InstanceNumber=n + 1,
            ImageOrientationPatient=[round(float(c), 6) for c in tilted], **COMPLETE,
        )  # fmt: skip
        made(path, tmp_path / "out" / f"{n}.dcm", changed(body(n)))
    volumes = []
    for folder in ("in", "out"):
        names = itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / folder))
        volumes.append(itk.ReadImage(names))
    source, result = volumes
    assert result.GetSpacing() == source.GetSpacing()
    assert result.GetOrigin() == source.GetOrigin()
    assert result.GetDirection() == source.GetDirection()
    wanted = np.stack([changed(body(n)) for n in range(4)])
    assert np.abs(itk.GetArrayFromImage(result) - wanted).max() <= 0.501


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump (of dcmtk) is not installed")
def test_dcmtk_reads_it_without_a_word(tmp_path: Path, write_ct):
    path = write_ct(tmp_path / "in.dcm", body(), **COMPLETE, PixelPaddingValue=0)
    made(path, tmp_path / "out.dcm", changed(body()))
    run = subprocess.run(
        ["dcmdump", "-q", "+P", "ImageType", tmp_path / "out.dcm"], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "DERIVED" in run.stdout


@needs_dciodvfy
def test_real_files_of_every_scanner(tmp_path: Path, real_ct: Path):
    folders = sorted(path for path in real_ct.glob("*/*") if path.is_dir())
    for folder in folders[:: max(len(folders) // 10, 1)]:
        path = sorted(folder.glob("*.dcm"))[0]
        hu = read_slice(path)[0]
        written = made(path, tmp_path / "out.dcm", changed(hu))
        assert errors(tmp_path / "out.dcm") - errors(path) == set()
        outside = (hu == -1000) | (changed(hu) < -1024)  # padding stays as it is
        difference = np.abs(read_slice(tmp_path / "out.dcm")[0] - changed(hu))
        assert difference[~outside].max() <= float(written.RescaleSlope) / 2 + 1e-3
