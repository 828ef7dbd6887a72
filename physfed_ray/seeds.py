"""Seeds derived from what a random stream is for, never from ranks or global state."""

from hashlib import blake2b

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on the given parts and their order alone.

    Args:
        parts: What the stream is for, for example ``(experiment.seed, round, client, "batches")``.
    """
    digest = blake2b("\x1f".join(f"{type(p).__name__}:{p}" for p in parts).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """Return a NumPy generator seeded by ``derive_seed(*parts)``."""
    return np.random.default_rng(derive_seed(*parts))
