"""A version of code that cannot be forgotten."""

from functools import cache
from hashlib import blake2b
from pathlib import Path

import physfed_ray


@cache
def code_version(*patterns: str) -> str:
    """Return a hash of source files of this package.

    Args:
        patterns: Glob patterns relative to the package's folder.
    """
    package = Path(physfed_ray.__file__).parent
    digest = blake2b(digest_size=16)
    for pattern in patterns:
        for path in sorted(package.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()
