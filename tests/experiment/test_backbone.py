"""The backbone's keys: as long as in old files, as short as a name."""

from typing import Any

import pytest

from physfed_ray.experiment.backbone import BackboneSpec
from physfed_ray.models.red_cnn import RedCNN
from physfed_ray.models.uformer import Uformer


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("red_cnn", {"name": "red_cnn", "channels": 96}),
        ({}, {"name": "red_cnn", "channels": 96}),
        ({"channels": 32}, {"name": "red_cnn", "channels": 32}),
        ({"name": "red_cnn", "size": None, "channels": 8}, {"name": "red_cnn", "channels": 8}),
        ({"name": "uformer"}, {"name": "uformer", "size": "T", "channels": 16}),
        (
            {"name": "uformer", "size": "S", "channels": 8},
            {"name": "uformer", "size": "S", "channels": 8},
        ),
    ],
)
def test_what_is_written_and_what_it_resolves_to(given: Any, resolved: dict[str, Any]) -> None:
    spec = BackboneSpec.model_validate(given)
    assert spec.model_dump(mode="json") == resolved
    assert BackboneSpec.model_validate(resolved) == spec


def test_it_makes_the_network_that_it_names() -> None:
    red_cnn = BackboneSpec.model_validate({"channels": 8}).make()
    assert (type(red_cnn), red_cnn.feature_channels) == (RedCNN, 8)
    uformer = BackboneSpec.model_validate("uformer").make()
    assert (type(uformer), uformer.feature_channels) == (Uformer, 16 * 16)
