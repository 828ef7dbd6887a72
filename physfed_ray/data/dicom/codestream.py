"""Whether compressed pixel data lost something, read from the first bytes of the compression.

A transfer syntax may allow both, and headers lie; the stream itself cannot be decoded otherwise.
"""

import struct

HEAD_BYTES = 65_536
"""How much of a stream is read to find its markers."""

_JPEG_START, _J2K_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_J2K_CODING, _J2K_TILE = 0xFF52, 0xFF90
_SCAN = 0xFFDA
_JPEG_LS_FRAME = 0xFFF7
_LOSSLESS_FRAMES = {0xFFC3, 0xFFC7, 0xFFCB, 0xFFCF}
_FRAMES = {*range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}


def loses(stream: bytes) -> bool | None:
    """Return whether a stream is lossy, None where its beginning does not say.

    Args:
        stream: The first bytes of a JPEG, JPEG-LS or JPEG 2000 stream.
    """
    try:
        if stream.startswith(_JPEG_START):
            return _jpeg_loses(stream)
        start = stream[:256].find(_J2K_START)  # A JP2 file around the stream has boxes before it.
        return None if start < 0 else _jpeg2000_loses(stream[start:])
    except (struct.error, IndexError):
        return None


def _jpeg_loses(stream: bytes) -> bool | None:
    """Follow the markers up to the frame, and in JPEG-LS to the scan (ITU-T T.81, T.87)."""
    place, near_lossless = 2, False
    while True:
        marker, length = struct.unpack_from(">HH", stream, place)
        if marker == 0xFFFF:
            place += 1
        elif marker == _SCAN and near_lossless:
            return stream[place + 5 + 2 * stream[place + 4]] > 0
        elif marker in _FRAMES:
            return marker not in _LOSSLESS_FRAMES
        elif marker < 0xFFC0 or marker == _SCAN:
            return None
        else:
            near_lossless = near_lossless or marker == _JPEG_LS_FRAME
            place += 2 + length


def _jpeg2000_loses(stream: bytes) -> bool | None:
    """Read the wavelet's kind: the 9-7 one rounds (ITU-T T.800, A.6.1)."""
    place = 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, place)
        if marker == _J2K_CODING:
            return stream[place + 13] == 0
        if marker < 0xFF00 or marker == _J2K_TILE:
            return None
        place += 2 + length
