"""The process in which ``decoders`` decodes: a script that imports nothing of this package.

It reads a pickled request from its input and writes the values to its output, one after the other,
until its input ends. A request that takes too much of the processor's time ends the process.
"""

import json
import os
import pickle
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

MEMORY_BYTES = 4 * 2**30
LENGTH = struct.Struct("<Q")


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Decode what is asked for until nobody asks any more."""
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        stream, options, seconds = pickle.loads(requests.read(*LENGTH.unpack(head)))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        said, values = _decode(stream, options)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for part in (json.dumps(said).encode(), values):
            answers.write(LENGTH.pack(len(part)) + part)
        answers.flush()


def _decode(stream: bytes, options: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return shape and type of a frame's values, and the values; or what went wrong."""
    try:
        decoder = get_decoder(UID(options["transfer_syntax_uid"]))
        given = options | {"number_of_frames": 1}
        values = np.ascontiguousarray(decoder.as_array(encapsulate([stream]), index=0, **given)[0])
    except Exception as error:  # The decoders are many, and each fails in its own way.
        return {"error": f"{type(error).__name__}: {error}"[:500]}, b""
    return {"shape": values.shape, "dtype": values.dtype.str}, values.tobytes()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pydicom.config.logger.disabled = True
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)
