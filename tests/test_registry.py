"""Names of the project and of other packages."""

from pathlib import Path

import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.registry import Registry


def test_other_packages_add_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third_party.py").write_text("MINE = 1\n")
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[physfed_ray.things]\nmine = third_party:MINE\npi = third_party:MINE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    things: Registry[float] = Registry("thing", {"pi": "math:pi"})
    assert dict(things) == {"pi": 3.141592653589793, "mine": 1}  # own names stay
    with pytest.raises(PhysFedError, match=r"thing 'mines' \(did you mean 'mine'\?\).*: pi, mine"):
        things.find("mines")
