"""What one view tells of others: a quarter turn maps the grid, and often the scan, onto itself.

On a full circle, views a quarter turn apart share their geometry, if their number is divisible by
four (by two: half a turn). The first views then serve a batch of B slices as 4 B columns of turned
images, so that their weights are computed once for all. A shorter arc has no turns.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from physfed_ray.ct.protocol import FULL_CIRCLE_DEG, Protocol


@dataclass(frozen=True)
class Turns:
    """How a protocol's views split into turned copies of the first ones.

    Attributes:
        protocol: The scanner.
    """

    protocol: Protocol

    @property
    def turns(self) -> int:
        """How many rotations by 360 / turns degrees map both grid and views onto themselves."""
        full_circle = self.protocol.arc_deg == FULL_CIRCLE_DEG
        return math.gcd(self.protocol.views, 4) if full_circle else 1

    @property
    def base_views(self) -> int:
        """Number of views that have a geometry of their own."""
        return self.protocol.views // self.turns

    def to_rows(self, sinogram: Tensor) -> Tensor:
        """(B, views, bins) -> (base_views * bins, turns * B), contiguous."""
        batch, bins = len(sinogram), self.protocol.bins
        split = sinogram.reshape(batch, self.turns, self.base_views, bins)
        return split.permute(2, 3, 1, 0).reshape(self.base_views * bins, self.turns * batch)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse, and adjoint, of ``to_rows``."""
        split = rows.reshape(self.base_views, self.protocol.bins, self.turns, -1)
        return split.permute(3, 2, 0, 1).reshape(-1, self.protocol.views, self.protocol.bins)

    def from_planes(self, planes: Tensor) -> Tensor:
        """(n, n, turns * B) -> (B, n, n): turn each share of the views, add them up."""
        n, quarters = len(planes), 4 // self.turns
        shares = planes.view(n, n, self.turns, -1).unbind(2)
        turned = [torch.rot90(s, k * quarters, (0, 1)) for k, s in enumerate(shares)]
        return torch.stack(turned).sum(0).permute(2, 0, 1).contiguous()

    def to_planes(self, image: Tensor) -> Tensor:
        """The adjoint of ``from_planes``: (B, n, n) -> (n, n, turns * B)."""
        planes, quarters = image.permute(1, 2, 0), 4 // self.turns
        turned = [torch.rot90(planes, -k * quarters, (0, 1)) for k in range(self.turns)]
        return torch.stack(turned, 2).reshape(*planes.shape[:2], -1)
