"""What one view tells of others: quarter turns and a mirror map the grid, and often the scan, too.

On a full circle, views a quarter turn apart share their geometry, if their number is divisible by
four (by two: half a turn). The first views then serve a batch of B slices as 4 B columns of turned
images, so that their weights are computed once for all. The mirror image of the object serves half
of those views, as another 4 B columns. A shorter arc has neither turns nor a mirror.
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


@dataclass(frozen=True)
class Mirrors(Turns):
    """``Turns`` that also share views with their mirror images, at the opposite angle.

    The mirror swaps left and right of the image, and the order of the bins. Columns are (side,
    turn, slice). A view that is its own mirror image is served as it is.
    """

    @property
    def sides(self) -> int:
        """2 where the mirror maps the scan onto itself, 1 elsewhere."""
        return 2 if self.protocol.arc_deg == FULL_CIRCLE_DEG else 1

    @property
    def own_views(self) -> int:
        """Number of views that have a geometry of their own."""
        return self.base_views // 2 + 1 if self.sides == 2 else self.base_views

    @property
    def _mirrored(self) -> slice:
        """Which own views serve another one through the mirror."""
        return slice(1, 1 + self.base_views - self.own_views)

    def to_rows(self, sinogram: Tensor) -> Tensor:
        """The adjoint of ``from_rows``: (B, views, bins) -> (own_views * bins, columns)."""
        bins, own = self.protocol.bins, self.own_views
        split = sinogram.reshape(len(sinogram), self.turns, self.base_views, bins)
        rows = sinogram.new_zeros(own, bins, self.sides, self.turns, len(sinogram))
        rows[:, :, 0] = split[:, :, :own].permute(2, 3, 1, 0)
        mirrored = split[:, :, own:].flip(1, 2, 3).permute(2, 3, 1, 0)
        rows[self._mirrored, :, -1] = mirrored
        return rows.view(own * bins, -1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """(own_views * bins, columns) -> (B, views, bins): put views in place."""
        split = rows.view(self.own_views, self.protocol.bins, self.sides, self.turns, -1)
        direct, mirrored = split[:, :, 0], split[self._mirrored, :, -1].flip(0, 1, 2)
        joined = torch.cat((direct, mirrored)).permute(3, 2, 0, 1)
        return joined.reshape(-1, self.protocol.views, self.protocol.bins)

    def to_planes(self, image: Tensor) -> Tensor:
        """(B, n, n) -> (n, n, columns): the image and its mirror image, turned."""
        images = (image, image.flip(2))[: self.sides]
        return torch.cat([super(Mirrors, self).to_planes(side) for side in images], 2)

    def from_planes(self, planes: Tensor) -> Tensor:
        """The adjoint of ``to_planes``."""
        sides = planes.chunk(self.sides, 2)
        images = [super(Mirrors, self).from_planes(side.contiguous()) for side in sides]
        return images[0] if self.sides == 1 else images[0] + images[1].flip(2)

    def turn_on(self, columns: Tensor, turns: int) -> Tensor:
        """Give each column, (rows, columns), the values of the one that is so many turns on."""
        split = columns.view(len(columns), self.sides, self.turns, -1)
        return split.roll(-turns, 2).flatten(1) if turns else columns
