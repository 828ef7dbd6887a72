"""``model.json`` of an export: all that goes from HU to HU beside the weights, in plain values."""

from typing import Any

from physfed_ray import __version__
from physfed_ray.ct import protocol as protocols
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.denoiser import Denoiser

VALUES_FILE = "model.json"
FORMAT = 1


def plain_values(denoiser: Denoiser, number: int) -> dict[str, Any]:
    """Return the values that an export holds.

    Args:
        denoiser: The network.
        number: The round that it was trained to.

    Returns:
        Plain values: ``card`` is the run's (method, backbone, statistics, window, protocols of all
        clients), ``choice`` whose network this is and what it is told of the scanner,
        ``protocol`` the scanner, ``g`` how a protocol becomes what the network reads.
    """
    return {
        "format": FORMAT,
        "physfed_ray": __version__,
        "round": number,
        "model_hash": denoiser.model_hash,
        "choice": _plain_choice(denoiser.choice),
        "protocol": denoiser.protocol.values(),
        "g": protocols.normalisation(denoiser.card.further),
        "card": denoiser.card.model_dump(mode="json"),
    }


def _plain_choice(choice: Choice) -> dict[str, Any]:
    return {
        "policy": choice.policy,
        "client": choice.client,
        "g": choice.g.tolist(),
        "cosine": choice.cosine,
        "distance": choice.distance,
        "code": None if choice.code is None else choice.code.tolist(),
    }
