"""Progress: readable lines in a log, a table in a terminal, nothing lost in between."""

import io
from typing import Any

from rich.console import Console

from physfed_ray.screen.run import (
    CLIENT_ROWS,
    LiveDisplay,
    LogLines,
    evaluation_line,
    progress,
    round_line,
)

START: dict[str, Any] = {
    "event": "start",
    "clients": ["a", "b"],
    "hosts": 2,
    "runtime": "ray",
    "method": "FedAvg",
    "from_round": 0,
    "rounds": 5,
    "precision": "fp32",
    "device": "cpu",
}
ROUND: dict[str, Any] = {
    "event": "round",
    "round": 3,
    "rounds": 5,
    "seconds": 61.0,
    "loss": {"a": 1e-3, "b": 3e-3},
    "participants": 2,
    "missing": {},
    "slices_per_s": 12.34,
    "bytes_up": 7_400_000,
    "bytes_down": 999,
    "eta_s": 3725.0,
}
EVALUATION: dict[str, Any] = {
    "event": "evaluation",
    "round": 3,
    "split": "validation",
    "scores": {"a": {"psnr": 40.0, "ssim": 0.9}, "b": {"psnr": 30.0, "ssim": 0.8}},
}


def shown(events: list[dict[str, Any]], terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, height=60, color_system=None)
    with progress(console) as show:
        for event in events:
            show(event)
    return out.getvalue()


def test_a_round_is_one_line_with_all_its_numbers():
    assert round_line(ROUND) == (
        "round 3/5, 1 min 1 s, loss 2.000e-03, 2 clients, 12.3 slices/s, 7.4 MB up, 999 B down, "
        "1 h 2 min left"
    )


def test_a_round_says_who_was_missing_and_why():
    line = round_line(ROUND | {"missing": {"c": "missed the deadline"}})
    assert line.endswith("c missing: missed the deadline")


def test_a_round_names_only_the_first_of_many_missing_clients():
    gone = {f"c{i}": "late" for i in range(400)}
    line = round_line(ROUND | {"missing": gone})
    assert line.endswith("c0 missing: late; c1 missing: late; c2 missing: late; and 397 more")


def test_an_evaluation_gives_the_mean_and_the_worst_client():
    line = evaluation_line(EVALUATION)
    assert "after round 3, validation: PSNR 35.00 dB, SSIM 0.8500, lowest b 30.00 dB" in line


def test_a_console_that_is_no_terminal_gets_lines():
    console = Console(file=io.StringIO())
    assert isinstance(progress(console), LogLines)
    assert isinstance(progress(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)


def test_a_log_file_gets_one_plain_line_for_each_event():
    message = {"event": "message", "text": "[host 1] restarted"}
    text = shown([START, ROUND, EVALUATION, message], terminal=False)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == ["FedAvg:", "round", "evaluation", "[host"]
    assert "\x1b" not in text
    assert "\r" not in text


def test_a_log_file_hears_of_the_preparation_ten_times_not_a_thousand():
    events = [{"event": "prepare", "done": i, "total": 1000, "cached": 0} for i in range(1001)]
    lines = shown(events, terminal=False).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "prepare: 1000/1000 scans (0 from the cache)"


def test_a_resumed_run_says_where_it_goes_on():
    assert "going on after round 2" in shown([START | {"from_round": 2}], terminal=False)


def test_a_terminal_shows_each_client_with_loss_and_psnr():
    text = shown([START, ROUND, EVALUATION], terminal=True)
    last = text[text.rindex("client") :]
    assert "1.000e-03" in last
    assert "40.00" in last
    assert "3.000e-03" in last
    assert "3/5" in text
    assert "1 h 2 min left" in text


def test_a_terminal_shows_the_worst_of_many_clients():
    losses = {f"c{i:03}": float(i + 1) for i in range(200)}
    text = shown([ROUND | {"loss": losses}], terminal=True)
    assert "c199" in text
    assert "c000" not in text
    assert f"and {200 - CLIENT_ROWS} more" in text


def test_an_unknown_event_is_no_reason_to_stop():
    assert shown([{"event": "news"}], terminal=False) == ""
    shown([{"event": "news"}], terminal=True)
