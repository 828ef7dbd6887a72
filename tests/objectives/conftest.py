"""Two images to compare."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from physfed_ray.fields import Batch


@pytest.fixture
def target() -> Callable[[Tensor], Batch]:
    """Return a maker of batches whose full dose is the given images, (B, 1, h, w)."""

    def make(full: Tensor) -> Batch:
        nothing, g = torch.zeros(len(full), 1), torch.zeros(len(full), 7)
        return Batch(full, full, g, nothing, nothing, nothing, full.shape[-1])

    return make
