"""Files that are there whole or not at all."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from physfed_ray.errors import PhysFedError

# No file takes nearly so long to write.
ABANDONED_AFTER_S = 24 * 3600.0


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well, and vanishes if not.

    Readers and other writers of the same path see the old file or the new one, never a part.

    Raises:
        PhysFedError: A folder is where the file is to be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if path.is_dir():
            raise PhysFedError(f"{path} is a folder where a file is to be: remove it")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what killed writers left under a folder more than a day ago."""
    for temporary in folder.rglob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - temporary.stat().st_mtime > ABANDONED_AFTER_S:
                temporary.unlink()
