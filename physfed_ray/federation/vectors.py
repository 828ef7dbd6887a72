"""Every participant's vector, for methods whose aggregation is not linear."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np


class Vectors(Mapping[str, np.ndarray]):
    """The participants' vectors by id, in the order of their indices.

    It holds what the clients sent as it came: on Ray views of the object store. A vector is decoded
    each time that it is asked for, and not kept, so that going through all needs room for one.
    Under the plain channel, with no stale updates, decoding copies nothing.

    Args:
        sent: What each client sent, by id.
        decode: Returns a client's vector, (size,) float32, from its id and what it sent.
    """

    def __init__(
        self,
        sent: Mapping[str, np.ndarray],
        decode: Callable[[str, np.ndarray], np.ndarray],
    ) -> None:
        self._sent, self._decode = sent, decode

    def __getitem__(self, client: str) -> np.ndarray:
        vector = self._decode(client, self._sent[client])
        vector.flags.writeable = False
        return vector

    def __iter__(self) -> Iterator[str]:
        return iter(self._sent)

    def __len__(self) -> int:
        return len(self._sent)
