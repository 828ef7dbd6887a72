"""Objectives by name: the project's own, and those that other packages register.

Nothing here imports torch: an objective's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from physfed_ray.objectives.base import Objective

OBJECTIVES: "Registry[type[Objective]]" = Registry(
    "objective",
    {
        "mse": "physfed_ray.objectives.mse:MeanSquaredError",
        "l1": "physfed_ray.objectives.absolute:MeanAbsoluteError",
        "charbonnier": "physfed_ray.objectives.absolute:Charbonnier",
        "ssim_mixed": "physfed_ray.objectives.ssim:SSIMMixed",
        "leda": "physfed_ray.objectives.leda:LedaObjective",
    },
)


def make_objective(name: str = "mse", **settings: object) -> "Objective":
    """Return an objective by its name and its own settings.

    Raises:
        PhysFedError: No objective of that name is registered.
        ValueError: A setting does not fit.
    """
    kind = OBJECTIVES.find(name)
    return kind(kind.Settings(**settings))
