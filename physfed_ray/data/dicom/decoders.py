"""Decoders of compressed pixels that may die, kept in a process of their own.

The libraries behind JPEG, JPEG-LS and JPEG 2000 are native code. Damaged images make some of them
end the process, or never return. Where that happens, the image is lost and the next one is decoded
by a new process.
"""

import atexit
import json
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from pydicom.uid import UID, RLELossless

from physfed_ray.data.dicom import decoder_process
from physfed_ray.data.dicom.decoder_process import LENGTH
from physfed_ray.data.dicom.reasons import UNDECODABLE, LeftOut

SECONDS, SECONDS_PER_PIXEL = 4.0, 1e-6
"""How long a decoder may take, of the processor's time: many times what any takes."""


def may_die(syntax: UID) -> bool:
    """Say whether pixels of a transfer syntax are decoded by native code."""
    return bool(syntax.is_encapsulated) and syntax != RLELossless


class _Decoder:
    """The process, which the first request starts; several threads take turns."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, stream: bytes, options: dict[str, Any]) -> np.ndarray:
        """See ``decode``."""
        with self._lock:
            process = self._started()
            seconds = SECONDS + SECONDS_PER_PIXEL * abs(options["rows"] * options["columns"])
            try:
                return self._ask(process, pickle.dumps((stream, options, seconds)))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                self.stop()
                raise LeftOut(UNDECODABLE) from None
            except BaseException:
                self.stop()  # An answer may be left that belongs to nobody.
                raise

    def stop(self) -> None:
        """End the process; the next request starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(decoder_process.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _ask(self, process: "subprocess.Popen[bytes]", request: bytes) -> np.ndarray:
        assert process.stdin is not None
        process.stdin.write(LENGTH.pack(len(request)) + request)
        process.stdin.flush()
        said, values = json.loads(_part(process)), _part(process)
        if "error" in said:
            return _refuse(said["error"])
        return np.frombuffer(values, said["dtype"]).reshape(said["shape"])


def _part(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    head = process.stdout.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    content = process.stdout.read(length)
    if len(content) < length:
        raise EOFError
    return content


def _refuse(error: str) -> np.ndarray:
    raise LeftOut(UNDECODABLE) from ValueError(error)


_decoder = _Decoder()
atexit.register(lambda: _decoder.stop())


def _after_fork() -> None:
    """Leave the process, whose answers are for the parent, to the parent."""
    global _decoder
    _decoder = _Decoder()


os.register_at_fork(after_in_child=_after_fork)


def decode(stream: bytes, options: dict[str, Any]) -> np.ndarray:
    """Return the stored values of a frame, (h, w).

    Args:
        stream: The frame as it is encoded.
        options: What pydicom's decoders need to know, as of ``as_pixel_options``.

    Raises:
        LeftOut: It cannot be decoded.
    """
    needed = {name: value for name, value in options.items() if name != "extended_offsets"}
    return _decoder.decode(stream, needed)
