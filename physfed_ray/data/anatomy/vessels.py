"""Branching vessels in three dimensions, drawn where they cross a slice."""

from dataclasses import dataclass

import numpy as np

from physfed_ray.data.anatomy.canvas import Canvas
from physfed_ray.data.anatomy.shapes import capsule

SLAB_MM = 1.3
"""Half the thickness of the slab in which a vessel is seen."""
SPREAD = 0.42


@dataclass(frozen=True)
class Tree:
    """Vessel segments.

    Attributes:
        starts: (S, 3) float, x, y, z in mm.
        ends: (S, 3) float.
        radii: (S,) float, mm.
    """

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray

    @classmethod
    def grow(
        cls,
        rng: np.random.Generator,
        root: tuple[float, float, float],
        trunks: np.ndarray,
        radius: float,
        generations: int,
    ) -> "Tree":
        """Grow a tree from ``root``: every segment branches in two, thinner and shorter.

        Args:
            rng: Source of the branching.
            root: Where the trunks leave, mm.
            trunks: (T, 3) direction and length of the first segments, mm.
            radius: Radius of the trunks, mm.
            generations: How many times they branch.
        """
        starts = np.repeat(np.array([root], float), len(trunks), 0)
        steps, width = np.array(trunks, float), radius
        all_starts, all_ends, all_radii = [], [], []
        for _ in range(generations):
            ends = starts + steps
            all_starts.append(starts)
            all_ends.append(ends)
            all_radii.append(np.full(len(starts), width))
            starts = np.repeat(ends, 2, 0)
            length = np.linalg.norm(steps, axis=1).repeat(2)[:, None]
            turned = np.repeat(steps, 2, 0) / length + SPREAD * rng.standard_normal(starts.shape)
            turned /= np.linalg.norm(turned, axis=1, keepdims=True)
            steps = turned * length * rng.uniform(0.6, 0.95, length.shape)
            width = max(0.74 * width, 0.6)
        return cls(np.concatenate(all_starts), np.concatenate(all_ends), np.concatenate(all_radii))

    def paint(self, canvas: Canvas, z: float, hu: float, mask: np.ndarray | None = None) -> None:
        """Draw the parts of the vessels within a slab around height ``z``."""
        low, high = z - SLAB_MM, z + SLAB_MM
        z0, z1 = self.starts[:, 2], self.ends[:, 2]
        rise = np.where(np.abs(z1 - z0) < 1e-6, 1e-6, z1 - z0)
        t0, t1 = np.sort(np.stack([(low - z0) / rise, (high - z0) / rise]), axis=0)
        t0, t1 = np.clip(t0, 0, 1), np.clip(t1, 0, 1)
        for i in np.flatnonzero(t1 > t0):
            step = self.ends[i] - self.starts[i]
            p, q = self.starts[i] + t0[i] * step, self.starts[i] + t1[i] * step
            rod = capsule((p[0], p[1]), (q[0], q[1]), float(self.radii[i]))
            canvas.paint(rod, hu, mask=mask)
