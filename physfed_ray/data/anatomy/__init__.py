"""Procedural anatomy: one module per region, all painting on the same canvas."""

from collections.abc import Callable, Mapping

import numpy as np

from physfed_ray.data.anatomy.abdomen import Abdomen
from physfed_ray.data.anatomy.canvas import Region
from physfed_ray.data.anatomy.chest import Chest
from physfed_ray.data.anatomy.head import Head
from physfed_ray.data.anatomy.limb import Limb
from physfed_ray.data.anatomy.pelvis import Pelvis

REGIONS: Mapping[str, Callable[[np.random.Generator], Region]] = {
    "chest": Chest,
    "abdomen": Abdomen,
    "pelvis": Pelvis,
    "head": Head,
    "extremity": Limb,
}
"""Regions in the order in which patients are dealt out."""
