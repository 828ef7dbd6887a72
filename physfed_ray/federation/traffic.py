"""The bytes of a round: of what was sent in a run, or of arrays of the same shapes beforehand."""

from collections.abc import Collection, Mapping

import numpy as np

from physfed_ray.federation.channel.base import Channel
from physfed_ray.methods.base import Method


def round_bytes(
    method: Method,
    channel: Channel,
    size: int,
    uploads: Collection[Mapping[str, np.ndarray]],
    received: int,
) -> tuple[int, int]:
    """Return the bytes that all participants together send and receive in a round.

    Args:
        method: The method.
        channel: What its updates travel through.
        size: Float32 numbers of the shared vector.
        uploads: The small arrays of each participant.
        received: Bytes of what the method broadcasts to each of them (``Method.bytes_down``).
    """
    count = len(uploads)
    update = channel.bytes_up(size, count)
    up = sum(method.bytes_up(update, upload) for upload in uploads)
    return up, count * (received + channel.bytes_down(count))


def expected_bytes(
    method: Method, channel: Channel, size: int, codes: int, participants: int
) -> tuple[int, int]:
    """Return the same of a round that follows another, known before either.

    They are an upper bound where ``method.compresses``.

    Args:
        method: The method.
        channel: What its updates travel through.
        size: Float32 numbers of the shared vector.
        codes: Float32 numbers of the codebook.
        participants: Clients of a round.
    """
    told = channel.tell(channel.initial())
    extras = method.extras_like(participants) | told
    if codes:
        extras["codes"] = np.zeros(codes, np.float32)
    received = method.bytes_down(4 * size, extras)
    uploads = [method.upload_like()] * participants
    return round_bytes(method, channel, size, uploads, received)
