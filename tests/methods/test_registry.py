"""Methods by name, from here and from other packages."""

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.methods.registry import METHODS, _Methods, get_method


def test_own_methods():
    assert {"local", "fedavg", "fedper", "scan_physfed"} <= set(METHODS)
    assert len(METHODS) == len(list(METHODS))


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(PhysFedError, match=r"'fedavgg' \(did you mean 'fedavg'\?\).*fedper"):
        get_method("fedavgg")


def test_other_packages_register_methods(tmp_path, monkeypatch):
    (tmp_path / "third_party.py").write_text(
        "from physfed_ray.methods.base import Method\nclass Mine(Method):\n    name = 'mine'\n"
    )
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[physfed_ray.methods]\nmine = third_party:Mine\nfedavg = third_party:Mine\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    methods = _Methods()
    assert methods["mine"].name == "mine"
    assert methods["fedavg"].name == "fedavg"
