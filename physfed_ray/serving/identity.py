"""A hash that stands for a trained model: the same for the same network, whoever loads it."""

from hashlib import sha256

import torch
from torch import nn

from physfed_ray.rundir.model import ModelCard
from physfed_ray.serving.choice import Choice


def model_hash(card: ModelCard, network: nn.Module, choice: Choice) -> str:
    """Return 32 hex digits of ``model.json``, the weights, and what the network is told.

    Args:
        card: The run's.
        network: With the weights in use.
        choice: Which of the run's models it is.
    """
    digest = sha256(card.model_dump_json().encode())
    digest.update(f"{choice.policy} {choice.client}".encode())
    for told in (choice.g, choice.code):
        digest.update(b"none" if told is None else told.tobytes())
    for name, tensor in sorted({**network.state_dict(), **dict(network.named_buffers())}.items()):
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:32]
