"""Front ends by name: the project's own, and those that other packages register.

Nothing here imports torch: a front end's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from physfed_ray.front_ends.base import FrontEnd

FRONT_ENDS: "Registry[type[FrontEnd]]" = Registry(
    "front end",
    {
        "fbp": "physfed_ray.front_ends.fbp:FilteredBackProjection",
        "neighbour_views": "physfed_ray.front_ends.neighbour_views:NeighbourViews",
        "iradonmap": "physfed_ray.front_ends.iradonmap:IRadonMAP",
    },
)


def make_front_end(name: str = "fbp", **settings: object) -> "FrontEnd":
    """Return a front end by its name and its own settings.

    Raises:
        PhysFedError: No front end of that name is registered.
        ValueError: A setting does not fit.
    """
    kind = FRONT_ENDS.find(name)
    return kind(kind.Settings(**settings))
