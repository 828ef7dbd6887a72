"""A damaged stream may end the decoder's process, and nothing else."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from physfed_ray.data.dicom import decoders
from physfed_ray.data.dicom.decoders import decode, may_die
from physfed_ray.data.dicom.files import AS_STORED
from physfed_ray.data.dicom.reasons import UNDECODABLE, LeftOut
from physfed_ray.data.dicom.source import DicomSource

NATIVE_CODE = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless]


def frame_of(path: Path, **changed: Any) -> tuple[bytes, dict[str, Any]]:
    """Return a file's frame as it is encoded, and what a decoder wants to know of it."""
    dataset = pydicom.dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    options = as_pixel_options(
        dataset, transfer_syntax_uid=syntax, pixel_keyword="PixelData", pixel_vr="OB", **AS_STORED
    )
    return get_frame(dataset.PixelData, 0, number_of_frames=1), options | changed


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 3000, (20, 28)).astype(np.float32)


def test_only_native_code_is_kept_apart() -> None:
    assert all(map(may_die, NATIVE_CODE))
    others = [RLELossless, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian]
    assert not any(map(may_die, others))


@pytest.mark.parametrize("syntax", NATIVE_CODE, ids=lambda syntax: syntax.keyword)
def test_the_values_are_those_of_pydicom(tmp_path: Path, write_ct, syntax: UID) -> None:
    path = write_ct(tmp_path / "a", image(), syntax=syntax)
    values = decode(*frame_of(path))
    dataset = pydicom.dcmread(path)
    dataset.pixel_array_options(**AS_STORED)
    assert np.array_equal(values, dataset.pixel_array)
    assert values.dtype == dataset.pixel_array.dtype


@pytest.mark.parametrize("syntax", NATIVE_CODE, ids=lambda syntax: syntax.keyword)
def test_a_header_that_promises_more_than_the_stream_costs_one_slice(
    tmp_path: Path, write_ct, syntax: UID
) -> None:
    """GDCM aborts the process over it."""
    for number in range(3):
        write_ct(tmp_path / str(number), image(number), z_mm=5.0 * number, syntax=syntax)
    path = tmp_path / "1"
    dataset = pydicom.dcmread(path)
    dataset.Rows = 200
    dataset.save_as(path)
    source = DicomSource(tmp_path)
    volume = source.load("P1", None)
    assert np.array_equal(volume.slices, [image(0), image(2)])
    assert source.summary()["left_out"] == {UNDECODABLE: 1}


def test_a_decoder_that_does_not_return_is_ended(
    tmp_path: Path, write_ct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "SECONDS", 0.5)
    path = write_ct(tmp_path / "a", image(), syntax=JPEGLSLossless)
    whole, options = frame_of(path)
    for length in range(len(whole) // 2, len(whole) - 1, len(whole) // 8):
        with pytest.raises(LeftOut, match=UNDECODABLE):
            decode(whole[:length], options)
    assert decode(whole, options).shape == (20, 28)


def test_a_stream_that_promises_gigapixels_takes_no_memory(tmp_path: Path, write_ct) -> None:
    path = write_ct(tmp_path / "a", image(), syntax=JPEG2000Lossless)
    whole, options = frame_of(path)
    at = whole.index(b"\xff\x4f\xff\x51") + 8
    huge = whole[:at] + b"\x00\x01\x00\x00" * 2 + whole[at + 8 :]
    with pytest.raises(LeftOut, match=UNDECODABLE):
        decode(huge, options | {"rows": 65_536, "columns": 65_536})


def test_several_threads_get_their_own_values(tmp_path: Path, write_ct) -> None:
    frames = [
        frame_of(write_ct(tmp_path / str(seed), image(seed), syntax=JPEG2000Lossless))
        for seed in range(6)
    ]
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i, f=f: got.__setitem__(i, decode(*f)))
        for i, f in enumerate(frames)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(6):
        assert np.array_equal(got[seed].astype(np.float32) - 1024, image(seed))


def test_a_fork_has_a_process_of_its_own(tmp_path: Path, write_ct) -> None:
    frame = frame_of(write_ct(tmp_path / "a", image(), syntax=JPEG2000Lossless))
    expected = decode(*frame)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(decode(*frame), expected) else 1)
    assert np.array_equal(decode(*frame), expected)
    assert os.waitpid(child, 0)[1] == 0


def test_an_answer_that_nobody_waited_for_is_nobody_elses(
    tmp_path: Path, write_ct, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        frame_of(write_ct(tmp_path / str(seed), image(seed), syntax=JPEG2000Lossless))
        for seed in range(2)
    )
    part = decoders._part

    def interrupted(process: Any) -> bytes:
        monkeypatch.setattr(decoders, "_part", part)
        raise KeyboardInterrupt

    monkeypatch.setattr(decoders, "_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(*first)
    assert np.array_equal(decode(*second).astype(np.float32) - 1024, image(1))


def test_any_noise_is_refused_or_decoded(tmp_path: Path, write_ct) -> None:
    _, options = frame_of(write_ct(tmp_path / "a", image(), syntax=JPEG2000Lossless))
    for content in (b"\0", b"\xff\xd8\xff", bytes(100), encapsulate([b"x"])):
        with pytest.raises(LeftOut, match=UNDECODABLE):
            decode(content, options)
