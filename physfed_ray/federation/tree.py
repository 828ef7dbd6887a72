"""A sum of client vectors whose bits depend on nothing but the clients that took part.

Floating-point addition is not associative, so a sum in order of arrival would change with the
number of hosts. Here it runs over a fixed binary tree on the client index: node (level, p) is the
sum of nodes (level - 1, 2p) and (level - 1, 2p + 1), and an absent client contributes nothing.
A host adds up the subtrees that it owns wholly and sends those pieces; the server finishes the
tree. A float32 tree was chosen over an exact fixed-point sum because it moves half the bytes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

Node = tuple[int, int]


class TreeSum:
    """Running sums over the tree; holds at most one vector a level, never a list of models.

    Its buffers go with it: between two rounds nobody keeps any.
    """

    def __init__(self) -> None:
        self._nodes: dict[Node, tuple[Tensor | None, bool]] = {}  # value, may it be overwritten
        self._spare: list[Tensor] = []

    def add(self, client: int, vector: Tensor | None) -> Tensor | None:
        """Add a client's vector (any shape, float32), or None when it did not take part.

        Returns:
            A buffer for the caller to go on with: the vector itself where it was added to
            another, a different one where the sum keeps it.
        """
        sibling, _ = self._nodes.get((0, client ^ 1), (None, False))
        kept = vector is not None and sibling is None
        self._insert((0, client), vector, mine=kept)
        return self._buffer(vector) if kept and vector is not None else vector

    def absorb(self, pieces: Mapping[Node, Tensor | None]) -> None:
        """Add the pieces of another sum. They are read, never written."""
        for node, vector in pieces.items():
            self._insert(node, vector, mine=False)

    def pieces(self) -> dict[Node, Tensor | None]:
        """Return the largest subtrees that are complete."""
        return {node: vector for node, (vector, _) in self._nodes.items()}

    def total(self, clients: int) -> Tensor | None:
        """Close the sum over clients 0 to ``clients - 1``; None when nobody took part.

        Raises:
            ValueError: If a client was neither added nor said to be absent.
        """
        level, width = 0, clients
        while width > 1:
            if width % 2:
                self._insert((level, width), None, mine=False)
            level, width = level + 1, (width + 1) // 2
        if set(self._nodes) != {(level, 0)}:
            raise ValueError(f"the sum over {clients} clients is incomplete: {sorted(self._nodes)}")
        return self._nodes[level, 0][0]

    @property
    def is_mine(self) -> bool:
        """Whether all that it holds are buffers of its own, which may be overwritten."""
        return all(mine for _, mine in self._nodes.values())

    def _insert(self, node: Node, vector: Tensor | None, *, mine: bool) -> None:
        level, position = node
        if (level, position ^ 1) not in self._nodes:
            self._nodes[node] = vector, mine
            return
        other, other_mine = self._nodes.pop((level, position ^ 1))
        if other is None:
            self._insert((level + 1, position // 2), vector, mine=mine)
        elif vector is None:
            self._insert((level + 1, position // 2), other, mine=other_mine)
        else:
            target = other if other_mine else vector if mine else self._buffer(vector)
            torch.add(other, vector, out=target)
            if other_mine and mine:
                self._spare.append(vector)
            self._insert((level + 1, position // 2), target, mine=True)

    def _buffer(self, like: Tensor) -> Tensor:
        return self._spare.pop() if self._spare else torch.empty_like(like)
