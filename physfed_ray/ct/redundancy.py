"""What share of a line each of its measurements has (Noo, Defrise, Clackdoyle, Kudo 2002).

A fan at the angle ``b`` measures at ``gamma`` the line that a fan at ``b + pi - 2 gamma`` measures
at ``-gamma`` (geometry: ``physfed_ray.ct.protocol``). With a taper c over the arc, which is 0
outside it, the shares

    w(b, gamma) = c(b) / (c(b) + c(b + pi - 2 gamma))

of both add up to 1, and a line that is measured once keeps its whole weight. On a full circle w is
1/2. Source: "Image reconstruction from fan-beam projections on less than a short scan", Phys. Med.
Biol. 47:2525.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from physfed_ray.ct.protocol import FULL_CIRCLE_DEG, Protocol

TAPER_DEG = 10.0
"""Width of the taper at either end of the arc, degrees; at most a quarter of the arc."""


@lru_cache(maxsize=16)
def ray_shares(protocol: Protocol) -> Tensor:
    """Return w of every ray, (views, bins) float64; (1, 1) on a full circle, where all are 1/2."""
    if protocol.arc_deg == FULL_CIRCLE_DEG:
        return torch.full((1, 1), 0.5, dtype=torch.float64)
    view = torch.from_numpy(protocol.view_angles)[:, None]
    return share(protocol, view, torch.from_numpy(protocol.ray_angles))


def share(protocol: Protocol, view: Tensor, ray: Tensor) -> Tensor:
    """Return w(b, gamma) for a scan of less than a full circle.

    Args:
        protocol: The scanner.
        view: Angles b within the arc, rad.
        ray: Angles gamma, rad, of a shape that broadcasts.
    """
    own = _taper(protocol, view)
    return own / (own + _taper(protocol, view + math.pi - 2 * ray))


def _taper(protocol: Protocol, view: Tensor) -> Tensor:
    """Return c, which rises as a squared sine; a view stands for the step around its angle."""
    width = min(math.radians(TAPER_DEG), protocol.arc / 4)
    travelled = (view + protocol.arc / protocol.views / 2).remainder(2 * math.pi)
    to_the_end = torch.minimum(travelled, protocol.arc - travelled)
    return (to_the_end / width).clamp(0, 1).mul(math.pi / 2).sin().square()
