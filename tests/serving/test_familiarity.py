"""How far a protocol is from those that a run knows."""

from dataclasses import replace

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.rundir.model import NamedProtocol
from physfed_ray.serving.familiarity import familiarity

ONE = PRESETS["paper-3"]


def clients(*pixels_mm: float) -> list[NamedProtocol]:
    return [
        NamedProtocol(id=f"c{i}", protocol=replace(ONE, pixel_mm=mm))
        for i, mm in enumerate(pixels_mm)
    ]


def test_a_warning_beyond_what_training_protocols_are_apart() -> None:
    known = clients(0.4, 0.58, 0.58, 0.85)  # 0, 0.2, 0.2 and 0.5 once normalised
    near = familiarity(replace(ONE, pixel_mm=0.67), known)
    assert (near.client, round(near.distance, 6), round(near.usual or 0, 6)) == ("c1", 0.1, 0.3)
    assert near.warning is None
    far = familiarity(replace(ONE, pixel_mm=1.21), known)
    assert (far.client, round(far.distance, 6)) == ("c3", 0.4)
    assert far.warning is not None
    assert "distance 0.400, farther than any training protocol is from the next one (0.300)" in (
        far.warning
    )


def test_one_protocol_alone_says_nothing_about_distances() -> None:
    known = clients(0.58, 0.58)
    assert familiarity(replace(ONE, pixel_mm=0.58), known).warning is None
    other = familiarity(replace(ONE, pixel_mm=0.6), known)
    assert other.usual is None
    assert other.warning is not None
    assert "the run knows one protocol" in other.warning
