"""The objective's keys: a name, or a name with its settings."""

from typing import Any

import pytest

from physfed_ray.experiment import Training
from physfed_ray.experiment.objective import ObjectiveSpec
from physfed_ray.objectives.ssim import SSIMMixed


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ({}, {"name": "mse"}),
        ("l1", {"name": "l1"}),
        ({"name": "charbonnier"}, {"name": "charbonnier", "eps": 1e-3}),
        (
            {"name": "ssim_mixed", "alpha": 0.5},
            {"name": "ssim_mixed", "alpha": 0.5, "scales": 1},
        ),
    ],
)
def test_what_is_written_and_what_it_resolves_to(given: Any, resolved: dict[str, Any]) -> None:
    training = Training(objective=given)
    assert training.model_dump(mode="json")["objective"] == resolved
    assert Training(objective=resolved) == training


def test_the_mean_squared_error_is_the_default() -> None:
    assert Training().objective == ObjectiveSpec.model_validate("mse")


def test_it_makes_the_objective_that_it_names() -> None:
    made = ObjectiveSpec.model_validate({"name": "ssim_mixed", "scales": 2}).make()
    assert (type(made), made.smallest_side) == (SSIMMixed, 22)
