"""Small networks with random weights, as denoisers; and one trained run."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.federation.client.inference import Inference
from physfed_ray.rundir.model import Statistics
from physfed_ray.serving.choice import Choice, own_model
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.rebuild import rebuild
from tests.serving.conftest import SMALL
from tests.serving.test_rebuild import card

TOKENS, DIM, SIZE = 2, 8, 40


def no_report(hu: np.ndarray) -> None:
    """Stand for the reporter, whom nobody asks here."""
    raise AssertionError("nobody asks for a report")


def denoiser_of(
    method: str, backbone: str = "red_cnn", choice: Choice | None = None, **changes: object
) -> Denoiser:
    """Return a denoiser whose weights are random, so that its images are others than its inputs."""
    values: dict[str, object] = {
        "method": {"name": method},
        "backbone": {"name": backbone, **SMALL[backbone]},
        "statistics": Statistics(0.4, 0.3, [0.1] * DIM, [0.9] * DIM, TOKENS, DIM),
    }
    made = card(**(values | changes))
    rebuilt = rebuild(made)
    network = rebuilt.build(3)
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.05 * noise
    network.requires_grad_(False)
    inference = Inference(rebuilt, network.eval(), "cpu", made.precision)
    chosen = choice or own_model(rebuilt, made.clients[0])
    return Denoiser(made, inference, chosen, PRESETS["paper-1"], no_report)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Denoiser]:
    """Return ``denoiser_of``."""
    return denoiser_of
