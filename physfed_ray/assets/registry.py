"""Recipes by name: the project's own, and those that other packages register.

Nothing here imports torch: a recipe's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from physfed_ray.assets.base import Recipe

RECIPES: "Registry[type[Recipe]]" = Registry(
    "recipe",
    {
        "da_clip": "physfed_ray.assets.da_clip.recipe:DAClipRecipe",
        "leda": "physfed_ray.assets.leda.recipe:LedaRecipe",
    },
)
