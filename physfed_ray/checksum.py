"""Checksums of what is read back, so that a damaged file is noticed and not believed.

One function for all: SHA-256, of which 128 bits are kept. The standard library has it, and CPUs of
today compute it at 1.5 GB/s and more. It guards against disks, networks and slips, not against
malice: whoever can write a file can write its checksum.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from physfed_ray.errors import DamagedError

DIGITS = 32
SEAL = "checksum"
"""Key of a JSON file's own checksum, and of that in an Arrow file's metadata."""


def checksum(*parts: bytes | memoryview) -> str:
    """Return 32 hex digits that stand for some bytes, one part after the other."""
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:DIGITS]


def seal(value: Mapping[str, Any]) -> bytes:
    """Return a mapping as a JSON file that holds its own checksum."""
    own = checksum(json.dumps(value, sort_keys=True).encode())
    return (json.dumps({**value, SEAL: own}, indent=1) + "\n").encode()


def unseal(content: bytes, where: str, cure: str, *, required: bool = True) -> dict[str, Any]:
    """Return what ``seal`` was given.

    Args:
        content: The file's bytes.
        where: Its name, for the message.
        cure: What a reader of the message can do.
        required: Whether a file without a checksum, as earlier versions wrote it, is refused.

    Raises:
        DamagedError: It is not as it was written.
    """
    try:
        value = json.loads(content)
        own = value.pop(SEAL, None)
        intact = own == checksum(json.dumps(value, sort_keys=True).encode())
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise DamagedError(where, cure) from None
    if not (intact or (own is None and not required)):
        raise DamagedError(where, cure)
    return dict(value)


def column_checksums(batch: Any) -> dict[str, str]:
    """Return the checksum of every column of an Arrow record batch: of its values and its type.

    It depends on the values alone, not on how a version of Arrow lays them out in a file.

    Args:
        batch: Its columns are tensors, strings or numbers, without missing values.
    """
    return {name: _column(batch.column(name)) for name in batch.schema.names}


def _column(column: Any) -> str:
    kind = f"{column.type} {len(column)}\n".encode()
    if hasattr(column, "to_numpy_ndarray"):
        return checksum(kind, _bytes(column.to_numpy_ndarray()))
    if "string" in str(column.type):
        return checksum(kind, json.dumps(column.to_pylist()).encode())
    return checksum(kind, _bytes(np.from_dlpack(column)))


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
