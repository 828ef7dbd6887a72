"""The viewer beside denoised series: which slices it shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.data.dicom.whole_series import find_series
from physfed_ray.pages import denoised_viewer
from physfed_ray.serving.output import write_record
from physfed_ray.serving.parts import place_of
from tests.data.conftest import WriteCT
from tests.data.conftest import write_ct as write_ct


def test_the_longest_series_is_shown_spread_over_its_slices(
    tmp_path: Path, write_ct: WriteCT, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for z in range(30):
        hu = rng.integers(-900, 900, (20, 28) if z else (20, 20)).astype(np.float32)
        write_ct(tmp_path / f"in/{z}", hu, z_mm=z, AcquisitionNumber=1)
    write_ct(tmp_path / "in/other", hu, series="other")
    found = find_series(tmp_path / "in")
    long = max(found.series, key=lambda series: len(series.slices))
    out = tmp_path / "out"
    write_record(out, {"model": {"name": "SCAN-PhysFed, client c1"}})
    assert denoised_viewer.write_viewer(out, found, (-1000, 2000)) is None
    for place, header in enumerate(long.slices, 1):
        if place != 7:  # one that could not be read
            path = place_of(out, long.name, place)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(header.path.read_bytes())
    shown: dict[str, Any] = {}
    monkeypatch.setattr(
        denoised_viewer, "viewer_html", lambda images, **about: shown.update(about, images=images)
        or "<html>",
    )  # fmt: skip
    assert denoised_viewer.write_viewer(out, found, (-1000, 2000)) == out / "viewer.html"
    before, after = shown["images"]["before"], shown["images"]["denoised"]
    assert before.shape == (24, 20, 28)
    np.testing.assert_array_equal(before, after)
    assert shown["lead"] == "SCAN-PhysFed, client c1."
    assert all(long.name in caption for caption in shown["captions"])
    assert not any("slice 7" in caption.split(",") for caption in shown["captions"])
