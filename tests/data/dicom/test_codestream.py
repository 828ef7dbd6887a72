"""Lossy or not, told by the stream itself."""

import io
import struct
from pathlib import Path

import jpeg_ls
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from physfed_ray.data.dicom.codestream import loses


def smooth() -> np.ndarray:
    y, x = np.mgrid[:40, :40]
    return (1000 + 20 * x + 10 * y).astype(np.uint16)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_streams_lose_nothing(tmp_path: Path, write_ct, syntax) -> None:
    dataset = pydicom.dcmread(write_ct(tmp_path / "a", smooth() - 1000.0, syntax=syntax))
    assert loses(next(generate_frames(dataset.PixelData, number_of_frames=1))) is False


def test_lossy_streams_are_told() -> None:
    jpeg = io.BytesIO()
    Image.fromarray((smooth() // 8).astype(np.uint8)).save(jpeg, "JPEG")
    assert loses(jpeg.getvalue()) is True
    assert loses(bytes(jpeg_ls.encode_array(smooth(), lossy_error=2))) is True
    assert loses(bytes(jpeg_ls.encode_array(smooth()))) is False
    for box in (b"", b"\0\0\0\x0cjP  \r\n\x87\n"):
        lossy = encode_array(smooth(), compression_ratios=[8])
        assert loses(box + lossy) is True
    assert loses(encode_array(smooth())) is False


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51"]))
def test_no_bytes_are_too_strange(noise: bytes, start: bytes) -> None:
    assert loses(start + noise) in (True, False, None)


def test_a_cut_stream_says_nothing() -> None:
    stream = encode_array(smooth())
    for length in range(40):
        assert loses(stream[:length]) is None
    assert loses(b"\xff\xd8" + struct.pack(">HH", 0xFFE0, 100)) is None
