"""Where this project keeps what later runs can use again."""

import os
from pathlib import Path


def cache_folder(configured: Path | None = None) -> Path:
    """Return the folder of the cache: as configured, ``PHYSFED_CACHE``, or the user's own."""
    return (
        configured
        or Path(os.environ.get("PHYSFED_CACHE") or "~/.cache/physfed_ray").expanduser().absolute()
    )
