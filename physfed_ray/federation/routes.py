"""Which client's model serves a protocol that nobody trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from physfed_ray.federation.flat import private_parts
from physfed_ray.front_ends.base import FRONT_END
from physfed_ray.methods.base import Method


@dataclass(frozen=True)
class Route:
    """Where PVQS sends an unseen protocol (Yang et al. 2025, eq. 7).

    Attributes:
        client: Index i* of the client whose code is nearest.
        cosine: Cosine of the two codes.
        code: The codebook's entry c_{i*}, (code_dim,).
    """

    client: int
    cosine: float
    code: np.ndarray


def nearest_code(codes: np.ndarray, code: np.ndarray) -> Route:
    """Return the entry of a codebook (K, code_dim) with the largest cosine to ``code``."""
    norms = np.linalg.norm(codes, axis=1) * np.linalg.norm(code)
    cosines = (codes @ code) / np.maximum(norms, 1e-12)
    best = int(np.argmax(cosines))
    return Route(best, float(cosines[best]), codes[best])


def nearest_client(g: Sequence[float], others: Sequence[Sequence[float]]) -> tuple[int, float]:
    """Return whose normalised protocol is nearest (Euclidean), and its distance."""
    distances = np.linalg.norm(np.asarray(others) - np.asarray(g), axis=1)
    best = int(np.argmin(distances))
    return best, float(distances[best])


def why_untrained(method: Method, unlabelled: Sequence[str]) -> str | None:
    """Return why a method leaves clients without full dose with a useless model, None if it fits.

    They may have the shared network without training it, but nobody else can train what is theirs.

    Args:
        method: The method.
        unlabelled: Ids of the clients without full dose.
    """
    if not unlabelled or method.unlabelled:
        return None
    with torch.no_grad():
        if not has_private(method, method.build(0)):
            return None
    names = ", ".join(unlabelled[:4]) + (", ..." if len(unlabelled) > 4 else "")
    return (
        f"clients.labels: {names}: false, so that nobody can train what method {method.name} keeps "
        "private with each client; leave 'labels' out there, or choose a method that shares its "
        "whole network, such as fedavg, or one that needs no full dose"
    )


def has_private(method: Method, network: nn.Module) -> bool:
    """Say whether clients denoise with any part of the network that is their own."""
    left_out = {*method.training_only, FRONT_END}  # of no use under another geometry
    return bool(set(private_parts(network, method.shared)) - left_out)


def serves_locally(method: Method, network: nn.Module) -> bool:
    """Say whether a protocol of no client is served with clients' own parts."""
    return has_private(method, network) and not method.unseen_shared
