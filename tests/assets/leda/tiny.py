"""A tiny autoencoder of LEDA, not trained, and slices for it."""

from pathlib import Path
from typing import Any

import torch

from physfed_ray.assets.base import Examples
from physfed_ray.assets.leda.recipe import LedaRecipe
from physfed_ray.assets.store import About, Asset, write_asset
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.fields import Batch

REPORTS = {
    "chest": "Axial CT of the chest. The lungs are well aerated. The mediastinum is narrow.",
    "abdomen": "Axial CT of the abdomen below the lungs. Solid organs as the liver and spleen.",
    "head": "Axial CT of the head. The skull encloses the brain.",
}
WORDS = (
    "chest", "lung", "lungs", "pulmonary", "abdomen", "liver", "organs", "head", "skull",
    "brain", "bone", "kidney", "table", "river", "music", "car", "seven",
)  # fmt: skip


def recipe(**settings: Any) -> LedaRecipe:
    """Return the recipe of a small network."""
    given = {"channels": 8, "multipliers": (1, 1, 2), "rows": 40, "vocabulary": WORDS} | settings
    return LedaRecipe(LedaRecipe.Settings(**given))


def examples(side: int = 32, slices: int = 3, seed: int = 0) -> Examples:
    """Return slices of one patient each, of a disk and noise."""
    draws = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, side)
    disk = (axis[:, None] ** 2 + axis**2 < 0.6).float() / 3
    full = disk + 0.02 * torch.randn(slices, 1, side, side, generator=draws)
    regions = tuple(list(REPORTS)[number % len(REPORTS)] for number in range(slices))
    nothing = torch.zeros(slices, 1)
    return Examples(
        Batch(full, full, torch.zeros(slices, 7), nothing, nothing, nothing, side),
        (PRESETS["paper-1"],) * slices,
        tuple(f"p{number}" for number in range(slices)),
        (0,) * slices,
        tuple(REPORTS[region] for region in regions),
        regions,
        (-1000.0, 2000.0),
    )


def tiny_asset(folder: Path, seed: int = 0) -> Asset:
    """Write an asset whose encoder has random weights and whose codebook has 20 random rows."""
    made = recipe()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        constants = {"table": 0.3 * torch.randn(20, 16), "tokens": torch.arange(20)}
        network = made.network(constants)
    about = About("leda", made.settings.model_dump(mode="json"), 32, (-1000.0, 2000.0))
    return write_asset(folder, about, network, constants)
