"""Names of the project and of other packages."""

import sys
from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.registry import Registry
from tests.outside import write_package


def test_other_packages_add_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"mine": "MINE", "pi": "MINE"}
    write_package(tmp_path / "site", "MINE = 1\n", {"physfed_ray.things": names})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)  # of another test
    things: Registry[float] = Registry("thing", {"pi": "math:pi"})
    assert dict(things) == {"pi": 3.141592653589793, "mine": 1}  # own names stay
    with pytest.raises(PhysFedError, match=r"thing 'mines' \(did you mean 'mine'\?\).*: pi, mine"):
        things.find("mines")
