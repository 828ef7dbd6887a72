"""A file that cannot be asked for more than it holds, whatever lengths its header claims."""

import os
from typing import Any, BinaryIO

MUCH_BYTES = 2**20
"""Up to so much is reserved without a look at how much there is."""


class WithinFile:
    """Reads as the file does, but a damaged length of gigabytes reserves no memory.

    Python reserves what ``read`` asks for before it looks at what is left.

    Args:
        file: A file on disk.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, all that are left if it is negative."""
        if size > MUCH_BYTES:
            left = os.fstat(self._file.fileno()).st_size - self._file.tell()
            size = min(size, max(left, 0))
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
