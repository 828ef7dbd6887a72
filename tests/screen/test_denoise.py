"""What a user sees of a denoising."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from physfed_ray.data.dicom.whole_series import Found
from physfed_ray.screen.denoise import print_result, progress, progress_line
from physfed_ray.serving.denoise import Denoised

EVENT = {"event": "denoise", "done": 3, "total": 7, "there": 1, "slices_per_s": 0.5, "eta_s": 8.0}


def test_a_line_says_how_far_and_how_fast() -> None:
    assert progress_line(EVENT) == "denoised 3/7 slices, 1 were there, 0.50 slices/s, 8.0 s left"
    idle = EVENT | {"there": 0, "slices_per_s": 0.0, "eta_s": 0.0}
    assert progress_line(idle) == "denoised 3/7 slices"


def test_a_log_gets_messages_and_the_last_line() -> None:
    text = io.StringIO()
    with progress(Console(file=text, width=200)) as show:
        show({"event": "message", "text": "model: [red]c1[/red]"})
        show(EVENT)
        show(EVENT | {"done": 7, "eta_s": 0.0})
    assert text.getvalue().splitlines() == [
        "model: [red]c1[/red]",
        "denoised 7/7 slices, 1 were there, 0.50 slices/s",
    ]


def test_a_terminal_gets_a_bar() -> None:
    text = io.StringIO()
    with progress(Console(file=text, width=100, force_terminal=True)) as show:
        show(EVENT)
    assert "3/7" in text.getvalue()


def test_the_result_counts_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found((), 3, {}, {})
    result = Denoised(Path("out"), found, 4, 2, {"truncated": 1}, {"lossy": 2}, 8.0, (-1000, 2000))
    print_result(result, Path("out/viewer.html"))
    assert capsys.readouterr().out.splitlines() == [
        "denoised 4 slices in 8.0 s, 0.50 slices/s, 2 were there already",
        "left out: 1 truncated",
        "noted: 2 lossy",
        "series: out",
        "viewer: out/viewer.html",
    ]
