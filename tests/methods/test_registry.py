"""Methods by name, from here and from other packages."""

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.methods.registry import METHODS, get_method


def test_own_methods():
    assert {"local", "fedavg", "fedper", "scan_physfed"} <= set(METHODS)
    assert len(METHODS) == len(list(METHODS))


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(PhysFedError, match=r"'fedavgg' \(did you mean 'fedavg'\?\).*fedper"):
        get_method("fedavgg")
