"""Two images to compare, and the objectives that there are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from physfed_ray.fields import Batch
from physfed_ray.objectives.base import Objective
from physfed_ray.objectives.registry import make_objective
from tests.assets.leda.tiny import tiny_asset


@pytest.fixture
def target() -> Callable[[Tensor], Batch]:
    """Return a maker of batches whose full dose is the given images, (B, 1, h, w)."""

    def make(full: Tensor) -> Batch:
        nothing, g = torch.zeros(len(full), 1), torch.zeros(len(full), 7)
        return Batch(full, full, g, nothing, nothing, nothing, full.shape[-1])

    return make


@pytest.fixture
def named(tmp_path: Path) -> Callable[[str], Objective]:
    """Return a maker of objectives with their defaults, on assets where they need one."""

    def make(name: str) -> Objective:
        needed = {"asset": str(tiny_asset(tmp_path).path)} if name == "leda" else {}
        return make_objective(name, **needed)

    return make
