"""Names of the small arrays that are broadcast beside the shared vector: whose each of them is."""

from collections.abc import Mapping

import numpy as np

PUBLISHED = "published."
"""What names of arrays begin with that clients publish once, before the first round."""

TOLD = "channel."
"""What names of arrays begin with that the channel tells the clients."""


def split_told(
    extras: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what the channel tells the clients, by its own names, and all other extras."""
    told = {n.removeprefix(TOLD): array for n, array in extras.items() if n.startswith(TOLD)}
    return told, {name: array for name, array in extras.items() if not name.startswith(TOLD)}
