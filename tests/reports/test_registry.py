"""Reporters and encoders by name."""

import pytest

from physfed_ray.reports.registry import ENCODERS, REPORTERS


@pytest.mark.parametrize("kinds", [REPORTERS, ENCODERS], ids=["reporters", "encoders"])
def test_each_is_listed_under_its_own_name(kinds):
    assert kinds
    assert {name: kind.name for name, kind in kinds.items()} == {name: name for name in kinds}


@pytest.mark.parametrize("kinds", [REPORTERS, ENCODERS], ids=["reporters", "encoders"])
def test_every_setting_is_explained(kinds):
    for name, kind in kinds.items():
        for key, field in kind.Settings.model_fields.items():
            assert field.description, f"{name}.{key}"
