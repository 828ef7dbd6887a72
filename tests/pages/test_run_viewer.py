"""The viewer in ``report.html``: whose slices it shows, in HU, and of runs that kept less."""

import json
import re
from typing import Any

import numpy as np

from physfed_ray.pages.run_page import write_run_page
from physfed_ray.pages.run_viewer import run_viewer
from physfed_ray.pages.viewer_pixels import Packed
from physfed_ray.results.runs import read_results
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.window import denormalise
from tests.pages.run_directories import WINDOW, MakeRun
from tests.pages.test_viewer_pixels import unpack


def data_of(text: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" class="viewer-data">(.*?)</script>', text)
    (one,) = found
    read: dict[str, Any] = json.loads(one)
    return read


def test_the_page_of_a_run_shows_slices_of_all(make_run: MakeRun) -> None:
    root = make_run("scan_physfed", clients=3, unseen=1, n=32)
    text = write_run_page(root).read_text()
    assert '<a href="#look">' in text
    data = data_of(text)
    assert data["names"] == ["low dose", "denoised", "full dose"]
    assert data["captions"] == [
        *(f"c{k} (paper-{k}), slice {s} of 2" for k in (1, 2, 3) for s in (1, 2)),
        "unseen: unseen-1, by PVQS",
    ]
    assert data["spacing"][2] == [0.78 * 256 / 32] * 2
    arrays = read_results(root).arrays
    chunks = tuple(data["chunks"])
    pixels = unpack(Packed(chunks[2:3] + chunks[-1:], (32, 32), data["step"], 1, (0, 1)), 3)
    seen = [arrays[f"test/c2/{kind}_slices"][0] for kind in ("low", "denoised", "full")]
    unseen = [
        arrays[f"unseen/{part}/unseen-1/{kind}"]
        for part, kind in (("input", "low"), ("pvqs", "denoised"), ("input", "full"))
    ]
    half = data["step"] / 2
    assert np.abs(pixels[:, 0] - np.array(seen)).max() <= half
    assert np.abs(pixels[:, 1] - denormalise(np.array(unseen), WINDOW)).max() <= half + 1e-3


def test_an_earlier_run_shows_the_slices_that_it_kept(make_run: MakeRun) -> None:
    root = make_run("fedavg", clients=3, unseen=1, n=32, stacked=False)
    data = data_of(write_run_page(root).read_text())
    assert data["captions"] == [
        *(f"c{k} (paper-{k})" for k in (1, 2, 3)),
        "unseen: unseen-1",
    ]


def test_a_run_of_many_clients_shows_24_slices(make_run: MakeRun) -> None:
    run = read_results(make_run("fedavg", clients=8, unseen=4, n=32))
    viewer = run_viewer(run, "shared")
    assert viewer is not None
    assert len(data_of(viewer)["captions"]) == 20


def test_a_run_without_images_has_a_page_without_a_viewer(make_run: MakeRun) -> None:
    root = make_run("fedavg", clients=2, unseen=1, n=32)
    RunDirectory(root).write_arrays("examples.npz", {})
    text = write_run_page(root).read_text()
    assert "viewer" not in text
    assert "<script" not in text
