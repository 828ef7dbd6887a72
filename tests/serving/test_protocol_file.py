"""A protocol in a file."""

from pathlib import Path

import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.serving.protocol_file import named_or_read, read_protocol

SEVEN = """views: 128
bins: 768
pixel_mm: 0.78
bin_mm: 0.58
source_mm: 350
detector_mm: 300
photons: 1.0e6
"""


def test_keys_alone_or_below_protocol(tmp_path: Path) -> None:
    path = tmp_path / "scanner.yaml"
    path.write_text(SEVEN)
    assert read_protocol(path) == PRESETS["paper-2"]
    path.write_text("protocol:\n" + "".join(f"  {line}\n" for line in SEVEN.splitlines()))
    assert read_protocol(path) == PRESETS["paper-2"]
    assert named_or_read(str(path)) == PRESETS["paper-2"]
    assert named_or_read("paper-2") == "paper-2"
    with pytest.raises(PhysFedError, match=r"there is no file scanner\.yaml"):
        named_or_read("scanner.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file .* with a protocol"),
        (SEVEN + "angle: 3\n", "unknown key 'angle'"),
        (SEVEN.replace("views: 128\n", ""), "seven numbers; missing: views"),
        (SEVEN.replace("128", "-1"), "views"),
        (SEVEN.replace("128", "many"), "views"),
        ("protocol: paper-2\n", "a protocol has the keys"),
        ("- 1\n", "mapping|keys"),
    ],
)
def test_what_is_no_protocol_is_one_sentence(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "scanner.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PhysFedError, match=said) as refusal:
        read_protocol(path)
    assert "\n" not in str(refusal.value)
